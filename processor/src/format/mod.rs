//! Records in, records out: JSON to Arrow and back, and tables. No Kafka, no clock, no query.
//!
//! * `decode`: many JSON records to one batch, the unreadable ones set aside with a reason.
//! * `encode`: the rows of a batch to JSON objects and record keys.
//! * `cells`: the rows of a batch to the values that SQL knows, for questions.
//! * `csv`, `parquet`: a whole file to one batch, for tables that queries look things up in; rows of CSV to a batch.
//! * `text`: lines to one batch.
//!
//! The rooms behind them: `json` walks over one record, `number` reads a JSON number exactly, `column` collects the values of
//! one column, `explain` words what went wrong, `time` reads and writes dates and timestamps, `values` writes the values of one
//! column, `base64` writes bytes.

pub(crate) mod base64;
pub(crate) mod cells;
mod column;
pub mod csv;
pub mod decode;
pub mod encode;
mod explain;
mod json;
mod number;
pub mod parquet;
pub mod text;
mod time;
mod values;
