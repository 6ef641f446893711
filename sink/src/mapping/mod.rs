//! From a record of a result topic to a point.

mod headers;
mod split;

use common::settings::Mapping;
use common::topics::result_header as header;

use crate::point::{FieldValue, Place, Point, Text};
use crate::row::Row;
use crate::time::{parse_cell, parse_nested};
use headers::Told;
use split::{Columns, Parts};

/// Why a record cannot become a point: `reason` is one word for counting, `detail` a sentence for people.
#[derive(Debug, PartialEq)]
pub(crate) struct Unreadable {
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

fn unreadable(reason: &'static str, detail: impl Into<String>) -> Unreadable {
    Unreadable { reason, detail: detail.into() }
}

/// Columns with the time of a row that has neither headers nor a window, such as a reading.
const TIME_COLUMNS: [&str; 3] = ["ts", "time", "timestamp"];

/// Maps records; remembers the last list of key columns, which rarely changes from one row to the next.
#[derive(Debug, Default)]
pub(crate) struct Mapper {
    settings: Mapping,
    key_columns_json: Vec<u8>,
    key_columns: Vec<String>,
}

impl Mapper {
    pub(crate) fn new(settings: &Mapping) -> Self {
        Self { settings: settings.clone(), ..Self::default() }
    }

    /// # Errors
    /// When the value is not a JSON object, has no time, or its headers contradict their own format.
    pub(crate) fn map<'a>(
        &mut self,
        topic: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        value: Option<&[u8]>,
    ) -> Result<Point, Unreadable> {
        let told = Told::read(headers)?;
        if let Some(json) = told.key_columns {
            self.read_key_columns(json)?;
        }
        match (value, told.key) {
            (Some(value), _) => self.row(topic, &told, value),
            (None, Some(key)) if told.query.is_some() => self.deletion(topic, &told, key),
            (None, _) => Err(unreadable("no_value", "the record has no value")),
        }
    }

    fn row(&self, topic: &str, told: &Told<'_>, value: &[u8]) -> Result<Point, Unreadable> {
        let row: Row<'_> = serde_json::from_slice(value).map_err(|error| unreadable("not_json", format!("not a JSON object: {error}")))?;
        let (time, time_column) = self.time(told, &row)?;
        let end = told.end.or_else(|| bound(&row, "window_end", "end"));
        let columns = Columns { keys: self.tag_columns(told), fields: &self.settings.fields, time_column, start: time, end };
        let Parts { tags, mut fields, nulls, null_tag } = columns.split(row);
        if let Some(rank) = told.rank
            && !fields.iter().any(|(name, _)| name == "rank")
        {
            fields.push(("rank".into(), FieldValue::Int(rank)));
        }
        let point = self.point(topic, told, time);
        Ok(Point { tags, end_ms: end, fields, nulls, null_tag, ..point })
    }

    /// A row that has left the result: its identity alone.
    fn deletion(&self, topic: &str, told: &Told<'_>, key: &[u8]) -> Result<Point, Unreadable> {
        let key: Row<'_> = serde_json::from_slice(key)
            .map_err(|error| unreadable("bad_header", format!("header {} is not a JSON object: {error}", header::KEY)))?;
        let time = told.time.or(told.start).unwrap_or(0);
        let every: Vec<String> = key.0.iter().map(|(name, _)| name.clone().into_owned()).collect();
        let keys = self.tag_columns(told).unwrap_or(&every);
        let columns = Columns { keys: Some(keys), fields: &[], time_column: None, start: time, end: told.end };
        let Parts { tags, null_tag, .. } = columns.split(key);
        Ok(Point { tags, end_ms: told.end, null_tag, deleted: true, ..self.point(topic, told, time) })
    }

    fn point(&self, topic: &str, told: &Told<'_>, time_ms: i64) -> Point {
        Point {
            measurement: self.measurement(topic, told.query),
            tags: Vec::new(),
            time_ms,
            end_ms: None,
            fields: Vec::new(),
            revision: told.revision,
            is_final: told.is_final,
            restated: told.restated,
            nulls: Vec::new(),
            null_tag: false,
            place: Place::default(),
            deleted: false,
        }
    }

    /// The row's time, and the column that it is in when that is no column of a window.
    fn time(&self, told: &Told<'_>, row: &Row<'_>) -> Result<(i64, Option<&str>), Unreadable> {
        if let Some(column) = self.settings.time_column.as_deref() {
            let time = row.get(column).and_then(parse_cell);
            return time
                .map(|time| (time, Some(column)))
                .ok_or_else(|| unreadable("no_time", format!("column '{column}' (sink.mapping.time_column) is missing or is no time")));
        }
        if let Some(time) = told.time.or(told.start).or_else(|| bound(row, "window_start", "start")) {
            return Ok((time, None));
        }
        // A group without a window: one row a key, the current value.
        if told.query.is_some() && told.revision.is_some() {
            return Ok((0, None));
        }
        let found = TIME_COLUMNS.iter().find_map(|name| Some((row.get(name).and_then(parse_cell)?, Some(*name))));
        found.ok_or_else(|| {
            unreadable(
                "no_time",
                "neither a window-start header nor a column window_start, ts, time or timestamp with a time; name the column in sink.mapping.time_column",
            )
        })
    }

    fn tag_columns(&self, told: &Told<'_>) -> Option<&[String]> {
        match (self.settings.tags.is_empty(), told.key_columns) {
            (false, _) => Some(&self.settings.tags),
            (true, Some(_)) => Some(&self.key_columns),
            (true, None) => None,
        }
    }

    fn measurement(&self, topic: &str, query: Option<&str>) -> Text {
        match &self.settings.measurement {
            None => query.unwrap_or_else(|| name_from(topic)).into(),
            Some(template) => template.replace("{query}", query.unwrap_or_else(|| name_from(topic))).replace("{topic}", topic).into(),
        }
    }

    fn read_key_columns(&mut self, json: &[u8]) -> Result<(), Unreadable> {
        if self.key_columns_json != json {
            self.key_columns = serde_json::from_slice(json).map_err(|error| {
                unreadable("bad_header", format!("header {} is not a JSON array of names: {error}", header::KEY_COLUMNS))
            })?;
            json.clone_into(&mut self.key_columns_json);
        }
        Ok(())
    }
}

/// The query behind a topic's name: what follows `iot.agg.`.
fn name_from(topic: &str) -> &str {
    topic.strip_prefix(common::topics::aggregate("").as_str()).filter(|name| !name.is_empty()).unwrap_or(topic)
}

/// A bound from its own column, or from Spark's struct column `window`.
fn bound(row: &Row<'_>, column: &str, nested: &str) -> Option<i64> {
    row.get(column).and_then(parse_cell).or_else(|| row.get("window").and_then(|window| parse_nested(window, nested)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
