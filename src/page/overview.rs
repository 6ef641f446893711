//! `/api/overview`: what there is.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sink::store::{Measurement, Series, SeriesPoints};

use super::Shared;
use super::pipeline::now_ms;
use super::points::point_to_json;
use super::reader::Unreadable;

/// Series shown unless the question says otherwise, and the most it may ask for.
const SERIES: usize = 200;
const MOST_SERIES: usize = 2_000;
/// Points of a sparkline.
const SPARK: usize = 30;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// Without: the one with the most series.
    measurement: Option<String>,
    /// Only series with this in a tag's value.
    filter: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn overview(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Result<Json<Value>, Unreadable> {
    let limit = asked.limit.unwrap_or(SERIES).clamp(1, MOST_SERIES);
    let filter = asked.filter.filter(|filter| !filter.is_empty());
    let answer = shared.reader.ask(move |store| {
        let measurements = store.measurements()?;
        let chosen = choose(&measurements, asked.measurement.as_deref());
        let series = match &chosen {
            // One more than is shown tells whether there are more.
            Some(name) => store.series(Some(name), filter.as_deref(), limit + 1)?,
            None => Vec::new(),
        };
        let more = series.len() > limit;
        let shown: Vec<i64> = series.iter().take(limit).map(|series| series.id).collect();
        let recent = store.recent(&shown, SPARK)?;
        Ok((measurements, chosen, series, recent, more))
    });
    let (measurements, chosen, series, recent, more) = answer.await?;
    let tiles: Vec<Value> = series.iter().zip(&recent).map(|(series, recent)| tile(series, recent)).collect();
    Ok(Json(json!({ "now_ms": now_ms(), "measurements": measurements, "measurement": chosen, "series": tiles, "more": more })))
}

fn choose(measurements: &[Measurement], wish: Option<&str>) -> Option<String> {
    let wished = measurements.iter().find(|measurement| Some(measurement.name.as_str()) == wish);
    let filled = measurements.iter().filter(|measurement| measurement.newest_ms.is_some());
    wished.or_else(|| filled.max_by_key(|measurement| measurement.series)).map(|measurement| measurement.name.clone())
}

/// A series with its latest point and the line of its recent values.
fn tile(series: &Series, recent: &SeriesPoints) -> Value {
    let latest = recent.points.last();
    let field = latest.and_then(|point| main_field(&point.fields));
    let spark: Vec<Value> = match &field {
        Some(field) => recent.points.iter().map(|point| spark(point.fields.get(field))).collect(),
        None => Vec::new(),
    };
    json!({
        "id": series.id,
        "tags": series.tags,
        "newest_ms": series.newest_ms,
        "latest": latest.map(point_to_json),
        "field": field,
        "spark": spark,
    })
}

/// Five figures are more than a sparkline shows, and a third of the bytes.
fn spark(value: Option<&Value>) -> Value {
    let Some(number) = value.and_then(Value::as_f64) else { return Value::Null };
    let rounded = format!("{number:.4e}").parse::<f64>();
    rounded.map_or(Value::Null, Value::from)
}

/// The field that stands for a point: its mean if it has one, else the first number.
fn main_field(fields: &Map<String, Value>) -> Option<String> {
    let number = |name: &str| fields.get(name).is_some_and(Value::is_number);
    ["avg", "mean", "value"]
        .into_iter()
        .find(|name| number(name))
        .map(str::to_owned)
        .or_else(|| fields.iter().find(|(_, value)| value.is_number()).map(|(name, _)| name.clone()))
}
