use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::log::free_address;
use super::process::Process;
use super::wait::wait_until;

const START: Duration = Duration::from_secs(20);

/// A real MQTT broker that a test has for itself.
pub(crate) struct Mosquitto {
    dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    process: Option<Process>,
}

impl Mosquitto {
    /// Starts it with `lines` beside a listener and a store. `None`, and a word on the terminal, when it is not installed.
    pub(crate) fn start(test: &str, lines: &str) -> Option<Self> {
        Self::start_at(test, lines, free_address())
    }

    pub(crate) fn start_at(test: &str, lines: &str, address: SocketAddr) -> Option<Self> {
        if program().is_none() {
            super::skipped(test, "'mosquitto' is missing; install the packages mosquitto and mosquitto-clients");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("tidemark-mosquitto-").tempdir().unwrap();
        // Without limits of its own: what it acknowledges to a device it must not drop.
        let conf = format!(
            "listener {} 127.0.0.1\nuser root\npersistence true\npersistence_location {}/\nmax_inflight_messages 0\n\
             max_queued_messages 0\n{lines}\n",
            address.port(),
            dir.path().display()
        );
        std::fs::write(dir.path().join("mosquitto.conf"), conf).unwrap();
        let mut mosquitto = Self { dir, address, process: None };
        mosquitto.up();
        Some(mosquitto)
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    fn up(&mut self) {
        let mut command = Command::new(program().unwrap());
        command.arg("-c").arg(self.dir.path().join("mosquitto.conf"));
        let mut process = Process::start("mosquitto", &mut command);
        let address = self.address;
        wait_until("mosquitto to listen", START, || {
            assert!(process.try_wait().is_none(), "mosquitto ended:\n{}", process.output());
            TcpStream::connect(address).is_ok()
        });
        self.process = Some(process);
    }

    /// Ends it in good order and starts it again, with what it had stored or without.
    pub(crate) fn restart(&mut self, keep_store: bool) {
        if let Some(mut process) = self.process.take() {
            process.signal("TERM");
            process.wait_exit(START);
        }
        if !keep_store {
            std::fs::remove_file(self.dir.path().join("mosquitto.db")).unwrap();
        }
        self.up();
    }

    /// `mosquitto_pub` to this broker.
    pub(crate) fn publish(&self) -> Command {
        publish(self.address)
    }
}

/// `mosquitto_pub -q 1` to any broker; topic and payload are the caller's.
pub(crate) fn publish(address: SocketAddr) -> Command {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-q", "1"]);
    command
}

/// Debian keeps it where plain users do not look.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    folders.map(|folder| folder.join("mosquitto")).find(|program| program.exists())
}

pub(crate) fn is_installed(test: &str) -> bool {
    let found = program().is_some();
    if !found {
        super::skipped(test, "'mosquitto' is missing; install the packages mosquitto and mosquitto-clients");
    }
    found
}
