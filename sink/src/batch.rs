//! Rows on their way to the database, and how far into the log they reach.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use common::headers::{self, Native};
use rdkafka::message::{Message, OwnedMessage};

use crate::ahead::Draft;
use crate::mapping::Unreadable;
use crate::point::Point;
use crate::records::Records;

/// Per topic and partition the offset after the last row.
pub(crate) type Offsets = BTreeMap<(String, i32), i64>;

/// A row for the dead lane.
#[derive(Debug)]
pub(crate) struct DeadRow {
    pub(crate) record: OwnedMessage,
    pub(crate) why: Unreadable,
}

impl DeadRow {
    /// Of its key, its value and its headers.
    fn bytes(&self) -> usize {
        let headers = headers::raw(&self.record).map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum::<usize>();
        let parts = [self.record.key(), self.record.payload()].into_iter().flatten();
        parts.map(<[u8]>::len).sum::<usize>() + headers
    }
}

#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) points: Vec<Point>,
    /// The record of each point: the database may refuse it, and then it goes into the dead lane whole.
    records: Records,
    pub(crate) dead: Vec<DeadRow>,
    /// Of the records that came as dead rows.
    dead_bytes: usize,
    pub(crate) offsets: Offsets,
    rows: usize,
    /// Pieces of `points` that are still to be written, the next one last.
    pub(crate) pieces: Vec<Range<usize>>,
    /// The points have their types, and their series are admitted.
    pub(crate) admitted: bool,
    /// The bytes of all `points`, when they are made already.
    pub(crate) prepared: Option<Draft>,
    /// The reading thread has done for it what it can.
    pub(crate) looked_at: bool,
    since: Option<Instant>,
}

impl Batch {
    /// Takes a record in; `detach` makes a copy of it when it belongs into the dead lane.
    pub(crate) fn push<M: Message<Headers: Native>>(
        &mut self,
        record: &M,
        detach: impl FnOnce(&M) -> OwnedMessage,
        mapped: Result<Point, Unreadable>,
    ) {
        self.since.get_or_insert_with(Instant::now);
        self.rows += 1;
        self.reach(record);
        (self.admitted, self.prepared, self.looked_at) = (false, None, false);
        match mapped {
            Ok(point) => {
                self.points.push(point);
                self.records.push(record);
            }
            Err(why) => {
                let row = DeadRow { record: detach(record), why };
                self.dead_bytes += row.bytes();
                self.dead.push(row);
            }
        }
    }

    fn reach<M: Message>(&mut self, record: &M) {
        let next = record.offset() + 1;
        match self.offsets.iter_mut().find(|((topic, partition), _)| *partition == record.partition() && topic == record.topic()) {
            Some((_, offset)) => *offset = next,
            None => drop(self.offsets.insert((record.topic().to_owned(), record.partition()), next)),
        }
    }

    /// Rows since the batch began, those for the dead lane included.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the records, those for the dead lane included.
    pub(crate) fn bytes(&self) -> usize {
        self.records.bytes() + self.dead_bytes
    }

    /// When the first row came.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Takes the points at `at` out, for the dead lane.
    pub(crate) fn reject(&mut self, rejected: impl IntoIterator<Item = (usize, Unreadable)>) {
        let reasons: BTreeMap<usize, Unreadable> = rejected.into_iter().collect();
        self.prepared = None;
        let moved = |at: usize| at - reasons.range(..at).count();
        for piece in &mut self.pieces {
            *piece = moved(piece.start)..moved(piece.end);
        }
        let mut at = 0;
        self.points.retain(|_| {
            at += 1;
            !reasons.contains_key(&(at - 1))
        });
        let refused: Vec<Option<OwnedMessage>> = reasons.keys().map(|at| self.records.get(*at)).collect();
        self.records.retain(|at| !reasons.contains_key(&at));
        let dead = refused.into_iter().zip(reasons.into_values());
        self.dead.extend(dead.filter_map(|(record, why)| Some(DeadRow { record: record?, why })));
    }
}
