//! Sources of readings (simulator, replay, devices over MQTT and HTTP) and the publisher into the log.
//!
//! ```text
//! simulator/ ────────────────────────────┐
//! replay/ ───────────────────────────────┼─▶ source.rs: `Source`, `Delivery` ─▶ publisher/ ─▶ topic `iot`   (readings)
//! mqtt/, listener/, ingest ─▶ intake.rs ─┘                                            └▶ topic `iot.dead` (what nobody could read)
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`source`] | the seam: what a source gives, and when it is due |
//! | [`simulator`] | a seeded fleet of sensors |
//! | [`replay`] | CSV files, merged by event time |
//! | `mqtt` | devices of an MQTT broker |
//! | `listener` | our own MQTT broker |
//! | `ingest` | HTTP |
//! | `payload` | what devices send, as readings |
//! | `intake`, `doors` | the bounded queue behind MQTT and HTTP, and what opens them |
//! | [`devices`] | the simulated fleet as MQTT devices |
//! | `publisher` | one plain thread: takes from the source, hands to librdkafka, counts what the log acknowledged |
//! | [`fuzzing`] | payloads of every format, for the fuzz targets and the corpus of bad payloads (`fuzz/`) |
//! | `metrics` | what a run shows of itself |
//! | [`settings_check`] | faults of the settings that only this house can see |
//!
//! [`run`] does everything; the binary and the appliance only wire it.

pub mod devices;
mod doors;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod ingest;
mod intake;
mod listener;
mod metrics;
mod mqtt;
mod payload;
mod publisher;
pub mod replay;
mod run;
pub mod settings_check;
pub mod simulator;
pub mod source;
mod summary;

pub use doors::{describe as describe_devices, device_address, wanted as takes_devices};
pub use error::ProducerError;
pub use ingest::Ingest;
pub use run::{run, run_with};
pub use settings_check::check;
pub use summary::Summary;
