use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::process::Process;
use super::proxy::Proxy;
use super::wait::wait_until;

const START: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Our own log, in a process of its own, so that it can be killed.
    Embedded,
    /// Apache Kafka 4.x, started by `tests/kafka.sh`.
    Apache,
}

/// A running log that a test has for itself.
pub(crate) struct Log {
    kind: Kind,
    dir: tempfile::TempDir,
    address: SocketAddr,
    /// Between the log and all its clients.
    proxy: Option<Proxy>,
    process: Option<Process>,
}

impl Log {
    /// Starts a log. `None`, and a word on the terminal, when it is Apache Kafka and this run is not meant to or cannot use it.
    pub(crate) fn start(kind: Kind, test: &str) -> Option<Self> {
        if kind == Kind::Apache
            && let Err(why) = apache_ready()
        {
            super::skipped(test, &why);
            return None;
        }
        let dir = tempfile::Builder::new().prefix("tidemark-log-").tempdir().unwrap();
        let address = match kind {
            Kind::Embedded => SocketAddr::from(([127, 0, 0, 1], 0)),
            Kind::Apache => free_address(),
        };
        let mut log = Self { kind, dir, address, proxy: None, process: None };
        log.up();
        Some(log)
    }

    /// An embedded log that runs already, in an appliance.
    pub(crate) fn of_appliance(address: SocketAddr) -> Self {
        let dir = tempfile::Builder::new().prefix("tidemark-log-").tempdir().unwrap();
        Self { kind: Kind::Embedded, dir, address, proxy: None, process: None }
    }

    /// Apache Kafka whose clients all go through a proxy; its own name is the proxy's address.
    pub(crate) fn start_apache_behind_proxy(test: &str) -> Option<Self> {
        if let Err(why) = apache_ready() {
            super::skipped(test, &why);
            return None;
        }
        let dir = tempfile::Builder::new().prefix("tidemark-log-").tempdir().unwrap();
        let address = free_address();
        let mut log = Self { kind: Kind::Apache, dir, address, proxy: Some(Proxy::start(address)), process: None };
        log.up();
        Some(log)
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().unwrap()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn servers(&self) -> String {
        self.proxy.as_ref().map_or(self.address, |proxy| proxy.address).to_string()
    }

    /// `STOP`: it hangs, with its connections open; `CONT`: it goes on.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// SIGKILL, and up again on the same port and the same files.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.up();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn up(&mut self) {
        self.process = Some(match self.kind {
            Kind::Embedded => {
                let (process, address) = start_embedded(self.dir.path(), self.address);
                self.address = address;
                process
            }
            Kind::Apache => start_apache(self.dir.path(), self.address, &self.servers()),
        });
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        let client: BaseConsumer = client(&self.servers()).create().unwrap();
        let process = self.process.as_mut().unwrap();
        wait_until("the log to answer", START, || {
            assert!(process.try_wait().is_none(), "the log ended:\n{}", process.output());
            client.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|metadata| !metadata.brokers().is_empty())
        });
    }
}

/// A plain client, quiet while its log is away.
pub(crate) fn client(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("reconnect.backoff.max.ms", "200")
        .set("log.connection.close", "false")
        .set("allow.auto.create.topics", "false")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
    config
}

/// A free port for programs that cannot take port 0 and say which they got.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}

// ---- Apache Kafka

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka.sh")
}

fn apache_ready() -> Result<(), String> {
    if std::env::var("TIDEMARK_TEST_KAFKA").as_deref() != Ok("1") {
        return Err("Apache Kafka only with TIDEMARK_TEST_KAFKA=1".into());
    }
    for tool in ["java", "mvn"] {
        if Command::new(tool).arg("-version").output().is_err() {
            return Err(format!("'{tool}' is missing; install Java 17 or later and Maven"));
        }
    }
    // Outside of any deadline: the first time it downloads 100 MB.
    let output = Command::new("bash").arg(script()).arg("resolve").output().map_err(|error| error.to_string())?;
    assert!(output.status.success(), "tests/kafka.sh resolve:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn start_apache(dir: &Path, address: SocketAddr, advertised: &str) -> Process {
    let controller = free_address().port();
    let mut command = Command::new("bash");
    command.arg(script()).arg("run").args([address.port().to_string(), controller.to_string()]).arg(dir);
    command.env("KAFKA_ADVERTISED", advertised);
    Process::start("Apache Kafka", &mut command)
}

// ---- the embedded log

const DIR: &str = "TIDEMARK_TEST_LOG_DIR";
const ADDRESS: &str = "TIDEMARK_TEST_LOG_ADDRESS";
const READY: &str = "the embedded log listens on ";

fn start_embedded(dir: &Path, address: SocketAddr) -> (Process, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "harness::log::embedded_log_process", "--nocapture"]).env(DIR, dir).env(ADDRESS, address.to_string());
    let mut process = Process::start("embedded log", &mut command);
    let address = process.wait_line("its address", START, |line| line.split(READY).nth(1)?.trim().parse().ok());
    (process, address)
}

/// No test: the body of the log's process. This program starts itself with the variables set and asks for just this function.
#[test]
fn embedded_log_process() {
    let (Ok(dir), Ok(address)) = (std::env::var(DIR), std::env::var(ADDRESS)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = broker::BrokerConfig::new(dir, address.parse().unwrap());
        let broker = broker::Broker::start(config).await.unwrap();
        println!("{READY}{}", broker.addr());
        // Until it is killed.
        std::future::pending::<()>().await;
    });
}
