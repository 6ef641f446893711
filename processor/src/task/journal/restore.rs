//! The reader's side: which records count, and what state they give.

use std::time::Duration;

use common::Settings;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::super::consumer::{Quiet, range};
use super::super::error::TaskError;
use super::super::owner::Owner;
use super::super::points::Point;
use super::record::{Piece, Record};
use crate::engine::{Engine, Entry, codec};
use crate::query::StreamQuery;

/// What a restore leaves to its owner.
pub(crate) struct Restored {
    /// The newest entry, *not* applied: its results may not have been delivered.
    pub(crate) newest: Option<Entry>,
    /// Bytes of entries since the newest snapshot.
    pub(crate) bytes: u64,
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

    let mut replay = Replay {
        query,
        engine,
        place: format!("{topic}-{partition}"),
        epoch: None,
        pieces: Vec::new(),
        newest: None,
        cut: first > 0,
        bytes: 0,
        owner,
    };
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
                    return Ok(Restored { newest: replay.newest, bytes: replay.bytes });
                }
            }
        }
    }
}

/// Judges the records in order.
struct Replay<'a> {
    query: &'a StreamQuery,
    engine: &'a mut Engine,
    place: String,
    /// Of the newest fence; `None` before the first record that counts.
    epoch: Option<i64>,
    /// The entry that is coming in.
    pieces: Vec<u8>,
    newest: Option<Entry>,
    /// The journal does not begin at offset 0, and nothing of it has been read yet: it must go on with a snapshot.
    cut: bool,
    bytes: u64,
    owner: &'a Owner,
}

impl Replay<'_> {
    fn record(&mut self, offset: i64, bytes: &[u8]) -> Result<(), TaskError> {
        let record = Record::parse(bytes).map_err(|cause| self.damaged(offset, &cause))?;
        let begins = matches!(record, Record::Piece(piece) if piece.snapshot && piece.piece == 0);
        if std::mem::take(&mut self.cut) && !begins {
            return Err(self.damaged(offset, "its beginning is missing; was it deleted by hand or by retention?"));
        }
        match record {
            Record::Fence => {
                self.epoch = Some(offset);
                self.pieces.clear();
                Ok(())
            }
            Record::Piece(piece) => self.piece(offset, piece),
        }
    }

    fn piece(&mut self, offset: i64, piece: Piece<'_>) -> Result<(), TaskError> {
        match self.epoch {
            // What lies before a snapshot is deleted, its fence too; only an owner that was still one did that.
            None if piece.snapshot && piece.piece == 0 => self.epoch = Some(piece.epoch),
            None => return Err(self.damaged(offset, "its beginning is missing; was it deleted by hand or by retention?")),
            Some(epoch) if epoch != piece.epoch => return Ok(()),
            Some(_) => {}
        }
        if piece.piece == 0 {
            self.pieces.clear();
        }
        self.pieces.extend_from_slice(piece.bytes);
        if piece.piece + 1 < piece.pieces {
            return Ok(());
        }
        let length = self.pieces.len() as u64;
        let entry =
            codec::decode(self.query, &std::mem::take(&mut self.pieces)).map_err(|error| self.damaged(offset, &error.to_string()))?;
        self.bytes = if entry.snapshot { 0 } else { self.bytes + length };
        if let Some(before) = self.newest.take() {
            self.engine.absorb_quietly(&before)?;
        }
        if !entry.snapshot && !self.engine.follows(&entry) {
            return Err(self.damaged(offset, "it does not go on where the entry before it ended"));
        }
        self.newest = Some(entry);
        self.owner.at(Point::MidRestore);
        Ok(())
    }

    fn damaged(&self, offset: i64, cause: &str) -> TaskError {
        TaskError::Fatal(format!("the journal record {}@{offset} of query '{}' cannot be used: {cause}", self.place, self.query.file.name))
    }
}
