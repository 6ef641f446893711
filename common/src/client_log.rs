//! What librdkafka says, as loud as it is of use.
//!
//! A client tells of each connection that it could not make, through its log and once more as an event, and a program has a dozen clients: a log
//! that is away for a minute would be a thousand lines. That it is away, and that it is back, is said once in a process
//! ([`crate::presence`]); what the clients say is for who looks closer (`RUST_LOG=debug`).

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why a connection last broke or could not be had, in any client of the process.
static TROUBLE: Mutex<String> = Mutex::new(String::new());

fn trouble() -> MutexGuard<'static, String> {
    TROUBLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a client of this process last lost its log, or could not reach it, as librdkafka says it.
pub fn last_trouble() -> Option<String> {
    Some(trouble().clone()).filter(|trouble| !trouble.is_empty())
}

/// A line of a client's own log.
pub fn log(level: Level, facility: &str, message: &str) {
    if facility == "FAIL" {
        // Behind the name of the client's thread, and earlier than the event of it.
        message.split_once("]: ").map_or(message, |(_, cause)| cause).clone_into(&mut trouble());
    }
    match level {
        _ if is_of_connections(facility) => tracing::debug!(target: "librdkafka", facility, "{message}"),
        Level::Emerg | Level::Alert | Level::Critical | Level::Error => tracing::error!(target: "librdkafka", facility, "{message}"),
        Level::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        Level::Notice | Level::Info | Level::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// Lines about a connection, a request that is put again, or what an event tells as well.
fn is_of_connections(facility: &str) -> bool {
    // GETPID: a log that has just started has no id for a producer yet.
    matches!(facility, "FAIL" | "ERROR" | "FATAL" | "REQTMOUT" | "GETPID")
}

/// An event of a client that is no answer to one of its calls.
pub fn error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        // It says no more than that the others have been said.
        Some(Code::AllBrokersDown) => {}
        // The end of a partition, to those who want to hear of it.
        Some(Code::PartitionEOF) => return,
        _ => reason.clone_into(&mut trouble()),
    }
    tracing::debug!(target: "librdkafka", %error, reason, "an event");
}

/// The context of a client whose errors are handled where its calls are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: Level, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, cause: KafkaError, reason: &str) {
        error(&cause, reason);
    }
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_trouble_is_the_one_of_a_connection() {
        error(&KafkaError::Global(Code::BrokerTransportFailure), "kafka:9092/1: Connect failed: Connection refused");
        error(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        error(&KafkaError::PartitionEOF(0), "reached the end");
        assert_eq!(last_trouble().unwrap(), "kafka:9092/1: Connect failed: Connection refused");
        log(Level::Error, "FAIL", "[thrd:kafka:9092/1]: kafka:9092/1: Disconnected");
        log(Level::Warning, "SESSTMOUT", "[thrd:main]: the group");
        assert_eq!(last_trouble().unwrap(), "kafka:9092/1: Disconnected");
    }
}
