//! The processor: streaming SQL over event time, from topic to topic.
//!
//! | room | knows | does |
//! |---|---|---|
//! | [`query`] | DataFusion | a query file to something that can be executed on batches |
//! | [`format`] | Arrow | JSON records to batches and back |
//! | `engine` | `query` | (batch, state) to (state, results); pure |
//! | `task` | all, and Kafka | consume, step, journal, deliver; look at what was delivered, and correct it |
//! | [`commands`] | `task` | the commands of the command line that look and correct |
//! | `tables` | `task`, HTTP | shows the tables of `memory` sinks |
//! | `questions` | `task`, `sql` | gives these tables and the current results to questions in SQL |

pub mod commands;
mod engine;
pub mod format;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod memory;
pub mod query;
mod questions;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod simulation;
#[doc(hidden)]
pub mod stages;
mod tables;
mod task;
mod version;

pub use questions::Questions;
pub use tables::router;
pub use task::{ProcessorError, Summary, compile_queries, run};
pub use version::VERSION;
