//! A partition of the input read once more from where the log begins.

use std::sync::Arc;
use std::time::Duration;

use common::Settings;
use rdkafka::Message as _;

use super::error::TaskError;
use super::owner::Owner;
use super::records::Records;
use super::scan::PartitionReader;
use crate::query::StreamQuery;

/// Records and bytes that are decoded at once.
const ROWS: usize = 20_000;
const BYTES: usize = 32 * 1024 * 1024;

pub(crate) struct History {
    reader: PartitionReader,
    records: Records,
}

impl History {
    /// Begins to read `partition` of the query's input, no further than to `end`.
    pub(crate) fn open(settings: &Settings, query: &StreamQuery, partition: i32, end: i64, owner: &Owner) -> Result<Self, TaskError> {
        let topic: Arc<str> = query.file.source.topic.as_str().into();
        let reader = PartitionReader::open(settings, &topic, partition, owner)?.until(end);
        Ok(Self { reader, records: Records::new(&topic, partition) })
    }

    /// The first offset that the log still has.
    pub(crate) fn first(&self) -> i64 {
        self.reader.first()
    }

    /// The next records, none at or beyond `stop`; `None` when there are no more before it.
    pub(crate) fn next(&mut self, stop: i64, owner: &Owner) -> Result<Option<&Records>, TaskError> {
        self.records.clear();
        while self.reader.position() < stop && self.records.len() < ROWS && self.records.bytes() < BYTES {
            let Some(message) = self.reader.next(Duration::from_millis(100), owner)? else { break };
            let timestamp = message.timestamp().to_millis().unwrap_or(-1);
            self.records.push(message.offset(), timestamp, message.key(), message.payload());
        }
        Ok((self.records.len() > 0).then_some(&self.records))
    }
}
