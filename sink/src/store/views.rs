//! A view for each measurement, with tags and fields as columns: what a question in SQL looks at instead of the JSON.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;
use crate::sqlite::schema;

/// Series and points that are looked at for the names of columns.
const LOOK_AT: u32 = 100;

/// A measurement as a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasurementView {
    /// `iot_10s_history` for `iot-10s`.
    pub name: String,
    /// With their types in Spark's words.
    pub columns: Vec<(String, &'static str)>,
    /// The SELECT behind it.
    pub select: String,
}

/// The views over a database of ours that is attached as `attached`; none while its writer has not made it. `path` is for the errors.
///
/// # Errors
/// When the file cannot be read, or is of a newer version.
pub fn views(connection: &Connection, attached: &str, path: &Path) -> Result<Vec<MeasurementView>, StoreError> {
    let fault = |cause| StoreError::Read { path: path.to_owned(), cause };
    let version: i64 = connection.pragma_query_value(Some(attached), "user_version", |row| row.get(0)).map_err(fault)?;
    match version {
        0 => Ok(Vec::new()),
        version if version > schema::VERSION => Err(StoreError::Version(schema::newer(path, version))),
        _ => all(connection, attached).map_err(fault),
    }
}

fn all(connection: &Connection, attached: &str) -> rusqlite::Result<Vec<MeasurementView>> {
    let sql = format!("SELECT DISTINCT measurement FROM {attached}.series ORDER BY measurement");
    let names = connection.prepare(&sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    names.iter().map(|name| view(connection, attached, name)).collect()
}

fn view(connection: &Connection, attached: &str, measurement: &str) -> rusqlite::Result<MeasurementView> {
    let (mut columns, mut select) = (Vec::new(), Vec::new());
    let mut add = |name: &str, kind: &'static str, expression: String| {
        let is_taken = columns.iter().any(|(other, _): &(String, _)| other.eq_ignore_ascii_case(name));
        if !is_taken {
            columns.push((name.to_owned(), kind));
            select.push(format!("{expression} AS {}", identifier(name)));
        }
    };
    let time = |column: &str| format!("strftime('%Y-%m-%dT%H:%M:%fZ', p.{column} / 1000.0, 'unixepoch')");
    add("window_start", "TIMESTAMP", time("time"));
    add("window_end", "TIMESTAMP", time("\"end\""));
    for (tag, _) in names(connection, &tags(attached), measurement)? {
        add(&tag, "STRING", member("s.tags", &tag));
    }
    for (field, kind) in names(connection, &fields(attached), measurement)? {
        add(&field, kind, member("p.fields", &field));
    }
    add("revision", "BIGINT", "p.revision".into());
    add("final", "BOOLEAN", "p.final".into());
    let from = format!("FROM {attached}.series AS s JOIN {attached}.point AS p ON p.series_id = s.id");
    let select = format!("SELECT {} {from} WHERE s.measurement = {}", select.join(", "), text(measurement));
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    Ok(MeasurementView { name: measurement.chars().map(plain).collect::<String>() + "_history", columns, select })
}

fn tags(attached: &str) -> String {
    format!("SELECT tags AS object FROM {attached}.series WHERE measurement = ?1 LIMIT ?2")
}

/// The newest point of each of some series.
fn fields(attached: &str) -> String {
    format!(
        "SELECT (SELECT fields FROM {attached}.point WHERE series_id = series.id ORDER BY time DESC LIMIT 1) AS object
         FROM {attached}.series WHERE measurement = ?1 LIMIT ?2"
    )
}

/// The names in some objects, in their order, and the type of the first value of each.
fn names(connection: &Connection, objects: &str, measurement: &str) -> rusqlite::Result<Vec<(String, &'static str)>> {
    let sql = format!("SELECT member.key, member.type FROM ({objects}) AS o, json_each(o.object) AS member");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query((measurement, LOOK_AT))?;
    let mut names: Vec<(String, &'static str)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, kind): (String, String) = (row.get(0)?, row.get(1)?);
        if !names.iter().any(|(other, _)| *other == name) {
            names.push((name, spark(&kind)));
        }
    }
    Ok(names)
}

/// A type of JSON in Spark's words.
fn spark(kind: &str) -> &'static str {
    match kind {
        "integer" => "BIGINT",
        "real" => "DOUBLE",
        "true" | "false" => "BOOLEAN",
        _ => "STRING",
    }
}

fn member(object: &str, name: &str) -> String {
    // A path cannot say every name.
    if name.contains(['"', '\\']) {
        return format!("(SELECT value FROM json_each({object}) WHERE key = {})", text(name));
    }
    format!("json_extract({object}, {})", text(&format!("$.\"{name}\"")))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
