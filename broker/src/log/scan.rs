//! Reading a segment file from its first byte: at start, when nobody vouches for it, and to look for a batch.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::index::Index;
use crate::batch::{BatchFault, BatchHeader, HEADER, LEADER_EPOCH, marker_of};
use crate::error::BrokerError;

/// How a segment file ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With a whole batch.
    Whole,
    /// With bytes that are no batch, from the index's size on. `followed`: whole batches lie somewhere behind them.
    Torn { fault: BatchFault, bytes: u64, followed: bool },
}

/// What a scan finds.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) index: Index,
    pub(crate) ending: Ending,
}

/// Reads and checks every batch of the segment file at `path`, whose first offset is `base`. `seen` is shown each batch's header
/// and, for a transaction's marker, whether it commits.
///
/// # Errors
/// I/O faults.
pub(crate) fn scan(path: &Path, base: i64, mut seen: impl FnMut(&BatchHeader, Option<bool>)) -> Result<Scan, BrokerError> {
    let failed = |fault| BrokerError::io("read", path, fault);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::with_capacity(1 << 20, &file);
    let (mut index, mut batch) = (Index::new(base), Vec::new());
    while index.size < length {
        match next(&mut reader, &mut batch, index.next_offset, length - index.size).map_err(failed)? {
            Ok(header) => {
                seen(&header, if header.is_control() { marker_of(&header, &batch) } else { None });
                index.push(header.base_offset, header.size as u64, header.next_offset(), header.max_timestamp);
            }
            Err(fault) => {
                let followed = is_followed(&file, &index, length).map_err(failed)?;
                let bytes = length - index.size;
                return Ok(Scan { index, ending: Ending::Torn { fault, bytes, followed } });
            }
        }
    }
    Ok(Scan { index, ending: Ending::Whole })
}

/// Reads one batch into `batch`. The outer error is the disk's, the inner one the batch's.
fn next(reader: &mut impl Read, batch: &mut Vec<u8>, expected: i64, left: u64) -> io::Result<Result<BatchHeader, BatchFault>> {
    if left < HEADER as u64 {
        return Ok(Err(BatchFault::Short));
    }
    batch.resize(HEADER, 0);
    reader.read_exact(batch)?;
    let header = match BatchHeader::parse(batch) {
        Ok(header) => header,
        Err(fault) => return Ok(Err(fault)),
    };
    if header.size as u64 > left {
        return Ok(Err(BatchFault::Short));
    }
    // The checksum leaves out what the broker has set itself.
    if header.base_offset != expected || header.leader_epoch != LEADER_EPOCH {
        return Ok(Err(BatchFault::Place));
    }
    batch.resize(header.size, 0);
    reader.read_exact(&mut batch[HEADER..])?;
    Ok(header.verify(batch).map(|()| header))
}

/// Whether a valid batch lies anywhere behind the end of the index.
fn is_followed(file: &File, index: &Index, length: u64) -> io::Result<bool> {
    let mut rest = vec![0; (length - index.size) as usize];
    file.read_exact_at(&mut rest, index.size)?;
    Ok((1..rest.len().saturating_sub(HEADER - 1)).any(|at| is_batch(&rest[at..], index.next_offset)))
}

fn is_batch(bytes: &[u8], least_offset: i64) -> bool {
    bytes[16] == 2 && BatchHeader::parse(bytes).is_ok_and(|h| h.base_offset >= least_offset && h.verify(bytes).is_ok())
}

/// Walks the whole batches in `bytes`, as (position, header); ends at the first one that is cut.
pub(crate) fn batches(bytes: &[u8]) -> impl Iterator<Item = (usize, BatchHeader)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = BatchHeader::parse(bytes.get(at..)?).ok()?;
        let begin = at;
        at += header.size;
        (at <= bytes.len()).then_some((begin, header))
    })
}
