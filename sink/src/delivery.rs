//! From a batch to the database, and only then the offsets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::message::{Headers as _, Message, OwnedMessage};

use crate::SinkError;
use crate::backoff::Backoff;
use crate::batch::{Batch, Offsets};
use crate::dead::DeadLane;
use crate::mapping::{Mapper, Unreadable};
use crate::status::Status;
use crate::writer::{WriteError, Writer};

/// Where offsets are committed.
pub(crate) trait Committer {
    /// # Errors
    /// A sentence; the offsets are committed with the next batch instead. A failure may also show later, see [`Delivery::commit_again`].
    fn commit(&self, offsets: &Offsets) -> Result<(), String>;
}

/// How a delivery went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The batch is in the database.
    All,
    /// Nothing is lost, and nothing more should be read before this time is over.
    Waits(Duration),
}

/// What keeps a batch from being written, and how long to wait if the database said so.
struct Hindrance {
    detail: String,
    after: Option<Duration>,
}

/// Steps, in this order: dead rows acknowledged; points written; offsets committed. A crash between any two repeats rows, and never
/// loses one.
pub(crate) struct Delivery {
    writer: Box<dyn Writer>,
    lane: Box<dyn DeadLane>,
    mapper: Mapper,
    batch: Batch,
    /// How far the database holds each of our partitions.
    written: Offsets,
    /// Whether that is news to the log.
    uncommitted: bool,
    backoff: Backoff,
    status: Arc<Status>,
}

impl Delivery {
    pub(crate) fn new(writer: Box<dyn Writer>, lane: Box<dyn DeadLane>, status: Arc<Status>) -> Self {
        Self {
            writer,
            lane,
            mapper: Mapper::default(),
            batch: Batch::default(),
            written: Offsets::new(),
            uncommitted: false,
            backoff: Backoff::default(),
            status,
        }
    }

    /// Takes a record in; `detach` copies it when it must outlive its consumer.
    pub(crate) fn push<M: Message>(&mut self, record: &M, detach: impl FnOnce(&M) -> OwnedMessage) {
        let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
        let headers = headers.filter_map(|header| Some((header.key, header.value?)));
        let mapped = self.mapper.map(record.topic(), headers, record.payload());
        self.status.metrics.rows.inc();
        self.batch.push(record, detach, mapped);
    }

    pub(crate) fn rows(&self) -> usize {
        self.batch.rows()
    }

    /// Since when the oldest row waits.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.batch.since()
    }

    /// Forgets rows whose partitions are somebody else's now.
    pub(crate) fn forget(&mut self) {
        if self.batch.rows() > 0 {
            tracing::warn!(rows = self.batch.rows(), "rows were not written before their partitions went; the next owner reads them again");
        }
        self.batch = Batch::default();
        self.written.clear();
        self.uncommitted = false;
    }

    /// # Errors
    /// When neither time nor another batch can help.
    pub(crate) fn deliver(&mut self, committer: &dyn Committer) -> Result<Delivered, SinkError> {
        if let Some(hindrance) = self.write()? {
            self.status.trouble(Some(&hindrance.detail));
            self.status.metrics.retries.inc();
            return Ok(Delivered::Waits(hindrance.after.unwrap_or_else(|| self.backoff.next())));
        }
        self.backoff.reset();
        self.status.trouble(None);
        self.commit(committer);
        Ok(Delivered::All)
    }

    /// Commits what is written but not committed; a failure is repeated with the next batch.
    pub(crate) fn commit(&mut self, committer: &dyn Committer) {
        if !self.uncommitted {
            return;
        }
        match committer.commit(&self.written) {
            Ok(()) => self.uncommitted = false,
            Err(cause) => tracing::debug!(cause, "the offsets of written rows are not committed yet"),
        }
    }

    /// A commit that was on its way has failed: the next one covers it.
    pub(crate) fn commit_again(&mut self) {
        self.uncommitted = !self.written.is_empty();
    }

    /// # Errors
    /// As [`Writer::upkeep`], but only when nothing helps.
    pub(crate) fn upkeep(&mut self) -> Result<(), SinkError> {
        match self.writer.upkeep() {
            Err(error @ WriteError::Fatal(_)) => Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "housekeeping waits");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// `None` when all is written and acknowledged, else what it waits for.
    fn write(&mut self) -> Result<Option<Hindrance>, SinkError> {
        loop {
            if !self.bury()? {
                let detail = "the dead lane does not acknowledge; the sink waits for the Kafka log".into();
                return Ok(Some(Hindrance { detail, after: None }));
            }
            if self.batch.points.is_empty() {
                break;
            }
            let started = Instant::now();
            match self.writer.write(&self.batch.points) {
                Ok(outcome) => {
                    self.status.metrics.write_seconds.observe(started.elapsed().as_secs_f64());
                    self.status.metrics.written.inc_by(outcome.written);
                    self.status.metrics.stale.inc_by(outcome.stale);
                    self.status.metrics.batches.inc();
                    self.status.wrote(self.batch.points.iter().map(|point| point.time_ms).max());
                    break;
                }
                Err(WriteError::Retry { detail, after }) => return Ok(Some(Hindrance { detail, after })),
                Err(WriteError::Rejected(rejected)) if !rejected.is_empty() => {
                    let why = |reason, detail| Unreadable { reason, detail };
                    self.batch.reject(rejected.into_iter().map(|one| (one.index, why(one.reason, one.detail))));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut offsets = std::mem::take(&mut self.batch).offsets;
        self.uncommitted |= !offsets.is_empty();
        self.written.append(&mut offsets);
        Ok(None)
    }

    /// Hands dead rows over, each once, and tells whether all are acknowledged.
    fn bury(&mut self) -> Result<bool, SinkError> {
        for row in self.batch.dead.drain(..) {
            self.lane.send(&row)?;
            self.status.metrics.rejected.with_label_values(&[row.why.reason]).inc();
        }
        self.lane.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
