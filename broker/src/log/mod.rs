//! The log on disk: partitions of segment files, their indexes, their flushing, their recovery.

pub(crate) mod disk;
pub(crate) mod flusher;
pub(crate) mod index;
pub(crate) mod partition;
pub(crate) mod producers;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod segments;
pub(crate) mod waiters;
