//! The engine between topics: consume, step, journal, deliver.
//!
//! ```text
//! membership.rs   who owns which journal partition; starts and stops a worker for each
//!   worker.rs     one shard: restore, then step after step
//!     step.rs       input.rs ─▶ prepare ─▶ lanes ─▶ journal ─▶ results, in the order that the trigger wants
//!     trigger.rs    when a step is taken
//!     source/       where records come from: input.rs reads a topic into pile.rs, the others what is outside Kafka
//!     records.rs    those of one partition, whole, until their step is done; keys.rs refuses wrong keys
//!     clients.rs    the clients that write, made before the shard is known
//!     journal/      fence, restore, append, snapshot in a topic; checkpoint/ the same in a directory
//!     output/       where results and lanes go: deliver.rs sends them to topics, the others outside Kafka
//!     owner.rs      whether to stop, and the sign of life
//!     points.rs     the named steps, at each of which the tests kill the process
//!   live.rs       the current rows, for somebody who asks
//!   repartition.rs  what shards that read and shards that merge know of each other, where a query is shared so
//!   standby.rs    follows the journals of the others' shards, so that a restore has little left to read
//!   status.rs     what `/status` tells; progress.rs what each trigger did; why.rs what holds the next result back
//! ```

pub(crate) mod change;
mod checkpoint;
mod clients;
mod consumer;
mod deliver;
mod drain;
mod error;
pub(crate) mod explain;
mod history;
mod input;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod lanes;
mod live;
mod membership;
mod metrics;
mod output;
pub(crate) mod owner;
mod pile;
mod points;
mod progress;
mod rebuild;
pub(crate) mod records;
pub(crate) mod repartition;
pub(crate) mod replay;
mod results;
mod revisions;
mod run;
pub(crate) mod scan;
mod source;
mod standby;
mod status;
mod step;
mod trigger;
mod why;
mod worker;

pub use error::ProcessorError;
pub(crate) use live::{NoRows, RunningQueries};
pub(crate) use output::Tables;
pub use run::{Summary, compile_queries, run};
