//! The reader's side: which records count, and what state they give.

use std::time::Duration;

use common::Settings;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::super::consumer::{Quiet, range};
use super::super::error::TaskError;
use super::super::owner::Owner;
use super::super::points::Point;
use super::pieces::Pieces;
use crate::engine::{Engine, Entry, codec};
use crate::query::StreamQuery;

/// What a restore leaves to its owner.
pub(crate) struct Restored {
    /// The newest entry, *not* applied: its results may not have been delivered.
    pub(crate) newest: Option<Entry>,
    /// Bytes of entries since the newest snapshot.
    pub(crate) bytes: u64,
    /// Those of the newest snapshot.
    pub(crate) snapshot_bytes: u64,
}

/// Reads the journal from its beginning up to the fence at `epoch` into `engine`.
pub(crate) fn restore(
    settings: &Settings,
    query: &StreamQuery,
    (topic, partition): (&str, i32),
    epoch: i64,
    engine: &mut Engine,
    owner: &Owner,
) -> Result<Restored, TaskError> {
    let mut config = common::kafka::client(&settings.kafka, "processor-restore");
    config
        .set("group.id", format!("tidemark.journal.{}", query.file.name))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", "16384")
        .set("check.crcs", "true");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
    let (first, _end) = range(&consumer, topic, partition, owner)?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Offset(first))?;
    consumer.assign(&from)?;

    let mut replay = Replay::new(query, engine, format!("{topic}-{partition}"), first, Some(owner));
    loop {
        // Nothing is in flight yet: a stop need not wait.
        if owner.stop.is_set() {
            return Err(TaskError::Stopped);
        }
        owner.beat();
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(error)) => tracing::debug!(%error, "waiting for the journal"),
            Some(Ok(message)) => {
                let offset = message.offset();
                if offset > epoch {
                    return Err(TaskError::Fenced);
                }
                replay.record(offset, message.payload().unwrap_or_default())?;
                if offset == epoch {
                    return replay.end();
                }
            }
        }
    }
}

/// Puts the entries that count into the engine, in order. It reads from nowhere, so that a simulation can feed it.
pub(crate) struct Replay<'a> {
    query: &'a StreamQuery,
    engine: &'a mut Engine,
    pieces: Pieces,
    newest: Option<Entry>,
    bytes: u64,
    snapshot_bytes: u64,
    owner: Option<&'a Owner>,
    /// Why an entry could not be read. It does not matter when a later snapshot begins the state anew.
    fault: Option<TaskError>,
}

impl<'a> Replay<'a> {
    /// `place` is for messages, `first` the first offset that the journal has.
    pub(crate) fn new(query: &'a StreamQuery, engine: &'a mut Engine, place: String, first: i64, owner: Option<&'a Owner>) -> Self {
        let pieces = Pieces::new(&query.file.name, place, first);
        Self { query, engine, pieces, newest: None, bytes: 0, snapshot_bytes: 0, owner, fault: None }
    }

    pub(crate) fn end(self) -> Result<Restored, TaskError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(Restored { newest: self.newest, bytes: self.bytes, snapshot_bytes: self.snapshot_bytes }),
        }
    }

    pub(crate) fn record(&mut self, offset: i64, bytes: &[u8]) -> Result<(), TaskError> {
        let Some(bytes) = self.pieces.record(offset, bytes)? else { return Ok(()) };
        let entry = match codec::decode(self.query, &bytes) {
            Ok(entry) => entry,
            Err(error) => {
                self.fault = Some(self.pieces.damaged(offset, &error.to_string()));
                return Ok(());
            }
        };
        if entry.snapshot {
            self.fault = None;
        } else if self.fault.is_some() {
            return Ok(());
        }
        let length = bytes.len() as u64;
        (self.bytes, self.snapshot_bytes) = if entry.snapshot { (0, length) } else { (self.bytes + length, self.snapshot_bytes) };
        if let Some(before) = self.newest.take() {
            self.engine.absorb_quietly(&before)?;
        }
        if !entry.snapshot && !self.engine.follows(&entry) {
            return Err(self.pieces.damaged(offset, "it does not go on where the entry before it ended"));
        }
        self.newest = Some(entry);
        if let Some(owner) = self.owner {
            owner.at(Point::MidRestore);
        }
        Ok(())
    }
}
