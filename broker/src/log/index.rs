//! The sparse index of one segment: where batches begin, and how late the records before them are.
//!
//! The active segment's entries live in memory. A closed segment has them in a sidecar file `<base>.index`, of which only the head
//! is read at the start: entries are looked up in the file, so that a large log costs no memory. The head names the log file's size
//! and modification time: when either differs, the file was touched and is read and checked again as a whole.
//!
//! ```text
//! 0 "TMINDEX2" | 8 modified u64 | 16 size u64 | 24 next offset i64 | 32 max timestamp i64 | 40 its position u64
//! 48 first timestamp i64 | 56 entries u32 | 60 their crc u32 | 64 crc u32 of the head | 68 entries: offset i64, position u64,
//! max before i64
//! ```

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::disk;

/// At least this many bytes of log lie between two entries.
pub(crate) const INTERVAL: u64 = 32 << 10;
const MAGIC: &[u8; 8] = b"TMINDEX2";
const HEAD: usize = 68;
const ENTRY: usize = 24;

/// A batch that the index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Base offset of the batch.
    pub(crate) offset: i64,
    /// Byte at which the batch begins.
    pub(crate) position: u64,
    /// Largest timestamp of the batches before it in the segment, so that entries are sorted by it.
    pub(crate) max_before: i64,
}

/// What is known of a segment without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    /// Bytes of whole, valid batches.
    pub(crate) size: u64,
    /// Offset after the last record.
    pub(crate) next_offset: i64,
    /// Largest record timestamp, `i64::MIN` while empty.
    pub(crate) max_timestamp: i64,
    /// Position of the batch that holds it.
    pub(crate) max_position: u64,
    /// Largest timestamp of the first batch, `i64::MIN` while empty: how old the segment is.
    pub(crate) first_timestamp: i64,
    /// `None`: they are in the sidecar.
    entries: Option<Vec<Entry>>,
}

/// Where to begin to look for a batch in a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Here.
    Position(u64),
    /// Where the sidecar says.
    Offset(i64),
    /// Where the sidecar says, by time.
    Time(i64),
}

impl Index {
    pub(crate) fn new(base: i64) -> Self {
        let none = i64::MIN;
        Self { size: 0, next_offset: base, max_timestamp: none, max_position: 0, first_timestamp: none, entries: Some(Vec::new()) }
    }

    /// Takes up a batch of `bytes` bytes that begins at the present end. `max_timestamp`: the largest one of its records.
    pub(crate) fn push(&mut self, offset: i64, bytes: u64, next_offset: i64, max_timestamp: i64) {
        if let Some(entries) = &mut self.entries
            && entries.last().is_none_or(|last| self.size - last.position >= INTERVAL)
        {
            entries.push(Entry { offset, position: self.size, max_before: self.max_timestamp });
        }
        if self.first_timestamp == i64::MIN {
            self.first_timestamp = max_timestamp;
        }
        if max_timestamp > self.max_timestamp {
            self.max_timestamp = max_timestamp;
            self.max_position = self.size;
        }
        self.size += bytes;
        self.next_offset = next_offset;
    }

    /// Whether the entries are in the sidecar only.
    pub(crate) fn is_saved(&self) -> bool {
        self.entries.is_none()
    }

    /// Takes the entries back from the sidecar of `log`, which is about to be written to, and forgets the sidecar.
    pub(crate) fn reopen(&mut self, log: &Path) -> io::Result<()> {
        if self.entries.is_some() {
            return Ok(());
        }
        let bytes = fs::read(log.with_extension("index")).unwrap_or_default();
        let (head, tail) = bytes.split_at(HEAD.min(bytes.len()));
        // A damaged entry would lead astray for as long as the segment is active; without entries one reads from the first byte.
        let sound = head.get(60..64).is_some_and(|crc| *crc == crc32c::crc32c(tail).to_be_bytes());
        self.entries = Some(if sound { tail.chunks_exact(ENTRY).filter_map(entry_of).collect() } else { Vec::new() });
        Self::forget(log)
    }

    /// At or before the batch that holds `offset`.
    pub(crate) fn of_offset(&self, offset: i64) -> Lookup {
        let Some(entries) = &self.entries else { return Lookup::Offset(offset) };
        let after = entries.partition_point(|entry| entry.offset <= offset);
        Lookup::Position(after.checked_sub(1).map_or(0, |at| entries[at].position))
    }

    /// At or before the first batch that has a timestamp of at least `timestamp`.
    pub(crate) fn of_time(&self, timestamp: i64) -> Lookup {
        let Some(entries) = &self.entries else { return Lookup::Time(timestamp) };
        let after = entries.partition_point(|entry| entry.max_before < timestamp);
        Lookup::Position(after.checked_sub(1).map_or(0, |at| entries[at].position))
    }

    /// Writes the sidecar of a log file that will not change any more; from then on the entries are looked up there.
    pub(crate) fn save(&mut self, log: &Path) -> io::Result<()> {
        let Some(entries) = &self.entries else { return Ok(()) };
        let mut out = Vec::with_capacity(HEAD + entries.len() * ENTRY);
        out.extend_from_slice(MAGIC);
        out.extend(modified(&fs::metadata(log)?)?.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        out.extend(self.next_offset.to_be_bytes());
        out.extend(self.max_timestamp.to_be_bytes());
        out.extend(self.max_position.to_be_bytes());
        out.extend(self.first_timestamp.to_be_bytes());
        let mut tail = Vec::with_capacity(entries.len() * ENTRY);
        for entry in entries {
            tail.extend(entry.offset.to_be_bytes());
            tail.extend(entry.position.to_be_bytes());
            tail.extend(entry.max_before.to_be_bytes());
        }
        out.extend((entries.len() as u32).to_be_bytes());
        out.extend(crc32c::crc32c(&tail).to_be_bytes());
        out.extend(crc32c::crc32c(&out).to_be_bytes());
        out.extend(tail);
        // Losing it costs one scan, so it need not be synced.
        fs::write(log.with_extension("index"), out)?;
        self.entries = None;
        Ok(())
    }

    /// Reads the sidecar's head; `None` when it is missing, torn, of another version, or older than the log file.
    pub(crate) fn load(log: &Path) -> Option<Self> {
        let file = File::open(log.with_extension("index")).ok()?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).ok()?;
        let word = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().unwrap_or_default());
        let half = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap_or_default());
        let meta = fs::metadata(log).ok()?;
        let whole = file.metadata().ok()?.len() == (HEAD + half(56) as usize * ENTRY) as u64;
        let sound = head.starts_with(MAGIC) && half(64) == crc32c::crc32c(&head[..64]) && whole;
        let fits = sound && word(16) == meta.len() && word(8) == modified(&meta).ok()?;
        fits.then(|| Self {
            size: word(16),
            next_offset: word(24) as i64,
            max_timestamp: word(32) as i64,
            max_position: word(40),
            first_timestamp: word(48) as i64,
            entries: None,
        })
    }

    /// Forgets the sidecar of a log file that is about to change.
    pub(crate) fn forget(log: &Path) -> io::Result<()> {
        disk::remove(&log.with_extension("index"))
    }
}

impl Lookup {
    /// The entry that leads to what is wanted, from the sidecar of `log`; `None` when the first byte is the place to begin.
    pub(crate) fn entry(self, log: &Path) -> Option<Entry> {
        match self {
            Self::Position(_) => None,
            Self::Offset(offset) => find(log, |entry| entry.offset <= offset),
            Self::Time(timestamp) => find(log, |entry| entry.max_before < timestamp),
        }
    }
}

/// The last entry of a sidecar for which `before` holds; it holds for a first part of them.
fn find(log: &Path, before: impl Fn(&Entry) -> bool) -> Option<Entry> {
    let file = File::open(log.with_extension("index")).ok()?;
    let count = (file.metadata().ok()?.len().checked_sub(HEAD as u64)?) / ENTRY as u64;
    let (mut low, mut high, mut found) = (0, count, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = read_entry(&file, middle)?;
        if before(&entry) {
            found = Some(entry);
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    found
}

fn read_entry(file: &File, number: u64) -> Option<Entry> {
    let mut bytes = [0; ENTRY];
    file.read_exact_at(&mut bytes, HEAD as u64 + number * ENTRY as u64).ok()?;
    entry_of(&bytes)
}

fn entry_of(bytes: &[u8]) -> Option<Entry> {
    let word = |at: usize| Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some(Entry { offset: word(0)?, position: word(8)? as u64, max_before: word(16)? })
}

fn modified(meta: &Metadata) -> io::Result<u64> {
    Ok(meta.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64))
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

    fn position(lookup: Lookup, log: &Path) -> u64 {
        match lookup {
            Lookup::Position(position) => position,
            lookup => lookup.entry(log).map_or(0, |entry| entry.position),
        }
    }

    #[test]
    fn offsets_and_times_lead_to_a_position_at_or_before_the_batch_in_memory_and_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("00000000000000000100.log");
        fs::write(&log, vec![0; 500_000]).unwrap();
        let mut index = filled();
        assert!(index.entries.as_ref().is_some_and(|entries| entries.len() > 5 && entries.len() < 20));
        for saved in [false, true] {
            if saved {
                index.save(&log).unwrap();
            }
            assert_eq!(index.entries.is_none(), saved);
            for i in 0..50_u64 {
                let position = position(index.of_offset(100 + i as i64 * 10 + 3), &log);
                assert!(position <= i * 10_000 && i * 10_000 - position < INTERVAL + 10_000);
            }
            assert_eq!(position(index.of_offset(0), &log), 0);
            // The first batch with a timestamp of at least 1_600 is number 6.
            assert!(position(index.of_time(1_600), &log) <= 60_000);
            assert_eq!(position(index.of_time(i64::MIN), &log), 0);
        }
    }

    #[test]
    fn a_sidecar_is_believed_only_while_the_log_is_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("00000000000000000100.log");
        fs::write(&log, vec![0; 500_000]).unwrap();
        let mut index = filled();
        index.save(&log).unwrap();
        assert_eq!(Index::load(&log), Some(index));
        let side = log.with_extension("index");
        let whole = fs::read(&side).unwrap();
        for at in 0..HEAD {
            let mut broken = whole.clone();
            broken[at] ^= 4;
            fs::write(&side, broken).unwrap();
            assert_eq!(Index::load(&log), None, "byte {at}");
        }
        fs::write(&side, &whole).unwrap();
        fs::write(&log, vec![1; 500_001]).unwrap();
        assert_eq!(Index::load(&log), None);
        Index::forget(&log).unwrap();
        Index::forget(&log).unwrap();
    }
}
