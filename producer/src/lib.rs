//! Sources of readings (simulator, replay) and the publisher into the log.
//!
//! ```text
//! simulator/ ─┐
//! replay/    ─┼─▶ source.rs: `Source`, `Delivery` ─▶ publisher/ ─▶ topic `iot`   (readings)
//! (MQTT)     ─┘                                                 └▶ topic `iot.dead` (lines nobody could read)
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`source`] | the seam: what a source gives, and when it is due |
//! | [`simulator`] | a seeded fleet of sensors |
//! | [`replay`] | CSV files, merged by event time |
//! | `publisher` | one plain thread: takes from the source, hands to librdkafka, counts what the log acknowledged |
//! | `metrics` | what a run shows of itself |
//! | [`settings_check`] | faults of the settings that only this house can see |
//!
//! [`run`] does everything; the binary and the appliance only wire it.

mod error;
mod metrics;
mod publisher;
pub mod replay;
mod run;
pub mod settings_check;
pub mod simulator;
pub mod source;
mod summary;

pub use error::ProducerError;
pub use run::run;
pub use settings_check::check;
pub use summary::Summary;
