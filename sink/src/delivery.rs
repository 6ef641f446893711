//! From a batch to the database, and only then the offsets.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::SinkError;
use crate::ahead::{self, SharedGuard};
use crate::backoff::Backoff;
use crate::batch::{Batch, Offsets};
use crate::dead::DeadLane;
use crate::mapping::Unreadable;
use crate::status::Status;
use crate::writer::{WriteError, WriteOutcome, Writer};

/// A database that asks for a wait of nothing is not asked without end.
const LEAST_WAIT: Duration = Duration::from_millis(50);

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
    /// Nothing is lost; the same batch again when this time is over.
    Waits(Duration),
    /// The database has lost rows: reading must go back to the committed position.
    Lost,
}

/// What keeps a batch from being written.
enum Hindrance {
    /// The database or the lane is away; how long to wait if it said so.
    Away { detail: String, after: Option<Duration> },
    /// The database has lost what it had.
    Lost(String),
    /// Nothing: the search for a bad row takes many requests, and the partitions may go in between.
    Searching,
}

/// Steps, in this order: dead rows acknowledged; points written; offsets committed. A crash between any two repeats rows, and never
/// loses one.
pub(crate) struct Delivery {
    writer: Box<dyn Writer>,
    lane: Box<dyn DeadLane>,
    guard: Option<SharedGuard>,
    batch: Batch,
    /// Batches that the database has confirmed and may still lose: when, how many rows, how far they reach.
    settling: VecDeque<(Instant, usize, Offsets)>,
    /// How far the database holds each of our partitions.
    written: Offsets,
    /// Whether that is news to the log.
    uncommitted: bool,
    backoff: Backoff,
    status: Arc<Status>,
}

impl Delivery {
    pub(crate) fn new(writer: Box<dyn Writer>, guard: Option<SharedGuard>, lane: Box<dyn DeadLane>, status: Arc<Status>) -> Self {
        Self {
            writer,
            lane,
            guard,
            batch: Batch::default(),
            settling: VecDeque::new(),
            written: Offsets::new(),
            uncommitted: false,
            backoff: Backoff::default(),
            status,
        }
    }

    /// Takes a batch over, when the one before it is written or forgotten.
    pub(crate) fn accept(&mut self, batch: Batch) {
        self.batch = batch;
        if self.batch.admitted {
            self.begin();
        }
    }

    fn begin(&mut self) {
        self.batch.pieces.clear();
        self.batch.pieces.push(0..self.batch.points.len());
    }

    /// Forgets rows whose partitions are somebody else's now.
    pub(crate) fn forget(&mut self) {
        if self.batch.rows() > 0 {
            tracing::warn!(rows = self.batch.rows(), "rows were not written before their partitions went; the next owner reads them again");
        }
        let settling: usize = self.settling.drain(..).map(|(_, rows, _)| rows).sum();
        self.status.waits_no_more_for(std::mem::take(&mut self.batch).rows() + settling);
        self.written.clear();
        self.uncommitted = false;
    }

    /// # Errors
    /// When neither time nor another batch can help.
    pub(crate) fn deliver(&mut self, committer: &dyn Committer) -> Result<Delivered, SinkError> {
        match self.write()? {
            Some(Hindrance::Lost(detail)) => return Ok(self.lost(&detail)),
            Some(Hindrance::Searching) => return Ok(Delivered::Waits(Duration::ZERO)),
            Some(Hindrance::Away { detail, after }) => {
                self.status.trouble(Some(&detail));
                self.status.metrics.retries.inc();
                let own = self.backoff.next();
                return Ok(Delivered::Waits(after.map_or(own, |asked| asked.max(LEAST_WAIT))));
            }
            None => {}
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
    pub(crate) fn upkeep(&mut self) -> Result<Delivered, SinkError> {
        match self.writer.upkeep() {
            Err(error @ WriteError::Fatal(_)) => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "housekeeping waits"),
            Ok(()) => {}
        }
        self.settle()
    }

    /// `None` when all is written and acknowledged, else what it waits for.
    fn write(&mut self) -> Result<Option<Hindrance>, SinkError> {
        if !self.batch.admitted {
            if let Some(hindrance) = self.admit()? {
                return Ok(Some(hindrance));
            }
            self.batch.admitted = true;
            self.begin();
        }
        let any = !self.batch.points.is_empty();
        loop {
            if !self.bury()? {
                let detail = "the dead lane does not acknowledge; the sink waits for the Kafka log".into();
                return Ok(Some(Hindrance::Away { detail, after: None }));
            }
            let Some(piece) = self.batch.pieces.last().cloned() else { break };
            if piece.is_empty() {
                self.batch.pieces.pop();
                continue;
            }
            let started = Instant::now();
            let points = &self.batch.points[piece.clone()];
            let written = match &self.batch.prepared {
                Some(prepared) if points.len() == self.batch.points.len() => self.writer.write_prepared(points, prepared),
                _ => self.writer.write(points),
            };
            match written {
                Ok(outcome) => {
                    self.status.metrics.write_seconds.observe(started.elapsed().as_secs_f64());
                    self.count(&outcome);
                    self.status.wrote(self.batch.points[piece].iter().map(|point| point.time_ms).max());
                    self.batch.pieces.pop();
                }
                Err(error) => {
                    if let Some(hindrance) = self.split(piece, error)? {
                        return Ok(Some(hindrance));
                    }
                }
            }
        }
        self.status.metrics.batches.inc_by(u64::from(any));
        let batch = std::mem::take(&mut self.batch);
        let rows = batch.rows();
        if self.writer.settles_after().is_zero() {
            self.is_safe(rows, batch.offsets);
        } else if rows > 0 {
            self.settling.push_back((Instant::now(), rows, batch.offsets));
        }
        Ok(None)
    }

    fn is_safe(&mut self, rows: usize, mut offsets: Offsets) {
        self.status.waits_no_more_for(rows);
        self.uncommitted |= !offsets.is_empty();
        self.written.append(&mut offsets);
    }

    /// Batches that have had their time are safe, if the database says so.
    fn settle(&mut self) -> Result<Delivered, SinkError> {
        let patience = self.writer.settles_after();
        let is_due = |(since, ..): &(Instant, usize, Offsets)| since.elapsed() >= patience;
        if !self.settling.front().is_some_and(is_due) {
            return Ok(Delivered::All);
        }
        let due = self.settling.iter().take_while(|batch| is_due(batch)).count();
        match self.writer.check_settled() {
            Ok(()) => {
                let safe: Vec<_> = self.settling.drain(..due).collect();
                safe.into_iter().for_each(|(_, rows, offsets)| self.is_safe(rows, offsets));
            }
            Err(WriteError::Lost(detail)) => return Ok(self.lost(&detail)),
            Err(error @ WriteError::Fatal(_)) => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "whether the database keeps its rows is asked again"),
        }
        Ok(Delivered::All)
    }

    fn lost(&mut self, detail: &str) -> Delivered {
        tracing::warn!("{detail}");
        self.forget();
        Delivered::Lost
    }

    /// What a failed write means for its piece: again later, without some of its points, or in halves until the bad one is alone.
    fn split(&mut self, piece: Range<usize>, error: WriteError) -> Result<Option<Hindrance>, SinkError> {
        let why = |reason, detail| Unreadable { reason, detail };
        match error {
            WriteError::Retry { detail, after } => Ok(Some(Hindrance::Away { detail, after })),
            WriteError::Lost(detail) => Ok(Some(Hindrance::Lost(detail))),
            WriteError::Rejected(rejected) if !rejected.is_empty() => {
                self.batch.reject(rejected.into_iter().map(|one| (piece.start + one.index, why(one.reason, one.detail))));
                Ok(None)
            }
            WriteError::Refused { reason, detail } if piece.len() == 1 => {
                self.batch.reject([(piece.start, why(reason, detail))]);
                Ok(None)
            }
            WriteError::Refused { .. } => {
                let middle = piece.start + piece.len() / 2;
                self.batch.prepared = None;
                self.batch.pieces.pop();
                self.batch.pieces.extend([middle..piece.end, piece.start..middle]);
                Ok(Some(Hindrance::Searching))
            }
            error => Err(error.into()),
        }
    }

    /// Types and series, once a batch.
    fn admit(&mut self) -> Result<Option<Hindrance>, SinkError> {
        let Some(guard) = &self.guard else { return Ok(None) };
        match ahead::admit(&mut ahead::lock(guard), &mut self.batch, &self.status.metrics) {
            Ok(()) => Ok(None),
            Err(WriteError::Retry { detail, after }) => Ok(Some(Hindrance::Away { detail, after })),
            Err(error) => Err(error.into()),
        }
    }

    fn count(&self, outcome: &WriteOutcome) {
        let metrics = &self.status.metrics;
        metrics.written.inc_by(outcome.written);
        metrics.stale.inc_by(outcome.stale);
        for (reason, count) in &outcome.left_out {
            metrics.left_out(reason, *count);
        }
    }

    /// Hands dead rows over, each once, and tells whether all are acknowledged.
    fn bury(&mut self) -> Result<bool, SinkError> {
        for row in self.batch.dead.drain(..) {
            self.lane.send(&row)?;
            self.status.metrics.rejected(row.why.reason);
        }
        self.lane.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
