//! JSON of any shape, read through pointers (RFC 6901).

use common::reading::Reading;
use common::settings::PayloadMapping;
use serde_json::Value;

use super::json::{kind_of, name, not_json, whole};
use super::{Around, Fault, text, time};

/// What is wrong with a mapping.
pub(super) fn faults(mapping: &PayloadMapping) -> Vec<String> {
    let single = [&mapping.sensor_id, &mapping.time, &mapping.seq, &mapping.kind, &mapping.value].into_iter().flatten();
    let mut faults: Vec<String> = single
        .chain(mapping.values.values())
        .chain(mapping.labels.values())
        .filter(|pointer| !pointer.is_empty() && !pointer.starts_with('/'))
        .map(|pointer| format!("'{pointer}' is no JSON pointer; it begins with '/', such as '/data/temp'"))
        .collect();
    if mapping.value.is_none() && mapping.values.is_empty() {
        faults.push("neither value nor values says where the values stand".into());
    }
    let taken = mapping.labels.keys().filter(|name| Reading::FIELDS.contains(&name.as_str()));
    faults.extend(taken.map(|name| format!("the label '{name}' has the name of a reading's own column")));
    faults
}

pub(super) fn read(payload: &[u8], mapping: &PayloadMapping, around: &Around<'_>) -> Result<Vec<Reading>, Fault> {
    let message: Value = serde_json::from_str(text(payload)?).map_err(|error| not_json(&error))?;
    let at = |pointer: &Option<String>| pointer.as_deref().and_then(|pointer| message.pointer(pointer)).unwrap_or(&Value::Null);
    let ts = time::from_json(at(&mapping.time), around.unit)?;
    let seq = whole("seq", at(&mapping.seq))?;
    let device = around.sensor(name("sensor_id", at(&mapping.sensor_id))?.as_deref())?;
    let kind = name("kind", at(&mapping.kind))?;
    let values: Vec<(Option<&str>, &Value)> = mapping
        .value
        .iter()
        .map(|pointer| (None, pointer))
        .chain(mapping.values.iter().map(|(name, pointer)| (Some(name.as_str()), pointer)))
        .filter_map(|(name, pointer)| Some((name, message.pointer(pointer)?)))
        .filter(|(_, value)| !value.is_null())
        .collect();
    if values.is_empty() {
        return Err(Fault::new("missing", "none of the mapped values is in the message"));
    }
    let labels: Vec<(String, Value)> =
        mapping.labels.iter().filter_map(|(name, pointer)| Some((name.clone(), message.pointer(pointer)?.clone()))).collect();
    super::check_repeated(&labels, values.len())?;
    // All or none: a message with one value that is no number goes to the dead lane whole.
    values
        .into_iter()
        .map(|(name, value)| {
            let sensor_id = match name {
                Some(name) => around.one_of_several(&device, name)?,
                None => device.clone(),
            };
            let mut reading = around.reading(sensor_id, around.kind(name.or(kind.as_deref()))?, ts, number(name, value)?)?;
            reading.seq = seq;
            reading.labels.retain(|(label, _)| !mapping.labels.contains_key(label));
            reading.labels.extend(labels.iter().cloned());
            Ok(reading)
        })
        .collect()
}

/// Foreign devices write numbers as text, and switches as truth.
fn number(name: Option<&str>, value: &Value) -> Result<f64, Fault> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(on) => Some(f64::from(u8::from(*on))),
        _ => None,
    };
    number.ok_or_else(|| Fault::new("wrong_type", format!("{} is {}, not a number", name.unwrap_or("the value"), kind_of(value))))
}
