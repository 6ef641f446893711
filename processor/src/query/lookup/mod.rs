//! Lookup tables: a file of metadata, joined into the stream.
//!
//! ```text
//! file ──table.rs──▶ LookupTable ──names.rs──▶ the columns that the SQL names ──accept.rs──▶ a join that streams ──join.rs──▶ LookupJoin
//! ```
//! A table is read once, when the query is compiled, and its rows belong to the query: a change of them is a change of the query. Each key
//! stands in it at most once, so a row of the stream stays one row, and the ledger stays exact.

mod accept;
mod join;
mod names;
mod table;

pub(super) use accept::{base_column_below, check_join, check_scan, left_column};
pub(crate) use join::LookupJoin;
pub(super) use names::spell;
pub use table::LookupTable;
pub(super) use table::{load, merged};
