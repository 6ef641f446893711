//! One commit: everything that changes together, so that it can never disagree.

use super::{Ledger, PartitionTime};
use crate::query::{Pane, RowBytes};

/// What one step did: how far each input partition was read, and the new states of the groups that it touched. Evictions are not in it:
/// they follow from the times.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Entry {
    /// The groups are the whole state, and what came before does not matter.
    pub(crate) snapshot: bool,
    pub(crate) progress: Vec<Progress>,
    pub(crate) groups: Vec<GroupState>,
}

/// One input partition's share of a commit; all values are those *after* the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Progress {
    pub(crate) partition: i32,
    /// First offset of the step.
    pub(crate) from: i64,
    /// One past its last offset.
    pub(crate) to: i64,
    pub(crate) time: PartitionTime,
    pub(crate) ledger: Ledger,
}

/// The new state of one group in one pane of one input partition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupState {
    pub(crate) partition: i32,
    /// All zeros for a query without a window.
    pub(crate) pane: Pane,
    pub(crate) key: RowBytes,
    pub(crate) state: RowBytes,
}
