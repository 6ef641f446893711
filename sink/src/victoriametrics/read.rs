//! What VictoriaMetrics holds, for a comparison with the log.

use std::collections::BTreeMap;

use common::settings::Victoriametrics;
use serde::Deserialize;
use serde_json::Value;

use super::address;
use crate::line::readable;
use crate::verify::{Held, Reader, Span};
use crate::web::{Client, percent};
use crate::writer::WriteError;

/// It takes samples of up to two days ahead, unless it is told otherwise.
const AHEAD_MS: i64 = 10 * 24 * 3_600_000;

#[derive(Debug)]
pub(crate) struct VictoriaReader(Client);

/// One line of an export.
#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    values: Vec<Value>,
    timestamps: Vec<i64>,
}

impl VictoriaReader {
    pub(crate) fn open(settings: &Victoriametrics) -> Result<Self, WriteError> {
        Client::new(address(settings).for_reading()).map(Self)
    }
}

impl Reader for VictoriaReader {
    /// Samples of one identity become one point again. Where one measurement's name begins with another's and `_`, samples of both are
    /// read; the comparison looks for its own.
    fn read(&mut self, measurement: &str, span: Span) -> Result<Vec<Held>, WriteError> {
        let pattern: String = measurement.chars().flat_map(escaped).collect();
        let selector = format!("{{__name__=~\"{pattern}_.*\"}}");
        // A range that reaches before 1970 or decades ahead gets an empty answer.
        let latest = chrono::Utc::now().timestamp_millis() + AHEAD_MS;
        let (from, to) = (span.from_ms.max(0) as f64 / 1e3, (span.to_ms - 1).min(latest) as f64 / 1e3);
        let body = format!("match[]={}&start={from}&end={to}", percent(&selector));
        let answer = self.0.ask("/api/v1/export", "application/x-www-form-urlencoded", body.as_bytes())?;
        answer.judge(self.0.database(), self.0.url(), &[200])?;
        let mut points: BTreeMap<(BTreeMap<String, String>, i64), BTreeMap<String, Value>> = BTreeMap::new();
        for line in answer.body.lines() {
            let series: Series = serde_json::from_str(line)
                .map_err(|error| WriteError::Fatal(format!("VictoriaMetrics' answer cannot be understood: {error}")))?;
            let mut tags: BTreeMap<String, String> =
                series.metric.into_iter().map(|(name, value)| (readable(&name), readable(&value))).collect();
            let name = tags.remove("__name__").unwrap_or_default();
            let Some(field) = name.strip_prefix(measurement).and_then(|rest| rest.strip_prefix('_')) else { continue };
            for (value, time) in series.values.into_iter().zip(series.timestamps) {
                points.entry((tags.clone(), time)).or_default().insert(field.to_owned(), value);
            }
        }
        let held = |((tags, time_ms), fields)| Held { measurement: measurement.to_owned(), tags, time_ms, fields };
        Ok(points.into_iter().map(held).collect())
    }
}

/// A character in a regular expression within a quoted text.
fn escaped(character: char) -> Vec<char> {
    match character {
        '\\' => vec!['\\'; 4],
        '"' => vec!['\\', '"'],
        '\n' => vec!['\\', '\\', '\\', '\\', 'n'],
        character if character.is_ascii_punctuation() && character != '_' => vec!['\\', '\\', character],
        character => vec![character],
    }
}
