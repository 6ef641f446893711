//! The segment files of one partition: appending, rolling, cutting back, deleting.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{self, Disk};
use super::durable::Mark;
use super::files::{Files, OpenFile};
use super::index::{Index, Lookup};
use super::open;
use super::producers::Producers;
use super::segment::{Extent, Segment, path_of};
use crate::batch::{BatchHeader, PLACED, placed_prefix};
use crate::error::BrokerError;
use crate::topic_config::TopicConfig;

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
    pub(crate) file: Arc<OpenFile>,
    pub(crate) disk: Disk,
    pub(crate) until: Point,
}

/// The log of one partition. Callers hold the partition's lock.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(super) dir: PathBuf,
    disk: Disk,
    files: Files,
    /// Sorted by base offset; the last one is active. Never empty.
    pub(super) list: Vec<Segment>,
    /// The active segment's file, while it is open.
    active: Option<Arc<OpenFile>>,
    /// A flush has failed: what is in the page cache may never reach the disk.
    pub(crate) suspect: bool,
    pub(crate) start: i64,
    /// Up to here consumers may read.
    pub(crate) durable: Point,
    mark: Mark,
    pub(crate) producers: Producers,
}

impl Segments {
    /// Opens a partition's folder: reads what nobody vouches for, cuts a torn end, restores the producers.
    ///
    /// # Errors
    /// [`BrokerError::Corrupt`] for damage in what was acknowledged; I/O faults.
    pub(crate) fn open(dir: &Path, disk: Disk, files: Files) -> Result<Self, BrokerError> {
        let start = open::read_start(dir)?;
        let mark = Mark::read(dir);
        let (mut list, producers) = open::load(dir, mark.point())?;
        if list.is_empty() {
            list.push(Segment::new(dir, start, Index::new(start)));
        }
        let start = start.max(list[0].base);
        let durable = Point { offset: 0, segment: 0, position: 0 };
        let mut segments =
            Self { dir: dir.to_path_buf(), disk, files, list, active: None, suspect: false, start, durable, mark, producers };
        segments.begin()?;
        Ok(segments)
    }

    /// Makes the last segment the active one. What is read from now on must also be there after a power cut, and its end may
    /// only be in the page cache.
    fn begin(&mut self) -> Result<(), BrokerError> {
        let path = self.last().path.clone();
        let failed = |fault| BrokerError::io("open", &path, fault);
        let saved = self.last().index.is_saved();
        // A segment that was closed by a clean stop goes on in the sidecar's entries, read back only when it is written to.
        if !saved {
            Index::forget(&path).map_err(failed)?;
        }
        let file = self.files.open_log(&path).map_err(failed)?;
        self.disk.settle(file.file()).and_then(|()| disk::sync_dir(&self.dir)).map_err(failed)?;
        self.active = Some(file);
        self.durable = self.end_point();
        if self.mark.point().is_none() {
            self.mark.create(&self.dir, &self.disk, self.durable).map_err(failed)?;
        }
        self.mark.set(&self.dir, &self.disk, self.durable);
        self.close_idle();
        Ok(())
    }

    pub(super) fn last(&self) -> &Segment {
        // The list is never empty: `open` and `delete_while` keep the active segment.
        &self.list[self.list.len() - 1]
    }

    /// The active segment's file, opened again if it was closed meanwhile.
    fn active(&mut self) -> io::Result<Arc<OpenFile>> {
        if let Some(file) = &self.active {
            return Ok(file.clone());
        }
        let file = self.files.open_log(&self.last().path)?;
        self.active = Some(file.clone());
        Ok(file)
    }

    /// Closes the active segment's file when many are open and nothing of it waits for a flush.
    pub(crate) fn close_idle(&mut self) {
        if self.files.are_many() && self.durable == self.end_point() {
            self.active = None;
        }
    }

    /// Offset that the next record gets.
    pub(crate) fn end(&self) -> i64 {
        self.last().index.next_offset
    }

    /// Largest timestamps of the active segment's first batch and of all of it; `i64::MIN` while it is empty.
    pub(crate) fn active_times(&self) -> (i64, i64) {
        let index = &self.last().index;
        (index.first_timestamp, index.max_timestamp)
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.list.iter().map(|segment| segment.index.size).sum()
    }

    pub(crate) fn end_point(&self) -> Point {
        let last = self.last();
        Point { offset: last.index.next_offset, segment: last.base, position: last.index.size }
    }

    /// Appends a checked batch and returns its base offset. `marker`: how a control batch ends its transaction. On an error nothing
    /// of it stays.
    pub(crate) fn append(&mut self, header: &BatchHeader, batch: &[u8], config: &TopicConfig, marker: Option<bool>) -> io::Result<i64> {
        if self.is_full_for(header, config) {
            self.roll()?;
        }
        let file = self.active()?;
        let (offset, position) = (self.end(), self.last().index.size);
        let at = self.list.len() - 1;
        let last = &mut self.list[at];
        last.index.reopen(&last.path)?;
        let prefix = placed_prefix(offset, header.size);
        let written = self
            .disk
            .write_at(file.file(), &prefix, position)
            .and_then(|()| self.disk.write_at(file.file(), &batch[PLACED..], position + PLACED as u64));
        if let Err(fault) = written {
            self.disk.set_len(file.file(), position)?;
            return Err(fault);
        }
        let placed = BatchHeader { base_offset: offset, ..*header };
        self.list[at].index.push(offset, header.size as u64, placed.next_offset(), header.max_timestamp);
        self.producers.appended(&placed, marker);
        Ok(offset)
    }

    /// Whether a batch belongs into the next segment: by size, or by the time of its records, so that in a topic that is written to
    /// the next segment begins without waiting for anybody to look.
    fn is_full_for(&self, header: &BatchHeader, config: &TopicConfig) -> bool {
        let index = &self.last().index;
        // Of records without a timestamp nobody knows how old they are.
        let age = if index.first_timestamp >= 0 { header.max_timestamp.saturating_sub(index.first_timestamp) } else { 0 };
        index.size > 0 && (index.size + header.size as u64 > config.segment_bytes() || age > config.roll_ms())
    }

    /// Closes the active segment and begins the next one at the present end. The closed one is synced first: a power cut must
    /// never tear a segment that has a successor.
    pub(crate) fn roll(&mut self) -> io::Result<()> {
        let base = self.end();
        let file = self.active()?;
        self.disk.sync(file.file()).inspect_err(|_| self.suspect = true)?;
        self.producers.save(&self.dir, base)?;
        let path = path_of(&self.dir, base);
        let fresh = self.files.open_log(&path)?;
        self.disk.set_len(fresh.file(), 0).and_then(|()| disk::sync_dir(&self.dir))?;
        self.keep_index();
        self.active = Some(fresh);
        self.list.push(Segment { base, path, index: Index::new(base) });
        self.durable = self.end_point();
        self.mark.set(&self.dir, &self.disk, self.durable);
        Producers::tidy(&self.dir, base);
        Ok(())
    }

    /// Writes the last segment's index beside it.
    fn keep_index(&mut self) {
        let at = self.list.len() - 1;
        let closed = &mut self.list[at];
        if let Err(fault) = closed.index.save(&closed.path) {
            tracing::debug!(path = %closed.path.display(), %fault, "no index beside the segment; a start will scan it");
        }
    }

    pub(crate) fn flush_plan(&mut self) -> io::Result<FlushPlan> {
        Ok(FlushPlan { file: self.active()?, disk: self.disk.clone(), until: self.end_point() })
    }

    /// Notes that a plan has been synced.
    pub(crate) fn flushed(&mut self, plan: &FlushPlan) {
        // The log may have been rolled meanwhile, which has gone further.
        if plan.until.offset > self.durable.offset {
            self.durable = plan.until;
        }
        if self.mark.point().is_none_or(|point| point.offset < plan.until.offset) {
            self.mark.set(&self.dir, &self.disk, plan.until);
        }
    }

    /// Goes back to the last durable point after a flush has failed: the page cache cannot be trusted any more.
    pub(crate) fn cut_to_durable(&mut self) -> Result<(), BrokerError> {
        let durable = self.durable;
        self.active = None;
        for segment in self.list.iter().filter(|segment| segment.base > durable.segment) {
            disk::remove(&segment.path).map_err(|fault| BrokerError::io("remove", &segment.path, fault))?;
        }
        let path = path_of(&self.dir, durable.segment);
        let file = disk::open_log(&path).map_err(|fault| BrokerError::io("open", &path, fault))?;
        let cut = self.disk.set_len(&file, durable.position).and_then(|()| self.disk.sync(&file));
        cut.map_err(|fault| BrokerError::io("cut back", &path, fault))?;
        let start = self.start;
        *self = Self::open(&self.dir, self.disk.clone(), self.files.clone())?;
        self.start = start;
        Ok(())
    }

    /// What a clean stop leaves behind, so that the next start need not read the log.
    pub(crate) fn save(&mut self) {
        self.active = None;
        self.keep_index();
        if let Err(fault) = self.producers.save(&self.dir, self.end()) {
            tracing::warn!(dir = %self.dir.display(), %fault, "no snapshot was kept; the next start reads the log instead");
        }
    }

    /// Where `offset` is, bounded by what is durable; `None` when nothing at or after it is.
    pub(crate) fn locate(&self, offset: i64) -> io::Result<Option<Extent>> {
        if offset >= self.durable.offset {
            return Ok(None);
        }
        let at = self.list.partition_point(|segment| segment.index.next_offset <= offset);
        self.list.get(at).map_or(Ok(None), |segment| self.extent(segment, segment.index.of_offset(offset)))
    }

    /// Where the first record of at least `timestamp` may be, in the first such segment that begins at `after` or later; with the
    /// segment's end, to ask on from.
    pub(crate) fn locate_time(&self, timestamp: i64, after: i64) -> io::Result<Option<(Extent, i64)>> {
        let start = self.start;
        let holds = |s: &&Segment| s.base >= after && s.index.size > 0 && s.index.next_offset > start && s.index.max_timestamp >= timestamp;
        let Some(segment) = self.list.iter().find(holds) else { return Ok(None) };
        let extent = self.extent(segment, segment.index.of_time(timestamp))?;
        Ok(extent.map(|extent| (extent, segment.index.next_offset)))
    }

    /// The batch with the largest timestamp.
    pub(crate) fn locate_max_time(&self) -> io::Result<Option<Extent>> {
        let kept = self.list.iter().filter(|s| s.index.max_timestamp >= 0 && s.index.next_offset > self.start);
        let Some(latest) = kept.rev().max_by_key(|segment| segment.index.max_timestamp) else { return Ok(None) };
        self.extent(latest, Lookup::Position(latest.index.max_position))
    }

    fn extent(&self, segment: &Segment, from: Lookup) -> io::Result<Option<Extent>> {
        let until = match segment.base.cmp(&self.durable.segment) {
            std::cmp::Ordering::Less => segment.index.size,
            std::cmp::Ordering::Equal => self.durable.position,
            std::cmp::Ordering::Greater => return Ok(None),
        };
        let file = match &self.active {
            Some(file) if segment.base == self.last().base => file.clone(),
            _ => self.files.open_read(&segment.path)?,
        };
        Ok(Some(Extent { file, path: segment.path.clone(), from, until }))
    }

    /// Moves the first offset, durably, and deletes the segments that lie before it.
    pub(crate) fn set_start(&mut self, offset: i64) -> Result<(), BrokerError> {
        open::write_start(&self.dir, offset)?;
        self.start = offset;
        self.delete_while(|_, segment| segment.index.next_offset <= offset);
        self.producers.forget_before(self.start);
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
        self.producers.forget_before(self.start);
    }
}
