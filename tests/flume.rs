//! A real Flume agent, with the configuration and the commands of its example: into the log by the Kafka sink and over HTTP, and out of a
//! query into files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::appliance::Appliance;
use harness::log::free_address;
use harness::process::Process;
use harness::wait::{wait_for, wait_until};
use harness::{binaries, http};
use serde_json::{Value, json};

/// A Java program starts, on a slow machine.
const LIMIT: Duration = Duration::from_secs(90);

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Whether Flume is there, and a word on the terminal when it is not.
fn is_ready(test: &str) -> bool {
    let why = match std::env::var("TIDEMARK_TEST_FLUME").as_deref() {
        Ok("1") => ["java", "mvn"].into_iter().find(|tool| Command::new(tool).arg("-version").output().is_err()),
        _ => {
            harness::skipped(test, "a Flume agent only with TIDEMARK_TEST_FLUME=1");
            return false;
        }
    };
    if let Some(tool) = why {
        harness::skipped(test, &format!("'{tool}' is missing; install Java 11 or later and Maven"));
        return false;
    }
    // Outside of any deadline: the first time it downloads 46 MB.
    let output = Command::new("bash").arg(root("tests/flume.sh")).arg("resolve").output().unwrap();
    assert!(output.status.success(), "tests/flume.sh resolve:\n{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// The example, on addresses of this test only.
struct Example {
    dir: tempfile::TempDir,
    appliance: Appliance,
    events: SocketAddr,
    lines: SocketAddr,
    results: SocketAddr,
}

impl Example {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("tidemark-flume-").tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("flume/files")).unwrap();
        let appliance = Appliance::start(&dir.path().join("data"), &["--devices", "127.0.0.1:0"]);
        let example = Self { dir, appliance, events: free_address(), lines: free_address(), results: free_address() };
        for name in ["agent.properties", "alarms.toml"] {
            example.write(name);
        }
        example
    }

    /// A file of the example, with the addresses of this test.
    fn write(&self, name: &str) {
        let mut text = std::fs::read_to_string(root("examples/flume").join(name)).unwrap();
        for (port, address) in [(5140, self.events), (5141, self.results), (5142, self.lines)] {
            text = text.replace(&format!("port = {port}"), &format!("port = {}", address.port()));
            text = text.replace(&format!("127.0.0.1:{port}"), &address.to_string());
        }
        text = text.replace("127.0.0.1:9092", &self.appliance.kafka.to_string());
        text = text.replace("127.0.0.1:8080", &self.appliance.page.to_string());
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn agent(&self) -> Process {
        let mut command = Command::new("bash");
        command.arg(root("tests/flume.sh")).args(["run", "agent"]).arg(self.dir.path().join("agent.properties"));
        let mut agent = Process::start("Flume", command.current_dir(self.dir.path()));
        for address in [self.events, self.lines, self.results] {
            wait_until("the agent to listen", LIMIT, || {
                assert!(agent.try_wait().is_none(), "the agent ended:\n{}", agent.output());
                TcpStream::connect(address).is_ok()
            });
        }
        agent
    }

    fn processor(&self) -> Process {
        let mut command = binaries::command("processor");
        command.arg("--query").arg(self.dir.path().join("alarms.toml")).args(["--http-listen", "127.0.0.1:0"]);
        command.args(["--bootstrap-servers", &self.appliance.kafka.to_string()]);
        Process::start("processor", &mut command)
    }

    /// Posts events to the agent; it has them when it answers with 200.
    fn post(&self, events: &Value) -> bool {
        http::post_json(self.events, "/", "", events).is_some_and(|answer| answer.code == 200)
    }

    /// The rows that came back.
    fn rows(&self) -> BTreeSet<String> {
        let files = std::fs::read_dir(self.dir.path().join("flume/files")).unwrap();
        let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

/// What stands between these two in a line of the page.
fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let rest = page.split_once(from).unwrap_or_else(|| panic!("the page has no '{from}'")).1;
    rest.split_once(to).unwrap().0
}

#[test]
fn an_agent_delivers_readings_and_gets_results() {
    if !is_ready("an_agent_delivers_readings_and_gets_results") {
        return;
    }
    let (example, page) = (Example::start(), std::fs::read_to_string(root("examples/flume/README.md")).unwrap());
    let (mut agent, mut processor) = (example.agent(), example.processor());
    assert!(example.post(&serde_json::from_str(between(&page, "-d '", "' http://127.0.0.1:5140/")).unwrap()));
    let mut lines = TcpStream::connect(example.lines).unwrap();
    writeln!(lines, "{}", between(&page, "echo '", "' | nc")).unwrap();
    let mut answer = [0; 2];
    lines.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"OK");
    let wanted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let shown = wanted(between(&page, "into `flume/files`:\n\n```\n", "\n```"));
    assert_eq!(shown.len(), 2);
    wait_until("the rows of the page", LIMIT, || example.rows() == shown);

    // A reading that cannot be read is answered with 422, and does not stand in the way of the next one.
    writeln!(lines, "no reading\n{}", json!({"sensor_id": "pump-4", "ts": 1_700_000_000_000_i64, "value": 90})).unwrap();
    let next = r#"{"sensor_id":"pump-4","ts":"2023-11-14T22:13:20.000Z","value":90.0}"#;
    wait_until("the reading behind it", LIMIT, || example.rows().contains(next));

    // What the agent has taken outlives it, and what the query has outlives the query.
    let reading = |seq: i64| json!({"sensor_id": "pump-3", "ts": 1_700_000_000_000_i64 + seq, "value": 100 + seq}).to_string();
    let events: Vec<Value> = (0..500).map(|seq| json!({"headers": {"key": "pump-3"}, "body": reading(seq)})).collect();
    for (round, part) in events.chunks(100).enumerate() {
        wait_for("the agent to take it", LIMIT, || example.post(&json!(part)).then_some(()));
        match round % 2 {
            0 => {
                agent.kill();
                agent = example.agent();
            }
            _ => {
                processor.kill();
                processor = example.processor();
            }
        }
    }
    let values = || {
        let rows = example.rows().into_iter().map(|row| serde_json::from_str::<Value>(&row).unwrap());
        rows.filter(|row| row["sensor_id"] == "pump-3").map(|row| row["value"].as_f64().unwrap() as i64).collect::<BTreeSet<_>>()
    };
    wait_until("all rows", LIMIT, || values().len() == 500);
    assert_eq!(values(), (100..600).collect());
}
