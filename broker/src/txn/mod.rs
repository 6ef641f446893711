//! Transactions: who may write under a transactional id, what it has written, and how that ends.

pub(crate) mod coordinator;
pub(crate) mod markers;
pub(crate) mod state;
