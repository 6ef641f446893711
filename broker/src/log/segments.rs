//! The segment files of one partition: appending, rolling, cutting back, deleting, and opening them after whatever happened.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use super::index::Index;
use super::producers::Producers;
use super::scan::{Ending, Scan, scan};
use super::segment::{Extent, Segment, path_of};
use crate::batch::{BatchHeader, PLACED, placed_prefix};
use crate::error::BrokerError;

const START_FILE: &str = "log-start.json";
const START_VERSION: u64 = 1;

/// The end of what a flush covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) offset: i64,
    pub(crate) segment: i64,
    pub(crate) position: u64,
}

/// What a flush has to sync, taken under the lock and synced without it. Closed segments were synced when they were closed.
#[derive(Debug)]
pub(crate) struct FlushPlan {
    pub(crate) file: Arc<File>,
    pub(crate) disk: Disk,
    pub(crate) until: Point,
}

/// First offset of a partition, moved by DeleteRecords.
#[derive(Serialize, Deserialize)]
struct StartFile {
    version: u64,
    offset: i64,
}

/// The log of one partition. Callers hold the partition's lock.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    disk: Disk,
    /// Sorted by base offset; the last one is active. Never empty.
    list: Vec<Segment>,
    active: Arc<File>,
    /// A flush has failed: what is in the page cache may never reach the disk.
    pub(crate) suspect: bool,
    pub(crate) start: i64,
    pub(crate) durable: Point,
    pub(crate) producers: Producers,
}

impl Segments {
    /// Opens a partition's folder: reads what nobody vouches for, cuts a torn end, restores the producers.
    ///
    /// # Errors
    /// [`BrokerError::Corrupt`] for damage before the end; I/O faults.
    pub(crate) fn open(dir: &Path, disk: Disk) -> Result<Self, BrokerError> {
        let start = read_start(dir)?;
        let (mut list, scans) = load_segments(dir)?;
        if list.is_empty() {
            list.push(Segment::new(dir, start, Index::new(start)));
        }
        let end = list.last().map_or(start, |last| last.index.next_offset);
        let producers = restore_producers(dir, &list, &scans, end)?;
        let (base, path, size) = list.last().map(|l| (l.base, l.path.clone(), l.index.size)).unwrap_or_default();
        Index::forget(&path).map_err(|fault| BrokerError::io("remove the index of", &path, fault))?;
        let active = disk::open_log(&path).map_err(|fault| BrokerError::io("open", &path, fault))?;
        // What is read from now on must also be there after a power cut: the end may only be in the page cache.
        active.sync_all().and_then(|()| disk::sync_dir(dir)).map_err(|fault| BrokerError::io("sync", &path, fault))?;
        let start = start.max(list[0].base);
        Ok(Self {
            dir: dir.to_path_buf(),
            disk,
            list,
            active: Arc::new(active),
            suspect: false,
            start,
            durable: Point { offset: end, segment: base, position: size },
            producers,
        })
    }

    fn last(&self) -> &Segment {
        // The list is never empty: `open` and `delete_until` keep the active segment.
        &self.list[self.list.len() - 1]
    }

    /// Offset that the next record gets.
    pub(crate) fn end(&self) -> i64 {
        self.last().index.next_offset
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.list.iter().map(|segment| segment.index.size).sum()
    }

    pub(crate) fn end_point(&self) -> Point {
        let last = self.last();
        Point { offset: last.index.next_offset, segment: last.base, position: last.index.size }
    }

    /// Appends a checked batch and returns its base offset. On an error nothing of it stays.
    pub(crate) fn append(&mut self, header: &BatchHeader, batch: &Bytes, segment_bytes: u64) -> io::Result<i64> {
        let size = self.last().index.size;
        if size > 0 && size + header.size as u64 > segment_bytes {
            self.roll()?;
        }
        let (offset, position) = (self.end(), self.last().index.size);
        let prefix = placed_prefix(offset, header.size);
        let written = self
            .disk
            .write_at(&self.active, &prefix, position)
            .and_then(|()| self.disk.write_at(&self.active, &batch[PLACED..], position + PLACED as u64));
        if let Err(fault) = written {
            self.active.set_len(position)?;
            return Err(fault);
        }
        let placed = BatchHeader { base_offset: offset, ..*header };
        let at = self.list.len() - 1;
        self.list[at].index.push(offset, header.size as u64, placed.next_offset(), header.max_timestamp);
        self.producers.appended(&placed);
        Ok(offset)
    }

    /// Closes the active segment and begins the next one at the present end. The closed one is synced first: a power cut must
    /// never tear a segment that has a successor.
    pub(crate) fn roll(&mut self) -> io::Result<()> {
        let base = self.end();
        self.disk.sync(&self.active).inspect_err(|_| self.suspect = true)?;
        self.producers.save(&self.dir, base)?;
        let path = path_of(&self.dir, base);
        let fresh = disk::open_log(&path)?;
        fresh.set_len(0).and_then(|()| disk::sync_dir(&self.dir))?;
        let closed = self.last();
        if let Err(fault) = closed.index.save(&closed.path) {
            tracing::debug!(path = %closed.path.display(), %fault, "no index beside the segment; a start will scan it");
        }
        self.active = Arc::new(fresh);
        self.list.push(Segment { base, path, index: Index::new(base) });
        self.durable = self.end_point();
        Producers::tidy(&self.dir, base);
        Ok(())
    }

    pub(crate) fn flush_plan(&self) -> FlushPlan {
        FlushPlan { file: self.active.clone(), disk: self.disk.clone(), until: self.end_point() }
    }

    /// Notes that a plan has been synced.
    pub(crate) fn flushed(&mut self, plan: &FlushPlan) {
        // The log may have been rolled meanwhile, which has gone further.
        if plan.until.offset > self.durable.offset {
            self.durable = plan.until;
        }
    }

    /// Goes back to the last durable point after a flush has failed: the page cache cannot be trusted any more.
    pub(crate) fn cut_to_durable(&mut self) -> Result<(), BrokerError> {
        let durable = self.durable;
        for segment in self.list.iter().filter(|segment| segment.base > durable.segment) {
            disk::remove(&segment.path).map_err(|fault| BrokerError::io("remove", &segment.path, fault))?;
        }
        let path = path_of(&self.dir, durable.segment);
        let file = disk::open_log(&path).map_err(|fault| BrokerError::io("open", &path, fault))?;
        file.set_len(durable.position).and_then(|()| self.disk.sync(&file)).map_err(|fault| BrokerError::io("cut back", &path, fault))?;
        let start = self.start;
        *self = Self::open(&self.dir, self.disk.clone())?;
        self.start = start;
        Ok(())
    }

    /// What a clean stop leaves behind, so that the next start need not read the log.
    pub(crate) fn save(&mut self) {
        let saved = self.producers.save(&self.dir, self.end()).and_then(|()| self.last().index.save(&self.last().path));
        if let Err(fault) = saved {
            tracing::warn!(dir = %self.dir.display(), %fault, "no snapshot was kept; the next start reads the log instead");
        }
    }

    /// Where `offset` is, bounded by what is durable; `None` when nothing at or after it is.
    pub(crate) fn locate(&self, offset: i64) -> Option<Extent> {
        if offset >= self.durable.offset {
            return None;
        }
        let at = self.list.partition_point(|segment| segment.index.next_offset <= offset);
        self.extent(self.list.get(at)?, |index| index.position_of(offset))
    }

    /// Where the first record of at least `timestamp` may be; segments are asked in order.
    pub(crate) fn locate_time(&self, timestamp: i64) -> Vec<Extent> {
        let late = self.list.iter().filter(|s| s.index.size > 0 && s.index.max_timestamp >= timestamp);
        late.filter_map(|segment| self.extent(segment, |index| index.position_of_time(timestamp))).collect()
    }

    /// The batch with the largest timestamp.
    pub(crate) fn locate_max_time(&self) -> Option<Extent> {
        let kept = self.list.iter().filter(|s| s.index.size > 0 && s.index.next_offset > self.start);
        let latest = kept.rev().max_by_key(|segment| segment.index.max_timestamp)?;
        self.extent(latest, |index| index.max_position)
    }

    fn extent(&self, segment: &Segment, from: impl Fn(&Index) -> u64) -> Option<Extent> {
        let until = match segment.base.cmp(&self.durable.segment) {
            std::cmp::Ordering::Less => segment.index.size,
            std::cmp::Ordering::Equal => self.durable.position,
            std::cmp::Ordering::Greater => return None,
        };
        Some(Extent { path: segment.path.clone(), from: from(&segment.index), until })
    }

    /// Moves the first offset, durably, and deletes the segments that lie before it.
    pub(crate) fn set_start(&mut self, offset: i64) -> Result<(), BrokerError> {
        let path = self.dir.join(START_FILE);
        let text = serde_json::to_vec(&StartFile { version: START_VERSION, offset }).unwrap_or_default();
        disk::replace(&path, &text).map_err(|fault| BrokerError::io("write", &path, fault))?;
        self.start = offset;
        self.delete_while(|_, segment| segment.index.next_offset <= offset);
        Ok(())
    }

    /// Deletes closed segments from the oldest on, as long as `expired(bytes of the log, segment)`.
    pub(crate) fn delete_while(&mut self, expired: impl Fn(u64, &Segment) -> bool) {
        while self.list.len() > 1 && self.list[0].base < self.durable.segment && expired(self.bytes(), &self.list[0]) {
            let path = &self.list[0].path;
            if let Err(fault) = Index::forget(path).and_then(|()| disk::remove(path)) {
                tracing::warn!(path = %path.display(), %fault, "an expired segment could not be removed");
                return;
            }
            self.list.remove(0);
            self.start = self.start.max(self.list[0].base);
        }
    }
}

fn read_start(dir: &Path) -> Result<i64, BrokerError> {
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

type Scans = Vec<Option<Scan>>;

/// The segments on disk, each with its scan when its sidecar could not be believed.
fn load_segments(dir: &Path) -> Result<(Vec<Segment>, Scans), BrokerError> {
    let entries = fs::read_dir(dir).map_err(|fault| BrokerError::io("read", dir, fault))?;
    let mut found: Vec<_> = entries.flatten().filter_map(|entry| Some((Segment::base_of(&entry.path())?, entry.path()))).collect();
    found.sort_unstable();
    let (mut list, mut scans) = (Vec::new(), Vec::new());
    for (at, (base, path)) in found.iter().enumerate() {
        let last = at + 1 == found.len();
        let (index, scanned) = match Index::load(path) {
            Some(index) => (index, None),
            None => {
                let scanned = scan(path, *base)?;
                settle_ending(path, &scanned, last)?;
                (scanned.index.clone(), Some(scanned))
            }
        };
        if scanned.is_some() && !last {
            // The next start need not read it again.
            if let Err(fault) = index.save(path) {
                tracing::debug!(path = %path.display(), %fault, "no index beside the segment");
            }
        }
        let expected = list.last().map_or(*base, |before: &Segment| before.index.next_offset);
        if last && index.size == 0 && expected != *base {
            // Left behind by a roll that ran out of space.
            disk::remove(path).map_err(|fault| BrokerError::io("remove", path, fault))?;
            continue;
        }
        if expected != *base {
            let detail = format!("begins at offset {base}, though the segment before it ends at {expected}");
            return Err(BrokerError::Damaged { path: path.clone(), detail });
        }
        list.push(Segment { base: *base, path: path.clone(), index });
        scans.push(scanned);
    }
    Ok((list, scans))
}

/// Cuts a torn end off the last segment; refuses one in the middle of the log.
fn settle_ending(path: &Path, scanned: &Scan, last: bool) -> Result<(), BrokerError> {
    let Ending::Torn { fault, bytes } = scanned.ending else { return Ok(()) };
    let at = scanned.index.size;
    if !last {
        return Err(BrokerError::Corrupt { file: path.to_path_buf(), at, detail: fault.to_string() });
    }
    tracing::warn!(
        file = %path.display(), at, bytes, %fault,
        "the last write was cut short, most likely by a crash: the torn end is removed; nothing acknowledged was in it"
    );
    let cut = disk::open_log(path).and_then(|file| {
        file.set_len(at)?;
        file.sync_all()
    });
    cut.map_err(|fault| BrokerError::io("cut the torn end off", path, fault))
}

/// The producers as of `end`: the newest snapshot and the batches after it.
fn restore_producers(dir: &Path, list: &[Segment], scans: &Scans, end: i64) -> Result<Producers, BrokerError> {
    let (from, mut producers) = Producers::load(dir, end).unwrap_or_default();
    for (segment, scanned) in list.iter().zip(scans) {
        if segment.index.next_offset <= from {
            continue;
        }
        let again;
        let headers = match scanned {
            Some(scanned) => &scanned.idempotent,
            None => {
                again = scan(&segment.path, segment.base)?.idempotent;
                &again
            }
        };
        for header in headers.iter().filter(|header| header.base_offset >= from) {
            producers.appended(header);
        }
    }
    Ok(producers)
}
