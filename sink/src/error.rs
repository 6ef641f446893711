//! Why a sink ends before it was told to.

use common::kafka::LogError;
use rdkafka::error::KafkaError;

use crate::writer::WriteError;

/// Each message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error(transparent)]
    Log(#[from] LogError),
    /// The database cannot be opened, or has given up for good.
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the sink's Kafka client cannot be set up: {0}; check the sections [kafka] and [sink] of the settings")]
    Client(#[source] KafkaError),
    #[error(
        "the result topics cannot be read any more: {0}; check the rights of this client and whether another sink uses its sink.instance_id"
    )]
    Read(#[source] KafkaError),
    #[error("the dead lane '{topic}' refuses a row: {cause}; check the topic's max.message.bytes and the rights of this client")]
    DeadLane { topic: String, cause: String },
    #[error("the sink's metrics cannot be registered: {0}; run one sink for each telemetry")]
    Metrics(#[from] prometheus::Error),
    #[error("the sink's thread cannot be started: {0}; check the limits of this process")]
    Thread(#[source] std::io::Error),
    #[error("the sink's thread ended unexpectedly; the log above says why, and a restart goes on at the last committed offset")]
    Panicked,
}
