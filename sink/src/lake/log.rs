//! A table's log: numbered commits of JSON lines, each there as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::schema::{Columns, DAY, TIME};

/// The property of the table that names its tags.
const TAGS: &str = "tidemark.tags";

/// A data file of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DataFile {
    /// Relative to the table, as the log has it.
    pub(super) path: String,
    pub(super) day: String,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    /// First and last time, in ms; files of former versions and of others may not say.
    pub(super) times: Option<(i64, i64)>,
}

/// What the commits so far come to.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Of the newest commit; -1: none.
    pub(super) version: i64,
    pub(super) id: Option<String>,
    pub(super) columns: Columns,
    pub(super) created_ms: i64,
    pub(super) files: BTreeMap<String, DataFile>,
    /// Files that a commit has taken out, and when, in ms; readers of older versions may still want them.
    pub(super) removed: BTreeMap<String, i64>,
    /// The columns that make, with the time, a row's identity.
    pub(super) tags: BTreeSet<String>,
    /// Per application the version that it gave last: our next offset.
    pub(super) transactions: BTreeMap<String, i64>,
}

#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
}

/// Why a commit did not come about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Somebody else has made a commit with this number.
    Taken,
    /// A data file that the state names is not there. Says which.
    Gone(String),
    Io(String),
}

impl Log {
    pub(super) fn of(table: &Path) -> Self {
        Self { folder: table.join("_delta_log") }
    }

    fn path(&self, version: i64) -> PathBuf {
        self.folder.join(format!("{version:020}.json"))
    }

    /// Takes in the commits after `state`.
    ///
    /// # Errors
    /// What is wrong with the log.
    pub(super) fn catch_up(&self, state: &mut State) -> Result<(), String> {
        fs::create_dir_all(&self.folder).map_err(|error| error.to_string())?;
        loop {
            let path = self.path(state.version + 1);
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(error) => return Err(error.to_string()),
            };
            for line in text.lines() {
                let action: Value = serde_json::from_str(line).map_err(|error| format!("{}: {error}", path.display()))?;
                state.apply(&action)?;
            }
            state.version += 1;
        }
        // Names with a dot before them are commits that a crash has kept from coming about.
        let is_commit =
            |entry: std::io::Result<fs::DirEntry>| entry.is_ok_and(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
        if state.version < 0 && fs::read_dir(&self.folder).map_err(|error| error.to_string())?.any(is_commit) {
            return Err("its log does not begin with commit 0; the first commits were cleaned away".into());
        }
        Ok(())
    }

    /// Makes the next commit. It is on the disk when this returns.
    pub(super) fn commit(&self, state: &mut State, actions: &[Value]) -> Result<(), Fault> {
        let io = |error: std::io::Error| Fault::Io(error.to_string());
        let number = state.version + 1;
        let text: String = actions.iter().map(|action| format!("{action}\n")).collect();
        let temporary = self.folder.join(format!(".{number:020}.{:016x}", rand::random::<u64>()));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        // A link never replaces a file that is there: of two writers one is told.
        let linked = written.and_then(|()| fs::hard_link(&temporary, self.path(number)));
        let cleaned = fs::remove_file(&temporary);
        match linked {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(Fault::Taken),
            Err(error) => return Err(io(error)),
            Ok(()) => cleaned.map_err(io)?,
        }
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        actions.iter().try_for_each(|action| state.apply(action)).map_err(Fault::Io)?;
        state.version = number;
        Ok(())
    }
}

impl State {
    pub(super) fn new() -> Self {
        Self { version: -1, ..Self::default() }
    }

    fn apply(&mut self, action: &Value) -> Result<(), String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(add) = action.get("add") {
            let stats: Value = add["stats"].as_str().and_then(|stats| serde_json::from_str(stats).ok()).unwrap_or_default();
            let path = text(&add["path"]);
            let day = text(&add["partitionValues"][DAY]);
            let (bytes, rows) = (add["size"].as_u64().unwrap_or(0), stats["numRecords"].as_u64().unwrap_or(0));
            let time = |which: &str| {
                let text = stats[which][TIME].as_str()?;
                chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis())
            };
            let times = time("minValues").zip(time("maxValues"));
            self.files.insert(path.clone(), DataFile { path, day, bytes, rows, times });
        } else if let Some(remove) = action.get("remove") {
            let path = text(&remove["path"]);
            self.files.remove(&path);
            self.removed.insert(path, remove["deletionTimestamp"].as_i64().unwrap_or(0));
        } else if let Some(transaction) = action.get("txn") {
            self.transactions.insert(text(&transaction["appId"]), transaction["version"].as_i64().unwrap_or(0));
        } else if let Some(metadata) = action.get("metaData") {
            self.columns = Columns::from_delta(metadata["schemaString"].as_str().unwrap_or_default())?;
            let tags = metadata["configuration"][TAGS].as_str().and_then(|tags| serde_json::from_str(tags).ok());
            self.tags = tags.unwrap_or_default();
            self.id = Some(text(&metadata["id"]));
            self.created_ms = metadata["createdTime"].as_i64().unwrap_or(0);
        } else if let Some(protocol) = action.get("protocol")
            && protocol["minWriterVersion"].as_i64().unwrap_or(0) > 2
        {
            return Err("another program has given it features that this writer does not know".into());
        }
        Ok(())
    }

    pub(super) fn metadata(&self, id: &str, columns: &Columns, tags: &BTreeSet<String>, now_ms: i64) -> Value {
        let created = if self.created_ms > 0 { self.created_ms } else { now_ms };
        json!({ "metaData": { "id": id, "format": { "provider": "parquet", "options": {} }, "schemaString": columns.delta(),
            "partitionColumns": [DAY], "configuration": { TAGS: json!(tags).to_string() }, "createdTime": created } })
    }
}

impl DataFile {
    /// `changes`: whether the table's rows are others afterwards.
    pub(super) fn add(&self, now_ms: i64, changes: bool) -> Value {
        let mut stats = json!({ "numRecords": self.rows });
        let time = |ms| chrono::DateTime::from_timestamp_millis(ms).map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
        if let Some((first, last)) = self.times {
            stats["minValues"] = json!({ TIME: time(first) });
            stats["maxValues"] = json!({ TIME: time(last) });
            stats["nullCount"] = json!({ TIME: 0 });
        }
        json!({ "add": { "path": self.path, "partitionValues": { DAY: self.day }, "size": self.bytes, "modificationTime": now_ms,
            "dataChange": changes, "stats": stats.to_string() } })
    }

    pub(super) fn remove(&self, now_ms: i64, changes: bool) -> Value {
        json!({ "remove": { "path": self.path, "deletionTimestamp": now_ms, "dataChange": changes, "extendedFileMetadata": true,
            "partitionValues": { DAY: self.day }, "size": self.bytes } })
    }
}
