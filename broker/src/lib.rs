//! The embedded log: one node that speaks Kafka's protocol over segment files.
//!
//! A reader's map, from the network to the disk:
//!
//! - [`Broker`] (`broker.rs`) starts, stops and owns everything; `server.rs` accepts, `connection.rs` serves one client.
//! - `wire/` reads frames and checks the shape of requests before the codec (crate `kafka-protocol`) may believe them.
//! - `auth/` knows who a client is and what it may do: users and rights, SASL, TLS.
//! - `api/` has one file per family of requests; its table `APIS` is what ApiVersions shows.
//! - `log/` keeps record batches as they come: `partition.rs` (lock, durable end, waiting), `segments.rs` (append, roll, cut),
//!   `open.rs` (recovery), `durable.rs` (what was promised), `segment.rs` (read), `index.rs`, `scan.rs`, `producers.rs`
//!   (idempotence, open and aborted transactions), `compact.rs`, `room.rs` (the low-disk mark), `flusher.rs` (group commit).
//! - `group/` is the coordinator of consumer groups: `state.rs` and `join.rs` are a state machine without I/O. `txn/` is that of
//!   transactions. `store.rs` keeps what both must not forget.
//! - `batch.rs`, `records.rs`: what is read of a batch. `data_dir.rs`, `topics.rs`: the lock, the format version, the registry.
//!
//! Consumers see only what is durable. One node: no replication, and no pretence of it.

mod api;
mod auth;
mod batch;
mod broker;
mod clock;
mod complaints;
mod config;
mod connection;
mod data_dir;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod ids;
mod log;
mod quick;
mod records;
mod server;
mod stats;
mod store;
mod topic_config;
mod topics;
mod txn;
mod wire;

pub use broker::Broker;
pub use config::{BrokerConfig, Durability, External};
pub use error::BrokerError;
pub use stats::BrokerStats;
