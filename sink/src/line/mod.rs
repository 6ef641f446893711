//! InfluxDB's line protocol: a point as one line.

mod escape;

use serde::Serialize;

use crate::point::{FieldValue, Point};
use crate::writer::Rejection;
pub(crate) use escape::{Dialect, readable, stored};

/// Appends `point` as a line with its time in milliseconds. `false`, and nothing appended, when it has no field that this database can hold.
pub(crate) fn write(point: &Point, dialect: Dialect, out: &mut Vec<u8>) -> bool {
    let begin = out.len();
    escape::name(&point.measurement, dialect, out);
    for (name, value) in &point.tags {
        // The protocol has no empty value: a tag without one is the same as no tag.
        if value.is_empty() {
            continue;
        }
        out.push(b',');
        escape::key(name, dialect, out);
        out.push(b'=');
        escape::key(value, dialect, out);
    }
    let mut separator = b' ';
    // VictoriaMetrics would take a text as 0.
    let holds = |value: &FieldValue| dialect != Dialect::Victoriametrics || !matches!(value, FieldValue::Text(_));
    for (name, value) in point.fields.iter().filter(|(_, value)| holds(value)) {
        out.push(separator);
        separator = b',';
        escape::key(name, dialect, out);
        out.push(b'=');
        field(value, out);
    }
    if separator == b' ' {
        out.truncate(begin);
        return false;
    }
    out.push(b' ');
    number(&point.time_ms, out);
    out.push(b'\n');
    true
}

/// JSON's spelling of a finite number is that of line protocol, and its writer is several times as fast as the standard library's.
fn number(value: &impl Serialize, out: &mut Vec<u8>) {
    // A number serialises, and memory takes it.
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok());
}

fn field(value: &FieldValue, out: &mut Vec<u8>) {
    match value {
        FieldValue::Int(value) => {
            number(value, out);
            out.push(b'i');
        }
        FieldValue::UInt(value) => {
            number(value, out);
            out.push(b'u');
        }
        // With an exponent where that is shorter; every digit that the number needs, and none more. The guard has left out what is not finite.
        FieldValue::Float(value) => number(value, out),
        FieldValue::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        FieldValue::Text(value) => escape::text(value, out),
    }
}

/// Why a point can never be a line; what the protocol would silently take for something else.
pub(crate) fn fault(at: usize, point: &Point, dialect: Dialect) -> Option<Rejection> {
    let reject = |detail: String| Some(Rejection { index: at, reason: "unwritable", detail });
    let names = || point.tags.iter().map(|(name, _)| name).chain(point.fields.iter().map(|(name, _)| name));
    let texts = || std::iter::once(&point.measurement).chain(names());
    if point.measurement.is_empty() || names().any(|name| name.is_empty()) {
        return reject("a measurement, tag or field without a name cannot be written as line protocol".into());
    }
    if point.measurement.starts_with('#') {
        return reject(format!("the measurement '{}' begins with '#', which line protocol takes for a comment", point.measurement));
    }
    if dialect == Dialect::Influxdb
        && let Some(name) = names().find(|name| name.as_str() == "time")
    {
        return reject(format!("a column cannot be called '{name}' in InfluxDB; give it another name in the query"));
    }
    if let Some(text) = texts().chain(point.tags.iter().map(|(_, value)| value)).find(|text| text.contains('\0')) {
        return reject(format!("'{}' has a NUL character, which line protocol cannot hold", text.escape_debug()));
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
