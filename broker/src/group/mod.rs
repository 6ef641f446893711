//! Consumer groups: membership by the classic protocol, and the offsets that groups commit.

pub(crate) mod coordinator;
pub(crate) mod join;
pub(crate) mod member;
pub(crate) mod offsets;
pub(crate) mod state;
