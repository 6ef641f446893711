//! A broker in a process of its own, so that it can be killed and measured. The test program itself is that process: it has a test
//! `broker_process`, which is `run_if_asked`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const READY: &str = "the broker listens on ";

/// Not a test: what the process does. Returns at once in the program that runs the tests.
pub fn run_if_asked() {
    let Ok(dir) = std::env::var("TIDEMARK_TEST_BROKER_DIR") else { return };
    let address = std::env::var("TIDEMARK_TEST_BROKER_ADDRESS").unwrap();
    let mut config = broker::BrokerConfig::new(dir, address.parse().unwrap());
    if std::env::var("TIDEMARK_TEST_BROKER_OS").is_ok() {
        config.durability = broker::Durability::Os;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let broker = broker::Broker::start(config).await.unwrap();
        println!("\n{READY}{}", broker.addr());
        std::future::pending::<()>().await;
    });
}

pub struct Process(Child);

impl Process {
    pub fn start(dir: &Path, address: &str) -> (Self, SocketAddr) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "broker_process", "--nocapture"])
            .env("TIDEMARK_TEST_BROKER_DIR", dir)
            .env("TIDEMARK_TEST_BROKER_ADDRESS", address)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| line.strip_prefix(READY).map(str::to_owned));
        (Self(child), address.expect("the broker starts").parse().unwrap())
    }

    /// Bytes of memory that it has in use.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: nothing is tidied up.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
