use std::collections::{BTreeMap, BTreeSet};

use common::topics::result_header;
use serde_json::{Map, Value};

use super::cases::Case;
use crate::harness::log::Log;
use crate::harness::topic::{self, Record};

/// The last row of each group, by the group's columns as JSON.
pub(crate) type Rows = BTreeMap<String, Row>;

pub(crate) struct Row {
    columns: Map<String, Value>,
    /// The record's key and the headers by which the sink knows the row.
    marks: Vec<String>,
}

impl Row {
    fn new(columns: Map<String, Value>, record: &Record) -> Self {
        let names = [result_header::QUERY, result_header::KEY_COLUMNS, result_header::WINDOW_START, result_header::WINDOW_END];
        let headers = names.into_iter().map(|name| record.headers.get(name).cloned().unwrap_or_default());
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        Self { columns, marks: std::iter::once(key).chain(headers).collect() }
    }
}

/// What became of a case.
pub(crate) struct Verdict {
    pub(crate) equal: bool,
    pub(crate) sentence: String,
    pub(crate) details: Vec<String>,
}

impl Verdict {
    pub(crate) fn refused_here(fault: &str) -> Self {
        Self { equal: false, sentence: format!("REFUSED: {fault}"), details: Vec::new() }
    }

    pub(crate) fn refused_by_spark(fault: &str) -> Self {
        Self { equal: false, sentence: format!("REFUSED BY SPARK: {}", &fault.chars().take(400).collect::<String>()), details: Vec::new() }
    }
}

/// The last row of each group in a result topic: a group stays in one partition, so the last is the newest.
///
/// The watermark of a Spark stream begins at 1970, so what ended before is late there, and has no rows to be compared with.
pub(crate) fn rows(log: &Log, name: &str, case: &Case) -> Rows {
    let keys = case.keys();
    let (mut rows, mut keys_of) = (Rows::new(), BTreeMap::new());
    for record in topic::read(log, name) {
        let end = record.headers.get(result_header::WINDOW_END).and_then(|end| end.parse::<i64>().ok());
        if case.stream && end.is_some_and(|end| end <= 0) {
            continue;
        }
        let identity = (record.key.clone(), record.headers.get(result_header::WINDOW_START).cloned());
        // A record without a value takes a row back.
        if record.value.is_empty() {
            if let Some(key) = keys_of.remove(&identity) {
                rows.remove(&key);
            }
            continue;
        }
        let row: Map<String, Value> = serde_json::from_slice(&record.value).unwrap_or_else(|error| panic!("{error}: {}", record.text()));
        let key: Vec<&Value> = keys.iter().map(|key| row.get(*key).unwrap_or(&Value::Null)).collect();
        let key = serde_json::to_string(&key).unwrap();
        keys_of.insert(identity, key.clone());
        rows.insert(key, Row::new(row, &record));
    }
    rows
}

pub(crate) fn compare(case: &Case, ours: Rows, sparks: Rows) -> Verdict {
    let mut details = Vec::new();
    let missing: Vec<&String> = sparks.keys().filter(|key| !ours.contains_key(*key)).collect();
    let extra: Vec<&String> = ours.keys().filter(|key| !sparks.contains_key(*key)).collect();
    if !missing.is_empty() {
        details.push(format!("{} rows are missing, the first is {}", missing.len(), missing[0]));
    }
    if !extra.is_empty() {
        details.push(format!("{} rows are too many, the first is {}", extra.len(), extra[0]));
    }
    if ours.is_empty() || sparks.is_empty() {
        details.push("there is nothing to compare".into());
    }
    if case.stream
        && let Some((ours, sparks)) =
            ours.iter().filter_map(|(key, row)| Some((&row.marks, &sparks.get(key)?.marks))).find(|(a, b)| !same_marks(a, b))
    {
        details.push(format!("key and headers differ: here {ours:?}, Spark {sparks:?}"));
    }
    let columns: BTreeSet<&String> = ours.values().chain(sparks.values()).flat_map(|row| row.columns.keys()).collect();
    let mut named = 0;
    for column in &columns {
        let both = || ours.iter().filter_map(|(key, row)| Some((key, row.columns.get(*column), sparks.get(key)?.columns.get(*column))));
        let differs: Vec<_> = both().filter(|(_, a, b)| !same(case, column, *a, *b)).collect();
        match (case.differs.get(*column), differs.first()) {
            (Some(_), Some(_)) => named += 1,
            (Some(_), None) => details.push(format!("{column} is said to differ and does not")),
            (None, None) => {}
            (None, Some((key, a, b))) => {
                let text = |value: &Option<&Value>| value.map_or("no such column".to_owned(), Value::to_string);
                details.push(format!(
                    "{column}: {} of {} differ, at {key}: here {}, Spark {}",
                    differs.len(),
                    both().count(),
                    text(a),
                    text(b)
                ));
            }
        }
    }
    details.extend(
        case.differs
            .values()
            .filter(|words| !DIVERGENCES.contains(words.as_str()))
            .map(|words| format!("docs/divergences.md does not say '{words}'")),
    );
    let sentence = match (details.is_empty(), named) {
        (true, 0) => format!("equal: {} rows of {} columns", ours.len(), columns.len()),
        (true, named) => {
            format!("equal: {} rows of {} columns, and {named} that differ as docs/divergences.md says", ours.len(), columns.len() - named)
        }
        (false, _) => format!("DIFFERENT: {} rows of {} columns", ours.len(), columns.len()),
    };
    Verdict { equal: details.is_empty(), sentence, details }
}

/// Spark's rows have the headers of a window whose start and end the result shows.
fn same_marks(ours: &[String], sparks: &[String]) -> bool {
    ours.iter().zip(sparks).enumerate().all(|(place, (ours, sparks))| ours == sparks || place > 2 && sparks.is_empty())
}

const DIVERGENCES: &str = include_str!("../../docs/divergences.md");

fn same(case: &Case, column: &str, a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if case.is_list(column) => equal(case, column, &sorted(a), &sorted(b)),
        (Some(a), Some(b)) => equal(case, column, a, b),
        _ => false,
    }
}

fn sorted(value: &Value) -> Value {
    let Value::Array(items) = value else { return value.clone() };
    let mut items: Vec<String> = items.iter().map(Value::to_string).collect();
    items.sort();
    Value::from(items)
}

/// JSON has one number where SQL has many types: 1 and 1.0 are the same, and a NaN is null here and a text in Spark's rows.
fn equal(case: &Case, column: &str, a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
                return a == b;
            }
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || case.is_close(column) && (a - b).abs() <= 1e-9 * b.abs().max(1.0)
        }
        (Value::Null, Value::String(text)) => matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity"),
        _ => a == b,
    }
}
