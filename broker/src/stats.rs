//! What the broker counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;

/// A broker's figures at one moment; counts are since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BrokerStats {
    /// Topics that exist.
    pub topics: usize,
    /// Partitions of all topics.
    pub partitions: usize,
    /// Bytes of all segment files.
    pub log_bytes: u64,
    /// Records appended.
    pub records_in: u64,
    /// Bytes of batches appended.
    pub bytes_in: u64,
    /// Records sent to consumers (whole batches are sent, so some may lie before the offset asked for).
    pub records_out: u64,
    /// Bytes of batches sent to consumers.
    pub bytes_out: u64,
    /// Files synced.
    pub fsyncs: u64,
    /// Requests answered or taken.
    pub requests: u64,
    /// Open connections.
    pub connections: usize,
    /// Connections closed because of what they sent.
    pub bad_connections: u64,
    /// Consumer groups known.
    pub groups: usize,
    /// Transactional ids known.
    pub transactions: usize,
    /// Log files open now.
    pub open_files: usize,
    /// Free bytes of the disk.
    pub disk_free_bytes: u64,
    /// Whether produces are refused because the disk is nearly full.
    pub disk_low: bool,
}

/// The running counts behind [`BrokerStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) records_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) fsyncs: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) connections: AtomicUsize,
    pub(crate) bad_connections: AtomicU64,
    /// Bytes of fetched records that wait for their clients to read them.
    pub(crate) outgoing: Arc<AtomicUsize>,
}

/// Fetched records on their way to a client; counted until they are sent or given up.
#[derive(Debug)]
pub(crate) struct Outgoing {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Counters {
    pub(crate) fn appended(&self, records: i32, bytes: usize) {
        self.records_in.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn fetched(&self, records: u64, bytes: usize) {
        self.records_out.fetch_add(records, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn outgoing(&self, bytes: usize) -> Outgoing {
        self.outgoing.fetch_add(bytes, Ordering::AcqRel);
        Outgoing { bytes, all: self.outgoing.clone() }
    }

    pub(crate) fn synced(&self, files: usize) {
        self.fsyncs.fetch_add(files as u64, Ordering::Relaxed);
    }
}
