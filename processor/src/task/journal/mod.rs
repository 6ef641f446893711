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

mod peek;
mod pieces;
mod record;
mod restore;
mod write;

pub(crate) use peek::{Peeked, peek};
#[cfg(test)]
pub(crate) use record::{Piece, Record, fence};
#[cfg(test)]
pub(crate) use restore::Replay;
pub(crate) use restore::{Restored, restore};
pub(crate) use write::Journal;
