use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::oracle::{Cell, CellKey, Cells};
use super::process::Process;
use super::wait::wait_until;

/// The sink's database as it is now; empty while there is none.
pub(crate) fn read(database: &Path, measurement: &str) -> Cells {
    let Ok(connection) = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY) else { return Cells::new() };
    let sql = "SELECT time, tags, fields FROM point JOIN series ON series.id = series_id WHERE measurement = ?1";
    // No table yet: the sink has just made the file.
    let Ok(mut query) = connection.prepare(sql) else { return Cells::new() };
    let rows = query.query_map([measurement], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)));
    let rows = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).unwrap();
    rows.into_iter().map(|(start, tags, fields)| cell(start, &tags, &fields)).collect()
}

pub(crate) fn count(database: &Path, measurement: &str) -> usize {
    read(database, measurement).len()
}

fn cell(start: i64, tags: &str, fields: &str) -> (CellKey, Cell) {
    let tags: Value = serde_json::from_str(tags).unwrap();
    let fields: Value = serde_json::from_str(fields).unwrap();
    let number = |name: &str| fields[name].as_f64().unwrap_or_else(|| panic!("no {name} in {fields}"));
    let sensor = tags["sensor_id"].as_str().unwrap_or_else(|| panic!("no sensor_id in {tags}")).to_owned();
    let cell = Cell { n: fields["n"].as_u64().unwrap(), avg: number("avg"), min: number("min"), max: number("max") };
    (CellKey { start, sensor }, cell)
}

/// Waits until the database has just these cells.
#[track_caller]
pub(crate) fn wait_equal(database: &Path, measurement: &str, want: &Cells, sink: &mut Process, limit: Duration) {
    let what = format!("{} points of {measurement} in {}", want.len(), database.display());
    wait_until(&what, limit, || {
        assert!(sink.try_wait().is_none(), "the sink ended:\n{}", sink.output());
        &read(database, measurement) == want
    });
}
