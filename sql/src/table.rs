//! What a program gives to be asked about.

use std::time::Instant;

use rusqlite::types::Value;

use super::fault::Fault;

/// Where a table belongs. A name without it is looked for in this order, and then in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Schema {
    /// A table of a `memory` sink.
    Memory,
    /// The current result of a query.
    Live,
}

impl Schema {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Live => "live",
        }
    }
}

/// The type of a column, and how its values are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 1 and 0; JSON shows true and false.
    Boolean,
    BigInt,
    Double,
    /// As a number with a floating point.
    Decimal,
    String,
    /// RFC 3339 in UTC with milliseconds, which sorts and compares as text.
    Timestamp,
    /// `2023-11-14`
    Date,
    /// Base64.
    Binary,
    /// An object or a list, as JSON text.
    Json,
}

impl Kind {
    /// The type as SQLite is told it: the first word is shown, and the whole makes SQLite keep numbers as numbers and text as text.
    pub(crate) const fn declared(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::BigInt => "BIGINT",
            Self::Double => "DOUBLE",
            Self::Decimal => "DECIMAL REAL",
            Self::String => "STRING TEXT",
            Self::Timestamp => "TIMESTAMP TEXT",
            Self::Date => "DATE TEXT",
            Self::Binary => "BINARY TEXT",
            Self::Json => "JSON TEXT",
        }
    }

    pub(crate) fn shown(self) -> &'static str {
        let declared = self.declared();
        declared.split(' ').next().unwrap_or(declared)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub schema: Schema,
    /// The query's name.
    pub name: String,
    pub columns: Vec<Column>,
}

/// What the rows of a table may take.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub until: Instant,
    pub bytes: u64,
}

/// The tables of a program. Rows are made only for a statement that names their table.
pub trait Tables: Send + Sync {
    fn tables(&self) -> Vec<Table>;

    /// Gives the rows of `table`, one after the other.
    ///
    /// # Errors
    /// What `put` returned, or why the rows cannot be had.
    fn rows(&self, table: &Table, budget: Budget, put: &mut dyn FnMut(Vec<Value>) -> Result<(), Fault>) -> Result<(), Fault>;
}
