//! How many points a second each database gets from the log, beside plain posts of the same lines, and in how much memory.
//!
//! `cargo test --release -p sink --test throughput -- --ignored --nocapture` prints a line for each; `TIDEMARK_TEST_POINTS` (1,000,000) is how
//! many points each one gets, `TIDEMARK_TEST_ROUNDS` (3) how often posts and sink take turns, `TIDEMARK_TEST_ONLY` names databases with commas.
//! `TIDEMARK_TEST_INFLUX_CLI` is InfluxDB's own program `influx`, for a round of `influx write` beside the others.
//! The settings are the program's own, but for those that begin with `TIDEMARK_SINK__`, which are taken over.
#![allow(clippy::unwrap_used, dead_code)]

mod database;
mod log;
mod rows;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use database::{Database, Kind, TOKEN};
use log::{Log, Row};
use rows::{binary_at, until, with_value};
use serde_json::json;

const TOPIC: &str = "iot.agg.q";
const BEGIN: i64 = 1_700_000_000_000;
const SENSORS: i64 = 1_000;

/// The fields of point `i`, as a query over readings has them.
fn fields(i: i64) -> (i64, f64, f64, f64) {
    let avg = (i % 100_003) as f64 / 7.0;
    (50 + i % 7, avg, (avg * 8.0).floor() / 8.0, (avg * 8.0).ceil() / 8.0)
}

fn row(i: i64) -> Row {
    let (n, avg, min, max) = fields(i);
    let (sensor, start) = (format!("s-{:04}", i % SENSORS), BEGIN + i / SENSORS * 10_000);
    let time = |ms| chrono::DateTime::from_timestamp_millis(ms).unwrap().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (from, to) = (time(start), time(start + 10_000));
    let bounds = format!(r#""window_start":"{from}","window_end":"{to}""#);
    let value = format!(r#"{{{bounds},"sensor_id":"{sensor}","n":{n},"avg":{avg:?},"min":{min:?},"max":{max:?}}}"#);
    with_value(&sensor, start, i, true, value)
}

/// The same point as the sink writes it into InfluxDB.
fn line(i: i64, out: &mut Vec<u8>) {
    let (n, avg, min, max) = fields(i);
    let (sensor, start) = (i % SENSORS, BEGIN + i / SENSORS * 10_000);
    writeln!(out, "q,sensor_id=s-{sensor:04} n={:?},avg={avg:?},min={min:?},max={max:?} {start}", n as f64).unwrap();
}

/// Lines of a post: the rows of the sink's batch, so that both send bodies of one size.
const BODY: i64 = 5_000;

/// One post after the other over one connection; the bodies, plain as the sink's are towards this machine, are made before the clock starts.
fn plain_posts(url: &str, total: i64) -> f64 {
    let bodies: Vec<Vec<u8>> = (0..total)
        .step_by(BODY as usize)
        .map(|from| {
            let mut body = Vec::new();
            (from..(from + BODY).min(total)).for_each(|i| line(i, &mut body));
            body
        })
        .collect();
    let agent = ureq::Agent::new_with_defaults();
    let began = Instant::now();
    for body in &bodies {
        let request = agent.post(url).header("authorization", format!("Token {TOKEN}"));
        assert_eq!(request.send(body).unwrap().status(), 204);
    }
    total as f64 / began.elapsed().as_secs_f64()
}

/// InfluxDB's own program, fed with a file of the same lines. `None` where it is not.
fn influx_write(influx: &Database, bucket: &str, dir: &Path, total: i64) -> Option<f64> {
    let program = std::env::var_os("TIDEMARK_TEST_INFLUX_CLI")?;
    let file = dir.join("lines");
    let mut lines = Vec::new();
    (0..total).for_each(|i| line(i, &mut lines));
    std::fs::write(&file, lines).unwrap();
    influx.create_bucket(bucket, 0);
    let began = Instant::now();
    let mut command = Command::new(program);
    command.args(["write", "--host", &influx.url(), "--token", TOKEN, "--org", "o", "--bucket", bucket, "--precision", "ms", "--file"]);
    assert!(command.arg(&file).status().unwrap().success());
    let speed = total as f64 / began.elapsed().as_secs_f64();
    println!("InfluxDB: {speed:.0} points/s by influx write");
    Some(speed)
}

/// The program with a free port for what it shows of itself.
struct Sink {
    child: Child,
    status: String,
}

impl Sink {
    /// `output` is one of `sink.outputs`; by its name it reads the topic from the beginning.
    fn start(log: &Log, dir: &Path, output: &serde_json::Value) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let mut command: Command = binary_at(&log.servers(), &address.to_string());
        command.envs(std::env::vars().filter(|(name, _)| name.starts_with("TIDEMARK_SINK__")));
        command.env("TIDEMARK_SINK__OUTPUTS", json!([output]).to_string()).env("TIDEMARK_SINK__STATE_PATH", dir.join("state"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, status: format!("http://{address}/status") }
    }

    fn points(&self) -> i64 {
        let Ok(mut answer) = ureq::get(&self.status).call() else { return 0 };
        let status: serde_json::Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        status["parts"]["sink"]["status"]["points"].as_i64().unwrap_or(0)
    }

    /// Points a second from the first confirmed batch to the last.
    async fn measure(mut self, name: &str, total: i64) -> f64 {
        until("the first points are written", || self.points() > 0).await;
        let (began, before) = (Instant::now(), self.points());
        until("all points are written", || self.points() == total).await;
        let speed = (total - before) as f64 / began.elapsed().as_secs_f64();
        let peak = self.peak_mib();
        println!("{name}: {speed:.0} points/s, at most {peak} MiB, {:.1} µs of CPU a point", self.cpu_seconds() * 1e6 / total as f64);
        assert!(peak < 100, "{peak} MiB");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        speed
    }

    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap() >> 10
    }

    /// User and system time; the kernel counts hundredths.
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let times = stat.rsplit_once(')').unwrap().1.split(' ').skip(12).take(2);
        times.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn throughput() {
    let total: i64 = std::env::var("TIDEMARK_TEST_POINTS").map_or(1_000_000, |text| text.parse().unwrap());
    let rounds: usize = std::env::var("TIDEMARK_TEST_ROUNDS").map_or(3, |text| text.parse().unwrap());
    let only = std::env::var("TIDEMARK_TEST_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|one| one == name);
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    for from in (0..total).step_by(50_000) {
        log.produce(TOPIC, &(from..(from + 50_000).min(total)).map(row).collect::<Vec<_>>()).await;
    }
    let path = |name: &str| dir.path().join(name);
    if wanted("sqlite") {
        Sink::start(&log, dir.path(), &json!({ "to": "sqlite", "sqlite": { "path": path("p.sqlite") } })).measure("SQLite", total).await;
    }
    if wanted("delta") {
        Sink::start(&log, dir.path(), &json!({ "to": "delta", "delta": { "path": path("lake") } })).measure("Delta Lake", total).await;
    }
    let influx = wanted("influxdb").then(|| Database::start(Kind::Influxdb, "throughput", &[])).flatten();
    if let Some(influx) = influx {
        let (mut pairs, mut programs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let (posts, name) = (format!("posts-{round}"), format!("sink-{round}"));
            influx.create_bucket(&posts, 0);
            influx.create_bucket(&name, 0);
            let raw = plain_posts(&format!("{}/api/v2/write?org=o&bucket={posts}&precision=ms", influx.url()), total);
            let place = json!({ "url": influx.url(), "token": TOKEN, "org": "o", "bucket": name });
            let output = json!({ "name": name, "to": "influxdb", "influxdb": place });
            let sink = Sink::start(&log, dir.path(), &output).measure("InfluxDB", total).await;
            pairs.push((raw, sink));
            programs.extend(influx_write(&influx, &format!("influx-{round}"), dir.path(), total).map(|speed| (speed, sink)));
        }
        tell("InfluxDB", "posts", &pairs);
        tell("InfluxDB", "influx write", &programs);
    }
    let flags = ["-dedup.minScrapeInterval=1ms"];
    let victoria = wanted("victoriametrics").then(|| Database::start(Kind::Victoriametrics, "throughput", &flags)).flatten();
    if let Some(victoria) = victoria {
        let mut pairs = Vec::new();
        for round in 0..rounds {
            let raw = plain_posts(&format!("{}/api/v2/write?precision=ms", victoria.url()), total);
            let place = json!({ "url": victoria.url() });
            let output = json!({ "name": format!("sink-v{round}"), "to": "victoriametrics", "victoriametrics": place });
            pairs.push((raw, Sink::start(&log, dir.path(), &output).measure("VictoriaMetrics", total).await));
        }
        tell("VictoriaMetrics", "posts", &pairs);
    }
}

/// The others and the sink in each round, and the sink's share over all of them.
fn tell(database: &str, others: &str, pairs: &[(f64, f64)]) {
    for (other, sink) in pairs {
        println!("{database}: {other:.0} points/s by {others}, {sink:.0} points/s by the sink, {:.0} %", 100.0 * sink / other);
    }
    if pairs.is_empty() {
        return;
    }
    let time = |speeds: &mut dyn Iterator<Item = f64>| speeds.map(|speed| 1.0 / speed).sum::<f64>();
    let share = time(&mut pairs.iter().map(|pair| pair.0)) / time(&mut pairs.iter().map(|pair| pair.1));
    println!("{database}: the sink has {:.0} % of what {others} has", 100.0 * share);
}
