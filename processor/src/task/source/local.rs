//! One partition with offsets of its own, over anything that gives records in an order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::error::TaskError;
use super::super::input::MAX_STEP_BYTES;
use super::super::owner::Owner;
use super::super::records::Records;
use super::{Filled, Source};
use crate::engine::Input;
use crate::format::decode::Decoder;
use crate::query::StreamQuery;

/// What a feed had to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulled {
    /// At least one record; more may be there.
    Some,
    /// Records, and the step must end behind them.
    Break,
    /// Nothing now.
    Nothing,
}

/// Gives records one after another. Their offsets begin at the position that the feed was opened with and leave none out.
pub(super) trait Feed {
    /// Appends up to `most` records. Waits for the first one up to `patience`.
    fn pull(&mut self, records: &mut Records, most: usize, patience: Duration) -> Result<Pulled, TaskError>;

    /// Whether everything is given that is there now.
    fn is_at_end(&mut self) -> bool;

    /// Whether a bounded run that has been given nothing has been given everything.
    fn is_spent(&self) -> bool {
        true
    }

    /// Whether the place of the records answers.
    fn is_away(&self) -> bool {
        false
    }

    /// Decodes the records that were pulled since the last [`Feed::clear`].
    fn decode(&self, records: &Records, decoder: &mut Decoder) -> Result<Input, TaskError>;

    /// Forgets what it knows of those records.
    fn clear(&mut self) {}

    /// Makes what it knows of the records last; an entry is about to count them.
    fn settle(&mut self) -> Result<(), TaskError> {
        Ok(())
    }

    /// The records before `position` are in the journal.
    fn committed(&mut self, position: i64) -> Result<(), TaskError> {
        let _ = position;
        Ok(())
    }
}

/// A source with one partition, number 0.
pub(crate) struct Local<F> {
    feed: F,
    records: Records,
    max_rows: usize,
    /// The next offset that a step has not taken.
    position: i64,
    since: Instant,
    /// The feed has said that the step ends here.
    broken: bool,
    drained: bool,
}

impl<F> Local<F> {
    pub(super) fn new(query: &StreamQuery, feed: F, position: Option<i64>, max_rows: usize) -> Self {
        let topic: Arc<str> = query.file.source.topic.as_str().into();
        Self {
            feed,
            records: Records::new(&topic, 0),
            max_rows,
            position: position.unwrap_or(0),
            since: Instant::now(),
            broken: false,
            drained: false,
        }
    }
}

impl<F: Feed> Source for Local<F> {
    fn fill(&mut self, patience: Duration, due: Option<Instant>, owner: &Owner) -> Result<Filled, TaskError> {
        if self.broken && self.records.len() > 0 {
            // The step is as large as it may be, and somebody waits for its tick.
            owner.stop.wait_timeout(patience);
            return Ok(Filled::Drained);
        }
        if self.records.len() == 0 {
            // Files without a row fill no step.
            self.feed.clear();
            self.broken = false;
        }
        let mut wait = patience;
        loop {
            if self.records.len() >= self.max_rows || self.records.bytes() >= MAX_STEP_BYTES {
                return Ok(Filled::Full);
            }
            if due.is_some_and(|due| Instant::now() >= due) || owner.stop.is_set() {
                return Ok(Filled::Due);
            }
            let room = self.max_rows - self.records.len();
            let pulled = self.feed.pull(&mut self.records, room, wait)?;
            self.drained = pulled == Pulled::Nothing;
            match pulled {
                Pulled::Some => wait = Duration::ZERO,
                Pulled::Break => {
                    self.broken = true;
                    return Ok(Filled::Drained);
                }
                Pulled::Nothing => return Ok(Filled::Drained),
            }
            owner.beat();
        }
    }

    fn rows(&self) -> usize {
        self.records.len()
    }

    fn taken(&self) -> Vec<&Records> {
        if self.records.len() == 0 { Vec::new() } else { vec![&self.records] }
    }

    fn decode(&self, records: &Records, decoder: &mut Decoder) -> Result<Input, TaskError> {
        self.feed.decode(records, decoder)
    }

    fn clear(&mut self) {
        if self.records.len() > 0 {
            self.position = self.records.get(self.records.len() - 1).offset + 1;
            self.since = Instant::now();
        }
        self.records.clear();
        self.feed.clear();
        self.broken = false;
    }

    fn settle(&mut self) -> Result<(), TaskError> {
        self.feed.settle()
    }

    fn committed(&mut self, positions: &BTreeMap<i32, i64>) -> Result<(), TaskError> {
        positions.get(&0).map_or(Ok(()), |position| self.feed.committed(*position))
    }

    fn is_done(&self) -> bool {
        self.drained && self.records.len() == 0 && self.feed.is_spent()
    }

    fn goal(&self) -> BTreeMap<i32, (i64, i64)> {
        BTreeMap::new()
    }

    fn ends_within(&self, _most: i64, _owner: &Owner) -> Result<BTreeMap<i32, i64>, TaskError> {
        Ok([(0, self.position)].into())
    }

    fn has_passed(&self, _partition: i32, target: i64) -> bool {
        self.position >= target
    }

    fn quiet(&self) -> Vec<(i32, bool, Duration)> {
        vec![(0, self.drained && self.records.len() == 0, self.since.elapsed())]
    }

    fn is_away(&self) -> bool {
        self.feed.is_away()
    }

    fn stands_at_end(&mut self, _partition: i32, offset: i64) -> bool {
        self.records.len() == 0 && offset == self.position && self.feed.is_at_end()
    }

    fn idle(&self, timeout: Duration) -> Vec<(i32, i64)> {
        let idle = self.drained && self.records.len() == 0 && self.since.elapsed() >= timeout;
        if idle { vec![(0, self.position)] } else { Vec::new() }
    }
}
