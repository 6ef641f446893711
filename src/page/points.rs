//! `/api/points`: points of chosen series in a range of time.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sink::store::{SeriesPoints, StoredPoint};

use super::Shared;
use super::reader::Unreadable;

/// Most series of one question.
const SERIES: usize = 64;
/// Points per series unless the question says otherwise, and the most it may ask for.
const POINTS: usize = 1_000;
const MOST_POINTS: usize = 20_000;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// Only series of this measurement.
    measurement: Option<String>,
    /// Numbers of series with commas; without: the first of the measurement.
    #[serde(default)]
    series: String,
    /// Start and end (exclusive) of the range, ms since 1970.
    from: Option<i64>,
    to: Option<i64>,
    /// Most points per series; more are folded into buckets.
    max: Option<usize>,
}

pub(super) async fn points(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Result<Json<Value>, Unreadable> {
    let answer = shared.reader.ask(move |store| {
        let mut ids = parse_ids(&asked.series);
        if ids.is_empty() || asked.measurement.is_some() {
            let known = store.series(asked.measurement.as_deref(), None, if ids.is_empty() { SERIES } else { usize::MAX })?;
            let known: Vec<i64> = known.into_iter().map(|series| series.id).collect();
            if ids.is_empty() { ids = known } else { ids.retain(|id| known.contains(id)) }
        }
        let (from, to) = (asked.from.unwrap_or(i64::MIN), asked.to.unwrap_or(i64::MAX));
        store.points(&ids, from, to, asked.max.unwrap_or(POINTS).clamp(1, MOST_POINTS))
    });
    Ok(Json(json!({ "series": answer.await?.iter().map(to_json).collect::<Vec<_>>() })))
}

/// Numbers with commas; what is none is left out.
pub(super) fn parse_ids(text: &str) -> Vec<i64> {
    text.split(',').filter_map(|id| id.trim().parse().ok()).take(SERIES).collect()
}

pub(super) fn to_json(series: &SeriesPoints) -> Value {
    json!({ "id": series.series_id, "bucket_ms": series.bucket_ms, "points": series.points.iter().map(point_to_json).collect::<Vec<_>>() })
}

/// A point as the browser takes it: `t` start, `e` end, `f` fields, `final` when its window has closed.
pub(super) fn point_to_json(point: &StoredPoint) -> Value {
    let mut json = Map::new();
    json.insert("t".into(), point.time_ms.into());
    json.insert("e".into(), point.end_ms.into());
    json.insert("f".into(), point.fields.clone().into());
    if point.is_final {
        json.insert("final".into(), true.into());
    }
    json.into()
}
