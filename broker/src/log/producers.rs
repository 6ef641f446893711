//! What a partition remembers of idempotent producers: enough to recognise a batch that comes twice.

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
const VERSION: u32 = 1;
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
    batches: VecDeque<Written>,
}

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Producers {
    known: HashMap<i64, Producer>,
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
            _ => Verdict::Next,
        }
    }

    /// Takes up a batch that is in the log; its header carries its final base offset.
    pub(crate) fn appended(&mut self, batch: &BatchHeader) {
        if batch.producer_id < 0 {
            return;
        }
        if self.known.len() >= MAX_PRODUCERS && !self.known.contains_key(&batch.producer_id) {
            self.forget_silent();
        }
        let producer = self.known.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            latest: batch.base_offset,
            batches: VecDeque::new(),
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        producer.latest = batch.base_offset;
        producer.batches.push_back(Written {
            first: batch.base_sequence,
            last: batch.last_sequence(),
            base_offset: batch.base_offset,
            next_offset: batch.next_offset(),
        });
    }

    /// Drops the half that has been silent longest.
    fn forget_silent(&mut self) {
        let mut latest: Vec<i64> = self.known.values().map(|p| p.latest).collect();
        let middle = latest.len() / 2;
        let (_, &mut median, _) = latest.select_nth_unstable(middle);
        self.known.retain(|_, producer| producer.latest > median);
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

    fn header(epoch: i16, sequence: i32, records: i32, offset: i64) -> BatchHeader {
        let bytes = batch(&Spec { records, producer: (7, epoch, sequence), ..Spec::default() });
        let mut header = BatchHeader::parse(&bytes).unwrap();
        header.base_offset = offset;
        header
    }

    #[test]
    fn sequences_are_judged_as_kafka_does() {
        let mut state = Producers::default();
        assert_eq!(state.judge(&header(0, 40, 2, 0)), Verdict::Next, "unknown: any first sequence");
        state.appended(&header(0, 40, 2, 0));
        assert_eq!(state.judge(&header(0, 42, 1, 0)), Verdict::Next);
        assert_eq!(state.judge(&header(0, 43, 1, 0)), Verdict::OutOfOrder);
        assert_eq!(state.judge(&header(0, 40, 2, 0)), Verdict::Duplicate { base_offset: 0, next_offset: 2 });
        assert_eq!(state.judge(&header(0, 40, 1, 0)), Verdict::OutOfOrder);
        assert_eq!(state.judge(&header(1, 5, 1, 0)), Verdict::OutOfOrder, "a new epoch begins at 0");
        assert_eq!(state.judge(&header(1, 0, 1, 0)), Verdict::Next);
        state.appended(&header(1, 0, 1, 2));
        assert_eq!(state.judge(&header(0, 42, 1, 0)), Verdict::OldEpoch);
    }

    #[test]
    fn five_batches_are_remembered_and_sequences_wrap() {
        let mut state = Producers::default();
        let start = i32::MAX - 2;
        for i in 0..7 {
            let next = header(0, wrap_sequence(start, i), 1, i64::from(i));
            assert_eq!(state.judge(&next), Verdict::Next, "{i}");
            state.appended(&next);
        }
        assert_eq!(state.judge(&header(0, wrap_sequence(start, 1), 1, 0)), Verdict::OutOfOrder);
        assert_eq!(state.judge(&header(0, wrap_sequence(start, 2), 1, 0)), Verdict::Duplicate { base_offset: 2, next_offset: 3 });
    }

    #[test]
    fn a_snapshot_survives_and_a_later_one_than_the_log_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = Producers::default();
        state.appended(&header(0, 0, 1, 0));
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
            state.appended(&next);
        }
        assert!(state.known.len() <= MAX_PRODUCERS);
        assert!(state.known.contains_key(&(MAX_PRODUCERS as i64 + 9)));
    }
}
