use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::http;
use super::process::Process;
use super::wait::{wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(90);

/// A producer, and where its status is.
pub(crate) struct Producer {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Producer {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = Process::start("producer", command);
        let address = process.wait_line("where its status is", LIMIT, http::address_in);
        Self { process, address }
    }

    /// What `/status` says of it at this pointer; null when it says nothing.
    pub(crate) fn status(&self, pointer: &str) -> serde_json::Value {
        wait_for("the producer's status", LIMIT, || http::get_json(self.address, "/status"))
            .pointer(&format!("/parts/producer/status{pointer}"))
            .cloned()
            .unwrap_or_default()
    }

    /// A line of `/metrics` that begins so; -1 when there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = wait_for("the producer's metrics", LIMIT, || http::get(self.address, "/metrics")).body;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(-1.0)
    }

    #[track_caller]
    pub(crate) fn wait_subscribed(&self) {
        wait_until("the subscription", LIMIT, || self.status("/mqtt/connected") == true);
    }

    /// SIGTERM, and the end that it should come to.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.process.signal("TERM");
        self.process.wait_success(LIMIT);
    }
}
