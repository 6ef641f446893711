//! The engine between topics: consume, step, journal, deliver.
//!
//! ```text
//! membership.rs   who owns which journal partition; starts and stops a worker for each
//!   worker.rs     one shard: restore ─▶ (input.rs ─▶ prepare ─▶ lanes ─▶ journal ─▶ apply ─▶ results)*
//!     trigger.rs    when a step is taken
//!     input.rs      reads and decodes input records; keys.rs refuses those under a wrong key
//!     journal/      fence, restore, append, snapshot
//!     deliver.rs    results and lanes, and the wait for their acknowledgement
//!     owner.rs      whether to stop, and the sign of life
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
mod results;
mod run;
mod status;
mod trigger;
mod worker;

pub use error::ProcessorError;
pub use run::{Summary, compile_queries, run};
