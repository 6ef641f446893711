//! A point: one row of a result as a time-series database holds it.

use std::sync::Arc;

use compact_str::CompactString;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// Names and short texts in place: points wait by the ten thousand, and each has a dozen of them.
pub type Text = CompactString;

/// One value of a point.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValue {
    Int(i64),
    /// Only for values beyond `i64`.
    UInt(u64),
    Float(f64),
    Bool(bool),
    Text(Text),
}

/// Where a record is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
}

impl Default for Place {
    fn default() -> Self {
        Self { topic: Arc::from(""), partition: 0, offset: 0 }
    }
}

/// One row of a result. `(measurement, tags, time_ms)` is its identity: writing it again overwrites.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The query's name.
    pub measurement: Text,
    /// The group's columns, sorted by name.
    pub tags: Vec<(Text, Text)>,
    /// Start of the window, or the row's own time, milliseconds since 1970-01-01T00:00:00Z; 0 for a group without a window.
    pub time_ms: i64,
    /// End (exclusive) of the window, in the same unit.
    pub end_ms: Option<i64>,
    /// The other columns in the query's order; nulls are left out.
    pub fields: Vec<(Text, FieldValue)>,
    /// Of two rows with the same identity the one with the larger revision counts. `None`: the last to arrive counts.
    pub revision: Option<i64>,
    /// The window has closed: the row will not change any more.
    pub is_final: bool,
    /// The final row was written before, and this one corrects it.
    pub restated: bool,
    /// Fields that the row has, but without a value.
    pub nulls: Vec<Text>,
    /// A column of the group is null: its tag is left out.
    pub null_tag: bool,
    /// The record behind it.
    pub place: Place,
    /// The row has left the result: the point with this identity is to be deleted. Has no fields.
    pub deleted: bool,
}

impl Point {
    /// Whether this row, arriving after `earlier` with the same identity, takes its place.
    pub fn replaces(&self, earlier: &Self) -> bool {
        match (self.revision, earlier.revision) {
            // The wall clock closes a window without a new revision: of equals the final row stays.
            (Some(new), Some(old)) => new > old || (new == old && (self.is_final || !earlier.is_final)),
            _ => true,
        }
    }

    /// The tags as canonical JSON: an object with sorted names, equal for equal tags.
    pub fn tags_json(&self) -> String {
        to_json(&Object(&self.tags))
    }

    /// Equal for equal identities, and for hardly any others. The same in every run of the program: it is kept on the disk.
    pub fn series_hash(&self) -> u64 {
        let mut hash = Fnv::new();
        hash.text(&self.measurement);
        for (name, value) in &self.tags {
            hash.text(name);
            hash.text(value);
        }
        hash.0
    }

    /// Whether both are the same point of the database.
    pub fn same_identity(&self, other: &Self) -> bool {
        self.time_ms == other.time_ms && self.tags == other.tags && self.measurement == other.measurement
    }

    /// The fields as a JSON object.
    pub fn fields_json(&self) -> String {
        to_json(&Object(&self.fields))
    }
}

/// FNV-1a.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn text(&mut self, text: &str) {
        // UTF-8 has no byte 0xff: it ends a text, so that "ab","c" and "a","bc" differ.
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Pairs as a JSON object, in their order.
pub(crate) struct Object<'a, V>(pub(crate) &'a [(Text, V)]);

impl<V: Serialize> Serialize for Object<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for FieldValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::UInt(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Text(value) => serializer.serialize_str(value),
        }
    }
}

fn to_json(value: &impl Serialize) -> String {
    // Text keys and plain values always serialise; an empty object would be the honest answer if that ever changed.
    serde_json::to_string(value).unwrap_or_else(|_| "{}".into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A point of the measurement `m` and the tag `sensor_id`, with one field `avg`.
    pub(crate) fn point(sensor: &str, time_ms: i64, avg: f64, revision: Option<i64>) -> Point {
        Point {
            measurement: "m".into(),
            tags: vec![("sensor_id".into(), sensor.into())],
            time_ms,
            end_ms: Some(time_ms + 10_000),
            fields: vec![("avg".into(), FieldValue::Float(avg))],
            revision,
            is_final: false,
            restated: false,
            nulls: Vec::new(),
            null_tag: false,
            place: Place::default(),
            deleted: false,
        }
    }

    #[test]
    fn json_keeps_every_character_and_the_kind_of_number() {
        let mut point = point("Zürich \"roof\" \\ 🌡\n", 0, 21.0, None);
        point.fields.push(("n".into(), FieldValue::Int(3)));
        assert_eq!(point.tags_json(), r#"{"sensor_id":"Zürich \"roof\" \\ 🌡\n"}"#);
        assert_eq!(point.fields_json(), r#"{"avg":21.0,"n":3}"#);
    }

    #[test]
    fn the_larger_revision_wins_and_none_always_does() {
        let at = |revision| point("s", 0, 1.0, revision);
        for (new, old, wins) in
            [(Some(2), Some(1), true), (Some(1), Some(1), true), (Some(1), Some(2), false), (None, Some(9), true), (Some(1), None, true)]
        {
            assert_eq!(at(new).replaces(&at(old)), wins, "{new:?} after {old:?}");
        }
    }
}
