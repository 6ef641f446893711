//! The writer into SQLite: one file, one transaction a batch.

mod fault;
pub(crate) mod read;
mod retention;
pub(crate) mod schema;
mod series;
mod upsert;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::settings::Sqlite;
use common::units::Span;
use rusqlite::{Connection, TransactionBehavior};

use crate::point::Point;
use crate::writer::{WriteError, WriteOutcome, Writer};
use fault::Place;
use series::SeriesIds;

/// How often retention looks for something to delete.
const RETENTION_EVERY: Duration = Duration::from_secs(10);
/// Points that one turn of retention deletes at most, so that it never holds up the rows.
const RETENTION_STEP: usize = 10_000;

/// Writes points into an SQLite database. Larger revisions replace smaller ones.
#[derive(Debug)]
pub struct SqliteWriter {
    connection: Connection,
    place: Place,
    series: SeriesIds,
    retention: Option<Span>,
    retention_due: Instant,
}

impl SqliteWriter {
    /// Opens the database and creates it, with the folder it is in, when it is missing.
    ///
    /// # Errors
    /// [`WriteError::Fatal`] when the file cannot be had, is no database of ours, or is of a newer version.
    pub fn open(settings: &Sqlite) -> Result<Self, WriteError> {
        let connection = schema::open(&settings.path)?;
        let place = Place::of(&settings.path);
        Ok(Self { connection, place, series: SeriesIds::default(), retention: settings.retention, retention_due: Instant::now() })
    }

    /// The file that is written.
    pub fn path(&self) -> &PathBuf {
        &self.place.path
    }

    /// Deletes up to `limit` points that are older than the retention. Returns how many were deleted.
    ///
    /// # Errors
    /// As for [`Writer::write`].
    pub fn apply_retention(&mut self, limit: usize) -> Result<usize, WriteError> {
        let Some(retention) = self.retention else { return Ok(0) };
        let now = chrono::Utc::now().timestamp_millis();
        retention::apply(&mut self.connection, (retention.millis(), now), limit).map_err(|error| self.place.fault(&error))
    }

    fn write_all(&mut self, points: &[Point]) -> rusqlite::Result<WriteOutcome> {
        // Immediate: a database that somebody else has locked is told at once, not in the middle of the batch.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ids = self.series.resolve(&transaction, points)?;
        let outcome = upsert::upsert(&transaction, points, &ids)?;
        transaction.commit()?;
        self.series.committed();
        Ok(outcome)
    }
}

impl Writer for SqliteWriter {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        self.place.check_still_there()?;
        self.write_all(points).map_err(|error| {
            self.series.rolled_back();
            self.place.fault(&error)
        })
    }

    fn upkeep(&mut self) -> Result<(), WriteError> {
        if self.retention.is_none() || Instant::now() < self.retention_due {
            return Ok(());
        }
        let deleted = self.apply_retention(RETENTION_STEP)?;
        if deleted < RETENTION_STEP {
            self.retention_due = Instant::now() + RETENTION_EVERY;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
