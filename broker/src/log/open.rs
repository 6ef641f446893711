//! Opening a partition's folder after whatever has happened to it: a clean stop, a crash, a power cut, a damaged file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk;
use super::index::Index;
use super::producers::Producers;
use super::scan::{Ending, Scan, scan};
use super::segment::Segment;
use super::segments::Point;
use crate::batch::BatchHeader;
use crate::error::BrokerError;

const START_FILE: &str = "log-start.json";
const START_VERSION: u64 = 1;
/// A segment that compaction has not finished.
pub(crate) const UNFINISHED: &str = "cleaned";

/// First offset of a partition, moved by DeleteRecords.
#[derive(Serialize, Deserialize)]
struct StartFile {
    version: u64,
    offset: i64,
}

pub(crate) fn read_start(dir: &Path) -> Result<i64, BrokerError> {
    let path = dir.join(START_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(fault) => return Err(BrokerError::io("read", &path, fault)),
    };
    let damaged = |fault: serde_json::Error| BrokerError::Damaged { path: path.clone(), detail: format!("cannot be read ({fault})") };
    let file: StartFile = serde_json::from_slice(&text).map_err(damaged)?;
    if file.version != START_VERSION {
        return Err(BrokerError::Format { path, found: file.version, supported: START_VERSION });
    }
    Ok(file.offset)
}

pub(crate) fn write_start(dir: &Path, offset: i64) -> Result<(), BrokerError> {
    let path = dir.join(START_FILE);
    let text = serde_json::to_vec(&StartFile { version: START_VERSION, offset }).unwrap_or_default();
    disk::replace(&path, &text).map_err(|fault| BrokerError::io("write", &path, fault))
}

/// The segments on disk and the producers as of their end. `durable`: how far the log was surely synced, if that is known.
///
/// # Errors
/// [`BrokerError::Corrupt`] for damage in what was acknowledged; I/O faults.
pub(crate) fn load(dir: &Path, durable: Option<Point>) -> Result<(Vec<Segment>, Producers), BrokerError> {
    let mut found: Vec<(i64, PathBuf, Option<Index>)> = Vec::new();
    let entries = fs::read_dir(dir).map_err(|fault| BrokerError::io("read", dir, fault))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            disk::remove(&path).map_err(|fault| BrokerError::io("remove", &path, fault))?;
        } else if let Some(base) = Segment::base_of(&path) {
            let index = Index::load(&path);
            found.push((base, path, index));
        }
    }
    found.sort_unstable_by_key(|(base, _, _)| *base);
    let known = match found.iter().find(|(_, _, index)| index.is_none()) {
        Some((base, _, _)) => *base,
        None => found.last().and_then(|(_, _, index)| index.as_ref()).map_or(0, |index| index.next_offset),
    };
    let (from, producers) = Producers::load(dir, known).unwrap_or_default();
    let last = found.len().saturating_sub(1);
    let mut loading = Loading { durable, from, producers, list: Vec::with_capacity(found.len()) };
    for (at, (base, path, index)) in found.into_iter().enumerate() {
        loading.take(base, path, index, at == last)?;
    }
    Ok((loading.list, loading.producers))
}

struct Loading {
    durable: Option<Point>,
    /// Offset from which on the producers have yet to be followed.
    from: i64,
    producers: Producers,
    list: Vec<Segment>,
}

impl Loading {
    fn take(&mut self, base: i64, path: PathBuf, index: Option<Index>, last: bool) -> Result<(), BrokerError> {
        let expected = self.list.last().map_or(base, |before| before.index.next_offset);
        if base < expected && self.is_covered(&path, base, index.as_ref(), expected)? {
            // Compaction has put its records into the segment before it, and was interrupted before it could remove it.
            return Index::forget(&path).and_then(|()| disk::remove(&path)).map_err(|fault| BrokerError::io("remove", &path, fault));
        }
        let index = match index {
            Some(index) => {
                if index.next_offset > self.from {
                    self.follow(&path, base)?;
                }
                index
            }
            None => {
                let scanned = self.follow(&path, base)?;
                self.settle(&path, base, &scanned, last)?;
                self.indexed(scanned.index, &path, last)
            }
        };
        if last && index.size == 0 && expected != base {
            // Left behind by a roll that ran out of space.
            return disk::remove(&path).map_err(|fault| BrokerError::io("remove", &path, fault));
        }
        if expected != base {
            let detail = format!("begins at offset {base}, though the segment before it ends at {expected}");
            return Err(BrokerError::Damaged { path, detail });
        }
        self.list.push(Segment { base, path, index });
        Ok(())
    }

    fn is_covered(&self, path: &Path, base: i64, index: Option<&Index>, until: i64) -> Result<bool, BrokerError> {
        Ok(match index {
            Some(index) => index.next_offset <= until,
            None => scan(path, base, |_, _| {})?.index.next_offset <= until,
        })
    }

    /// Reads a whole segment, and the producers along with it.
    fn follow(&mut self, path: &Path, base: i64) -> Result<Scan, BrokerError> {
        let (from, producers) = (self.from, &mut self.producers);
        scan(path, base, |header: &BatchHeader, marker| {
            if header.base_offset >= from {
                producers.appended(header, marker);
            }
        })
    }

    fn indexed(&self, mut index: Index, path: &Path, last: bool) -> Index {
        // The next start need not read it again.
        if !last && let Err(fault) = index.save(path) {
            tracing::debug!(path = %path.display(), %fault, "no index beside the segment");
        }
        index
    }

    /// Cuts the end of the last segment where it was never promised to anybody; refuses damage in what was.
    fn settle(&self, path: &Path, base: i64, scanned: &Scan, last: bool) -> Result<(), BrokerError> {
        let Ending::Torn { fault, bytes, followed } = scanned.ending else { return Ok(()) };
        let at = scanned.index.size;
        let promised = match self.durable {
            // A segment that is younger than the mark has never been synced.
            Some(point) => point.segment > base || (point.segment == base && at < point.position),
            None => followed,
        };
        if !last || (followed && promised) {
            return Err(BrokerError::Corrupt { file: path.to_path_buf(), at, detail: fault.to_string() });
        }
        if promised {
            tracing::error!(
                file = %path.display(), at, bytes, %fault,
                "the end of the log is torn though it had been synced: the torn end is removed, and acknowledged records with it; \
                 check the disk"
            );
        } else {
            tracing::warn!(
                file = %path.display(), at, bytes, %fault,
                "the last writes were cut short, most likely by a crash: the torn end is removed; nothing acknowledged was in it"
            );
        }
        let cut = disk::open_log(path).and_then(|file| {
            file.set_len(at)?;
            file.sync_all()
        });
        cut.map_err(|fault| BrokerError::io("cut the torn end off", path, fault))
    }
}
