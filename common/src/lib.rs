//! What the houses share: settings, the reading, Kafka clients, topics and lanes, telemetry, shutdown.
//!
//! The houses (`producer`, `processor`, `sink`) know this crate and never each other: they meet in Kafka topics, and what they
//! agree on about those topics stands here.
//!
//! | file | what |
//! |---|---|
//! | [`settings`] | one typed tree of settings for every binary; flag > environment > file > default |
//! | [`units`] | durations and sizes that carry their unit |
//! | [`reading`] | the reading on the wire |
//! | [`topics`] | names of topics and of record headers |
//! | [`kafka`] | client configuration, explicit creation of topics |
//! | [`client_log`] | what librdkafka says, as loud as it is of use |
//! | [`presence`] | whether the log is there, said once by a process |
//! | [`aside`] | clients that end beside whoever has used them |
//! | [`too_large`] | records that the log finds too large: alone, then by their beginning |
//! | [`headers`] | headers of records, whatever bytes their names are |
//! | [`lifeline`] | leads a client back to a log that it has lost |
//! | [`waking`] | a producer that wakes who waits for its reports |
//! | [`mqtt`] | a client's connection to an MQTT broker |
//! | [`telemetry`] | metrics registry, health, status, logs, and the HTTP listener that shows them |
//! | [`shutdown`] | one signal to stop, with a deadline |
//! | [`progress`] | how far a job with an end is: a bar, or lines in the log |
//! | [`say`] | what a program says on standard output and error, whose reader may have gone |
//! | [`cli`] | the flags and commands that all binaries have |
//! | [`version`] | what `--version` says of a build |
//! | [`why`] | the command that asks a processor what holds the next result back |
//! | [`healthcheck`] | the command that asks a running program whether it is well |
//! | [`status_page`] | what such commands ask with |
//! | `http_tls` | TLS for that listener |
//!
//! Unsafe are the calls of librdkafka that its safe wrapper lacks. They stand in [`headers`], [`lifeline`] and [`waking`], and nowhere else.

pub mod aside;
pub mod cli;
pub mod client_log;
pub mod headers;
pub mod healthcheck;
mod http_tls;
pub mod kafka;
pub mod lifeline;
pub mod mqtt;
pub mod presence;
pub mod progress;
pub mod reading;
pub mod say;
pub mod settings;
pub mod shutdown;
pub mod status_page;
pub mod telemetry;
pub mod too_large;
pub mod topics;
pub mod units;
pub mod version;
pub mod waking;
pub mod why;

pub use settings::Settings;
pub use shutdown::Shutdown;
pub use telemetry::Telemetry;
