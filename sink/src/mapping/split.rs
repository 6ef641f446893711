//! Which column is a tag, which a field, and which only says the time.

use compact_str::ToCompactString as _;

use crate::point::{FieldValue, Text};
use crate::row::{Cell, Row};
use crate::time::parse_text;

/// What decides about the columns of one row.
pub(super) struct Columns<'a> {
    /// The columns that become tags; `None`: every text does.
    pub(super) keys: Option<&'a [String]>,
    /// The columns that become fields; empty: all others.
    pub(super) fields: &'a [String],
    pub(super) time_column: Option<&'a str>,
    pub(super) start: i64,
    pub(super) end: Option<i64>,
}

#[derive(Default)]
pub(super) struct Parts {
    /// Sorted by name.
    pub(super) tags: Vec<(Text, Text)>,
    pub(super) fields: Vec<(Text, FieldValue)>,
    pub(super) nulls: Vec<Text>,
    pub(super) null_tag: bool,
}

impl Columns<'_> {
    pub(super) fn split(&self, row: Row<'_>) -> Parts {
        let tags = Vec::with_capacity(self.keys.map_or(0, <[String]>::len));
        let mut parts = Parts { tags, fields: Vec::with_capacity(row.0.len()), ..Parts::default() };
        for (name, cell) in row.0 {
            if self.time_column == Some(&*name) {
                continue;
            }
            if self.is_tag(&name, &cell) {
                // A null key leaves its tag out: the group of the null has an identity of its own.
                match tag(cell) {
                    Some(text) => parts.tags.push((name.into(), text)),
                    None => parts.null_tag = true,
                }
            } else if (self.fields.is_empty() || has(self.fields, &name)) && !self.is_bound(&name, &cell) {
                match field(cell) {
                    Some(value) => parts.fields.push((name.into(), value)),
                    None => parts.nulls.push(name.into()),
                }
            }
        }
        parts.tags.sort();
        // Points wait by the ten thousand: no room for columns that are no fields.
        parts.fields.shrink_to_fit();
        parts
    }

    fn is_tag(&self, name: &str, cell: &Cell<'_>) -> bool {
        match self.keys {
            Some(keys) => has(keys, name),
            None => matches!(cell, Cell::Text(_)) && !has(self.fields, name) && !self.is_bound(name, cell),
        }
    }

    /// The window's bounds are the point's time and not its fields, whatever the query calls them.
    fn is_bound(&self, name: &str, cell: &Cell<'_>) -> bool {
        if matches!(name, "window_start" | "window_end" | "window") {
            return true;
        }
        let Cell::Text(text) = cell else { return false };
        parse_text(text).is_some_and(|time| time == self.start || Some(time) == self.end)
    }
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|known| known == name)
}

fn tag(cell: Cell<'_>) -> Option<Text> {
    match cell {
        Cell::Null => None,
        Cell::Bool(value) => Some(value.to_compact_string()),
        Cell::Int(value) => Some(value.to_compact_string()),
        Cell::UInt(value) => Some(value.to_compact_string()),
        Cell::Float(value) => Some(value.to_compact_string()),
        Cell::Text(value) => Some(value.into()),
        Cell::Nested(value) => Some(value.to_compact_string()),
    }
}

fn field(cell: Cell<'_>) -> Option<FieldValue> {
    match cell {
        Cell::Null => None,
        Cell::Bool(value) => Some(FieldValue::Bool(value)),
        Cell::Int(value) => Some(FieldValue::Int(value)),
        Cell::UInt(value) => Some(FieldValue::UInt(value)),
        Cell::Float(value) => Some(FieldValue::Float(value)),
        Cell::Text(value) => Some(FieldValue::Text(value.into())),
        Cell::Nested(value) => Some(FieldValue::Text(value.to_compact_string())),
    }
}
