//! The engine between topics: consume, step, journal, deliver.
//!
//! ```text
//! membership.rs   who owns which journal partition; starts and stops a worker for each
//!   worker.rs     one shard: restore, then step after step
//!     step.rs       input.rs ─▶ prepare ─▶ lanes ─▶ journal ─▶ results, in the order that the trigger wants
//!     trigger.rs    when a step is taken
//!     input.rs      reads and decodes input records; keys.rs refuses those under a wrong key
//!     journal/      fence, restore, append, snapshot
//!     deliver.rs    results and lanes, and the wait for their acknowledgement
//!     owner.rs      whether to stop, and the sign of life
//!     points.rs     the named steps, at each of which the tests kill the process
//!   status.rs     what `/status` tells; progress.rs what each trigger did; why.rs what holds the next result back
//! ```

pub(crate) mod change;
mod consumer;
mod deliver;
mod error;
pub(crate) mod explain;
mod history;
mod input;
pub(crate) mod journal;
mod keys;
pub(crate) mod lanes;
mod membership;
mod metrics;
pub(crate) mod owner;
mod points;
mod progress;
mod rebuild;
pub(crate) mod replay;
mod results;
mod revisions;
mod run;
pub(crate) mod scan;
mod status;
mod step;
mod trigger;
mod why;
mod worker;

pub use error::ProcessorError;
pub use run::{Summary, compile_queries, run};
