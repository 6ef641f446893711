//! The sparse index of one segment: where batches begin, and how late the records before them are.
//!
//! It lives in memory, and beside each closed segment in a sidecar file `<base>.index`. The sidecar names the log file's size
//! and modification time: when either differs, the file was touched and is read and checked again as a whole.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::disk;

/// At least this many bytes of log lie between two entries.
pub(crate) const INTERVAL: u64 = 32 << 10;
const VERSION: u32 = 1;

/// A batch that the index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Base offset of the batch.
    pub(crate) offset: i64,
    /// Byte at which the batch begins.
    pub(crate) position: u64,
    /// Largest timestamp of the batches before it in the segment, so that entries are sorted by it.
    pub(crate) max_before: i64,
}

/// What is known of a segment without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Bytes of whole, valid batches.
    pub(crate) size: u64,
    /// Offset after the last record.
    pub(crate) next_offset: i64,
    /// Largest record timestamp, `i64::MIN` while empty.
    pub(crate) max_timestamp: i64,
    /// Position of the batch that holds it.
    pub(crate) max_position: u64,
    entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Sidecar {
    version: u32,
    modified_nanos: u128,
    index: Index,
}

impl Index {
    pub(crate) fn new(base: i64) -> Self {
        Self { size: 0, next_offset: base, max_timestamp: i64::MIN, max_position: 0, entries: Vec::new() }
    }

    /// Takes up a batch that begins at the present end.
    pub(crate) fn push(&mut self, offset: i64, bytes: u64, next_offset: i64, max_timestamp: i64) {
        if self.entries.last().is_none_or(|last| self.size - last.position >= INTERVAL) {
            self.entries.push(Entry { offset, position: self.size, max_before: self.max_timestamp });
        }
        if max_timestamp > self.max_timestamp {
            self.max_timestamp = max_timestamp;
            self.max_position = self.size;
        }
        self.size += bytes;
        self.next_offset = next_offset;
    }

    /// Position at or before the batch that holds `offset`.
    pub(crate) fn position_of(&self, offset: i64) -> u64 {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        after.checked_sub(1).map_or(0, |at| self.entries[at].position)
    }

    /// Position at or before the first batch that has a timestamp of at least `timestamp`.
    pub(crate) fn position_of_time(&self, timestamp: i64) -> u64 {
        let after = self.entries.partition_point(|entry| entry.max_before < timestamp);
        after.checked_sub(1).map_or(0, |at| self.entries[at].position)
    }

    /// Writes the sidecar of a log file that will not change any more.
    pub(crate) fn save(&self, log: &Path) -> io::Result<()> {
        let side = Sidecar { version: VERSION, modified_nanos: modified(&fs::metadata(log)?)?, index: self.clone() };
        let text = serde_json::to_vec(&side)?;
        // Losing it costs one scan, so it need not be synced.
        fs::write(log.with_extension("index"), text)
    }

    /// Reads the sidecar; `None` when it is missing, torn, of another version, or older than the log file.
    pub(crate) fn load(log: &Path) -> Option<Self> {
        let side: Sidecar = serde_json::from_slice(&fs::read(log.with_extension("index")).ok()?).ok()?;
        let meta = fs::metadata(log).ok()?;
        let fits = side.version == VERSION && side.index.size == meta.len() && side.modified_nanos == modified(&meta).ok()?;
        fits.then_some(side.index)
    }

    /// Forgets the sidecar of a log file that is about to change.
    pub(crate) fn forget(log: &Path) -> io::Result<()> {
        disk::remove(&log.with_extension("index"))
    }
}

fn modified(meta: &Metadata) -> io::Result<u128> {
    Ok(meta.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn filled() -> Index {
        let mut index = Index::new(100);
        for i in 0..50 {
            index.push(100 + i * 10, 10_000, 110 + i * 10, 1_000 + (i % 7) * 100 + i);
        }
        index
    }

    #[test]
    fn offsets_and_times_lead_to_a_position_at_or_before_the_batch() {
        let index = filled();
        assert!(index.entries.len() > 5 && index.entries.len() < 20);
        for i in 0..50_u64 {
            let position = index.position_of(100 + i as i64 * 10 + 3);
            assert!(position <= i * 10_000 && i * 10_000 - position < INTERVAL + 10_000);
        }
        assert_eq!(index.position_of(0), 0);
        // The first batch with a timestamp of at least 1_600 is number 6.
        assert!(index.position_of_time(1_600) <= 60_000);
        assert_eq!(index.position_of_time(i64::MIN), 0);
    }

    #[test]
    fn a_sidecar_is_believed_only_while_the_log_is_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("00000000000000000100.log");
        fs::write(&log, vec![0; 500_000]).unwrap();
        let index = filled();
        index.save(&log).unwrap();
        assert_eq!(Index::load(&log), Some(index));
        fs::write(&log, vec![1; 500_001]).unwrap();
        assert_eq!(Index::load(&log), None);
        Index::forget(&log).unwrap();
        Index::forget(&log).unwrap();
    }
}
