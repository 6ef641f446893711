//! The offsets that groups have committed, in memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// Topic -> partition -> offset of one group.
pub(crate) type Offsets = BTreeMap<String, BTreeMap<i32, Committed>>;
