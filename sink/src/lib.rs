//! Results from the log into a time-series database, each once.
//!
//! ```text
//! iot.agg.<query> ──▶ intake ──▶ mapping ─▶│ guard ──▶ delivery ──▶ Writer (SQLite, InfluxDB, ...)
//!                      (Kafka)      │ unreadable  │ wrong type  │ refused       then: offsets committed
//!                                   └──────────▶ iot.dead ◀─────┘
//! ```
//!
//! All of this once for each output. A point's identity is (measurement, tags, time), and a larger revision replaces a smaller one. So
//! rows that are written twice, after a crash between the database's commit and that of the offsets, leave the database as it was.
//!
//! | file | what |
//! |---|---|
//! | [`point`] | what a row becomes: measurement, tags, time, fields |
//! | `mapping`, `row`, `time` | from a record of a result topic to a point |
//! | [`writer`] | the seam to the databases: points in; written, try again, refused, or give up out |
//! | `outputs` | from the settings to a writer |
//! | [`sqlite`], [`influxdb`], [`victoriametrics`], [`lake`], [`post`], [`console`] | the writers |
//! | `line`, `ndjson`, `web` | what several of them need: line protocol, JSON lines, a kept HTTP client and what its answers mean |
//! | `newest` | of a batch only the newest row of each identity |
//! | `guard` | types of fields, and how many series there may be |
//! | [`ahead`] | what of a write is done while the one before is on its way |
//! | [`verify`] | a database against the log |
//! | [`store`] | the read side of that database, for a page |
//! | `intake`, `filler`, `batch`, `records` | batches from Kafka |
//! | `dispatch`, `delivery`, `backoff` | on a thread of its own: database first, offsets after it |
//! | `dead` | rows that no database takes, whole, into the dead lane |
//! | `run`, `metrics`, `status`, `client_stats`, `error` | wiring, and what can be seen from outside |

pub mod ahead;
mod backoff;
mod batch;
mod client_stats;
pub mod console;
mod dead;
mod delivery;
mod disk;
mod dispatch;
mod error;
mod filler;
mod guard;
pub mod influxdb;
mod intake;
pub mod lake;
mod line;
mod mapping;
mod metrics;
mod ndjson;
mod newest;
mod outputs;
pub mod point;
pub mod post;
mod records;
mod row;
mod run;
pub mod sqlite;
mod status;
pub mod store;
mod time;
pub mod verify;
pub mod victoriametrics;
mod web;
pub mod writer;

pub use error::SinkError;
pub use outputs::check;
pub use run::{Summary, run, run_with};
