//! The reader's side: which records count, and what state they give.
//!
//! A restore can stop anywhere and go on later. An owner's goes to its fence without a pause; a standby's goes as far as the journal goes, and
//! whoever takes the shard over goes on from there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use common::Settings;
use common::aside::EndsAside;
use common::client_log::Quiet;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::super::consumer::{of_journals, range};
use super::super::error::TaskError;
use super::super::owner::Owner;
use super::super::points::Point;
use super::super::worker::Shard;
use super::pieces::Pieces;
use crate::engine::{Engine, Entry, codec};
use crate::query::StreamQuery;

/// So many of the newest entries may have results that are not delivered: an owner appends while those of the entry before are on their way.
const GIVEN_AGAIN: usize = 2;

/// What a restore leaves to its owner.
pub(crate) struct Restored {
    pub(crate) engine: Engine,
    /// The newest entries, up to [`GIVEN_AGAIN`] of them and *not* applied: their results may not have been delivered.
    pub(crate) newest: VecDeque<Entry>,
    /// Bytes of entries since the newest snapshot.
    pub(crate) bytes: u64,
    /// Those of the newest snapshot.
    pub(crate) snapshot_bytes: u64,
    /// Where it begins.
    pub(crate) snapshot_at: Option<i64>,
    /// Bytes of records that were read once the shard was the owner's.
    pub(crate) read: u64,
}

/// What a look at the journal has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A record of so many bytes, and whether an entry is complete with it.
    Read {
        bytes: u64,
        entry: bool,
    },
    /// Nothing more is there.
    AtEnd,
    Nothing,
}

/// A journal partition on its way into a state.
pub(crate) struct Restoring {
    topic: String,
    partition: i32,
    consumer: EndsAside<BaseConsumer<Quiet>>,
    replay: Replay,
}

impl Restoring {
    /// Begins where the journal begins.
    pub(crate) fn open(settings: &Settings, query: &Arc<StreamQuery>, shard: &Shard, owner: &Owner) -> Result<Self, TaskError> {
        let (topic, partition) = (common::topics::journal(&query.file.name), shard.journal_partition);
        let mut config = of_journals(settings, "processor-restore", format!("tidemark.journal.{}", query.file.name));
        config.set("enable.partition.eof", "true");
        let consumer: EndsAside<BaseConsumer<Quiet>> = config.create_with_context(Quiet).map(EndsAside::new)?;
        let (first, _end) = range(&consumer, &topic, partition, owner)?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, partition, Offset::Offset(first))?;
        consumer.assign(&from)?;
        let engine = Engine::new(Arc::clone(query), shard.input_partitions.iter().copied());
        let replay = Replay::new(Arc::clone(query), engine, format!("{topic}-{partition}"), first);
        Ok(Self { topic, partition, consumer, replay })
    }

    pub(crate) fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Reads the next record before `end`, if it comes in time.
    pub(crate) fn turn(&mut self, end: i64, patience: Duration) -> Result<Turn, TaskError> {
        match self.consumer.poll(patience) {
            None => Ok(Turn::Nothing),
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Turn::AtEnd),
            Some(Err(error)) => {
                tracing::debug!(%error, topic = self.topic, partition = self.partition, "waiting for the journal");
                Ok(Turn::Nothing)
            }
            Some(Ok(message)) if message.offset() >= end => Err(TaskError::Fenced),
            Some(Ok(message)) => {
                let bytes = message.payload().unwrap_or_default();
                Ok(Turn::Read { bytes: bytes.len() as u64, entry: self.replay.record(message.offset(), bytes)? })
            }
        }
    }

    /// Goes on up to the fence at `epoch`.
    pub(crate) fn finish(mut self, epoch: i64, owner: &Owner) -> Result<Restored, TaskError> {
        // Whoever cut the journal beyond our fence is its owner.
        if !self.replay.leads_to(epoch) {
            return Err(TaskError::Fenced);
        }
        let mut read = 0;
        while self.replay.next() <= epoch {
            // Nothing is in flight yet: a stop need not wait.
            if owner.stop.is_set() {
                return Err(TaskError::Stopped);
            }
            owner.beat();
            if let Turn::Read { bytes, entry } = self.turn(epoch + 1, Duration::from_millis(100))? {
                read += bytes;
                if entry {
                    owner.at(Point::MidRestore);
                }
            }
        }
        Ok(Restored { read, ..self.replay.end()? })
    }
}

/// Restores a shard up to its owner's fence at `epoch`: from where a standby stands, or from the beginning of the journal.
pub(crate) fn restore(
    settings: &Settings,
    query: &Arc<StreamQuery>,
    shard: &Shard,
    epoch: i64,
    standby: Option<Restoring>,
    owner: &Owner,
) -> Result<Restored, TaskError> {
    // One that does not lead to the fence has read a journal that is there no more.
    if let Some(standby) = standby.filter(|standby| standby.replay.leads_to(epoch)) {
        match standby.finish(epoch, owner) {
            // It is only a copy: the journal itself tells whether something is wrong with it.
            Err(TaskError::Fatal(cause)) => {
                tracing::warn!(query = query.file.name, shard = shard.journal_partition, cause, "the standby copy is of no use");
            }
            finished => return finished,
        }
    }
    Restoring::open(settings, query, shard, owner)?.finish(epoch, owner)
}

/// Puts the entries that count into an engine, in order. It reads from nowhere, so that a simulation can feed it.
#[derive(Debug)]
pub(crate) struct Replay {
    query: Arc<StreamQuery>,
    engine: Engine,
    place: String,
    pieces: Pieces,
    /// The offset that comes next. Another one says that the journal was cut in between.
    next: i64,
    /// A snapshot is the only one.
    newest: VecDeque<Entry>,
    bytes: u64,
    snapshot_bytes: u64,
    snapshot_at: Option<i64>,
    /// Why an entry could not be read. It does not matter when a later snapshot begins the state anew.
    fault: Option<TaskError>,
}

impl Replay {
    /// `place` is for messages, `first` the first offset that the journal has.
    pub(crate) fn new(query: Arc<StreamQuery>, engine: Engine, place: String, first: i64) -> Self {
        let pieces = Pieces::new(&query.file.name, place.clone(), first);
        let newest = VecDeque::new();
        Self { query, engine, place, pieces, next: first, newest, bytes: 0, snapshot_bytes: 0, snapshot_at: None, fault: None }
    }

    /// The offset of the record that it wants next.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Whether the fence at `epoch` is still to come, or was the last record.
    fn leads_to(&self, epoch: i64) -> bool {
        self.next <= epoch || (self.next == epoch + 1 && self.pieces.epoch() == Some(epoch))
    }

    /// What the state takes at most, with the entries that wait.
    pub(crate) fn state_bytes(&self) -> u64 {
        let before = self.engine.state_bytes();
        self.newest.iter().fold(before, |bytes, entry| bytes.saturating_add(self.engine.bytes_with(entry)).saturating_sub(before))
    }

    /// The groups at most, with those of the entries that wait.
    pub(crate) fn state_rows(&self) -> u64 {
        let before = self.engine.state_rows();
        self.newest.iter().fold(before, |rows, entry| (rows + self.engine.rows_with(entry)).saturating_sub(before))
    }

    pub(crate) fn end(self) -> Result<Restored, TaskError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => {
                let Self { engine, newest, bytes, snapshot_bytes, snapshot_at, .. } = self;
                Ok(Restored { engine, newest, bytes, snapshot_bytes, snapshot_at, read: 0 })
            }
        }
    }

    /// Takes the next record; whether an entry that counts is complete with it.
    pub(crate) fn record(&mut self, offset: i64, bytes: &[u8]) -> Result<bool, TaskError> {
        if offset != self.next {
            self.begin_anew(offset);
        }
        self.next = offset + 1;
        let Some(bytes) = self.pieces.record(offset, bytes)? else { return Ok(false) };
        let entry = match codec::decode(&self.query, &bytes) {
            Ok(entry) => entry,
            Err(error) => {
                self.fault = Some(self.pieces.damaged(offset, &error.to_string()));
                return Ok(false);
            }
        };
        if entry.snapshot {
            self.fault = None;
            self.snapshot_at = Some(self.pieces.begun());
        } else if self.fault.is_some() {
            return Ok(false);
        }
        let length = bytes.len() as u64;
        (self.bytes, self.snapshot_bytes) = if entry.snapshot { (0, length) } else { (self.bytes + length, self.snapshot_bytes) };
        // A snapshot has no results, and neither it nor what comes after it needs those before.
        let kept = if entry.snapshot || self.newest.front().is_some_and(|oldest| oldest.snapshot) { 0 } else { GIVEN_AGAIN - 1 };
        while self.newest.len() > kept
            && let Some(before) = self.newest.pop_front()
        {
            self.engine.absorb_quietly(&before)?;
        }
        if !entry.snapshot && !self.engine.follows_after(self.newest.iter(), &entry) {
            return Err(self.pieces.damaged(offset, "it does not go on where the entry before it ended"));
        }
        self.newest.push_back(entry);
        Ok(true)
    }

    /// The journal goes on at `offset`: what lay before it was deleted, fences too, so only a snapshot may come.
    fn begin_anew(&mut self, offset: i64) {
        let partitions: Vec<i32> = self.engine.partitions().keys().copied().collect();
        let engine = Engine::new(Arc::clone(&self.query), partitions);
        *self = Self::new(Arc::clone(&self.query), engine, std::mem::take(&mut self.place), offset);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
