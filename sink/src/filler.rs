//! From records to the batch that fills while the one before it is written.

use std::sync::Arc;
use std::time::Instant;

use common::headers::{self, Native};
use rdkafka::message::{Message, OwnedMessage};

use crate::batch::Batch;
use crate::mapping::Mapper;
use crate::point::Place;
use crate::status::Status;

pub(crate) struct Filler {
    mapper: Mapper,
    /// Of the last record; there are few, and every point names its own.
    topic: Arc<str>,
    batch: Batch,
    status: Arc<Status>,
}

impl Filler {
    pub(crate) fn new(mapper: Mapper, status: Arc<Status>) -> Self {
        Self { mapper, topic: Arc::from(""), batch: Batch::default(), status }
    }

    /// Takes a record in; `detach` copies it when it must outlive its consumer.
    pub(crate) fn push<M: Message<Headers: Native>>(&mut self, record: &M, detach: impl FnOnce(&M) -> OwnedMessage) {
        let headers = headers::named(record).filter_map(|(name, value)| Some((name, value?)));
        let mut mapped = self.mapper.map(record.topic(), headers, record.payload());
        if let Ok(point) = &mut mapped {
            if *self.topic != *record.topic() {
                self.topic = Arc::from(record.topic());
            }
            point.place = Place { topic: Arc::clone(&self.topic), partition: record.partition(), offset: record.offset() };
        }
        self.batch.push(record, detach, mapped);
        self.status.waits_for(1);
        self.status.metrics.rows.inc();
    }

    pub(crate) fn rows(&self) -> usize {
        self.batch.rows()
    }

    /// Bytes of the records.
    pub(crate) fn bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Since when the oldest row waits.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.batch.since()
    }

    /// What fills, to be made ready for its write.
    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    pub(crate) fn take(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// Forgets rows whose partitions are somebody else's now, or that are read again.
    pub(crate) fn forget(&mut self) {
        let rows = self.take().rows();
        self.status.waits_no_more_for(rows);
    }
}
