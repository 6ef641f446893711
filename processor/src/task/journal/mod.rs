//! The journal of one shard: one partition of topic `iot.state.<query>`.
//!
//! ```text
//! offset  0      1     2     3      4         5     6 7 8          9
//!         F      e     e     F      e(epoch0) e     S S S          e
//!         fence  epoch 0     fence  ignored   ok    snapshot in    epoch 3
//!         =epoch 0           =epoch 3               three pieces
//! ```
//! A new owner appends a *fence*; its offset is the owner's *epoch*. An entry counts only when its epoch is that of the newest fence
//! before it, and only when all its pieces are there. So a paused former owner may write what it likes.
//!
//! An owner is the only writer of valid records, so the offsets of its own records follow each other without a gap. A gap means that
//! somebody else wrote, which is a fence: the owner then knows at once that it is one no more.

mod cut;
mod peek;
mod pieces;
mod record;
mod restore;
mod write;

use std::time::Instant;

pub(crate) use peek::{Peeked, peek};
pub(crate) use pieces::Pieces;
#[cfg(test)]
pub(crate) use record::{Piece, Record, fence};
#[cfg(test)]
pub(crate) use restore::Replay;
pub(crate) use restore::{Restored, Restoring, Turn, restore};
pub(crate) use write::{Journal, Writer};

use super::error::TaskError;
use super::owner::Owner;
use crate::engine::Entry;
use crate::query::StreamQuery;

/// Where a worker appends its entries: a partition of the journal topic, or a checkpoint directory.
pub(crate) trait Log {
    /// Appends an entry and waits until it lasts. Gives the number of bytes.
    fn append(&mut self, query: &StreamQuery, entry: &Entry, owner: &Owner) -> Result<u64, TaskError>;

    /// Writes the whole state and deletes what nobody needs any more.
    fn snapshot(&mut self, query: &StreamQuery, entry: &Entry, owner: &Owner) -> Result<(), TaskError>;

    /// Whether a restore gives the results of the newest *two* entries again, and not only those of the newest.
    fn gives_two_again(&self) -> bool {
        false
    }

    /// Whether so much was written since the newest snapshot that it is time for another one; `limit` is in bytes.
    fn wants_snapshot(&self, limit: u64) -> bool;

    /// Names the newest entry.
    fn last(&self) -> i64;

    /// When an entry was last written: until then at least, nobody else had the shard.
    fn written(&self) -> Instant;

    /// Takes in what its client has to say while nobody waits for it.
    fn hear(&self) {}

    /// Waits for what goes on beside the steps.
    fn end(&mut self) {}
}
