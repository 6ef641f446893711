use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::log::Log;
use super::process::Process;
use super::query::Query;

/// A binary of the workspace. `producer`, `processor` and `sink` stand beside `tidemark`, whose path cargo tells us. Cargo builds them with
/// the tests of their own packages; where it has not, they are built now.
pub(crate) fn path(name: &str) -> PathBuf {
    let tidemark = Path::new(env!("CARGO_BIN_EXE_tidemark"));
    let path = tidemark.with_file_name(name);
    let _one = BUILD.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        build(name, tidemark);
    }
    assert!(path.exists(), "the binary '{name}' is missing at {}: `cargo build --release --workspace` makes it", path.display());
    path
}

static BUILD: Mutex<()> = Mutex::new(());

fn build(name: &str, tidemark: &Path) {
    let Some(cargo) = std::env::var_os("CARGO") else { return };
    let mut command = Command::new(cargo);
    command.args(["build", "--package", name, "--bin", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    // target/release/tidemark, or target/debug/tidemark.
    let mut folders = tidemark.ancestors().skip(1);
    if folders.next().is_some_and(|profile| profile.ends_with("release")) {
        command.arg("--release");
    }
    let output = command.arg("--target-dir").arg(folders.next().unwrap_or(tidemark)).output().unwrap();
    assert!(output.status.success(), "building {name}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A command for `binary` that sees no setting but those given to it.
pub(crate) fn command(binary: &str) -> Command {
    let mut command = Command::new(path(binary));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEMARK_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// The binaries on one log, each with its files in `dir`.
pub(crate) struct House<'a> {
    pub(crate) log: &'a Log,
    pub(crate) dir: &'a Path,
}

impl House<'_> {
    /// A house's binary that works on this log and takes a free port for its telemetry.
    pub(crate) fn command(&self, binary: &str) -> Command {
        let mut command = command(binary);
        command.args(["--bootstrap-servers", &self.log.servers(), "--http-listen", "127.0.0.1:0"]).current_dir(self.dir);
        command
    }

    /// `producer --replay FILE... --speed max`.
    pub(crate) fn replay(&self, files: &[PathBuf]) -> Process {
        let mut command = self.command("producer");
        command.arg("--replay").args(files).args(["--speed", "max"]);
        Process::start("producer", &mut command)
    }

    /// `processor --query FILE...`. A processor that comes back gets its partitions at once, because it has a name.
    pub(crate) fn processor_command(&self, queries: &[&Query]) -> Command {
        let mut command = self.command("processor");
        command.env("TIDEMARK_PROCESSOR__INSTANCE_ID", "one");
        for query in queries {
            command.arg("--query").arg(query.write(self.dir));
        }
        command
    }

    pub(crate) fn processor(&self, queries: &[&Query]) -> Process {
        Process::start("processor", &mut self.processor_command(queries))
    }

    pub(crate) fn sink_command(&self) -> Command {
        let mut command = self.command("sink");
        command.env("TIDEMARK_SINK__SQLITE__PATH", self.database());
        command
    }

    /// `sink` into [`House::database`].
    pub(crate) fn sink(&self) -> Process {
        Process::start("sink", &mut self.sink_command())
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("points.sqlite")
    }
}
