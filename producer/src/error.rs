//! What can go wrong, in sentences that say what to do.

use std::time::Duration;

use common::kafka::LogError;
use common::settings::Faults;
use rdkafka::error::KafkaError;

use crate::source::SourceError;

/// Why a run ended badly. Nothing is lost silently: whatever the log has not acknowledged is in one of these.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    #[error(transparent)]
    Settings(#[from] Faults),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the Kafka producer cannot be set up: {0}; check [producer] and [kafka.properties] of the settings")]
    Client(#[source] KafkaError),
    #[error("a record of {bytes} bytes was refused on its way into topic '{topic}': {cause}; {advice}")]
    Refused { topic: String, bytes: usize, cause: String, advice: &'static str },
    #[error("the log at {servers} did not take {failed} record(s), the first because of: {cause}; {advice}")]
    Delivery { servers: String, failed: u64, cause: String, advice: &'static str },
    #[error(
        "{count} record(s) were still without acknowledgement from the log at {servers} after {waited:?}; look after the log, and send them again or raise {setting}"
    )]
    Undelivered { servers: String, count: u64, waited: Duration, setting: &'static str },
    #[error("{0}")]
    Door(String),
    #[error("the producer's metrics cannot be registered: {0}; run one producer for each telemetry")]
    Metrics(#[from] prometheus::Error),
    #[error("the producer's thread cannot be started: {0}; check the limits of this process")]
    Thread(#[source] std::io::Error),
    #[error("the producer's thread broke down; the log above says where, please report it")]
    Broken,
}
