//! The embedded log: one node that speaks Kafka's protocol over segment files.
//!
//! A reader's map, from the network to the disk:
//!
//! - [`Broker`] (`broker.rs`) starts, stops and owns everything; `server.rs` accepts, `connection.rs` serves one client.
//! - `wire/` reads frames and checks the shape of requests before the codec (crate `kafka-protocol`) may believe them.
//! - `api/` has one file per family of requests; its table `APIS` is what ApiVersions shows.
//! - `log/` keeps record batches as they come: `partition.rs` (lock, durable end, waiting), `segments.rs` (append, roll, cut,
//!   recover), `segment.rs` (read), `index.rs`, `scan.rs`, `producers.rs` (idempotence), `flusher.rs` (group commit).
//! - `group/` is the coordinator of consumer groups: `state.rs` and `join.rs` are a state machine without I/O, `store.rs` keeps
//!   offsets and members.
//! - `data_dir.rs`, `topics.rs`: the lock, the format version, the registry of topics.
//!
//! Consumers see only what is durable. One node: no replication, and no pretence of it.

mod api;
mod batch;
mod broker;
mod clock;
mod config;
mod connection;
mod data_dir;
mod error;
mod group;
mod ids;
mod log;
mod server;
mod stats;
mod topic_config;
mod topics;
mod wire;

pub use broker::Broker;
pub use config::{BrokerConfig, Durability};
pub use error::BrokerError;
pub use stats::BrokerStats;
