//! The registry of types: a field has one type for ever.

use std::collections::{BTreeMap, HashMap};

use common::settings::FieldType;

use crate::mapping::Unreadable;
use crate::point::{FieldValue, Point};

/// A field's type as it is kept: measurement, field, type.
pub(super) type Entry = (String, String, FieldType);

/// The largest whole number below which a float holds all of them.
const EXACT: u64 = 1 << 53;

/// Numbers are floats unless the settings declare them otherwise: `21` and `21.5` are values of one field, whichever comes first.
#[derive(Debug)]
pub(super) struct Types {
    declared: BTreeMap<String, FieldType>,
    known: HashMap<String, Vec<(String, FieldType)>>,
}

impl Types {
    pub(super) fn new(declared: &BTreeMap<String, FieldType>, known: Vec<Entry>) -> Self {
        let mut types = Self { declared: declared.clone(), known: HashMap::new() };
        types.settle(known);
        types
    }

    /// Takes over what the state holds.
    pub(super) fn settle(&mut self, entries: Vec<Entry>) {
        for (measurement, field, kind) in entries {
            let fields = self.known.entry(measurement).or_default();
            match fields.iter_mut().find(|(name, _)| *name == field) {
                Some(found) => found.1 = kind,
                None => fields.push((field, kind)),
            }
        }
    }

    fn of(&self, fields: Option<&Vec<(String, FieldType)>>, name: &str) -> Option<FieldType> {
        let declared = if self.declared.is_empty() { None } else { self.declared.get(name).copied() };
        declared.or_else(|| fields?.iter().find(|(known, _)| known == name).map(|(_, kind)| *kind))
    }

    /// The types of fields that nobody has seen before. The whole batch has a say, numbers before truths before texts: one wrong row that
    /// happens to be the first must not decide for all that follow.
    pub(super) fn learn(&self, points: &[Point]) -> Vec<Entry> {
        let mut found: BTreeMap<(&str, &str), FieldType> = BTreeMap::new();
        for point in points {
            let known = self.known.get(point.measurement.as_str());
            for (name, value) in &point.fields {
                if self.of(known, name).is_some() {
                    continue;
                }
                let Some(kind) = natural(value) else { continue };
                let entry = found.entry((&point.measurement, name)).or_insert(kind);
                if rank(kind) < rank(*entry) {
                    *entry = kind;
                }
            }
        }
        found.into_iter().map(|((measurement, field), kind)| (measurement.to_owned(), field.to_owned(), kind)).collect()
    }

    /// Brings the fields of `point` to their types. Returns how many were left out because they are no finite numbers.
    ///
    /// # Errors
    /// When a value is not of its field's type.
    pub(super) fn apply(&self, point: &mut Point) -> Result<u64, Unreadable> {
        let known = self.known.get(point.measurement.as_str());
        let mut left_out = 0;
        let mut fault = None;
        let nulls = &mut point.nulls;
        point.fields.retain_mut(|(name, value)| {
            let kind = self.of(known, name);
            if kind.is_none_or(is_number) && is_not_finite(value) {
                left_out += 1;
                nulls.push(std::mem::take(name));
                return false;
            }
            if let Some(kind) = kind
                && let Err(detail) = convert(value, kind)
            {
                fault.get_or_insert_with(|| (name.clone(), kind, detail));
            }
            true
        });
        let Some((field, kind, detail)) = fault else { return Ok(left_out) };
        let measurement = &point.measurement;
        let detail = format!("field '{field}' of '{measurement}' holds values of type {}, and this is {detail}", kind.name());
        Err(Unreadable { reason: "wrong_type", detail })
    }
}

fn rank(kind: FieldType) -> u8 {
    match kind {
        FieldType::Float | FieldType::Integer | FieldType::Unsigned => 0,
        FieldType::Boolean => 1,
        FieldType::Text => 2,
    }
}

fn is_number(kind: FieldType) -> bool {
    rank(kind) == 0
}

fn natural(value: &FieldValue) -> Option<FieldType> {
    match value {
        _ if is_not_finite(value) => None,
        FieldValue::Int(_) | FieldValue::UInt(_) | FieldValue::Float(_) => Some(FieldType::Float),
        FieldValue::Bool(_) => Some(FieldType::Boolean),
        FieldValue::Text(_) => Some(FieldType::Text),
    }
}

/// JSON has no word for them; Spark and others write them as text.
fn is_not_finite(value: &FieldValue) -> bool {
    match value {
        FieldValue::Float(value) => !value.is_finite(),
        FieldValue::Text(text) => is_word_for_it(text),
        _ => false,
    }
}

pub(crate) fn is_word_for_it(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity" | "+Infinity" | "Inf" | "-Inf" | "+Inf")
}

/// # Errors
/// What the value is instead.
fn convert(value: &mut FieldValue, kind: FieldType) -> Result<(), String> {
    let converted = match (kind, &*value) {
        (FieldType::Float, FieldValue::Float(_))
        | (FieldType::Integer, FieldValue::Int(_))
        | (FieldType::Unsigned, FieldValue::UInt(_))
        | (FieldType::Boolean, FieldValue::Bool(_))
        | (FieldType::Text, FieldValue::Text(_)) => return Ok(()),
        (FieldType::Float, FieldValue::Int(number)) if number.unsigned_abs() <= EXACT => Some(FieldValue::Float(*number as f64)),
        (FieldType::Float, FieldValue::Int(_) | FieldValue::UInt(_)) => {
            return Err(format!("{} and not exact as a float; declare the field as integer in sink.mapping.types", show(value)));
        }
        (FieldType::Integer, FieldValue::Float(number)) if is_whole(*number) => Some(FieldValue::Int(*number as i64)),
        (FieldType::Unsigned, FieldValue::Float(number)) if is_whole(*number) && *number >= 0.0 => Some(FieldValue::UInt(*number as u64)),
        (FieldType::Unsigned, FieldValue::Int(number)) => u64::try_from(*number).ok().map(FieldValue::UInt),
        _ => None,
    };
    *value = converted.ok_or_else(|| show(value))?;
    Ok(())
}

fn is_whole(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() <= EXACT as f64
}

fn show(value: &FieldValue) -> String {
    match value {
        FieldValue::Int(value) => format!("the integer {value}"),
        FieldValue::UInt(value) => format!("the integer {value}"),
        FieldValue::Float(value) => format!("the float {value}"),
        FieldValue::Bool(value) => format!("the truth value {value}"),
        FieldValue::Text(value) => format!("the text '{}'", value.chars().take(40).collect::<String>()),
    }
}
