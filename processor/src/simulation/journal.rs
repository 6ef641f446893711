//! The journal of a shard in memory: the real records, judged by the real reader.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use std::collections::VecDeque;
use std::sync::Arc;

use super::query::Query;
use crate::engine::{Engine, Entry, Progress, codec};
use crate::task::journal::{Piece, Record, Replay, fence};

#[derive(Debug, Default)]
pub(super) struct Journal {
    /// All that was ever written, also what is deleted.
    records: Vec<Vec<u8>>,
    first: usize,
    /// Somebody who follows the journal until it is time to take over.
    standby: Option<Replay>,
}

pub(super) enum Append {
    Whole,
    /// Torn, or somebody else wrote in between.
    Lost,
}

impl Journal {
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// As it was written.
    pub(super) fn record(&self, offset: usize) -> Option<&[u8]> {
        self.records.get(offset).map(Vec::as_slice)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    fn push(&mut self, record: Vec<u8>) -> i64 {
        self.records.push(record);
        i64::try_from(self.records.len() - 1).unwrap()
    }

    /// Gives its offset, the new owner's epoch.
    pub(super) fn fence(&mut self) -> i64 {
        self.push(fence())
    }

    pub(super) fn is_fenced(&self, epoch: i64) -> bool {
        let after = &self.records[usize::try_from(epoch).unwrap() + 1..];
        after.iter().any(|record| Record::parse(record) == Ok(Record::Fence))
    }

    pub(super) fn cut(&mut self, first: usize) {
        self.first = self.first.max(first);
    }

    /// Appends an entry in pieces. `torn`: its writer dies before the last one; `rival`: somebody takes over in between.
    pub(super) fn append(
        &mut self,
        (epoch, last): (i64, &mut i64),
        snapshot: bool,
        bytes: &[u8],
        random: &mut ChaCha8Rng,
        (torn, rival): (bool, bool),
    ) -> Append {
        let pieces: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(random.random_range(1..=3))).collect();
        let count = u32::try_from(pieces.len()).unwrap();
        let interrupted = random.random_range(0..pieces.len());
        for (piece, bytes) in pieces.iter().enumerate() {
            if piece == interrupted && rival {
                self.fence();
            }
            if piece == interrupted && torn {
                return Append::Lost;
            }
            let piece = u32::try_from(piece).unwrap();
            let offset = self.push(Piece { snapshot, epoch, piece, pieces: count, bytes }.to_bytes());
            if offset != *last + 1 {
                return Append::Lost;
            }
            *last = offset;
        }
        Append::Whole
    }

    /// What a former owner writes before it knows; it may be cut off, too.
    pub(super) fn stale(&mut self, epoch: i64, bytes: &[u8], random: &mut ChaCha8Rng) {
        let pieces = random.random_range(1..=2);
        let snapshot = random.random_bool(0.5);
        self.push(Piece { snapshot, epoch, piece: 0, pieces, bytes }.to_bytes());
    }

    fn begin(query: &Query, partitions: impl Iterator<Item = i32>, first: usize) -> Replay {
        let engine = Engine::new(Arc::clone(&query.compiled), partitions);
        Replay::new(Arc::clone(&query.compiled), engine, "journal".to_owned(), i64::try_from(first).unwrap())
    }

    /// Whoever follows the journal comes a random way further, or begins. What it has missed may have been cut meanwhile.
    pub(super) fn follow(&mut self, query: &Query, partitions: impl Iterator<Item = i32>, random: &mut ChaCha8Rng) {
        if random.random_bool(0.6) {
            return;
        }
        let standby = self.standby.take().unwrap_or_else(|| Self::begin(query, partitions, self.first));
        let next = usize::try_from(standby.next()).unwrap();
        let end = random.random_range(next.min(self.records.len())..=self.records.len());
        self.standby = Some(self.read(standby, end));
    }

    fn read(&self, mut replay: Replay, end: usize) -> Replay {
        for offset in usize::try_from(replay.next()).unwrap().max(self.first)..end {
            let taken = replay.record(i64::try_from(offset).unwrap(), &self.records[offset]);
            taken.unwrap_or_else(|error| panic!("{error}"));
        }
        replay
    }

    /// The state up to `epoch`, and the newest entries, which are not in it yet; from where a standby stands, when there is one.
    pub(super) fn restore(&mut self, query: &Query, partitions: impl Iterator<Item = i32>, epoch: i64) -> (Engine, VecDeque<Entry>) {
        let replay = self.standby.take().unwrap_or_else(|| Self::begin(query, partitions, self.first));
        let replay = self.read(replay, usize::try_from(epoch).unwrap() + 1);
        let restored = replay.end().unwrap_or_else(|error| panic!("{error}"));
        (restored.engine, restored.newest)
    }

    /// The decisions of the wall clock that count, by the rule as it is written, over all that was ever written.
    pub(super) fn decisions(&self, query: &Query) -> Vec<Progress> {
        let (mut epoch, mut pieces, mut all) = (-1, Vec::new(), Vec::new());
        for (offset, record) in self.records.iter().enumerate() {
            match Record::parse(record).unwrap() {
                Record::Fence => {
                    epoch = i64::try_from(offset).unwrap();
                    pieces.clear();
                }
                Record::Piece(piece) if piece.epoch == epoch => {
                    pieces.extend_from_slice(piece.bytes);
                    if piece.piece + 1 == piece.pieces {
                        let entry = codec::decode(&query.compiled, &std::mem::take(&mut pieces)).unwrap();
                        all.extend(entry.progress.into_iter().filter(|progress| !entry.snapshot && progress.from == progress.to));
                    }
                }
                Record::Piece(_) => {}
            }
        }
        all
    }
}
