//! One segment file of a partition, named by the offset of its first record.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::index::{INTERVAL, Index};
use super::scan::batches;
use crate::batch::{BatchHeader, HEADER, find_record};

/// A segment: its file's name and what is known of its content. Only the active segment's file is kept open.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: i64,
    pub(crate) path: PathBuf,
    pub(crate) index: Index,
}

/// Where to read without holding the partition's lock.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) path: PathBuf,
    /// Byte at or before the wanted batch.
    pub(crate) from: u64,
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
    /// Whole batches from the one that holds `offset` on: as many as fit into `max_bytes`, but at least one.
    pub(crate) fn read(&self, offset: i64, max_bytes: usize) -> io::Result<Vec<u8>> {
        let file = File::open(&self.path)?;
        let mut from = self.from;
        // The index leads to a place shortly before the wanted batch: walk on until it is found.
        while from < self.until {
            let mut bytes = self.chunk(&file, from, max_bytes.saturating_add(INTERVAL as usize))?;
            let wanted = batches(&bytes).find(|(_, header)| header.next_offset() > offset).map(|(begin, _)| begin);
            if let Some(begin) = wanted {
                let end = begin + fitting(&bytes[begin..], max_bytes);
                bytes.truncate(end);
                bytes.drain(..begin);
                return Ok(bytes);
            }
            from += match batches(&bytes).last() {
                Some((begin, header)) => (begin + header.size) as u64,
                None => {
                    let header = self.first_batch(&file, from, &mut bytes)?;
                    if header.next_offset() > offset {
                        return Ok(bytes);
                    }
                    header.size as u64
                }
            };
        }
        Ok(Vec::new())
    }

    /// Reads the one batch at `from` however large it is; `bytes` holds its header.
    fn first_batch(&self, file: &File, from: u64, bytes: &mut Vec<u8>) -> io::Result<BatchHeader> {
        let header = BatchHeader::parse(bytes).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        *bytes = self.chunk(file, from, header.size)?;
        if bytes.len() < header.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(header)
    }

    fn chunk(&self, file: &File, from: u64, wanted: usize) -> io::Result<Vec<u8>> {
        let wanted = wanted.max(HEADER);
        let mut bytes = vec![0; usize::try_from(self.until - from).unwrap_or(usize::MAX).min(wanted)];
        file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }

    /// The first record at or after `from` whose timestamp is at least `timestamp`, as (offset, timestamp). A compressed
    /// batch is not opened: its first record stands for it, so that a reader sees too much rather than too little.
    pub(crate) fn find_time(&self, timestamp: i64) -> io::Result<Option<(i64, i64)>> {
        let file = File::open(&self.path)?;
        let mut from = self.from;
        while from < self.until {
            let mut head = self.chunk(&file, from, HEADER)?;
            let Ok(header) = BatchHeader::parse(&head) else { return Ok(None) };
            if header.max_timestamp >= timestamp {
                if header.is_compressed() || header.base_timestamp >= timestamp {
                    return Ok(Some((header.base_offset, header.base_timestamp.max(timestamp.min(header.max_timestamp)))));
                }
                self.first_batch(&file, from, &mut head)?;
                let found = find_record(&header, &head, |t| t >= timestamp);
                return Ok(Some(found.unwrap_or((header.base_offset, header.max_timestamp))));
            }
            from += header.size as u64;
        }
        Ok(None)
    }

    /// The record with the largest timestamp in the batch at `from`; the last one of a compressed batch.
    pub(crate) fn max_record(&self) -> io::Result<Option<(i64, i64)>> {
        let file = File::open(&self.path)?;
        let mut bytes = self.chunk(&file, self.from, HEADER)?;
        let Ok(header) = BatchHeader::parse(&bytes) else { return Ok(None) };
        if header.is_compressed() {
            return Ok(Some((header.next_offset() - 1, header.max_timestamp)));
        }
        self.first_batch(&file, self.from, &mut bytes)?;
        let found = find_record(&header, &bytes, |t| t == header.max_timestamp);
        Ok(Some(found.unwrap_or((header.next_offset() - 1, header.max_timestamp))))
    }
}

/// Bytes of the whole batches at the start of `bytes` that fit into `max_bytes`, the first one in any case.
fn fitting(bytes: &[u8], max_bytes: usize) -> usize {
    let ends = batches(bytes).map(|(begin, header)| begin + header.size);
    ends.enumerate().take_while(|(i, end)| *i == 0 || *end <= max_bytes).last().map_or(0, |(_, end)| end)
}
