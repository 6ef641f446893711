//! One segment file of a partition, named by the offset of its first record.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::files::OpenFile;
use super::index::{INTERVAL, Index, Lookup};
use super::scan::batches;
use crate::batch::{BatchHeader, HEADER};
use crate::records::find_record;

/// A segment: its file's name and what is known of its content.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: i64,
    pub(crate) path: PathBuf,
    pub(crate) index: Index,
}

/// Where to read without holding the partition's lock. The file is open, so that neither retention nor compaction can exchange it
/// underneath.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) path: PathBuf,
    /// At or before the wanted batch.
    pub(crate) from: Lookup,
    /// Byte after the last one that may be read.
    pub(crate) until: u64,
}

impl Segment {
    pub(crate) fn new(dir: &Path, base: i64, index: Index) -> Self {
        Self { base, path: path_of(dir, base), index }
    }

    /// The base offset in a segment's file name.
    pub(crate) fn base_of(path: &Path) -> Option<i64> {
        if path.extension()? != "log" {
            return None;
        }
        let stem = path.file_stem()?.to_str()?;
        (stem.len() == 20).then(|| stem.parse().ok()).flatten()
    }
}

pub(crate) fn path_of(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

impl Extent {
    fn file(&self) -> &File {
        self.file.file()
    }

    /// The byte to begin at. What the sidecar says is believed only when the batch is really there.
    fn start(&self) -> io::Result<u64> {
        if let Lookup::Position(position) = self.from {
            return Ok(position);
        }
        let Some(entry) = self.from.entry(&self.path).filter(|entry| entry.position < self.until) else { return Ok(0) };
        let head = self.chunk(entry.position, HEADER)?;
        let there = BatchHeader::parse(&head).is_ok_and(|header| header.base_offset == entry.offset);
        Ok(if there { entry.position } else { 0 })
    }

    /// Whole batches from the one that holds `offset` on: as many as fit into `max_bytes`, but at least one.
    pub(crate) fn read(&self, offset: i64, max_bytes: usize) -> io::Result<Bytes> {
        let mut from = self.start()?;
        // The index leads to a place shortly before the wanted batch: walk on until it is found.
        while from < self.until {
            let mut bytes = self.chunk(from, max_bytes.saturating_add(INTERVAL as usize))?;
            let wanted = batches(&bytes).find(|(_, header)| header.next_offset() > offset).map(|(begin, _)| begin);
            if let Some(begin) = wanted {
                let end = begin + fitting(&bytes[begin..], max_bytes);
                return Ok(Bytes::from(bytes).slice(begin..end));
            }
            from += match batches(&bytes).last() {
                Some((begin, header)) => (begin + header.size) as u64,
                None => {
                    let header = self.first_batch(from, &mut bytes)?;
                    if header.next_offset() > offset {
                        return Ok(bytes.into());
                    }
                    header.size as u64
                }
            };
        }
        Ok(Bytes::new())
    }

    /// Reads the one batch at `from` however large it is; `bytes` holds its header.
    fn first_batch(&self, from: u64, bytes: &mut Vec<u8>) -> io::Result<BatchHeader> {
        let header = BatchHeader::parse(bytes).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        *bytes = self.chunk(from, header.size)?;
        if bytes.len() < header.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(header)
    }

    fn chunk(&self, from: u64, wanted: usize) -> io::Result<Vec<u8>> {
        let wanted = wanted.max(HEADER);
        let mut bytes = vec![0; usize::try_from(self.until - from).unwrap_or(usize::MAX).min(wanted)];
        self.file().read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }

    /// The first record at or after `least` whose timestamp is at least `timestamp`, as (offset, timestamp). A batch whose records
    /// cannot be read is answered with its first one, so that a reader sees too much rather than too little.
    pub(crate) fn find_time(&self, timestamp: i64, least: i64) -> io::Result<Option<(i64, i64)>> {
        let mut from = self.start()?;
        while from < self.until {
            let mut bytes = self.chunk(from, HEADER)?;
            let Ok(header) = BatchHeader::parse(&bytes) else { return Ok(None) };
            if header.max_timestamp >= timestamp && header.next_offset() > least && !header.is_control() {
                self.first_batch(from, &mut bytes)?;
                let at = |offset, found| Ok(Some((offset, found)));
                match find_record(&header, &bytes, |t| t >= timestamp) {
                    Some((offset, found)) if offset >= least => return at(offset, found),
                    // Records before `least` have been deleted inside this batch.
                    Some((_, found)) => return at(least, found),
                    None => return at(header.base_offset.max(least), header.max_timestamp),
                }
            }
            from += header.size as u64;
        }
        Ok(None)
    }

    /// The record with the largest timestamp in the batch at the beginning.
    pub(crate) fn max_record(&self) -> io::Result<Option<(i64, i64)>> {
        let from = self.start()?;
        let mut bytes = self.chunk(from, HEADER)?;
        let Ok(header) = BatchHeader::parse(&bytes) else { return Ok(None) };
        self.first_batch(from, &mut bytes)?;
        let found = find_record(&header, &bytes, |t| t == header.max_timestamp);
        Ok(Some(found.unwrap_or((header.next_offset() - 1, header.max_timestamp))))
    }
}

/// Bytes of the whole batches at the start of `bytes` that fit into `max_bytes`, the first one in any case.
fn fitting(bytes: &[u8], max_bytes: usize) -> usize {
    let ends = batches(bytes).map(|(begin, header)| begin + header.size);
    ends.enumerate().take_while(|(i, end)| *i == 0 || *end <= max_bytes).last().map_or(0, |(_, end)| end)
}
