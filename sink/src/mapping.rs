//! From a record of a result topic to a point.

use common::topics::result_header as header;

use crate::point::{FieldValue, Point};
use crate::row::{Cell, Row};
use crate::time::{parse_cell, parse_nested, parse_text};

/// Why a record cannot become a point: `reason` is one word for counting, `detail` a sentence for people.
#[derive(Debug, PartialEq)]
pub(crate) struct Unreadable {
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

fn unreadable(reason: &'static str, detail: impl Into<String>) -> Unreadable {
    Unreadable { reason, detail: detail.into() }
}

/// What the headers of a result row say; all absent in rows that something else than our processor wrote.
#[derive(Debug, Default)]
struct Told<'a> {
    query: Option<&'a str>,
    revision: Option<i64>,
    is_final: bool,
    start: Option<i64>,
    end: Option<i64>,
    key_columns: Option<&'a [u8]>,
}

impl<'a> Told<'a> {
    fn read(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Self, Unreadable> {
        let mut told = Self::default();
        for (name, bytes) in headers {
            let text = || std::str::from_utf8(bytes).map_err(|_| unreadable("bad_header", format!("header {name} is not text")));
            match name {
                header::QUERY => told.query = Some(text()?),
                header::REVISION => told.revision = Some(number(name, text()?)?),
                header::FINAL => told.is_final = text()? == "true",
                header::WINDOW_START => told.start = Some(number(name, text()?)?),
                header::WINDOW_END => told.end = Some(number(name, text()?)?),
                header::KEY_COLUMNS => told.key_columns = Some(bytes),
                _ => {}
            }
        }
        Ok(told)
    }
}

fn number(name: &str, text: &str) -> Result<i64, Unreadable> {
    text.parse().map_err(|_| unreadable("bad_header", format!("header {name} is '{text}', not a whole number")))
}

/// Maps records; remembers the last list of key columns, which rarely changes from one row to the next.
#[derive(Debug, Default)]
pub(crate) struct Mapper {
    key_columns_json: Vec<u8>,
    key_columns: Vec<String>,
}

impl Mapper {
    /// # Errors
    /// When the value is not a JSON object, has no time, or its headers contradict their own format.
    pub(crate) fn map<'a>(
        &mut self,
        topic: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        value: Option<&[u8]>,
    ) -> Result<Point, Unreadable> {
        let told = Told::read(headers)?;
        let value = value.ok_or_else(|| unreadable("no_value", "the record has no value"))?;
        let row: Row = serde_json::from_slice(value).map_err(|error| unreadable("not_json", format!("not a JSON object: {error}")))?;
        let no_time = || unreadable("no_time", "neither a window-start header nor a column window_start with a time");
        let start = told.start.or_else(|| bound(&row, "window_start", "start")).ok_or_else(no_time)?;
        let end = told.end.or_else(|| bound(&row, "window_end", "end"));
        let keys = match told.key_columns {
            Some(json) => Some(self.key_columns(json)?),
            None => None,
        };
        let (tags, fields) = split(row, keys, &Window { start, end });
        let measurement = told.query.unwrap_or_else(|| name_from(topic)).to_owned();
        Ok(Point { measurement, tags, time_ms: start, end_ms: end, fields, revision: told.revision, is_final: told.is_final })
    }

    fn key_columns(&mut self, json: &[u8]) -> Result<&[String], Unreadable> {
        if self.key_columns_json != json {
            self.key_columns = serde_json::from_slice(json).map_err(|error| {
                unreadable("bad_header", format!("header {} is not a JSON array of names: {error}", header::KEY_COLUMNS))
            })?;
            json.clone_into(&mut self.key_columns_json);
        }
        Ok(&self.key_columns)
    }
}

/// The query behind a topic's name: what follows `iot.agg.`.
fn name_from(topic: &str) -> &str {
    topic.strip_prefix(common::topics::aggregate("").as_str()).filter(|name| !name.is_empty()).unwrap_or(topic)
}

/// A bound from its own column, or from Spark's struct column `window`.
fn bound(row: &Row, column: &str, nested: &str) -> Option<i64> {
    row.get(column).and_then(parse_cell).or_else(|| row.get("window").and_then(|window| parse_nested(window, nested)))
}

struct Window {
    start: i64,
    end: Option<i64>,
}

impl Window {
    /// The window's bounds are the point's time and not its fields, whatever the query calls them.
    fn is_bound(&self, name: &str, cell: &Cell) -> bool {
        if matches!(name, "window_start" | "window_end" | "window") {
            return true;
        }
        let Cell::Text(text) = cell else { return false };
        parse_text(text).is_some_and(|time| time == self.start || Some(time) == self.end)
    }
}

type Tags = Vec<(String, String)>;
type Fields = Vec<(String, FieldValue)>;

/// Key columns become tags, in a row without key columns the texts do; the rest but the window and nulls become fields.
fn split(row: Row, keys: Option<&[String]>, window: &Window) -> (Tags, Fields) {
    let (mut tags, mut fields) = (Vec::new(), Vec::with_capacity(row.0.len()));
    for (name, cell) in row.0 {
        let is_tag = match keys {
            Some(keys) => keys.contains(&name),
            None => matches!(cell, Cell::Text(_)) && !window.is_bound(&name, &cell),
        };
        if is_tag {
            if let Some(text) = tag(cell) {
                tags.push((name, text));
            }
        } else if !window.is_bound(&name, &cell)
            && let Some(value) = field(cell)
        {
            fields.push((name, value));
        }
    }
    tags.sort();
    (tags, fields)
}

/// A null key leaves its tag out: the group of the null has an identity of its own.
fn tag(cell: Cell) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Bool(value) => Some(value.to_string()),
        Cell::Int(value) => Some(value.to_string()),
        Cell::UInt(value) => Some(value.to_string()),
        Cell::Float(value) => Some(value.to_string()),
        Cell::Text(value) => Some(value),
        Cell::Nested(value) => Some(value.to_string()),
    }
}

fn field(cell: Cell) -> Option<FieldValue> {
    match cell {
        Cell::Null => None,
        Cell::Bool(value) => Some(FieldValue::Bool(value)),
        Cell::Int(value) => Some(FieldValue::Int(value)),
        Cell::UInt(value) => Some(FieldValue::UInt(value)),
        Cell::Float(value) => Some(FieldValue::Float(value)),
        Cell::Text(value) => Some(FieldValue::Text(value)),
        Cell::Nested(value) => Some(FieldValue::Text(value.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const START: &str = "1700000000000";

    fn headers<'a>(revision: &'a str, keys: &'a str) -> Vec<(&'a str, &'a [u8])> {
        vec![
            (header::QUERY, b"iot-10s".as_slice()),
            (header::REVISION, revision.as_bytes()),
            (header::FINAL, b"true"),
            (header::WINDOW_START, START.as_bytes()),
            (header::WINDOW_END, b"1700000010000"),
            (header::KEY_COLUMNS, keys.as_bytes()),
        ]
    }

    fn map(headers: &[(&str, &[u8])], value: &str) -> Result<Point, Unreadable> {
        Mapper::default().map("iot.agg.spark", headers.iter().copied(), Some(value.as_bytes()))
    }

    #[test]
    fn key_columns_become_tags_and_the_rest_fields() {
        let value = r#"{"window_start":"2023-11-14T22:13:20Z","window_end":"2023-11-14T22:13:30Z","sensor_id":"s-1","n":3,"avg":21.5,
            "top":"high","ok":true,"gone":null}"#;
        let point = map(&headers("42", r#"["sensor_id"]"#), value).unwrap();
        assert_eq!(point.measurement, "iot-10s");
        assert_eq!(point.tags, [("sensor_id".into(), "s-1".into())]);
        assert_eq!((point.time_ms, point.end_ms), (1_700_000_000_000, Some(1_700_000_010_000)));
        assert_eq!((point.revision, point.is_final), (Some(42), true));
        let fields: Vec<(&str, &FieldValue)> = point.fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
        assert_eq!(
            fields,
            [
                ("n", &FieldValue::Int(3)),
                ("avg", &FieldValue::Float(21.5)),
                ("top", &FieldValue::Text("high".into())),
                ("ok", &FieldValue::Bool(true))
            ]
        );
    }

    #[test]
    fn tags_are_sorted_and_keep_every_character() {
        let point = map(&headers("1", r#"["z","a b","n"]"#), r#"{"z":"q\"uo,te=\\ 🌡é","a b":"","n":7,"v":1}"#).unwrap();
        let tags: Vec<(&str, &str)> = point.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(tags, [("a b", ""), ("n", "7"), ("z", "q\"uo,te=\\ 🌡é")]);
        assert_eq!(point.tags_json(), r#"{"a b":"","n":"7","z":"q\"uo,te=\\ 🌡é"}"#);
    }

    #[test]
    fn window_columns_by_another_name_are_no_fields() {
        let point = map(&headers("1", "[]"), r#"{"from":"2023-11-14T22:13:20Z","until":"2023-11-14T22:13:30Z","v":1}"#).unwrap();
        assert_eq!(point.fields, [("v".into(), FieldValue::Int(1))]);
    }

    #[test]
    fn rows_of_spark_need_no_headers() {
        for value in [
            r#"{"window_start":"2023-11-14T22:13:20.000Z","window_end":"2023-11-14T22:13:30.000Z","sensor_id":"s","avg":1.5}"#,
            r#"{"window_start":1700000000000,"window_end":1700000010000,"sensor_id":"s","avg":1.5}"#,
            r#"{"window":{"start":"2023-11-14T22:13:20.000Z","end":"2023-11-14T22:13:30.000Z"},"sensor_id":"s","avg":1.5}"#,
        ] {
            let point = map(&[], value).unwrap();
            assert_eq!(point.measurement, "spark");
            assert_eq!((point.time_ms, point.end_ms), (1_700_000_000_000, Some(1_700_000_010_000)));
            assert_eq!(point.tags, [("sensor_id".into(), "s".into())]);
            assert_eq!(point.fields, [("avg".into(), FieldValue::Float(1.5))]);
            assert_eq!((point.revision, point.is_final), (None, false));
        }
    }

    #[test]
    fn what_cannot_be_a_point_says_why() {
        let reason = |headers: &[(&str, &[u8])], value| map(headers, value).unwrap_err().reason;
        assert_eq!(reason(&[], "nonsense"), "not_json");
        assert_eq!(reason(&[], "[1,2]"), "not_json");
        assert_eq!(reason(&[], r#"{"avg":1}"#), "no_time");
        assert_eq!(reason(&[], r#"{"window_start":"yesterday"}"#), "no_time");
        assert_eq!(reason(&headers("x", "[]"), "{}"), "bad_header");
        assert_eq!(reason(&headers("1", "sensor_id"), "{}"), "bad_header");
        assert_eq!(Mapper::default().map("t", std::iter::empty(), None).unwrap_err().reason, "no_value");
    }
}
