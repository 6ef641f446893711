//! What can go wrong in a task, by what to do next.

use common::kafka::LogError;
use rdkafka::error::KafkaError;

use crate::engine::EngineError;
use crate::query::QueryError;

/// The processor cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Task(String),
}

/// Why a worker ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// Another owner has taken over: stop without a further word to the log.
    #[error("another processor has taken over this partition")]
    Fenced,
    /// Asked to stop.
    #[error("stopped")]
    Stopped,
    /// Throw the task away and take over anew.
    #[error("{0}")]
    Retry(String),
    /// Nothing that a retry would mend.
    #[error("{0}")]
    Fatal(String),
}

impl From<EngineError> for TaskError {
    fn from(error: EngineError) -> Self {
        Self::Fatal(error.to_string())
    }
}

impl From<KafkaError> for TaskError {
    fn from(error: KafkaError) -> Self {
        Self::Retry(format!("the Kafka log: {error}"))
    }
}
