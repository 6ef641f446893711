//! A reading as JSON, a list of readings, or a bare number.

use std::fmt;

use common::reading::Reading;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Around, Decoded, Fault, Piece, text, time};

/// Most readings of one message.
pub(super) const MAX_READINGS: usize = 10_000;

/// The fields of a reading as they stand in an object, and whatever else stands there.
#[derive(Default)]
struct Fields {
    sensor_id: Value,
    ts: Value,
    value: Value,
    kind: Value,
    seq: Value,
    labels: Vec<(String, Value)>,
    /// There are more labels than a reading can have.
    too_many: bool,
}

/// Most further fields of a reading.
const MAX_LABELS: usize = 256;

impl Fields {
    /// Of a name that stands twice the last value counts, as for the reading's own fields.
    fn label(&mut self, name: String, value: Value) {
        match self.labels.iter_mut().find(|(other, _)| *other == name) {
            Some(label) => label.1 = value,
            None => self.labels.push((name, value)),
        }
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject;
        impl<'de> Visitor<'de> for OfObject {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reading, such as {\"sensor_id\":\"s-1\",\"ts\":1700000000123,\"value\":21.5}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<String>()? {
                    let value: Value = map.next_value()?;
                    match name.as_str() {
                        "sensor_id" => fields.sensor_id = value,
                        "ts" => fields.ts = value,
                        "value" => fields.value = value,
                        "kind" => fields.kind = value,
                        "seq" => fields.seq = value,
                        // Ours to say.
                        "ts_source" => {}
                        _ if fields.labels.len() == MAX_LABELS => fields.too_many = true,
                        _ => fields.label(name, value),
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(OfObject)
    }
}

pub(super) fn read(payload: &[u8], around: &Around<'_>) -> Result<Decoded, Fault> {
    let text = text(payload)?;
    let begin = text.trim_start();
    match begin.as_bytes().first() {
        Some(b'{') => Ok(vec![one(text, around)?].into()),
        Some(b'[') => list(text, around),
        _ => {
            let value: Value = serde_json::from_str(text).map_err(|error| not_json(&error))?;
            let value = value
                .as_f64()
                .ok_or_else(|| Fault::new("wrong_type", "the payload is neither a reading, nor a list of them, nor a number"))?;
            Ok(vec![around.reading(around.sensor(None)?, around.kind(None)?, None, value)?].into())
        }
    }
}

/// Each element for itself: one that cannot be read does not hold up its neighbours.
fn list(text: &str, around: &Around<'_>) -> Result<Decoded, Fault> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    match elements.len() {
        0 => return Err(Fault::new("empty", "the list has no reading")),
        count if count > MAX_READINGS => return Err(too_many(count)),
        _ => {}
    }
    let mut decoded = Decoded::default();
    for element in elements {
        match one(element.get(), around) {
            Ok(reading) => decoded.readings.push(reading),
            Err(fault) => decoded.pieces.push(Piece { value: element.get().into(), fault }),
        }
    }
    Ok(decoded)
}

pub(super) fn too_many(count: usize) -> Fault {
    Fault::new("too_many", format!("one message has {count} readings; send at most {MAX_READINGS} at a time"))
}

fn one(text: &str, around: &Around<'_>) -> Result<Reading, Fault> {
    let fields: Fields = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    if fields.too_many {
        return Err(Fault::new("too_many", format!("the reading has more than {MAX_LABELS} further fields")));
    }
    let sensor_id = around.sensor(name("sensor_id", &fields.sensor_id)?.as_deref())?;
    let kind = around.kind(name("kind", &fields.kind)?.as_deref())?;
    let value = match &fields.value {
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::Null => return Err(Fault::new("missing", "the reading has no value")),
        other => return Err(Fault::new("wrong_type", format!("the value is {}, not a number", kind_of(other)))),
    };
    let ts = time::from_json(&fields.ts, around.unit)?;
    let mut reading = around.reading(sensor_id, kind, ts, value)?;
    reading.seq = whole("seq", &fields.seq)?;
    reading.labels.retain(|(label, _)| !fields.labels.iter().any(|(own, _)| own == label));
    reading.labels.extend(fields.labels);
    Ok(reading)
}

/// A name: text, or a number that serves as one.
pub(super) fn name(field: &str, value: &Value) -> Result<Option<String>, Fault> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(Fault::new("wrong_type", format!("{field} is {}, not text", kind_of(other)))),
    }
}

pub(super) fn whole(field: &str, value: &Value) -> Result<Option<i64>, Fault> {
    match value {
        Value::Null => Ok(None),
        value => {
            value.as_i64().map(Some).ok_or_else(|| Fault::new("wrong_type", format!("{field} is {}, not a whole number", kind_of(value))))
        }
    }
}

pub(super) fn not_json(error: &serde_json::Error) -> Fault {
    Fault::new("not_json", format!("the payload cannot be read as JSON: {error}"))
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
