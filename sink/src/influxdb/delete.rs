//! One point away: a predicate on measurement and tags, over the one instant.

use chrono::{DateTime, SecondsFormat};
use serde_json::json;

use crate::line::stored;
use crate::point::Point;

/// The body of a request to `/api/v2/delete`; `None` for what a predicate cannot say.
///
/// A predicate says what a tag is, and has no word for a tag that is absent: deleting the group of a null would take the groups of all its
/// values with it.
pub(super) fn request(point: &Point) -> Option<String> {
    if point.null_tag || point.tags.iter().any(|(_, value)| value.is_empty()) {
        return None;
    }
    let start = DateTime::from_timestamp_millis(point.time_ms)?;
    // The bounds are inclusive: up to the last nanosecond of the millisecond.
    let stop = start + chrono::TimeDelta::nanoseconds(999_999);
    let mut predicate = format!("_measurement={}", quoted(&stored(&point.measurement)));
    for (name, value) in &point.tags {
        predicate += &format!(" AND {}={}", quoted(&stored(name)), quoted(&stored(value)));
    }
    let time = |at: DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::Nanos, true);
    Some(json!({ "start": time(start), "stop": time(stop), "predicate": predicate }).to_string())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
