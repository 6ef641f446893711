//! The read side of the SQLite database, for a page: never locks the writer out, never creates the file.

mod buckets;
mod query;
mod views;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::sqlite::schema;
pub use views::{MeasurementView, views};

/// Why the database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database {} cannot be read ({cause})", path.display())]
    Read { path: PathBuf, cause: rusqlite::Error },
    #[error("{0}")]
    Version(String),
}

/// A query's results as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    pub name: String,
    /// Number of series.
    pub series: i64,
    /// Start of the newest window, ms since 1970; `None` without points.
    pub newest_ms: Option<i64>,
}

/// One group of a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    pub id: i64,
    pub measurement: String,
    pub tags: BTreeMap<String, String>,
    /// Start of its newest window, ms since 1970.
    pub newest_ms: i64,
}

/// A window's row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredPoint {
    /// Start of the window, or of the bucket, ms since 1970.
    pub time_ms: i64,
    /// End (exclusive), in the same unit.
    pub end_ms: Option<i64>,
    pub fields: Map<String, Value>,
    pub revision: Option<i64>,
    pub is_final: bool,
}

/// The points of one series, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeriesPoints {
    pub series_id: i64,
    /// Set when there were too many points: the width of the buckets they were folded into, in ms.
    pub bucket_ms: Option<i64>,
    pub points: Vec<StoredPoint>,
}

/// An SQLite database that may not be there yet: until then it is empty.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Option<Connection>,
}

impl Store {
    /// Opens nothing yet: the file may come later.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), connection: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The measurements that have series, by name.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or is of a newer version. The same for all that follow.
    pub fn measurements(&mut self) -> Result<Vec<Measurement>, StoreError> {
        self.read(query::measurements)
    }

    /// Up to `limit` series that have points, by measurement and tags; only those of `measurement`, and only those with `filter` in a
    /// tag's value (upper and lower case alike in ASCII).
    ///
    /// # Errors
    /// As above.
    pub fn series(&mut self, measurement: Option<&str>, filter: Option<&str>, limit: usize) -> Result<Vec<Series>, StoreError> {
        self.read(|connection| query::series(connection, measurement, filter, limit))
    }

    /// The points of each of `series` with `from_ms <= time < to_ms`. More than `max` of one series are folded into at most `max`
    /// buckets: `min*` keeps the least, `max*` the greatest, `n`, `count*` and `sum*` the sum, every other number its mean.
    ///
    /// # Errors
    /// As above.
    pub fn points(&mut self, series: &[i64], from_ms: i64, to_ms: i64, max: usize) -> Result<Vec<SeriesPoints>, StoreError> {
        self.read(|connection| series.iter().map(|id| buckets::points(connection, *id, from_ms, to_ms, max)).collect())
    }

    /// The last `count` points of each of `series`, oldest first.
    ///
    /// # Errors
    /// As above.
    pub fn recent(&mut self, series: &[i64], count: usize) -> Result<Vec<SeriesPoints>, StoreError> {
        self.read(|connection| query::recent(connection, series, count))
    }

    /// The newest point of each of `series`.
    ///
    /// # Errors
    /// As above.
    pub fn latest(&mut self, series: &[i64]) -> Result<Vec<SeriesPoints>, StoreError> {
        self.recent(series, 1)
    }

    /// A number that changes whenever the writer has committed something; 0 while there is no file.
    ///
    /// # Errors
    /// As above.
    pub fn version(&mut self) -> Result<i64, StoreError> {
        self.read(|connection| connection.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)))
    }

    /// Runs `ask`; while there is no file the answer is the empty one. All that `ask` sees is one state of the database.
    fn read<T: Default>(&mut self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        if !self.path.exists() {
            // Deleted under us: what comes in its place is a new database.
            self.connection = None;
            return Ok(T::default());
        }
        let path = self.path.clone();
        let Some(connection) = self.connect()? else { return Ok(T::default()) };
        let answer = connection.unchecked_transaction().and_then(|snapshot| ask(&snapshot));
        answer.map_err(|cause| StoreError::Read { path, cause })
    }

    fn connect(&mut self) -> Result<Option<&Connection>, StoreError> {
        if self.connection.is_none() {
            let fault = |cause| StoreError::Read { path: self.path.clone(), cause };
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags).map_err(fault)?;
            connection.busy_timeout(std::time::Duration::from_secs(2)).map_err(fault)?;
            match schema::version(&connection).map_err(fault)? {
                // The writer is about to create the tables.
                0 => return Ok(None),
                version if version > schema::VERSION => return Err(StoreError::Version(schema::newer(&self.path, version))),
                _ => self.connection = Some(connection),
            }
        }
        Ok(self.connection.as_ref())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
