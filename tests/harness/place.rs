use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process::Process;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A directory with a query and what it reads and writes.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        // As a user should: a file appears as a whole.
        let beside = self.path(".beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = super::binaries::command("processor");
        command.arg("--query").arg(self.path("q.toml")).env("TIDEMARK_HTTP__LISTEN", "127.0.0.1:0");
        command.env("TIDEMARK_PROCESSOR__MAX_ROWS_PER_STEP", "50");
        // Small enough that snapshots are taken, and what lies before them is deleted, in the midst of a test.
        command.env("TIDEMARK_PROCESSOR__SNAPSHOT_EVERY", "6KiB");
        command
    }

    pub(crate) fn start(&self) -> Process {
        Process::start("processor", &mut self.command())
    }

    /// Runs a bounded query to its end.
    #[track_caller]
    pub(crate) fn run(&self) -> String {
        let mut process = self.start();
        let code = process.wait_exit(LIMIT);
        assert_eq!(code, Some(0), "{}", process.output());
        process.output()
    }

    /// The rows of all parts in the order of their batches, without the lines that name the columns.
    pub(crate) fn rows(&self, folder: &str) -> Vec<String> {
        let mut parts: BTreeMap<String, String> = BTreeMap::new();
        for entry in std::fs::read_dir(self.path(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("part-") {
                parts.insert(name, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
        let rows = |(name, text): (String, String)| {
            let lines: Vec<String> = text.lines().skip(usize::from(name.ends_with(".csv"))).map(str::to_owned).collect();
            lines
        };
        parts.into_iter().flat_map(rows).collect()
    }

    /// The rows of each subdirectory.
    pub(crate) fn partitioned(&self, folder: &str) -> BTreeMap<String, Vec<String>> {
        let folders = self.list(folder).into_iter().filter(|name| !name.starts_with('_'));
        folders.map(|name| (name.clone(), self.rows(&format!("{folder}/{name}")))).collect()
    }

    pub(crate) fn list(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The rows that were set aside, by lane.
    pub(crate) fn lanes(&self) -> Vec<String> {
        self.lanes_of("state")
    }

    pub(crate) fn lanes_of(&self, checkpoint: &str) -> Vec<String> {
        let lane = |lane: &str| {
            let folder = format!("{checkpoint}/lanes/{lane}");
            let text =
                self.list(&folder).iter().map(|name| std::fs::read_to_string(self.path(&folder).join(name)).unwrap()).collect::<String>();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        lane("late").into_iter().chain(lane("dead")).collect()
    }
}

/// Asks a program to end, as Ctrl-C does.
pub(crate) fn stop(process: &mut Process) -> Option<i32> {
    process.signal("INT");
    process.wait_exit(LIMIT)
}
