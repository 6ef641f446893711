//! One table: rows in, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use common::settings::{LARGE_BATCH_ROWS, LakeMode};
use serde_json::{Value, json};

use super::file::{self, FileWriter, Written};
use super::log::{DataFile, Fault, Log, State};
use super::schema::{Columns, Kind, check_name};
use super::upsert;
use crate::newest::Newest;
use crate::point::{Place, Point};
use crate::writer::{KEEPS_TRYING, Rejection, WriteError};

/// A file that has been without a commit for this long will never have one.
const ORPHAN: Duration = Duration::from_secs(3600);

/// Offsets between the end of a batch and the table's position. Rows that a crash makes the sink read again end nearer to it: they are a
/// batch at most, unless the settings ask for a larger one.
const FAR: i64 = LARGE_BATCH_ROWS as i64;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) folder: PathBuf,
    output: String,
    pub(super) mode: LakeMode,
    pub(super) log: Log,
    pub(super) state: State,
    /// Applications of which the log has a word on rows that the table has had for long.
    pub(super) warned: BTreeSet<String>,
}

impl Table {
    /// Reads the table's log, and deletes files that no commit has: a crash left them.
    pub(super) fn open(folder: PathBuf, output: &str, mode: LakeMode) -> Result<Self, WriteError> {
        let (log, state, warned) = (Log::of(&folder), State::new(), BTreeSet::new());
        let mut table = Self { folder, output: output.to_owned(), mode, log, state, warned };
        table.log.catch_up(&mut table.state).map_err(|cause| {
            WriteError::Fatal(format!("the table {} cannot be written: {cause}; name another folder", table.folder.display()))
        })?;
        table.clean().map_err(|error| table.retry(&error.to_string()))?;
        Ok(table)
    }

    pub(super) fn retry(&self, cause: &str) -> WriteError {
        let detail = format!("the table {} cannot be written now ({cause}){KEEPS_TRYING}", self.folder.display());
        WriteError::Retry { detail, after: None }
    }

    fn clean(&self) -> std::io::Result<()> {
        for day in std::fs::read_dir(&self.folder)? {
            let day = day?;
            let name = day.file_name().to_string_lossy().into_owned();
            if !name.starts_with("day=") {
                continue;
            }
            let ours = format!("part-{}-", self.output);
            for file in std::fs::read_dir(day.path())? {
                let file = file?;
                let path = format!("{name}/{}", file.file_name().to_string_lossy());
                // A younger one may be another sink's, on its way into a commit.
                let is_old = file.metadata()?.modified()?.elapsed().is_ok_and(|age| age > ORPHAN);
                let is_ours = is_old && file.file_name().to_string_lossy().starts_with(&ours);
                if is_ours && !self.state.files.contains_key(&path) && !self.state.removed.contains_key(&path) {
                    std::fs::remove_file(file.path())?;
                }
            }
        }
        Ok(())
    }

    /// In upsert mode every commit leaves replaced files behind: those that went some time ago are deleted.
    pub(super) fn sweep(&mut self) -> std::io::Result<()> {
        let before = Utc::now().timestamp_millis() - i64::try_from(ORPHAN.as_millis()).unwrap_or(i64::MAX);
        let old: Vec<String> = self.state.removed.iter().filter(|(_, at)| **at < before).map(|(path, _)| path.clone()).collect();
        for path in old {
            match std::fs::remove_file(self.folder.join(&path)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => drop(self.state.removed.remove(&path)),
            }
        }
        Ok(())
    }

    /// Why the row can never be in the table. `columns` are the table's and those of the rows before it, and take in those of this one when
    /// nothing is wrong with it: a column has one kind, whether its rows come in one batch or in two.
    pub(super) fn fault(at: usize, point: &Point, columns: &mut Columns) -> Option<Rejection> {
        let reject = |reason, detail| Some(Rejection { index: at, reason, detail });
        let mut new: Vec<(&str, Kind)> = Vec::new();
        for (name, kind) in columns_of(point) {
            if let Err(detail) = check_name(name) {
                return reject("unwritable", detail);
            }
            match columns.kind(name).or_else(|| new.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)) {
                Some(held) if held != kind => {
                    return reject("wrong_type", format!("column '{name}' of the table is {held:?}, and the row has {kind:?}"));
                }
                Some(_) => {}
                None => new.push((name, kind)),
            }
        }
        if day(point.time_ms).is_none() || point.fields.iter().any(|(_, value)| matches!(value, crate::point::FieldValue::UInt(_))) {
            return reject("unwritable", "its time or a number is larger than the table can hold".into());
        }
        for (name, kind) in new {
            columns.add(name, kind);
        }
        None
    }

    /// Brings those of `rows` into the table that it does not have yet, in one commit. Returns how many it has now because of that, and how
    /// many it does not want.
    pub(super) fn take(&mut self, rows: &[&Point]) -> Result<(u64, u64), WriteError> {
        let mut missed = false;
        loop {
            let (known, new): (Vec<&Point>, Vec<&Point>) = rows.iter().copied().partition(|row| self.has(row));
            self.warn_of(&known, &new);
            let known = known.len() as u64;
            if new.is_empty() {
                return Ok((0, known));
            }
            match self.try_take(&new) {
                Ok(stale) => return Ok((new.len() as u64 - stale, known + stale)),
                // Another writer was quicker: what it has written counts, then again.
                Err(Fault::Taken) => self.catch_up_with(&new)?,
                // Another writer has put its rows elsewhere and deleted it. A file that the newest state names too is lost.
                Err(Fault::Gone(_)) if !missed => {
                    missed = true;
                    self.catch_up_with(&new)?;
                }
                Err(Fault::Gone(cause) | Fault::Io(cause)) => return Err(self.retry(&cause)),
            }
        }
    }

    /// As [`Table::catch_up`]. A column that came with it may be of another kind than these rows have: then they are checked anew.
    fn catch_up_with(&mut self, rows: &[&Point]) -> Result<(), WriteError> {
        self.catch_up()?;
        let mut columns = self.state.columns.clone();
        match rows.iter().find_map(|row| Self::fault(0, row, &mut columns)) {
            Some(fault) => Err(self.retry(&format!("another writer has added a column: {}", fault.detail))),
            None => Ok(()),
        }
    }

    /// Takes in what other writers have committed.
    pub(super) fn catch_up(&mut self) -> Result<(), WriteError> {
        self.log.catch_up(&mut self.state).map_err(|cause| self.retry(&cause))
    }

    /// Says in the log, once a partition until it is past them, that rows are left out which the table has had for long. It may not have
    /// them: a topic that was deleted and made anew counts its offsets from 0 again. A row does not tell which of the two it is.
    fn warn_of(&mut self, known: &[&Point], new: &[&Point]) {
        if !self.warned.is_empty() {
            let past: BTreeSet<String> = new.iter().map(|row| self.application(row)).collect();
            self.warned.retain(|application| !past.contains(application));
        }
        // First and last row of each partition.
        let mut spans: BTreeMap<String, (&Place, &Place)> = BTreeMap::new();
        for row in known {
            spans.entry(self.application(row)).or_insert((&row.place, &row.place)).1 = &row.place;
        }
        for (application, (first, last)) in spans {
            let Some(next) = self.state.transactions.get(&application).copied() else { continue };
            if is_far(first.offset, last.offset, next) && self.warned.insert(application) {
                let (topic, partition, table) = (&first.topic, first.partition, self.folder.display());
                let (first, last, behind) = (first.offset, last.offset, next - 1 - last.offset);
                tracing::warn!(
                    "rows of {topic}, partition {partition}, offsets {first} to {last}, are not written to the table {table}, which has that \
                     partition up to {behind} offsets further; that is right when the consumer group was set back, but when the topic was \
                     deleted and made anew, its rows are lost: give the output another name or another path"
                );
            }
        }
    }

    fn application(&self, row: &Point) -> String {
        format!("tidemark-{}-{}-{}", self.output, row.place.topic, row.place.partition)
    }

    fn has(&self, row: &Point) -> bool {
        self.state.transactions.get(&self.application(row)).is_some_and(|next| row.place.offset < *next)
    }

    /// Returns how many of `rows` are older than what the table has.
    fn try_take(&mut self, rows: &[&Point]) -> Result<u64, Fault> {
        let now = Utc::now().timestamp_millis();
        let (mut columns, mut tags) = (self.state.columns.clone(), self.state.tags.clone());
        let mut grown = self.state.id.is_none();
        for row in rows {
            for (name, _) in &row.tags {
                grown |= !tags.contains(name.as_str()) && tags.insert(name.to_string());
            }
            columns_of(row).for_each(|(name, kind)| grown |= columns.add(name, kind));
        }
        let (operation, parameters) = match self.mode {
            LakeMode::Append => ("WRITE", json!({ "mode": "Append" })),
            LakeMode::Upsert => ("MERGE", json!({})),
        };
        let mut actions = vec![json!({ "commitInfo": { "timestamp": now, "operation": operation, "operationParameters": parameters,
            "engineInfo": concat!("tidemark/", env!("CARGO_PKG_VERSION")) } })];
        if self.state.id.is_none() {
            actions.push(json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }));
        }
        if grown {
            let id = self.state.id.clone().unwrap_or_else(new_id);
            actions.push(self.state.metadata(&id, &columns, &tags, now));
        }
        let mut stale = 0;
        let chosen: Vec<&Point> = match self.mode {
            LakeMode::Append => rows.to_vec(),
            LakeMode::Upsert => {
                let newest = Newest::of(rows);
                stale = newest.stale;
                newest.places.iter().map(|at| rows[*at]).collect()
            }
        };
        for (day, rows) in by_day(&chosen) {
            if self.mode == LakeMode::Append {
                actions.push(self.new_rows(&day, &columns, &rows)?.add(now, true));
                continue;
            }
            let change = upsert::replace(self, &columns, &tags, &day, &rows)?;
            actions.extend(change.removed.iter().map(|file| file.remove(now, true)));
            actions.extend(change.added.iter().map(|file| file.add(now, true)));
            stale += change.stale;
        }
        actions.extend(self.positions(rows, now));
        self.log.commit(&mut self.state, &actions)?;
        Ok(stale)
    }

    pub(super) fn new_rows(&self, day: &str, columns: &Columns, rows: &[&Point]) -> Result<DataFile, Fault> {
        let batch = file::batch(columns, rows);
        self.new_file(day, columns, std::iter::once(Ok(std::iter::once(batch))))
    }

    /// Writes the rows of all `sources` into a file that no reader sees before a commit has it.
    pub(super) fn new_file<I: Iterator<Item = Result<RecordBatch, String>>>(
        &self,
        day: &str,
        columns: &Columns,
        sources: impl Iterator<Item = Result<I, Fault>>,
    ) -> Result<DataFile, Fault> {
        let io = |error: std::io::Error| Fault::Io(error.to_string());
        let folder = self.folder.join(format!("day={day}"));
        std::fs::create_dir_all(&folder).map_err(io)?;
        let name = format!("part-{}-{:016x}.snappy.parquet", self.output, rand::random::<u64>());
        let mut writer = FileWriter::create(&folder.join(&name), columns).map_err(Fault::Io)?;
        for source in sources {
            for batch in source? {
                writer.write(&batch.map_err(Fault::Io)?).map_err(Fault::Io)?;
            }
        }
        let Written { bytes, rows, times } = writer.close().map_err(Fault::Io)?;
        sync(&folder).and_then(|()| sync(&self.folder)).map_err(io)?;
        Ok(DataFile { path: format!("day={day}/{name}"), day: day.to_owned(), bytes, rows, times })
    }

    /// How far the table is in each partition of a topic, once these rows are in.
    fn positions(&self, rows: &[&Point], now: i64) -> Vec<Value> {
        let mut positions: BTreeMap<String, i64> = BTreeMap::new();
        for row in rows {
            let next = positions.entry(self.application(row)).or_insert(0);
            *next = (*next).max(row.place.offset + 1);
        }
        let action = |(application, version)| json!({ "txn": { "appId": application, "version": version, "lastUpdated": now } });
        positions.into_iter().map(action).collect()
    }
}

/// Whether known rows are others than those of the batch that was written last, which a crash makes the sink read again.
fn is_far(first: i64, last: i64, next: i64) -> bool {
    let behind = next - 1 - last;
    // A topic that begins anew is seen from its first offset, however short the old one was.
    behind > FAR || (first == 0 && behind > 0)
}

/// The columns that the row has besides those of every table.
fn columns_of(point: &Point) -> impl Iterator<Item = (&str, Kind)> {
    let tags = point.tags.iter().map(|(name, _)| (name.as_str(), Kind::Text));
    tags.chain(point.fields.iter().map(|(name, value)| (name.as_str(), Kind::of(value))))
}

fn by_day<'a>(rows: &[&'a Point]) -> BTreeMap<String, Vec<&'a Point>> {
    let mut days: BTreeMap<String, Vec<&Point>> = BTreeMap::new();
    for row in rows {
        days.entry(day(row.time_ms).unwrap_or_default()).or_default().push(row);
    }
    days
}

fn sync(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

fn day(time_ms: i64) -> Option<String> {
    // What microseconds reach.
    time_ms.checked_mul(1_000)?;
    DateTime::from_timestamp_millis(time_ms)
        .filter(|time| (0..=9999).contains(&chrono::Datelike::year(time)))
        .map(|time| time.format("%Y-%m-%d").to_string())
}

/// A random UUID, version 4.
fn new_id() -> String {
    let bits: u128 = rand::random::<u128>() & !(0xf000_u128 << 64) & !(0xc000_u128 << 48) | (0x4000_u128 << 64) | (0x8000_u128 << 48);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
