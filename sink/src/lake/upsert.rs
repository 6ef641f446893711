//! Newer rows in the place of older ones: a file that holds a row which has to go is written anew without it.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash as _, Hasher as _};

use arrow::array::{Array as _, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;

use super::file;
use super::log::{DataFile, Fault};
use super::schema::{Columns, REVISION, TIME};
use super::table::Table;
use crate::point::Point;

/// What a day's new rows change.
pub(super) struct Change {
    /// Files that go.
    pub(super) removed: Vec<DataFile>,
    /// Files that come.
    pub(super) added: Vec<DataFile>,
    /// New rows that are older than what the table has.
    pub(super) stale: u64,
}

/// `rows` are of one day and of different identities; `tags` are the columns that make an identity, with the time.
pub(super) fn replace(table: &Table, columns: &Columns, tags: &BTreeSet<String>, day: &str, rows: &[&Point]) -> Result<Change, Fault> {
    let wanted = Wanted::new(tags, rows);
    let mut is_stale = vec![false; rows.len()];
    let mut removed = Vec::new();
    let mut masks = Vec::new();
    for file in table.state.files.values().filter(|file| file.day == day && wanted.may_be_in(file)) {
        let mut keep = Vec::new();
        for batch in file::read(&table.folder.join(&file.path), columns)? {
            keep.push(wanted.keep(&batch.map_err(Fault::Io)?, &mut is_stale)?);
        }
        if keep.iter().any(|mask| mask.true_count() < mask.len()) {
            removed.push(file.clone());
            masks.push(keep);
        }
    }
    let mut added = Vec::new();
    // What stays is a file of its own: the next change is most likely one of the new rows.
    if masks.iter().flatten().any(|mask| mask.true_count() > 0) {
        let kept = removed.iter().zip(masks).map(|(file, masks)| {
            let batches = file::read(&table.folder.join(&file.path), columns)?;
            Ok(batches.zip(masks).map(|(batch, mask)| filter_record_batch(&batch?, &mask).map_err(|error| error.to_string())))
        });
        added.push(table.new_file(day, columns, kept)?);
    }
    let fresh: Vec<&Point> = rows.iter().zip(&is_stale).filter(|(row, stale)| !row.deleted && !**stale).map(|(row, _)| *row).collect();
    if !fresh.is_empty() {
        added.push(table.new_rows(day, columns, &fresh)?);
    }
    Ok(Change { removed, added, stale: is_stale.iter().filter(|stale| **stale).count() as u64 })
}

/// The new rows by their identity.
struct Wanted<'a> {
    tags: &'a BTreeSet<String>,
    rows: &'a [&'a Point],
    by_hash: HashMap<u64, Vec<usize>>,
    /// First and last time.
    times: (i64, i64),
}

impl<'a> Wanted<'a> {
    fn new(tags: &'a BTreeSet<String>, rows: &'a [&'a Point]) -> Self {
        let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut times = (i64::MAX, i64::MIN);
        for (at, row) in rows.iter().enumerate() {
            by_hash.entry(hash(row.time_ms, tags.iter().map(|name| tag(row, name)))).or_default().push(at);
            times = (times.0.min(row.time_ms), times.1.max(row.time_ms));
        }
        Self { tags, rows, by_hash, times }
    }

    fn may_be_in(&self, file: &DataFile) -> bool {
        file.times.is_none_or(|(first, last)| first <= self.times.1 && self.times.0 <= last)
    }

    /// Which rows of `batch` stay; notes which new ones are older than what is there.
    fn keep(&self, batch: &RecordBatch, is_stale: &mut [bool]) -> Result<BooleanArray, Fault> {
        let odd = || Fault::Io("a file has other columns than the table".into());
        let time =
            batch.column_by_name(TIME).and_then(|column| column.as_any().downcast_ref::<TimestampMicrosecondArray>()).ok_or_else(odd)?;
        let revision = batch.column_by_name(REVISION).and_then(|column| column.as_any().downcast_ref::<Int64Array>()).ok_or_else(odd)?;
        let text = |name: &String| batch.column_by_name(name).map(|column| column.as_any().downcast_ref::<StringArray>().ok_or_else(odd));
        let tags: Vec<Option<&StringArray>> = self.tags.iter().map(|name| text(name).transpose()).collect::<Result<_, _>>()?;
        let keep = (0..batch.num_rows()).map(|row| {
            let time_ms = time.value(row).div_euclid(1_000);
            if time_ms < self.times.0 || time_ms > self.times.1 {
                return true;
            }
            let held = || tags.iter().map(|column| column.filter(|column| column.is_valid(row)).map(|column| column.value(row)));
            let same = |at: &&usize| {
                let new = self.rows[**at];
                new.time_ms == time_ms && self.tags.iter().zip(held()).all(|(name, held)| tag(new, name) == held)
            };
            let Some(at) = self.by_hash.get(&hash(time_ms, held())).and_then(|places| places.iter().find(same)) else { return true };
            let held = revision.is_valid(row).then(|| revision.value(row));
            let is_newer = self.rows[*at].revision.zip(held).is_none_or(|(new, held)| new >= held);
            is_stale[*at] |= !is_newer;
            !is_newer
        });
        Ok(keep.collect::<Vec<bool>>().into())
    }
}

fn tag<'a>(row: &'a Point, name: &str) -> Option<&'a str> {
    row.tags.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn hash<'a>(time_ms: i64, tags: impl Iterator<Item = Option<&'a str>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    time_ms.hash(&mut hasher);
    tags.for_each(|tag| tag.hash(&mut hasher));
    hasher.finish()
}
