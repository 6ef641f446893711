//! Leads a Kafka client back to a log that it has lost.
//!
//! A lone broker that was frozen puts itself out of its cluster for a moment, and then tells clients of topics, but of no broker at all.
//! librdkafka 2.12 drops every broker that is not named, and the answer that made a new start from the bootstrap servers necessary may also
//! call it off (confluentinc/librdkafka#5301): the client stays without a connection for ever.
//!
//! Naming the servers once more ends that.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::time::{Duration, Instant};

use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::client::{Client, ClientContext};

/// librdkafka finds a log that is back within a second, or not at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches one client, or several of the same log.
#[derive(Debug)]
pub struct Lifeline {
    /// As C has it; a name with a null in it is nobody's.
    servers: CString,
    /// Since when the log is away, or was named again.
    since: Option<Instant>,
}

impl Lifeline {
    pub fn new(servers: &str) -> Self {
        Self { servers: CString::new(servers).unwrap_or_default(), since: None }
    }

    /// To be called every now and then with whether the log is away. Says whether it is time to name the servers to each client again.
    pub fn is_due(&mut self, away: bool, now: Instant) -> bool {
        let since = match self.since {
            _ if !away => {
                self.since = None;
                return false;
            }
            None => now,
            Some(since) => since,
        };
        let due = now.duration_since(since) >= PATIENCE;
        self.since = Some(if due { now } else { since });
        due
    }

    /// Without harm to a client that has connections: it drops the names again with the log's next answer.
    pub fn throw<C: ClientContext>(&self, client: &Client<C>) {
        // SAFETY: the client lives as long as the borrow, and the name ends with a null; librdkafka keeps a copy.
        let added = unsafe { rd_kafka_brokers_add(client.native_ptr(), self.servers.as_ptr()) };
        tracing::debug!(added, servers = ?self.servers, "the log is looked for anew");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_away_is_looked_for_every_two_seconds_until_it_is_back() {
        let mut lifeline = Lifeline::new("kafka:9092");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let due: Vec<u64> = (0..7).filter(|second| lifeline.is_due(*second != 5, at(*second))).collect();
        assert_eq!(due, [2, 4], "the log was back in the fifth second");
        assert!(lifeline.is_due(true, at(8)));
    }
}
