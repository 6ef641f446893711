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

/// Forgets it, once the log is back: the next loss has another cause.
pub fn forget_trouble() {
    trouble().clear();
}

/// Why the log is lost to a client that has got `error`: what connections told of themselves when it speaks of those, and else itself.
pub fn trouble_behind(error: &KafkaError) -> String {
    let of_connections =
        matches!(error.rdkafka_error_code(), Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::OperationTimedOut));
    last_trouble().filter(|_| of_connections).unwrap_or_else(|| error.to_string())
}

/// A line of a client's own log.
pub fn log(level: Level, facility: &str, message: &str) {
    if let Some(cause) = cause_in_line(facility, message) {
        cause.clone_into(&mut trouble());
    }
    match level {
        _ if is_of_connections(facility) => tracing::debug!(target: "librdkafka", facility, "{message}"),
        Level::Emerg | Level::Alert | Level::Critical | Level::Error => tracing::error!(target: "librdkafka", facility, "{message}"),
        Level::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        Level::Notice | Level::Info | Level::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// The trouble that a line tells, earlier than the event of it: behind the name of the client's thread.
fn cause_in_line<'a>(facility: &str, message: &'a str) -> Option<&'a str> {
    (facility == "FAIL").then(|| message.split_once("]: ").map_or(message, |(_, cause)| cause))
}

/// Lines about a connection, a request that is put again, or what an event tells as well.
fn is_of_connections(facility: &str) -> bool {
    // GETPID: a log that has just started has no id for a producer yet.
    matches!(facility, "FAIL" | "ERROR" | "FATAL" | "REQTMOUT" | "GETPID")
}

/// An event of a client that is no answer to one of its calls.
pub fn error(error: &KafkaError, reason: &str) {
    if is_trouble(error) {
        reason.clone_into(&mut trouble());
    }
    if !is_end(error) {
        tracing::debug!(target: "librdkafka", %error, reason, "an event");
    }
}

/// That all brokers are down says no more than that the trouble with each has been told.
fn is_trouble(error: &KafkaError) -> bool {
    !is_end(error) && error.rdkafka_error_code() != Some(Code::AllBrokersDown)
}

/// The end of a partition, for those who want to hear of it.
fn is_end(error: &KafkaError) -> bool {
    matches!(error, KafkaError::PartitionEOF(_)) || error.rdkafka_error_code() == Some(Code::PartitionEOF)
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
mod tests {
    use super::*;

    #[test]
    fn the_trouble_is_that_of_a_connection() {
        assert!(is_trouble(&KafkaError::Global(Code::BrokerTransportFailure)));
        assert!(is_trouble(&KafkaError::Global(Code::Authentication)));
        assert!(!is_trouble(&KafkaError::Global(Code::AllBrokersDown)));
        assert!(!is_trouble(&KafkaError::PartitionEOF(0)) && !is_trouble(&KafkaError::Global(Code::PartitionEOF)));
        let line = "[thrd:kafka:9092/1]: kafka:9092/1: Connect failed: Connection refused";
        assert_eq!(cause_in_line("FAIL", line), Some("kafka:9092/1: Connect failed: Connection refused"));
        assert_eq!(cause_in_line("FAIL", "Disconnected"), Some("Disconnected"));
        assert_eq!(cause_in_line("SESSTMOUT", "[thrd:main]: the group"), None);
    }
}
