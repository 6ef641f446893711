//! The owner's side of a journal in a directory: a file for each entry, and a snapshot from time to time.

use std::sync::Arc;
use std::time::Instant;

use super::super::error::TaskError;
use super::super::journal::Log;
use super::super::owner::Owner;
use super::super::points::Point;
use super::{Checkpoint, MOST_ENTRIES, numbered, seal, write_whole};
use crate::engine::{Entry, codec};
use crate::query::StreamQuery;

pub(super) const ENTRY: u8 = 1;
pub(super) const SNAPSHOT: u8 = 2;

/// From so many entries on a snapshot is taken that is no larger than they are together.
const FEW_ENTRIES: u64 = 100;

pub(super) fn name(kind: u8, number: i64) -> String {
    format!("versions/{}{}", numbered(number), if kind == SNAPSHOT { ".snapshot" } else { ".entry" })
}

/// A journal whose entries are files with consecutive numbers.
#[derive(Debug)]
pub(crate) struct Directory {
    checkpoint: Arc<Checkpoint>,
    /// Number of the newest entry; -1 before the first.
    last: i64,
    written: Instant,
    /// Entries since the newest snapshot, and their bytes.
    entries: u64,
    bytes: u64,
    snapshot_bytes: u64,
    /// Whether this owner has written what its query is.
    described: bool,
}

impl Directory {
    /// Goes on behind the entry `last`, with so many bytes of entries since the newest snapshot.
    pub(crate) fn new(checkpoint: Arc<Checkpoint>, last: i64, entries: u64, bytes: u64) -> Self {
        Self { checkpoint, last, written: Instant::now(), entries, bytes, snapshot_bytes: 0, described: false }
    }

    fn write(&self, kind: u8, number: i64, bytes: &[u8]) -> Result<(), TaskError> {
        let name = name(kind, number);
        let written = write_whole(&self.checkpoint.file(&name), &seal(kind, number, bytes), self.checkpoint.is_durable());
        self.checkpoint.io(&name, written)
    }

    fn encode(query: &StreamQuery, entry: &Entry, described: bool) -> Result<Vec<u8>, TaskError> {
        codec::encode_with(query, entry, described).map_err(|error| TaskError::Fatal(format!("an entry cannot be written: {error}")))
    }

    /// Deletes what lies before the newest snapshot but one: with that and the entries since, the newest can be lost and nothing is.
    fn cut(&self) -> Result<(), TaskError> {
        let snapshots = self.checkpoint.numbers("versions", ".snapshot")?;
        let Some(keep) = snapshots.len().checked_sub(2).map(|place| snapshots[place]) else { return Ok(()) };
        for number in snapshots.into_iter().filter(|number| *number < keep) {
            self.checkpoint.remove(&name(SNAPSHOT, number))?;
        }
        for number in self.checkpoint.numbers("versions", ".entry")?.into_iter().filter(|number| *number <= keep) {
            self.checkpoint.remove(&name(ENTRY, number))?;
        }
        Ok(())
    }
}

impl Log for Directory {
    fn append(&mut self, query: &StreamQuery, entry: &Entry, _owner: &Owner) -> Result<u64, TaskError> {
        let described = !std::mem::replace(&mut self.described, true);
        let bytes = Self::encode(query, entry, described)?;
        let started = Instant::now();
        self.write(ENTRY, self.last + 1, &bytes)?;
        self.last += 1;
        self.written = started;
        self.entries += 1;
        self.bytes += bytes.len() as u64;
        Ok(bytes.len() as u64)
    }

    fn snapshot(&mut self, query: &StreamQuery, entry: &Entry, owner: &Owner) -> Result<(), TaskError> {
        let bytes = Self::encode(query, entry, true)?;
        self.write(SNAPSHOT, self.last, &bytes)?;
        owner.at(Point::AfterSnapshot);
        (self.entries, self.bytes, self.snapshot_bytes) = (0, 0, bytes.len() as u64);
        self.cut()?;
        owner.at(Point::AfterCut);
        Ok(())
    }

    fn wants_snapshot(&self, limit: u64) -> bool {
        let cheap = self.entries >= FEW_ENTRIES && self.bytes >= self.snapshot_bytes;
        self.bytes >= limit || cheap || self.entries >= MOST_ENTRIES
    }

    fn last(&self) -> i64 {
        self.last
    }

    fn written(&self) -> Instant {
        self.written
    }
}
