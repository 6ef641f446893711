//! Window bounds as rows write them.

use chrono::{DateTime, NaiveDateTime};
use serde_json::Value;

use crate::row::Cell;

/// RFC 3339 with any offset; without one it is UTC, as Spark writes a TIMESTAMP_NTZ. Milliseconds since 1970-01-01T00:00:00Z.
pub(crate) fn parse_text(text: &str) -> Option<i64> {
    // Most texts of a row are no times: tell by the first bytes before the parser does.
    let bytes = text.as_bytes();
    if bytes.len() < 19 || !bytes[0].is_ascii_digit() && !matches!(bytes[0], b'-' | b'+') {
        return None;
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|time| time.and_utc().timestamp_millis())
}

/// A window bound: text as above, or epoch milliseconds.
pub(crate) fn parse_cell(cell: &Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Int(millis) => Some(*millis),
        Cell::Text(text) => parse_text(text),
        _ => None,
    }
}

/// A bound within Spark's struct column `window`.
pub(crate) fn parse_nested(cell: &Cell<'_>, bound: &str) -> Option<i64> {
    let Cell::Nested(window) = cell else { return None };
    match window.get(bound)? {
        Value::Number(millis) => millis.as_i64(),
        Value::String(text) => parse_text(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_mean_the_same() {
        for text in
            ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000Z", "2023-11-14T23:13:20+01:00", "2023-11-14T22:13:20", "2023-11-14 22:13:20"]
        {
            assert_eq!(parse_text(text), Some(1_700_000_000_000), "{text}");
        }
        assert_eq!(parse_text("2023-11-14T22:13:20.123Z"), Some(1_700_000_000_123));
        assert_eq!(parse_text("1969-12-31T23:59:59.999Z"), Some(-1));
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in ["", "s-0001", "21.5", "2023-11-14", "2023-99-99T00:00:00Z", "äöüäöüäöüäöüäöü"] {
            assert_eq!(parse_text(text), None, "{text}");
        }
    }
}
