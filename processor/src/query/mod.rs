//! From a query file to something that can be executed on batches.
//!
//! ```text
//! query file ──file.rs──▶ QueryFile ──sql.rs──▶ statement ──compile.rs──▶ logical plan ──shape.rs──▶ StreamQuery
//!                                     (Spark's spelling)     (DataFusion)             (every node matched)
//! ```
//! Files of metadata that the SQL joins with the stream are read in `lookup`. This room knows DataFusion and not Kafka. `fold.rs` is the only
//! file that touches accumulators.

mod calendar;
mod compile;
pub mod ddl;
mod describe;
mod dialect;
mod division;
pub mod file;
mod fold;
mod functions;
mod grouping;
mod identity;
mod keys;
mod length;
mod lookup;
mod modes;
mod order;
mod read;
mod repartition;
mod sentence;
mod shape;
mod sql;
mod welford;
mod window;
mod window_time;
mod zone;

pub(crate) use compile::{Dedup, Second, Timeline, fnv1a};
pub use compile::{QueryError, StreamQuery};
pub(crate) use describe::{Change, Description, GROUP_BY, KEY_COLUMNS, TOPIC, WATERMARK};
pub use file::QueryFile;
pub(crate) use fold::Arguments;
pub(crate) use grouping::{Grouping, Window};
pub(crate) use keys::{GroupKeys, KeyRows, RowBytes, normalize};
pub use lookup::LookupTable;
pub(crate) use shape::{Scope, Step};
pub use window::WindowSpec;
pub(crate) use window::{Pane, PaneFinder};
pub(crate) use window_time::event_times;
