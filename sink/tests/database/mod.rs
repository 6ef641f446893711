//! Real databases for the tests: built once by the scripts in `tests/` of the root, started on free ports, gone with the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const TOKEN: &str = "local-test-token";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Influxdb,
    Victoriametrics,
}

impl Kind {
    fn script(self) -> PathBuf {
        let name = if self == Self::Influxdb { "influxdb.sh" } else { "victoriametrics.sh" };
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name)
    }

    fn variable(self) -> &'static str {
        if self == Self::Influxdb { "TIDEMARK_TEST_INFLUXDB" } else { "TIDEMARK_TEST_VICTORIAMETRICS" }
    }

    /// Built already, or built now when the variable says so. Otherwise the test says that it did not run.
    fn is_ready(self, test: &str) -> bool {
        let wanted = std::env::var(self.variable()).as_deref() == Ok("1");
        let command = if wanted { "resolve" } else { "present" };
        let output = Command::new("bash").arg(self.script()).arg(command).output().unwrap();
        assert!(!wanted || output.status.success(), "{:?} {command}:\n{}", self.script(), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            skip(test, &format!("{self:?} is not built; with {}=1 it is", self.variable()));
        }
        output.status.success()
    }
}

fn skip(test: &str, why: &str) {
    // Past the harness, which shows nothing of a test that passes.
    std::io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes()).unwrap();
}

/// A running database. Dropping it ends it.
pub(crate) struct Database {
    kind: Kind,
    flags: Vec<String>,
    pub(crate) address: SocketAddr,
    dir: tempfile::TempDir,
    /// The process whose namespace has a disk of its own mounted at `dir`.
    disk: Option<Child>,
    child: Option<Child>,
}

impl Database {
    /// `None`, and a word on the terminal, when it is not built. `flags`: further ones of VictoriaMetrics.
    pub(crate) fn start(kind: Kind, test: &str, flags: &[&str]) -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), kind, test, flags, None)
    }

    /// As [`Database::start`], on a disk of its own of so many MiB. It is a file system in memory that only the database sees, which needs no
    /// rights where users may have namespaces of their own.
    pub(crate) fn start_on_a_small_disk(kind: Kind, test: &str, flags: &[&str], mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"mount -t tmpfs -o "size=$0m" tmpfs "$1" && echo mounted && exec sleep infinity"#;
        let mut holder = Command::new("unshare");
        holder.args(["-rm", "bash", "-c", script, &mib.to_string()]).arg(dir.path());
        let mut holder = holder.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said.is_empty() {
            holder.wait().unwrap();
            skip(test, "this user may not mount a small disk in a namespace");
            return None;
        }
        Self::start_in(dir, kind, test, flags, Some(holder))
    }

    fn start_in(dir: tempfile::TempDir, kind: Kind, test: &str, flags: &[&str], disk: Option<Child>) -> Option<Self> {
        if !kind.is_ready(test) {
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut database = Self { kind, flags, address, dir, disk, child: None };
        database.up();
        if kind == Kind::Influxdb {
            let setup = format!(r#"{{"username":"admin","password":"local-test-pw","org":"o","bucket":"b","token":"{TOKEN}"}}"#);
            let answer = ureq::post(format!("http://{address}/api/v2/setup")).header("content-type", "application/json").send(&setup);
            assert!(answer.unwrap().status().is_success());
        }
        Some(database)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL.
    pub(crate) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn up(&mut self) {
        let mut command = match &self.disk {
            None => Command::new("bash"),
            Some(holder) => {
                let mut command = Command::new("nsenter");
                command.args(["--preserve-credentials", "-U", "-m", "-t", &holder.id().to_string(), "bash"]);
                command
            }
        };
        command.arg(self.kind.script()).arg("run").arg(self.address.port().to_string()).arg(self.dir.path()).args(&self.flags);
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let started = Instant::now();
        while ureq::get(format!("{}/health", self.url())).call().is_err() {
            assert!(started.elapsed() < Duration::from_secs(120), "{:?} does not answer", self.kind);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Takes all of its small disk but `left` bytes.
    pub(crate) fn fill_disk(&self, left: u64) {
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        let (zeros, mut size) = (vec![0; 64 << 10], 0);
        while let Ok(written) = file.write(&zeros) {
            size += written as u64;
        }
        file.set_len(size - left).unwrap();
    }

    pub(crate) fn free_disk(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    /// A file on the disk that only the database sees.
    fn ballast(&self) -> PathBuf {
        let holder = self.disk.as_ref().unwrap().id();
        PathBuf::from(format!("/proc/{holder}/root{}/ballast", self.dir.path().display()))
    }

    /// SIGSTOP: connections are taken, and nobody answers.
    pub(crate) fn hang(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn wake(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let process = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    }

    /// Makes samples that were written visible to queries, in VictoriaMetrics.
    pub(crate) fn flush(&self) {
        if self.kind == Kind::Victoriametrics {
            ureq::get(format!("{}/internal/force_flush", self.url())).call().unwrap();
        }
    }

    /// A bucket of InfluxDB that keeps points for `seconds`.
    pub(crate) fn create_bucket(&self, name: &str, seconds: u64) {
        let orgs = ureq::get(format!("{}/api/v2/orgs", self.url())).header("authorization", format!("Token {TOKEN}")).call();
        let orgs: serde_json::Value = serde_json::from_str(&orgs.unwrap().body_mut().read_to_string().unwrap()).unwrap();
        let body = serde_json::json!({ "orgID": orgs["orgs"][0]["id"], "name": name,
            "retentionRules": [{ "type": "expire", "everySeconds": seconds }] });
        let request = ureq::post(format!("{}/api/v2/buckets", self.url())).header("authorization", format!("Token {TOKEN}"));
        assert!(request.send(body.to_string()).unwrap().status().is_success());
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.down();
        if let Some(mut holder) = self.disk.take() {
            holder.kill().unwrap();
            holder.wait().unwrap();
        }
    }
}
