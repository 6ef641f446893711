//! A table's columns: of which kind, and how Arrow and Delta Lake call them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::{Value, json};

use crate::point::FieldValue;

/// Columns that every table has. `day` is in the folder's name and not in the files.
pub(super) const TIME: &str = "time";
pub(super) const END: &str = "end_time";
pub(super) const REVISION: &str = "revision";
pub(super) const DAY: &str = "day";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Time,
    Float,
    Integer,
    Boolean,
    Text,
}

impl Kind {
    pub(super) fn of(value: &FieldValue) -> Self {
        match value {
            FieldValue::Int(_) | FieldValue::UInt(_) => Self::Integer,
            FieldValue::Float(_) => Self::Float,
            FieldValue::Bool(_) => Self::Boolean,
            FieldValue::Text(_) => Self::Text,
        }
    }

    fn arrow(self) -> DataType {
        match self {
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            Self::Float => DataType::Float64,
            Self::Integer => DataType::Int64,
            Self::Boolean => DataType::Boolean,
            Self::Text => DataType::Utf8,
        }
    }

    fn delta(self) -> &'static str {
        match self {
            Self::Time => "timestamp",
            Self::Float => "double",
            Self::Integer => "long",
            Self::Boolean => "boolean",
            Self::Text => "string",
        }
    }

    fn from_delta(name: &str) -> Option<Self> {
        [Self::Time, Self::Float, Self::Integer, Self::Boolean, Self::Text].into_iter().find(|kind| kind.delta() == name)
    }
}

/// Names and kinds, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns(pub(super) Vec<(String, Kind)>);

impl Default for Columns {
    fn default() -> Self {
        Self(vec![(TIME.into(), Kind::Time), (END.into(), Kind::Time), (REVISION.into(), Kind::Integer)])
    }
}

impl Columns {
    pub(super) fn kind(&self, name: &str) -> Option<Kind> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, kind)| *kind)
    }

    /// Adds a column; `false` when it was there.
    pub(super) fn add(&mut self, name: &str, kind: Kind) -> bool {
        let new = self.kind(name).is_none();
        if new {
            self.0.push((name.to_owned(), kind));
        }
        new
    }

    pub(super) fn arrow(&self) -> Arc<Schema> {
        Arc::new(Schema::new(self.0.iter().map(|(name, kind)| Field::new(name, kind.arrow(), true)).collect::<Vec<_>>()))
    }

    /// Delta Lake's schema, the column of the partitions included.
    pub(super) fn delta(&self) -> String {
        let field = |name: &str, kind: &str| json!({ "name": name, "type": kind, "nullable": true, "metadata": {} });
        let mut fields: Vec<Value> = self.0.iter().map(|(name, kind)| field(name, kind.delta())).collect();
        fields.push(field(DAY, "date"));
        json!({ "type": "struct", "fields": fields }).to_string()
    }

    /// # Errors
    /// What this writer does not know.
    pub(super) fn from_delta(schema: &str) -> Result<Self, String> {
        let schema: Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
        let mut columns = Vec::new();
        for field in schema["fields"].as_array().into_iter().flatten() {
            let (Some(name), Some(kind)) = (field["name"].as_str(), field["type"].as_str()) else {
                return Err(format!("its column {} is not a plain one", field["name"]));
            };
            if name == DAY {
                continue;
            }
            let known = Kind::from_delta(kind).ok_or_else(|| format!("its column '{name}' is of type {kind}"))?;
            columns.push((name.to_owned(), known));
        }
        Ok(Self(columns))
    }
}

/// Names that neither a tag nor a field may have, and signs that no column of the protocol may have in its name.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if [TIME, END, REVISION, DAY].contains(&name) {
        return Err(format!("a column cannot be called '{name}', which the table has itself; give it another name in the query"));
    }
    if name.is_empty() || name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
        return Err(format!("'{name}' cannot be a column's name in Delta Lake; give it a name of letters, digits and '_' in the query"));
    }
    Ok(())
}
