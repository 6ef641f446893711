//! What InfluxDB holds, for a comparison with the log; by InfluxQL, whose answer has each series with its tags.

use std::collections::BTreeMap;

use common::settings::Influxdb;
use serde::Deserialize;
use serde_json::Value;

use super::address;
use crate::line::{readable, stored};
use crate::verify::{Held, Reader, Span};
use crate::web::{Client, percent};
use crate::writer::WriteError;

#[derive(Debug)]
pub(crate) struct InfluxReader {
    client: Client,
    place: String,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Vec<Statement>,
}

#[derive(Deserialize)]
struct Statement {
    #[serde(default)]
    series: Vec<Series>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    tags: BTreeMap<String, String>,
    columns: Vec<String>,
    values: Vec<Vec<Value>>,
}

impl InfluxReader {
    pub(crate) fn open(settings: &Influxdb) -> Result<Self, WriteError> {
        let place = format!("org={}&db={}", percent(&settings.org), percent(&settings.bucket));
        Ok(Self { client: Client::new(address(settings).for_reading())?, place })
    }
}

impl Reader for InfluxReader {
    fn read(&mut self, measurement: &str, span: Span) -> Result<Vec<Held>, WriteError> {
        let name = stored(measurement).replace('\\', "\\\\").replace('"', "\\\"");
        let statement = format!("SELECT * FROM \"{name}\" WHERE time >= {}ms AND time < {}ms GROUP BY *", span.from_ms, span.to_ms);
        let path = format!("/query?{}&epoch=ms", self.place);
        let body = format!("q={}", percent(&statement));
        let answer = self.client.ask(&path, "application/x-www-form-urlencoded", body.as_bytes())?;
        answer.judge(self.client.database(), self.client.url(), &[200])?;
        let unreadable = |cause: String| WriteError::Fatal(format!("InfluxDB's answer cannot be understood: {cause}"));
        let results: Results = serde_json::from_str(&answer.body).map_err(|error| unreadable(error.to_string()))?;
        let mut held = Vec::new();
        for statement in results.results {
            if let Some(error) = statement.error {
                return Err(unreadable(error));
            }
            statement.series.into_iter().for_each(|series| held.extend(points(measurement, series)));
        }
        Ok(held)
    }
}

fn points(measurement: &str, series: Series) -> Vec<Held> {
    // A tag of other series of the measurement is an empty text in this one.
    let tags = series.tags.iter().filter(|(_, value)| !value.is_empty());
    let tags: BTreeMap<String, String> = tags.map(|(name, value)| (readable(name), readable(value))).collect();
    let point = |row: Vec<Value>| {
        let (mut time_ms, mut fields) = (0, BTreeMap::new());
        for (name, value) in series.columns.iter().zip(row) {
            match value {
                Value::Number(time) if name == "time" => time_ms = time.as_i64().unwrap_or(0),
                Value::Null => {}
                value => drop(fields.insert(readable(name), value)),
            }
        }
        Held { measurement: measurement.to_owned(), tags: tags.clone(), time_ms, fields }
    };
    series.values.into_iter().map(point).collect()
}
