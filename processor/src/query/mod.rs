//! From a query file to something that can be executed on batches.
//!
//! ```text
//! query file ──file.rs──▶ QueryFile ──sql.rs──▶ statement ──compile.rs──▶ logical plan ──shape.rs──▶ StreamQuery
//!                                     (Spark's spelling)     (DataFusion)             (every node matched)
//! ```
//! This room knows DataFusion and not Kafka. `fold.rs` is the only file that touches accumulators.

mod compile;
pub mod ddl;
mod dialect;
mod division;
pub mod file;
mod fold;
mod functions;
mod keys;
mod shape;
mod sql;
mod welford;
mod window;

pub use compile::{QueryError, StreamQuery};
pub use file::QueryFile;
pub(crate) use fold::Arguments;
pub(crate) use keys::RowBytes;
pub(crate) use shape::{Scope, Step};
pub(crate) use window::Pane;
pub use window::WindowSpec;
