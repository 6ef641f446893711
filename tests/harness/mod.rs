//! What the end-to-end tests share: real processes, a real log, oracles that know nothing of the code under test.
//!
//! | file | what |
//! |---|---|
//! | `wait` | waiting for a condition with a deadline; nothing here sleeps to let something happen |
//! | `process` | a child process: its output is kept and shown when the test fails, it is killed when it is dropped |
//! | `appliance` | `tidemark` with everything in one process |
//! | `binaries` | where the binaries are, and each one started with settings of this test only |
//! | `log` | the log that a test runs on: the embedded one, or Apache Kafka |
//! | `proxy` | a TCP proxy that swallows what passes |
//! | `mosquitto` | a real MQTT broker |
//! | `kinesis` | a Kinesis server, and somebody before it who answers with faults |
//! | `certificates` | an authority, certificates and passwords, by OpenSSL and `mosquitto_passwd` |
//! | `place` | a directory with a query outside Kafka, and what it reads and writes |
//! | `hook` | a web address that results are posted to |
//! | `clients` | other people's MQTT clients, in Python |
//! | `load` | readings with disorder and late ones, at a pace, by the producer |
//! | `producer` | the producer, and what it says of itself |
//! | `topic` | reading and writing topics |
//! | `query` | query files |
//! | `resend` | result rows sent again, for the measurements |
//! | `results` | result rows as the processor wrote them |
//! | `ledger` | the processor's counts, from its `/status` |
//! | `points` | what the sink wrote into SQLite |
//! | `readings` | the readings of a CSV file or of a topic, and what must become of each |
//! | `oracle` | windows computed a second way: a plain fold, and SQLite |
//! | `http` | a request and its answer |
//! | `browser` | headless Chromium over its DevTools protocol |
//! | `random` | a seeded generator; the seed is printed |
//! | `usage` | the time and the memory that processes take |
//! | `workload` | many readings for the measurements |

// Every test target compiles this module and uses a part of it.
#![allow(dead_code)]

pub(crate) mod appliance;
pub(crate) mod binaries;
pub(crate) mod browser;
pub(crate) mod certificates;
pub(crate) mod clients;
pub(crate) mod hook;
pub(crate) mod http;
pub(crate) mod kinesis;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod mosquitto;
pub(crate) mod oracle;
pub(crate) mod place;
pub(crate) mod points;
pub(crate) mod process;
pub(crate) mod producer;
pub(crate) mod proxy;
pub(crate) mod query;
pub(crate) mod random;
pub(crate) mod readings;
pub(crate) mod resend;
pub(crate) mod results;
pub(crate) mod topic;
pub(crate) mod usage;
pub(crate) mod wait;
pub(crate) mod workload;

/// Says on the terminal that a test did not run, and why. The test runner would swallow a `println!`.
pub(crate) fn skipped(test: &str, why: &str) {
    use std::io::Write as _;
    let line = format!("skipped: {test}: {why}\n");
    assert!(std::io::stderr().write_all(line.as_bytes()).is_ok());
}
