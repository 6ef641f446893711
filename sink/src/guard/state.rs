//! Types and series on the disk: a small SQLite database for each output.

use std::path::PathBuf;
use std::time::Duration;

use common::settings::FieldType;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::types::Entry;
use crate::writer::{KEEPS_TRYING, WriteError};

const VERSION: i64 = 1;

const TABLES: &str = "CREATE TABLE IF NOT EXISTS field_type (
        measurement TEXT NOT NULL, field TEXT NOT NULL, type TEXT NOT NULL, PRIMARY KEY (measurement, field)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS series (hash INTEGER PRIMARY KEY);";

#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    connection: Connection,
}

impl State {
    pub(super) fn open(path: PathBuf) -> Result<Self, WriteError> {
        let fault = |cause: String| {
            WriteError::Fatal(format!(
                "the sink's state {} cannot be opened ({cause}); name another folder in sink.state_path, one that this user may write",
                path.display()
            ))
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| fault(error.to_string()))?;
        }
        let connection = Connection::open(&path).and_then(|connection| {
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            Ok(connection)
        });
        let connection = connection.map_err(|error| fault(error.to_string()))?;
        let version: i64 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| fault(error.to_string()))?;
        if version > VERSION {
            return Err(fault(format!("it has format version {version}, and this program knows versions up to {VERSION}")));
        }
        connection
            .execute_batch(TABLES)
            .and_then(|()| connection.pragma_update(None, "user_version", VERSION))
            .map_err(|error| fault(error.to_string()))?;
        Ok(Self { path, connection })
    }

    fn retry(&self, error: &rusqlite::Error) -> WriteError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, PermissionDenied, ReadOnly};
        let path = self.path.display();
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => WriteError::Fatal(format!(
                "the sink's state {path} is damaged ({error}); move it away and start again: the types of fields are learnt anew"
            )),
            Some(PermissionDenied | ReadOnly) => WriteError::Fatal(format!(
                "the sink's state {path} cannot be written ({error}); give this user write access to the file and its folder, then start again"
            )),
            _ => WriteError::Retry { detail: format!("the sink's state {path} cannot be used now ({error}){KEEPS_TRYING}"), after: None },
        }
    }

    pub(super) fn types(&self) -> Result<Vec<Entry>, WriteError> {
        let read = || -> rusqlite::Result<Vec<(String, String, String)>> {
            let mut statement = self.connection.prepare("SELECT measurement, field, type FROM field_type")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        };
        let rows = read().map_err(|error| self.retry(&error))?;
        Ok(rows.into_iter().filter_map(|(measurement, field, kind)| Some((measurement, field, parse(&kind)?))).collect())
    }

    /// Keeps the types of fields that have none yet, and returns those that count now.
    pub(super) fn add_types(&mut self, entries: &[Entry]) -> Result<Vec<Entry>, WriteError> {
        let mut add = || -> rusqlite::Result<Vec<Entry>> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut settled = Vec::with_capacity(entries.len());
            for (measurement, field, kind) in entries {
                transaction.execute("INSERT OR IGNORE INTO field_type VALUES (?1, ?2, ?3)", (measurement, field, kind.name()))?;
                let sql = "SELECT type FROM field_type WHERE measurement = ?1 AND field = ?2";
                let held: Option<String> = transaction.query_row(sql, (measurement, field), |row| row.get(0)).optional()?;
                settled.push((measurement.clone(), field.clone(), held.as_deref().and_then(parse).unwrap_or(*kind)));
            }
            transaction.commit()?;
            Ok(settled)
        };
        add().map_err(|error| self.retry(&error))
    }

    pub(super) fn series(&self) -> Result<Vec<u64>, WriteError> {
        let read = || -> rusqlite::Result<Vec<u64>> {
            let mut statement = self.connection.prepare("SELECT hash FROM series")?;
            statement.query_map([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?.collect()
        };
        read().map_err(|error| self.retry(&error))
    }

    pub(super) fn add_series(&mut self, hashes: &[u64]) -> Result<(), WriteError> {
        if hashes.is_empty() {
            return Ok(());
        }
        let mut add = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut insert = transaction.prepare("INSERT OR IGNORE INTO series VALUES (?1)")?;
            for hash in hashes {
                insert.execute([hash.cast_signed()])?;
            }
            drop(insert);
            transaction.commit()
        };
        add().map_err(|error| self.retry(&error))
    }
}

fn parse(name: &str) -> Option<FieldType> {
    use FieldType::{Boolean, Float, Integer, Text, Unsigned};
    [Float, Integer, Unsigned, Boolean, Text].into_iter().find(|kind| kind.name() == name)
}
