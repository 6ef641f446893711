//! The writer into a data lake: a Delta Lake table for each measurement, in Parquet files, which any engine reads.
//!
//! ```text
//! <path>/<measurement>/_delta_log/00000000000000000007.json   a commit: files added, and how far each partition of a topic is in them
//!                     /day=2026-11-22/part-....parquet        its rows, by the day of their time
//! ```
//!
//! A row is appended when it is final, so each window is there once; or, in upsert mode, it takes the place of the row of its identity, which
//! costs a rewrite of the file that holds it. A commit is one file that comes into being as a whole and never over
//! another: rows and the position in the log are in it together, so that neither a crash nor a second writer can have a row twice. The
//! crate `deltalake` would bring a second DataFusion into the build; what is needed of the protocol is little.

mod compact;
mod file;
mod log;
mod schema;
mod table;
mod upsert;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::settings::{Lake, LakeMode};

use crate::point::Point;
use crate::writer::{Rejection, WriteError, WriteOutcome, Writer};
use table::Table;

/// How often small files are looked for.
const COMPACT_EVERY: Duration = Duration::from_secs(300);

/// Appends final rows to the tables under a folder.
#[derive(Debug)]
pub struct LakeWriter {
    path: PathBuf,
    /// Part of the name under which a table keeps our position.
    output: String,
    /// Whether small files are put together. A reader that knows nothing of the table's log would count their rows twice.
    compacts: bool,
    mode: LakeMode,
    tables: BTreeMap<String, Table>,
    compact_due: Instant,
}

impl LakeWriter {
    /// # Errors
    /// [`WriteError::Fatal`] when the folder cannot be had.
    pub fn open(settings: &Lake, output: &str, compacts: bool) -> Result<Self, WriteError> {
        let (path, mode) = (&settings.path, settings.mode);
        std::fs::create_dir_all(path).map_err(|error| {
            WriteError::Fatal(format!(
                "the folder {} cannot be created ({error}); name another in the settings of the sink",
                path.display()
            ))
        })?;
        let compact_due = Instant::now() + COMPACT_EVERY;
        Ok(Self { path: path.to_owned(), output: output.to_owned(), mode, compacts, tables: BTreeMap::new(), compact_due })
    }

    fn table(&mut self, measurement: &str) -> Result<&mut Table, WriteError> {
        if !self.tables.contains_key(measurement) {
            let table = Table::open(self.path.join(folder(measurement)), &self.output, self.mode)?;
            self.tables.insert(measurement.to_owned(), table);
        }
        self.tables.get_mut(measurement).ok_or_else(|| WriteError::Fatal("a table is gone".into()))
    }

    /// Why a row is not written, as one word for counting.
    fn left_out(&self, point: &Point) -> Option<&'static str> {
        match point {
            _ if self.mode == LakeMode::Upsert => None,
            point if point.deleted => Some("undeletable"),
            point if !point.is_final && point.revision.is_some() => Some("not_final"),
            _ => None,
        }
    }
}

/// A measurement as the name of a folder.
fn folder(measurement: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = measurement.chars().map(|c| if plain(c) { c.to_string() } else { format!("%{:X}", u32::from(c)) }).collect();
    if name.starts_with(['.', '_']) || name.is_empty() { format!("%{name}") } else { name }
}

impl Writer for LakeWriter {
    fn name(&self) -> &'static str {
        if self.compacts { "delta" } else { "parquet" }
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        let mut outcome = WriteOutcome::default();
        for reason in ["undeletable", "not_final"] {
            outcome.leave_out(reason, points.iter().filter(|point| self.left_out(point) == Some(reason)).count() as u64);
        }
        let mut by_table: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, point) in points.iter().enumerate().filter(|(_, point)| self.left_out(point).is_none()) {
            by_table.entry(&point.measurement).or_default().push(at);
        }
        let mut rejected: Vec<Rejection> = Vec::new();
        for (measurement, places) in &by_table {
            let mut columns = self.table(measurement)?.state.columns.clone();
            rejected.extend(places.iter().filter_map(|at| Table::fault(*at, &points[*at], &mut columns)));
        }
        if !rejected.is_empty() {
            return Err(WriteError::Rejected(rejected));
        }
        for (measurement, places) in by_table {
            let rows: Vec<&Point> = places.iter().map(|at| &points[*at]).collect();
            let (written, stale) = self.table(measurement)?.take(&rows)?;
            outcome.written += written;
            outcome.stale += stale;
        }
        Ok(outcome)
    }

    fn upkeep(&mut self) -> Result<(), WriteError> {
        if self.compacts && self.compact_due <= Instant::now() {
            self.compact_due = Instant::now() + COMPACT_EVERY;
            for table in self.tables.values_mut() {
                compact::compact(table)?;
                if self.mode == LakeMode::Upsert {
                    table.sweep().map_err(|error| table.retry(&error.to_string()))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
