use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::binaries;
use super::http;
use super::ledger;
use super::process::Process;
use super::query::Query;
use super::wait::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

static TURN: Mutex<()> = Mutex::new(());

/// `tidemark`, everything in one process.
pub(crate) struct Appliance {
    process: Process,
    data_dir: PathBuf,
    /// Where the page is, as it was printed.
    pub(crate) page: SocketAddr,
    /// Where the log is, as it was printed.
    pub(crate) kafka: SocketAddr,
    // One at a time: on a small machine a second one would take the time that this one has for its drain.
    _turn: MutexGuard<'static, ()>,
}

pub(crate) fn command() -> Command {
    binaries::command("tidemark")
}

/// The same on free ports.
pub(crate) fn command_in(data_dir: &Path) -> Command {
    let mut command = command();
    command.arg("--data-dir").arg(data_dir).args(["--kafka-port", "0", "--http-port", "0"]);
    command
}

impl Appliance {
    /// Starts it on free ports and waits until it says where to look.
    #[track_caller]
    pub(crate) fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut process = Process::start("tidemark", command_in(data_dir).args(arguments));
        let page = process.wait_line("where the page is", LIMIT, http::address_in);
        let kafka =
            process.wait_line("where the log is", LIMIT, |line| line.strip_prefix("  kafka")?.split_whitespace().next()?.parse().ok());
        Self { process, data_dir: data_dir.to_owned(), page, kafka, _turn: turn }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The sink's database.
    pub(crate) fn database(&self) -> PathBuf {
        self.data_dir.join("tidemark.sqlite")
    }

    /// Rows that the default query has read since its beginning.
    pub(crate) fn rows_read(&self) -> u64 {
        let query = Query::new("iot-10s", "10 seconds");
        wait_for("the ledger", LIMIT, || ledger::counts(self.page, &query)).read
    }

    /// Ctrl-C: it drains and ends with 0.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.process.signal("INT");
        self.process.wait_success(LIMIT);
    }
}
