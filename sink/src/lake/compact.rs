//! Small files of one day put together, so that readers open few.

use std::collections::BTreeMap;

use chrono::Utc;
use common::settings::LakeMode;
use serde_json::json;

use super::file;
use super::log::{DataFile, Fault};
use super::table::Table;
use crate::writer::WriteError;

/// A day with as many small files is put together.
const MANY: usize = 16;
/// Files from this size on are left as they are. All files that are put together at once come to four times that at most, which bounds
/// memory and time.
const SMALL: u64 = 8 << 20;
const AT_ONCE: u64 = 4 * SMALL;

/// In upsert mode: a file whose last row is that much older than the table's newest one.
const CALM_MS: i64 = 3_600_000;

/// Puts the small files of each day that has many of them together, a commit each. The rows stay the same.
pub(super) fn compact(table: &mut Table) -> Result<(), WriteError> {
    let mut days: BTreeMap<String, Vec<DataFile>> = BTreeMap::new();
    let newest = table.state.files.values().filter_map(|file| file.times).map(|(_, last)| last).max();
    // Rows that will be replaced soon stay apart from those that will not.
    let is_calm = |file: &DataFile| {
        table.mode == LakeMode::Append || file.times.zip(newest).is_some_and(|((_, last), newest)| newest - last >= CALM_MS)
    };
    for file in table.state.files.values().filter(|file| file.bytes < SMALL && is_calm(file)) {
        days.entry(file.day.clone()).or_default().push(file.clone());
    }
    for (day, files) in days.into_iter().filter(|(_, files)| files.len() >= MANY) {
        let mut bytes = 0;
        let files: Vec<DataFile> = files
            .into_iter()
            .take_while(|file| {
                bytes += file.bytes;
                bytes <= AT_ONCE
            })
            .collect();
        // What another writer has taken out meanwhile would come back, and its rows would be there twice.
        if !has_all(table, &files) {
            continue;
        }
        match put_together(table, &day, &files) {
            Ok(()) => {}
            // Another writer has made a commit in between; the next round looks anew.
            Err(Fault::Taken) => table.catch_up()?,
            // Another writer has put its rows elsewhere and deleted it. A file that the newest state names too is lost.
            Err(Fault::Gone(cause)) => {
                table.catch_up()?;
                if has_all(table, &files) {
                    return Err(table.retry(&cause));
                }
            }
            Err(Fault::Io(cause)) => return Err(table.retry(&cause)),
        }
    }
    Ok(())
}

/// Whether all of `files` are of the table still.
fn has_all(table: &Table, files: &[DataFile]) -> bool {
    files.iter().all(|file| table.state.files.contains_key(&file.path))
}

fn put_together(table: &mut Table, day: &str, files: &[DataFile]) -> Result<(), Fault> {
    let now = Utc::now().timestamp_millis();
    let columns = &table.state.columns;
    let whole = table.new_file(day, columns, files.iter().map(|file| file::read(&table.folder.join(&file.path), columns)))?;
    let mut actions = vec![json!({ "commitInfo": { "timestamp": now, "operation": "OPTIMIZE", "operationParameters": {},
        "engineInfo": concat!("tidemark/", env!("CARGO_PKG_VERSION")) } })];
    actions.extend(files.iter().map(|file| file.remove(now, false)));
    actions.push(whole.add(now, false));
    table.log.commit(&mut table.state, &actions)
}
