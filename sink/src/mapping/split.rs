//! Which column is a tag, which a field, and which only says the time.

use crate::point::FieldValue;
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
    pub(super) tags: Vec<(String, String)>,
    pub(super) fields: Vec<(String, FieldValue)>,
    pub(super) nulls: Vec<String>,
    pub(super) null_tag: bool,
}

impl Columns<'_> {
    pub(super) fn split(&self, row: Row) -> Parts {
        let mut parts = Parts { fields: Vec::with_capacity(row.0.len()), ..Parts::default() };
        for (name, cell) in row.0 {
            if self.time_column == Some(name.as_str()) {
                continue;
            }
            if self.is_tag(&name, &cell) {
                // A null key leaves its tag out: the group of the null has an identity of its own.
                match tag(cell) {
                    Some(text) => parts.tags.push((name, text)),
                    None => parts.null_tag = true,
                }
            } else if (self.fields.is_empty() || self.fields.contains(&name)) && !self.is_bound(&name, &cell) {
                match field(cell) {
                    Some(value) => parts.fields.push((name, value)),
                    None => parts.nulls.push(name),
                }
            }
        }
        parts.tags.sort();
        parts
    }

    fn is_tag(&self, name: &String, cell: &Cell) -> bool {
        match self.keys {
            Some(keys) => keys.contains(name),
            None => matches!(cell, Cell::Text(_)) && !self.fields.contains(name) && !self.is_bound(name, cell),
        }
    }

    /// The window's bounds are the point's time and not its fields, whatever the query calls them.
    fn is_bound(&self, name: &str, cell: &Cell) -> bool {
        if matches!(name, "window_start" | "window_end" | "window") {
            return true;
        }
        let Cell::Text(text) = cell else { return false };
        parse_text(text).is_some_and(|time| time == self.start || Some(time) == self.end)
    }
}

fn tag(cell: Cell) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Bool(value) => Some(value.to_string()),
        Cell::Int(value) => Some(value.to_string()),
        Cell::UInt(value) => Some(value.to_string()),
        Cell::Float(value) => Some(value.to_string()),
        Cell::Text(value) => Some(value),
        Cell::Nested(value) => Some(value.to_string()),
    }
}

fn field(cell: Cell) -> Option<FieldValue> {
    match cell {
        Cell::Null => None,
        Cell::Bool(value) => Some(FieldValue::Bool(value)),
        Cell::Int(value) => Some(FieldValue::Int(value)),
        Cell::UInt(value) => Some(FieldValue::UInt(value)),
        Cell::Float(value) => Some(FieldValue::Float(value)),
        Cell::Text(value) => Some(FieldValue::Text(value)),
        Cell::Nested(value) => Some(FieldValue::Text(value.to_string())),
    }
}
