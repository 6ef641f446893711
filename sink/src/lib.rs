//! Results from the log into a time-series database, each once.
//!
//! ```text
//! iot.agg.<query> ──▶ intake ──▶ mapping ──▶ delivery ──▶ Writer (SQLite, ...)
//!                      (Kafka)      │ unreadable  │ refused      then: offsets committed
//!                                   └──────▶ iot.dead ◀──┘
//! ```
//!
//! A point's identity is (measurement, tags, window start), and a larger revision replaces a smaller one. So rows that are written
//! twice, after a crash between the database's commit and that of the offsets, leave the database as it was.
//!
//! | file | what |
//! |---|---|
//! | [`point`] | what a row becomes: measurement, tags, time, fields |
//! | `mapping`, `row`, `time` | from a record of a result topic to a point |
//! | [`writer`] | the seam to the databases: points in; written, try again, refused, or give up out |
//! | [`sqlite`] | the writer into SQLite |
//! | [`store`] | the read side of that database, for a page |
//! | `intake`, `batch`, `records`, `delivery`, `backoff` | batches from Kafka; database first, offsets after it |
//! | `dead` | rows that no database takes, whole, into the dead lane |
//! | `run`, `metrics`, `status`, `client_stats`, `error` | wiring, and what can be seen from outside |

mod backoff;
mod batch;
mod client_stats;
mod dead;
mod delivery;
mod error;
mod intake;
mod mapping;
mod metrics;
pub mod point;
mod records;
mod row;
mod run;
pub mod sqlite;
mod status;
pub mod store;
mod time;
pub mod writer;

pub use error::SinkError;
pub use run::{Summary, run, run_with};
