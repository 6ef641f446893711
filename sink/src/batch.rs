//! Rows on their way to the database, and how far into the log they reach.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::message::{Message as _, OwnedMessage};

use crate::mapping::Unreadable;
use crate::point::Point;

/// Per topic and partition the offset after the last row.
pub(crate) type Offsets = BTreeMap<(String, i32), i64>;

/// A row for the dead lane.
#[derive(Debug)]
pub(crate) struct DeadRow {
    pub(crate) record: OwnedMessage,
    pub(crate) why: Unreadable,
}

#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) points: Vec<Point>,
    /// The record of each point: the database may refuse it, and then it goes into the dead lane whole.
    pub(crate) records: Vec<OwnedMessage>,
    pub(crate) dead: Vec<DeadRow>,
    pub(crate) offsets: Offsets,
    rows: usize,
    since: Option<Instant>,
}

impl Batch {
    pub(crate) fn push(&mut self, record: OwnedMessage, mapped: Result<Point, Unreadable>) {
        self.since.get_or_insert_with(Instant::now);
        self.rows += 1;
        let next = record.offset() + 1;
        match self.offsets.iter_mut().find(|((topic, partition), _)| *partition == record.partition() && topic == record.topic()) {
            Some((_, offset)) => *offset = next,
            None => drop(self.offsets.insert((record.topic().to_owned(), record.partition()), next)),
        }
        match mapped {
            Ok(point) => {
                self.points.push(point);
                self.records.push(record);
            }
            Err(why) => self.dead.push(DeadRow { record, why }),
        }
    }

    /// Rows since the batch began, those for the dead lane included.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// When the first row came.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Takes the points at `at` out, for the dead lane.
    pub(crate) fn reject(&mut self, rejected: impl IntoIterator<Item = (usize, Unreadable)>) {
        let mut reasons: BTreeMap<usize, Unreadable> = rejected.into_iter().collect();
        let (points, records) = (std::mem::take(&mut self.points), std::mem::take(&mut self.records));
        for (at, (point, record)) in points.into_iter().zip(records).enumerate() {
            match reasons.remove(&at) {
                Some(why) => self.dead.push(DeadRow { record, why }),
                None => {
                    self.points.push(point);
                    self.records.push(record);
                }
            }
        }
    }
}
