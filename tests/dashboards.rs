//! Grafana's dashboards and alert rules against the databases that they ask: the real producer, processor and sink, InfluxDB 2 and
//! Prometheus, after load. `grafana/test` fills the variables in, sends every query, and wants values from each.
//!
//! Runs with `TIDEMARK_TEST_DASHBOARDS=1`; needs Node 20, Prometheus, and what builds InfluxDB. `TIDEMARK_TEST_ANSWERS=FILE` lets the load
//! run for five minutes and keeps the answers there, from which `grafana/draw` makes pictures.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::binaries::House;
use harness::log::{Kind, Log, free_address};
use harness::process::Process;
use harness::query::Query;
use harness::wait::{wait_for, wait_until};
use harness::{http, ledger, topic};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);
const TEST: &str = "every_query_of_the_dashboards_has_an_answer";
const SENSORS: u32 = 20;
/// Of each sensor, one reading a second, before the load that is watched.
const HISTORY: u32 = 3600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command of the preparation and wants it to succeed; its output is the test's.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{text}");
    text
}

/// InfluxDB with the organisation and bucket of the containers, a token that may write and one that may only read.
struct Influxdb {
    address: SocketAddr,
    write: String,
    read: String,
    _process: Process,
}

impl Influxdb {
    fn start(dir: &Path) -> Self {
        let script = root().join("tests/influxdb.sh");
        run(Command::new("bash").arg(&script).arg("resolve"));
        let address = free_address();
        std::fs::create_dir_all(dir).unwrap();
        let process = Process::start("InfluxDB", Command::new("bash").arg(script).arg("run").arg(address.port().to_string()).arg(dir));
        wait_until("InfluxDB to answer", LIMIT, || http::get(address, "/health").is_some_and(|answer| answer.code == 200));
        let post = |path: &str, token: &str, body: Value| -> Value {
            let answer = http::post_json(address, path, token, &body).unwrap();
            assert_eq!(answer.code, 201, "{path}: {}", answer.body);
            serde_json::from_str(&answer.body).unwrap()
        };
        let write = "local-test-token".to_owned();
        let setup = json!({ "username": "admin", "password": "local-test-pw", "org": "tidemark", "bucket": "tidemark", "token": write });
        let made = post("/api/v2/setup", "", setup);
        let resource = json!({ "type": "buckets", "id": made["bucket"]["id"], "orgID": made["org"]["id"] });
        let reader = json!({ "orgID": made["org"]["id"], "permissions": [{ "action": "read", "resource": resource }] });
        let read = post("/api/v2/authorizations", &write, reader)["token"].as_str().unwrap().to_owned();
        Self { address, write, read, _process: process }
    }

    fn has(&self, measurement: &str) -> bool {
        let query = format!(
            r#"from(bucket: "tidemark") |> range(start: -2h) |> filter(fn: (r) => r._measurement == "{measurement}") |> limit(n: 1)"#
        );
        let answer = http::post_json(self.address, "/api/v2/query?org=tidemark", &self.read, &json!({ "query": query }));
        answer.is_some_and(|answer| answer.code == 200 && answer.body.contains(measurement))
    }
}

/// Prometheus with the recording rules of `deploy/prometheus`. It asks every second, so that the test is short.
fn prometheus(dir: &Path, targets: &[(&str, SocketAddr)]) -> (SocketAddr, Process) {
    let jobs: Vec<Value> =
        targets.iter().map(|(job, target)| json!({ "job_name": job, "static_configs": [{ "targets": [target.to_string()] }] })).collect();
    let config = json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
        "rule_files": [root().join("deploy/prometheus/rules.yml")],
        "scrape_configs": jobs,
    });
    let path = dir.join("prometheus.yml");
    // JSON is YAML.
    std::fs::write(&path, config.to_string()).unwrap();
    let address = free_address();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", path.display())).arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
    command.arg(format!("--web.listen-address={address}"));
    let process = Process::start("Prometheus", &mut command);
    wait_until("Prometheus to be ready", LIMIT, || http::get(address, "/-/ready").is_some_and(|answer| answer.code == 200));
    (address, process)
}

/// The number that an instant query gives; 0 when it has no series.
fn value(prometheus: SocketAddr, query: &str) -> f64 {
    let answer = http::get_json(prometheus, &format!("/api/v1/query?query={query}")).unwrap_or_default();
    answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// The sink as the containers have it: results and late readings, each topic its measurement.
fn sink(house: &House<'_>, influxdb: &Influxdb) -> Process {
    let mut command = house.command("sink");
    command.env("TIDEMARK_SINK__TO", "influxdb").env("TIDEMARK_SINK__TOPICS", r"^iot\.agg\..*,iot.late");
    command.env("TIDEMARK_SINK__INFLUXDB__URL", format!("http://{}", influxdb.address));
    command.env("TIDEMARK_SINK__INFLUXDB__ORG", "tidemark").env("TIDEMARK_SINK__INFLUXDB__BUCKET", "tidemark");
    command.env("TIDEMARK_SINK__INFLUXDB__TOKEN", &influxdb.write).env("TIDEMARK_SINK__STATE_PATH", house.dir.join("sink"));
    Process::start("sink", &mut command)
}

#[test]
fn every_query_of_the_dashboards_has_an_answer() {
    if std::env::var("TIDEMARK_TEST_DASHBOARDS").as_deref() != Ok("1") {
        harness::skipped(TEST, "with TIDEMARK_TEST_DASHBOARDS=1 only: it needs Node, Prometheus and InfluxDB");
        return;
    }
    let kept = std::env::var_os("TIDEMARK_TEST_ANSWERS").map(PathBuf::from);
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let grafana = root().join("grafana");
    run(Command::new("npm").args(["--silent", "run", "build"]).current_dir(&grafana));
    let influxdb = Influxdb::start(&dir.path().join("influxdb"));
    let log = Log::start(Kind::Embedded, TEST).unwrap();
    let house = House { log: &log, dir: dir.path() };

    // An hour of readings that lies behind, then the load that is watched.
    let fleet = [SENSORS.to_string(), (SENSORS * HISTORY).to_string()];
    let mut history = house.command("producer");
    history.args(["--sensors", &fleet[0], "--rate", "0", "--count", &fleet[1]]);
    Process::start("producer", &mut history).wait_success(LIMIT);
    let mut processor = house.command("processor");
    processor.arg("--query").arg(root().join("queries/iot-10s.toml")).arg("--query").arg(root().join("queries/iot-1m-fleet.toml"));
    let mut processor = Process::start("processor", &mut processor);
    let mut sink = sink(&house, &influxdb);
    let mut live = house.command("producer");
    // At the pace of the history: a reading a second from each sensor.
    live.args(["--sensors", &fleet[0], "--rate", &fleet[0]]).env("TIDEMARK_PRODUCER__SIMULATOR__LATE", "0.01");
    let mut live = Process::start("producer", &mut live);
    let address = |process: &mut Process| ledger::address(process);
    let targets = [
        ("producer", address(&mut live)),
        ("processor", address(&mut processor)),
        ("sink", address(&mut sink)),
        ("influxdb", influxdb.address),
    ];
    let (prometheus, _prometheus) = prometheus(dir.path(), &targets);
    topic::write(&log, "iot", &[("broken", b"{not a reading"), ("broken", b"")]);

    let samples = if kept.is_some() { 290.0 } else { 45.0 };
    let watched = "count_over_time(query:tidemark_processor_rows:rate1m%7Bquery=%22iot-10s%22%7D%5B1h%5D)";
    wait_until("Prometheus to have watched the load", Duration::from_secs(600), || value(prometheus, watched) >= samples);
    wait_until("a late reading in the database", LIMIT, || influxdb.has("iot.late"));

    let servers = json!({
        "influxdb": { "url": format!("http://{}", influxdb.address), "org": "tidemark", "bucket": "tidemark", "token": influxdb.read },
        "prometheus": { "url": format!("http://{prometheus}"), "scrape": 5000 },
    });
    let file = dir.path().join("servers.json");
    std::fs::write(&file, servers.to_string()).unwrap();
    let mut ask = Command::new("node");
    ask.arg(grafana.join("build/test/answer.js")).arg(&file).args(&kept).args(kept.as_ref().map(|_| "now-5m"));
    println!("{}", run(&mut ask));
    // What the dashboards showed was a pipeline that is well.
    let counts = wait_for("the ledger", LIMIT, || ledger::counts(targets[1].1, &Query::new("iot-10s", "10 seconds")));
    assert_eq!(counts.read, counts.used + counts.late + counts.dead + counts.filtered, "{counts:?}");
    assert!(counts.late > 0 && counts.dead == 2, "{counts:?}");
}
