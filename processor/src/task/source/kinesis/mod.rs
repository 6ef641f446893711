//! The records of a Kinesis stream, in the order in which they came.
//!
//! ```text
//! shard ─▶ reader.rs ┐
//! shard ─▶ reader.rs ┼▶ desk.rs (merge.rs: one order) ─▶ step ─▶ positions.rs, synced ─▶ entry in the checkpoint
//! shard ─▶ reader.rs ┘
//! ```
//! A stream is one partition whose offsets are made here. Its order follows from the stream: by time of receipt, as Kinesis says it, then by
//! shard, and in a shard by sequence number; parents come before their children. Where each shard stands at the end of a step is on the disk
//! before an entry counts the step's records, so a restart goes on behind them, each once.

// The tests of what knows nothing of Amazon run in every build.
#![cfg_attr(not(feature = "kinesis"), allow(dead_code))]

mod aggregate;
mod merge;
mod positions;

#[cfg(feature = "kinesis")]
mod client;
#[cfg(feature = "kinesis")]
mod desk;
#[cfg(feature = "kinesis")]
mod feed;
#[cfg(feature = "kinesis")]
mod reader;

#[cfg(feature = "kinesis")]
pub(super) use feed::Kinesis;
