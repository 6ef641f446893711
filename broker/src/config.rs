//! How a broker is set up: where it listens, where it keeps its log, when it calls a record safe.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// When a produced batch counts as written, and becomes visible to consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After `fsync`: survives a power cut. Many produces share one `fsync`.
    #[default]
    Fsync,
    /// After the write into the page cache: survives a crash of the process, not of the machine.
    Os,
}

/// A second listener, for clients beyond this machine: they authenticate themselves, and may do what their user may.
#[derive(Debug, Clone)]
pub struct External {
    /// Address to listen on; port 0 takes a free one, [`crate::Broker::external_addr`] tells which.
    pub listen: SocketAddr,
    /// Host name and port that its clients are told to connect to; the listening address when `None`.
    pub advertised: Option<(String, u16)>,
    /// PEM files with the certificate chain and its key. `None`: passwords and records are sent in the clear.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// TOML file with the users, their passwords and rights.
    pub users_file: PathBuf,
}

/// Settings of one broker.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Directory of the log. Created when it is missing; one broker at a time may use it.
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 takes a free one, [`crate::Broker::addr`] tells which.
    pub listen: SocketAddr,
    /// Host name that clients are told to connect to; the listening address when `None`.
    pub advertised_host: Option<String>,
    /// Size at which a segment file is closed and the next one begun, in bytes. A topic's `segment.bytes` wins.
    pub segment_bytes: u64,
    /// When a batch counts as written.
    pub durability: Durability,
    /// Largest request that is read, in bytes (Kafka's `socket.request.max.bytes`).
    pub max_request_bytes: usize,
    /// Connections beyond this number are closed at once.
    pub max_connections: usize,
    /// How often retention is applied (Kafka's `log.retention.check.interval.ms`); for the first time after a tenth of it.
    pub retention_check: Duration,
    /// How often compacted topics are looked at.
    pub compaction_check: Duration,
    /// How often the disk's free space, and a storage fault, are looked at again.
    pub disk_check: Duration,
    /// Free bytes of the disk below which produces are refused; `None` takes a twentieth of it, at most 256 MiB.
    pub min_free_bytes: Option<u64>,
    /// Partitions of a topic that is created because somebody asks for it; `None`: only an explicit request creates one.
    pub auto_create_topics: Option<i32>,
    /// The listener beyond this machine, if there is one.
    pub external: Option<External>,
    /// How long a new group waits for more members before its first generation. Kafka waits 3 s; one appliance need not.
    pub initial_rebalance_delay: Duration,
}

impl BrokerConfig {
    /// The defaults: 128 MiB segments, acknowledged after `fsync`, requests up to 100 MiB, 4,096 connections.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen,
            advertised_host: None,
            segment_bytes: 128 << 20,
            durability: Durability::Fsync,
            max_request_bytes: 100 << 20,
            max_connections: 4096,
            retention_check: Duration::from_secs(300),
            compaction_check: Duration::from_secs(15),
            disk_check: Duration::from_secs(1),
            min_free_bytes: None,
            auto_create_topics: None,
            external: None,
            initial_rebalance_delay: Duration::ZERO,
        }
    }
}
