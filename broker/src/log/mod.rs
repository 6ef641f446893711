//! The log on disk: partitions of segment files, their indexes, their flushing, their recovery.

pub(crate) mod compact;
pub(crate) mod disk;
pub(crate) mod durable;
pub(crate) mod files;
pub(crate) mod flusher;
pub(crate) mod index;
pub(crate) mod open;
pub(crate) mod partition;
#[cfg(test)]
pub(crate) mod power;
#[cfg(test)]
mod power_cut;
pub(crate) mod producers;
pub(crate) mod room;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod segments;
pub(crate) mod waiters;
