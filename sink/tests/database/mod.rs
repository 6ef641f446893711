//! Real databases for the tests: built once by the scripts in `tests/` of the root, started on free ports, gone with the test.

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
            use std::io::Write as _;
            let line = format!("skipped: {test}: {self:?} is not built; with {}=1 it is\n", self.variable());
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        output.status.success()
    }
}

/// A running database. Dropping it ends it.
pub(crate) struct Database {
    kind: Kind,
    flags: Vec<String>,
    pub(crate) address: SocketAddr,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Database {
    /// `None`, and a word on the terminal, when it is not built. `flags`: further ones of VictoriaMetrics.
    pub(crate) fn start(kind: Kind, test: &str, flags: &[&str]) -> Option<Self> {
        if !kind.is_ready(test) {
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut database = Self { kind, flags, address, dir: tempfile::tempdir().unwrap(), child: None };
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
        let mut command = Command::new("bash");
        command.arg(self.kind.script()).arg("run").arg(self.address.port().to_string()).arg(self.dir.path()).args(&self.flags);
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let started = Instant::now();
        while ureq::get(format!("{}/health", self.url())).call().is_err() {
            assert!(started.elapsed() < Duration::from_secs(120), "{:?} does not answer", self.kind);
            std::thread::sleep(Duration::from_millis(50));
        }
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
    }
}
