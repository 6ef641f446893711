//! The sections of the settings and their defaults. A key that is not here does not exist.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Ingest, Mqtt, MqttListener, Payload, SimulatedDevices};
use crate::units::{Size, Span};

/// `[kafka]`: how every client reaches the log, ours or Apache Kafka.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kafka {
    /// `host:port`, several with commas.
    pub bootstrap_servers: String,
    pub client_id: String,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`; all but the first need a build with the feature `tls`.
    pub security_protocol: String,
    pub sasl_mechanism: Option<String>,
    pub sasl_username: Option<String>,
    pub sasl_password: Option<String>,
    /// A file whose first line is the password; keeps it out of environment and process list.
    pub sasl_password_file: Option<PathBuf>,
    pub ssl_ca_file: Option<PathBuf>,
    pub ssl_certificate_file: Option<PathBuf>,
    pub ssl_key_file: Option<PathBuf>,
    /// How long a client keeps trying to deliver or to reach the log before it says so.
    pub request_timeout: Span,
    /// Further librdkafka properties, as they are; they win.
    pub properties: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".into(),
            client_id: "tidemark".into(),
            security_protocol: "plaintext".into(),
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password: None,
            sasl_password_file: None,
            ssl_ca_file: None,
            ssl_certificate_file: None,
            ssl_key_file: None,
            request_timeout: Span::from_secs(30),
            properties: BTreeMap::new(),
        }
    }
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password must not reach a log by way of `{:?}`.
        f.debug_struct("Kafka").field("bootstrap_servers", &self.bootstrap_servers).finish_non_exhaustive()
    }
}

/// `[topics]`: names and layout of what the houses meet in. All are created explicitly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topics {
    pub input: String,
    pub late: String,
    pub dead: String,
    /// Partitions of a topic that we create.
    pub partitions: u32,
    /// -1 takes the broker's default.
    pub replication_factor: i32,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            input: crate::topics::INPUT.into(),
            late: crate::topics::LATE.into(),
            dead: crate::topics::DEAD.into(),
            partitions: 2,
            replication_factor: -1,
        }
    }
}

/// `[http]`: metrics, health, status and, in the appliance, the page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Http {
    /// Unset: the binary's own default on 127.0.0.1. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// PEM files of the certificate chain and its key: with them the listener speaks TLS only.
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Authorities (PEM) of the clients' certificates: with it every client must show one.
    pub client_ca_file: Option<PathBuf>,
}

/// `[log]`: the program's own log on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,rdkafka=debug`. `RUST_LOG` wins.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

/// `[sql]`: questions to a running program, by `sql` and at `/api/sql`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sql {
    /// Whether the listener of `[http]` takes questions at all.
    pub enabled: bool,
    /// How long one question may take.
    pub max_time: Span,
    /// Most rows of an answer; it says when there are more.
    pub max_rows: usize,
    /// What SQLite may hold for a question, the rows that it reads from queries and memory tables included.
    pub max_memory: Size,
}

impl Default for Sql {
    fn default() -> Self {
        Self { enabled: true, max_time: Span::from_secs(5), max_rows: 10_000, max_memory: Size::from_mib(128) }
    }
}

/// `[producer]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Producer {
    pub simulator: Simulator,
    pub replay: Replay,
    pub payload: Payload,
    pub mqtt: Mqtt,
    pub mqtt_listener: MqttListener,
    pub ingest: Ingest,
    /// Most memory of messages from devices that wait for the log; beyond it the devices wait.
    pub max_buffer: Size,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// How long a batch waits for company.
    pub linger: Span,
    /// How long to wait at the end for what is in flight.
    pub drain_timeout: Span,
}

impl Default for Producer {
    fn default() -> Self {
        Self {
            simulator: Simulator::default(),
            replay: Replay::default(),
            payload: Payload::default(),
            mqtt: Mqtt::default(),
            mqtt_listener: MqttListener::default(),
            ingest: Ingest::default(),
            max_buffer: Size::from_mib(64),
            compression: "lz4".into(),
            linger: Span::from_millis(5),
            drain_timeout: Span::from_secs(4),
        }
    }
}

/// `[producer.simulator]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Simulator {
    pub sensors: u32,
    /// Readings per second of the whole fleet; 0 is as fast as it goes.
    pub rate: f64,
    /// The same seed gives the same fleet and the same values.
    pub seed: u64,
    /// Stop after so many readings; unset: go on until stopped.
    pub count: Option<u64>,
    /// Share of readings that come out of order, by up to `out_of_order_by`.
    pub out_of_order: f64,
    pub out_of_order_by: Span,
    /// Share of readings that are sent twice.
    pub duplicates: f64,
    /// Share of readings that come too late for any window, by `late_by`.
    pub late: f64,
    pub late_by: Span,
    /// Share of *sensors* whose clock is wrong: a day ahead, at 1970, or drifting.
    pub bad_clock: f64,
    pub mqtt: SimulatedDevices,
}

impl Simulator {
    pub(crate) fn shares(&self) -> [(&'static str, f64); 4] {
        [("out_of_order", self.out_of_order), ("duplicates", self.duplicates), ("late", self.late), ("bad_clock", self.bad_clock)]
    }
}

impl Default for Simulator {
    fn default() -> Self {
        Self {
            sensors: 20,
            rate: 100.0,
            seed: 42,
            count: None,
            out_of_order: 0.05,
            out_of_order_by: Span::from_secs(2),
            duplicates: 0.0,
            late: 0.0,
            late_by: Span::from_secs(60),
            bad_clock: 0.0,
            mqtt: SimulatedDevices::default(),
        }
    }
}

/// `[producer.replay]`: real data from files instead of the simulator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Replay {
    /// CSV files; with any, they are replayed and the simulator stays off.
    pub files: Vec<PathBuf>,
    /// Times real time, such as `1` or `60`; `max` does not wait at all.
    pub speed: String,
}

impl Default for Replay {
    fn default() -> Self {
        Self { files: Vec::new(), speed: "1".into() }
    }
}

/// `[processor]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Processor {
    /// Query files; none: the built-in default query.
    pub queries: Vec<PathBuf>,
    /// A stable name of this processor in its consumer groups (`group.instance.id`): a restart within the session timeout gets its
    /// partitions back at once. Unset: the group waits for the session of a killed processor to time out.
    pub instance_id: Option<String>,
    /// After this long without a sign of life another processor takes the partitions of this one over.
    pub session_timeout: Span,
    /// Follow the journals of the partitions that other processors own, and hold their state too: a takeover then reads only what is new.
    pub standby: bool,
    pub drain_timeout: Span,
    /// Most input rows that one commit covers, per partition.
    pub max_rows_per_step: usize,
    /// Journal bytes between two snapshots; no less than the last one had.
    pub snapshot_every: Size,
    /// Refuse to grow a query's state beyond this, per partition.
    pub max_state: Size,
    /// How often a query's progress report is a line of the log at level `info`; at `debug`, target `progress`, each one is.
    pub progress_every: Span,
    /// Names of queries whose state is begun anew from the log when it does not fit them; for one start.
    pub rebuild: Vec<String>,
}

impl Default for Processor {
    fn default() -> Self {
        Self {
            queries: Vec::new(),
            instance_id: None,
            session_timeout: Span::from_secs(10),
            standby: false,
            drain_timeout: Span::from_secs(4),
            max_rows_per_step: 1_000_000,
            snapshot_every: Size::from_mib(16),
            max_state: Size::from_mib(1024),
            progress_every: Span::from_secs(60),
            rebuild: Vec::new(),
        }
    }
}

/// When the embedded log acknowledges a produce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After the data is on the disk.
    #[default]
    Fsync,
    /// After the operating system has it: survives a crash of the process, not a power cut.
    Os,
}

/// `[broker]`: the embedded log; only the appliance runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Broker {
    pub listen: SocketAddr,
    pub durability: Durability,
    pub segment_size: Size,
    /// How long readings and results stay in the log.
    pub retention: Span,
    /// Host name that clients of `listen` are told to connect to; unset: the listening address.
    pub advertised_host: Option<String>,
    /// Free space below which produces are refused; unset: a twentieth of the disk, at most 256 MiB.
    pub min_free: Option<Size>,
    /// Whether asking for a topic creates it, as Apache Kafka does by default.
    pub auto_create_topics: bool,
    pub external: External,
}

/// `[broker.external]`: a second listener of the embedded log, for clients beyond this machine. They authenticate themselves by
/// SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512), and may do what the users' file says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct External {
    /// Unset: there is none.
    pub listen: Option<SocketAddr>,
    /// `host:port` that clients are told to connect to; unset: the listening address.
    pub advertised: Option<String>,
    /// PEM files of the certificate chain and its key. Without them nothing is encrypted, which has to be said in `plaintext`.
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Passwords and records go over the network in the clear.
    pub plaintext: bool,
    /// TOML file of the users, their passwords and rights.
    pub users_file: Option<PathBuf>,
}

impl External {
    /// The host and port in `advertised`; `None` when it is unset or no address.
    pub fn advertised(&self) -> Option<(String, u16)> {
        let (host, port) = self.advertised.as_deref()?.rsplit_once(':')?;
        Some((host.to_owned(), port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
    }

    pub(crate) fn faults(&self) -> Vec<&'static str> {
        let mut faults = Vec::new();
        let mut check = |fine: bool, text| {
            if !fine {
                faults.push(text);
            }
        };
        if self.listen.is_none() {
            return faults;
        }
        check(self.users_file.is_some(), "broker.external.users_file is missing; the external listener lets nobody in without it");
        check(
            self.certificate_file.is_some() == self.key_file.is_some(),
            "broker.external needs both certificate_file and key_file, or neither",
        );
        check(
            self.certificate_file.is_some() != self.plaintext,
            "broker.external needs certificate_file and key_file, or plaintext = true if nothing is to be encrypted",
        );
        check(
            self.advertised.is_none() || self.advertised().is_some(),
            "broker.external.advertised is no address; write host:port, such as gateway.example:9094",
        );
        faults
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9092)),
            durability: Durability::Fsync,
            segment_size: Size::from_mib(128),
            retention: Span::from_secs(7 * 24 * 3600),
            advertised_host: None,
            min_free: None,
            auto_create_topics: false,
            external: External::default(),
        }
    }
}

/// `[appliance]`: everything in one process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Appliance {
    /// Log, store and state; unset: the platform's data directory.
    pub data_dir: Option<PathBuf>,
}
