//! What a partition remembers of producers: enough to recognise a batch that comes twice, and which transactions are open here or
//! were aborted.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk;
use crate::batch::{BatchHeader, wrap_sequence};

/// As many batches as a client may have in flight with idempotence.
const REMEMBERED: usize = 5;
/// Producers beyond this number are forgotten, the longest silent first.
const MAX_PRODUCERS: usize = 10_000;
const VERSION: u32 = 2;
const EXTENSION: &str = "producers";

/// What a batch of an idempotent producer is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next one, or one of a producer without idempotence: append it.
    Next,
    /// Already in the log, at these offsets.
    Duplicate { base_offset: i64, next_offset: i64 },
    /// A gap: something sent before has not arrived.
    OutOfOrder,
    /// A newer incarnation of this producer has written here.
    OldEpoch,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    first: i32,
    last: i32,
    base_offset: i64,
    next_offset: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Producer {
    epoch: i16,
    /// Offset of its latest batch: tells how long it has been silent.
    latest: i64,
    /// Largest timestamp of its latest batch.
    timestamp: i64,
    /// Whether a transaction of it has ended here.
    #[serde(default)]
    has_ended: bool,
    batches: VecDeque<Written>,
}

/// An aborted transaction of one partition: `read_committed` leaves out its producer's records in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// Offset of the marker.
    pub(crate) last_offset: i64,
}

/// A producer as DescribeProducers shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) last_sequence: i32,
    pub(crate) last_timestamp: i64,
    /// Whether a transaction of it has ended here.
    pub(crate) has_ended: bool,
    /// First offset of its open transaction.
    pub(crate) open_since: Option<i64>,
}

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Producers {
    known: HashMap<i64, Producer>,
    /// Producer id -> first offset of its open transaction.
    open: HashMap<i64, i64>,
    /// By the offset of the marker.
    aborted: Vec<Aborted>,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    version: u32,
    producers: Producers,
}

impl Producers {
    /// Judges a batch before it is appended. A producer that is unknown here may begin at any sequence, as in Kafka.
    pub(crate) fn judge(&self, batch: &BatchHeader) -> Verdict {
        let Some(producer) = (batch.producer_id >= 0).then(|| self.known.get(&batch.producer_id)).flatten() else {
            return Verdict::Next;
        };
        if batch.producer_epoch < producer.epoch {
            return Verdict::OldEpoch;
        }
        if batch.producer_epoch > producer.epoch {
            return if batch.base_sequence == 0 { Verdict::Next } else { Verdict::OutOfOrder };
        }
        let last = batch.last_sequence();
        if let Some(w) = producer.batches.iter().find(|w| w.first == batch.base_sequence && w.last == last) {
            return Verdict::Duplicate { base_offset: w.base_offset, next_offset: w.next_offset };
        }
        match producer.batches.back() {
            Some(latest) if wrap_sequence(latest.last, 1) != batch.base_sequence => Verdict::OutOfOrder,
            // Nothing of this epoch yet: it was only named by a marker.
            None if batch.base_sequence != 0 && self.fenced(batch) => Verdict::OutOfOrder,
            _ => Verdict::Next,
        }
    }

    /// Whether a marker has begun this epoch here, so that its first batch must have sequence 0.
    fn fenced(&self, batch: &BatchHeader) -> bool {
        self.known.get(&batch.producer_id).is_some_and(|producer| producer.epoch == batch.producer_epoch && producer.batches.is_empty())
    }

    /// Takes up a batch that is in the log; its header carries its final base offset. `marker`: how a control batch ends its
    /// producer's transaction.
    pub(crate) fn appended(&mut self, batch: &BatchHeader, marker: Option<bool>) {
        if batch.producer_id < 0 {
            return;
        }
        if self.known.len() >= MAX_PRODUCERS && !self.known.contains_key(&batch.producer_id) {
            self.forget_silent();
        }
        let producer = self.known.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            latest: batch.base_offset,
            timestamp: batch.max_timestamp,
            has_ended: false,
            batches: VecDeque::new(),
        });
        // Only an administrator's marker can be of an older epoch.
        if producer.epoch < batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        producer.latest = batch.base_offset;
        producer.timestamp = batch.max_timestamp;
        if batch.is_control() {
            producer.has_ended = true;
            self.ended(batch, marker);
            return;
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Written {
            first: batch.base_sequence,
            last: batch.last_sequence(),
            base_offset: batch.base_offset,
            next_offset: batch.next_offset(),
        });
        if batch.is_transactional() {
            self.open.entry(batch.producer_id).or_insert(batch.base_offset);
        }
    }

    fn ended(&mut self, batch: &BatchHeader, commit: Option<bool>) {
        if let Some(first_offset) = self.open.remove(&batch.producer_id)
            && commit != Some(true)
        {
            self.aborted.push(Aborted { producer_id: batch.producer_id, first_offset, last_offset: batch.base_offset });
        }
    }

    /// First offset of the oldest open transaction.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.values().min().copied()
    }

    /// Producers with an open transaction here, with their epochs.
    pub(crate) fn open(&self) -> Vec<(i64, i16)> {
        self.open.keys().map(|id| (*id, self.known.get(id).map_or(0, |producer| producer.epoch))).collect()
    }

    /// Aborted transactions with something between `from` and `until`.
    pub(crate) fn aborted_in(&self, from: i64, until: i64) -> Vec<Aborted> {
        let after = self.aborted.partition_point(|aborted| aborted.last_offset < from);
        self.aborted[after..].iter().filter(|aborted| aborted.first_offset < until).copied().collect()
    }

    /// Forgets the aborted transactions that lie wholly before `start`.
    pub(crate) fn forget_before(&mut self, start: i64) {
        let gone = self.aborted.partition_point(|aborted| aborted.last_offset < start);
        self.aborted.drain(..gone);
    }

    pub(crate) fn described(&self) -> Vec<Described> {
        let one = |(id, producer): (&i64, &Producer)| Described {
            producer_id: *id,
            epoch: producer.epoch,
            last_sequence: producer.batches.back().map_or(-1, |written| written.last),
            last_timestamp: producer.timestamp,
            has_ended: producer.has_ended,
            open_since: self.open.get(id).copied(),
        };
        let mut all: Vec<_> = self.known.iter().map(one).collect();
        all.sort_unstable_by_key(|one| one.producer_id);
        all
    }

    /// Drops the half that has been silent longest.
    fn forget_silent(&mut self) {
        let mut latest: Vec<i64> = self.known.values().map(|p| p.latest).collect();
        let middle = latest.len() / 2;
        let (_, &mut median, _) = latest.select_nth_unstable(middle);
        self.known.retain(|id, producer| producer.latest > median || self.open.contains_key(id));
    }

    /// Keeps the state as of `offset`, so that a start need not read the log before it.
    pub(crate) fn save(&self, dir: &Path, offset: i64) -> io::Result<()> {
        let text = serde_json::to_vec(&Snapshot { version: VERSION, producers: self.clone() })?;
        disk::replace(&dir.join(format!("{offset:020}.{EXTENSION}")), &text)
    }

    /// The newest readable snapshot at or before `end`, with its offset.
    pub(crate) fn load(dir: &Path, end: i64) -> Option<(i64, Self)> {
        let mut found = snapshots(dir);
        found.sort_unstable_by_key(|(offset, _)| std::cmp::Reverse(*offset));
        found.into_iter().filter(|(offset, _)| *offset <= end).find_map(|(offset, path)| {
            let snapshot: Snapshot = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            (snapshot.version == VERSION).then_some((offset, snapshot.producers))
        })
    }

    /// Removes the snapshots that are of no more use: all but the newest two, and those after `end`.
    pub(crate) fn tidy(dir: &Path, end: i64) {
        let mut found = snapshots(dir);
        found.sort_unstable_by_key(|(offset, _)| std::cmp::Reverse(*offset));
        let (valid, future): (Vec<_>, Vec<_>) = found.into_iter().partition(|(offset, _)| *offset <= end);
        for (_, path) in valid.into_iter().skip(2).chain(future) {
            if let Err(fault) = disk::remove(&path) {
                tracing::warn!(path = %path.display(), %fault, "an old producer snapshot stays");
            }
        }
    }
}

fn snapshots(dir: &Path) -> Vec<(i64, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == EXTENSION))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path)))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::batch::fixture::{Spec, batch};
    use crate::batch::marker;

    fn header_of(bytes: &[u8], offset: i64) -> BatchHeader {
        BatchHeader { base_offset: offset, ..BatchHeader::parse(bytes).unwrap() }
    }

    fn header(epoch: i16, sequence: i32, records: i32, offset: i64) -> BatchHeader {
        header_of(&batch(&Spec { records, producer: (7, epoch, sequence), ..Spec::default() }), offset)
    }

    fn transactional(id: i64, epoch: i16, sequence: i32, offset: i64) -> BatchHeader {
        header_of(&batch(&Spec { producer: (id, epoch, sequence), transactional: true, ..Spec::default() }), offset)
    }

    #[test]
    fn sequences_are_judged_as_kafka_does() {
        let mut state = Producers::default();
        assert_eq!(state.judge(&header(0, 40, 2, 0)), Verdict::Next, "unknown: any first sequence");
        state.appended(&header(0, 40, 2, 0), None);
        assert_eq!(state.judge(&header(0, 42, 1, 0)), Verdict::Next);
        assert_eq!(state.judge(&header(0, 43, 1, 0)), Verdict::OutOfOrder);
        assert_eq!(state.judge(&header(0, 40, 2, 0)), Verdict::Duplicate { base_offset: 0, next_offset: 2 });
        assert_eq!(state.judge(&header(0, 40, 1, 0)), Verdict::OutOfOrder);
        assert_eq!(state.judge(&header(1, 5, 1, 0)), Verdict::OutOfOrder, "a new epoch begins at 0");
        assert_eq!(state.judge(&header(1, 0, 1, 0)), Verdict::Next);
        state.appended(&header(1, 0, 1, 2), None);
        assert_eq!(state.judge(&header(0, 42, 1, 0)), Verdict::OldEpoch);
    }

    #[test]
    fn transactions_open_end_and_are_listed() {
        let mut state = Producers::default();
        state.appended(&transactional(1, 0, 0, 10), None);
        state.appended(&transactional(2, 0, 0, 11), None);
        state.appended(&transactional(1, 0, 1, 12), None);
        assert_eq!(state.first_open(), Some(10));
        state.appended(&header_of(&marker(1, 0, false, 5), 13), Some(false));
        assert_eq!(state.first_open(), Some(11));
        state.appended(&header_of(&marker(2, 0, true, 5), 14), Some(true));
        assert_eq!(state.first_open(), None);
        let first = Aborted { producer_id: 1, first_offset: 10, last_offset: 13 };
        assert_eq!(state.aborted_in(0, 11), [first]);
        assert_eq!(state.aborted_in(13, 20), [first]);
        assert!(state.aborted_in(0, 10).is_empty() && state.aborted_in(14, 20).is_empty());
        assert_eq!(state.judge(&transactional(1, 0, 2, 0)), Verdict::Next, "the next transaction goes on counting");
        // A fence: the marker has the next epoch, whose first batch is number 0.
        state.appended(&header_of(&marker(1, 1, false, 5), 15), Some(false));
        assert_eq!(state.judge(&transactional(1, 0, 2, 0)), Verdict::OldEpoch);
        assert_eq!(state.judge(&transactional(1, 1, 2, 0)), Verdict::OutOfOrder);
        assert_eq!(state.judge(&transactional(1, 1, 0, 0)), Verdict::Next);
        state.forget_before(14);
        assert!(state.aborted_in(0, 100).is_empty());
    }

    #[test]
    fn five_batches_are_remembered_and_sequences_wrap() {
        let mut state = Producers::default();
        let start = i32::MAX - 2;
        for i in 0..7 {
            let next = header(0, wrap_sequence(start, i), 1, i64::from(i));
            assert_eq!(state.judge(&next), Verdict::Next, "{i}");
            state.appended(&next, None);
        }
        assert_eq!(state.judge(&header(0, wrap_sequence(start, 1), 1, 0)), Verdict::OutOfOrder);
        assert_eq!(state.judge(&header(0, wrap_sequence(start, 2), 1, 0)), Verdict::Duplicate { base_offset: 2, next_offset: 3 });
    }

    #[test]
    fn a_snapshot_survives_and_a_later_one_than_the_log_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = Producers::default();
        state.appended(&header(0, 0, 1, 0), None);
        state.appended(&transactional(9, 0, 0, 1), None);
        state.save(dir.path(), 10).unwrap();
        Producers::default().save(dir.path(), 20).unwrap();
        assert_eq!(Producers::load(dir.path(), 15), Some((10, state)));
        Producers::tidy(dir.path(), 15);
        assert_eq!(Producers::load(dir.path(), 99).unwrap().0, 10);
    }

    #[test]
    fn memory_is_bounded() {
        let mut state = Producers::default();
        for id in 0..(MAX_PRODUCERS as i64 + 10) {
            let mut next = header(0, 0, 1, id);
            next.producer_id = id;
            state.appended(&next, None);
        }
        assert!(state.known.len() <= MAX_PRODUCERS);
        assert!(state.known.contains_key(&(MAX_PRODUCERS as i64 + 9)));
    }
}
