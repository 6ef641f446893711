//! The engine between topics: consume, step, journal, deliver.
//!
//! ```text
//! membership.rs   who owns which journal partition; starts and stops a worker for each
//!   worker.rs     one shard: restore ─▶ (input.rs ─▶ prepare ─▶ lanes ─▶ journal ─▶ apply ─▶ results)*
//!     input.rs      reads and decodes input records
//!     journal/      fence, restore, append, snapshot
//!     deliver.rs    results and lanes, and the wait for their acknowledgement
//! ```

mod consumer;
mod deliver;
mod error;
mod input;
mod journal;
mod keys;
mod membership;
mod metrics;
mod owner;
mod run;
mod status;
mod trigger;
mod worker;

pub use error::ProcessorError;
pub use run::{Summary, compile_queries, run};
