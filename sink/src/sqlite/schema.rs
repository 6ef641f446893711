//! The database's format: tables, version, and the way it is opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::fault::{open_fault, open_io_fault};
use crate::writer::WriteError;

/// Format version, kept in `PRAGMA user_version`. A reader refuses a newer one.
pub(crate) const VERSION: i64 = 1;

/// How long a statement waits for somebody else's lock before it gives up.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// `point` is clustered by series and time: a chart reads neighbouring rows. `end` is a keyword, hence the quotes.
const TABLES: &str = r#"
CREATE TABLE series (
    id          INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    tags        TEXT NOT NULL,  -- canonical JSON object, names sorted
    UNIQUE (measurement, tags)
);
CREATE TABLE point (
    series_id INTEGER NOT NULL REFERENCES series (id),
    time      INTEGER NOT NULL,  -- start of the window, ms since 1970
    "end"     INTEGER,           -- end (exclusive) of the window, ms since 1970
    fields    TEXT NOT NULL,     -- JSON object
    revision  INTEGER,
    final     INTEGER NOT NULL,  -- 1: the window has closed
    PRIMARY KEY (series_id, time)
) WITHOUT ROWID;
"#;

/// Opens the database for writing and creates what is missing.
pub(super) fn open(path: &Path) -> Result<Connection, WriteError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| open_io_fault(path, &error))?;
    }
    let mut connection = Connection::open(path).map_err(|error| open_fault(path, &error))?;
    let found = prepare(&mut connection).map_err(|error| open_fault(path, &error))?;
    match found {
        Found::Ours => Ok(connection),
        Found::Newer(version) => Err(WriteError::Fatal(newer(path, version))),
        Found::Foreign => Err(WriteError::Fatal(format!(
            "{} is an SQLite database of something else; name another file with --sqlite-path",
            path.display()
        ))),
    }
}

pub(crate) fn newer(path: &Path, version: i64) -> String {
    format!(
        "{} has format version {version}, and this program knows versions up to {VERSION}; use the program that wrote it, or name another file with --sqlite-path",
        path.display()
    )
}

enum Found {
    Ours,
    Newer(i64),
    Foreign,
}

pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<Found> {
    connection.busy_timeout(LOCK_WAIT)?;
    // The version first: a database of somebody else is left as it is, its journal mode too.
    match version(connection)? {
        0 if table_count(connection)? > 0 => return Ok(Found::Foreign),
        0 | VERSION => {}
        newer => return Ok(Found::Newer(newer)),
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // NORMAL would give up the last transactions in a power cut, and the offsets of their rows are committed by then.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // 16 MiB; and checkpoints after 64 MiB instead of 4: the page at a series' end is written once for several batches.
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "wal_autocheckpoint", 16_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Asked again under the lock: another process may have been quicker.
    if version(&transaction)? == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(Found::Ours)
}

fn table_count(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
}
