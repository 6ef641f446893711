//! How many points a second each database gets from the log, beside plain posts of the same lines, and in how much memory.
//!
//! `cargo test --release -p sink --test throughput -- --ignored --nocapture` prints a line for each; `TIDEMARK_TEST_POINTS` (1,000,000) is how
//! many points each one gets. The settings are the program's own, but for those that begin with `TIDEMARK_SINK__`, which are taken over.
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
use flate2::Compression;
use flate2::write::GzEncoder;
use log::{Log, Row};
use rows::{binary_at, until, with_value};

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

/// 5,000 lines a post, one after the other over one connection, made before the clock starts. The better of plain and compressed.
fn plain_posts(url: &str, total: i64, gzip: bool) -> f64 {
    let bodies: Vec<Vec<u8>> = (0..total)
        .step_by(5_000)
        .map(|from| {
            let mut body = Vec::new();
            (from..(from + 5_000).min(total)).for_each(|i| line(i, &mut body));
            if !gzip {
                return body;
            }
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&body).unwrap();
            encoder.finish().unwrap()
        })
        .collect();
    let agent = ureq::Agent::new_with_defaults();
    let began = Instant::now();
    for body in &bodies {
        let request = agent.post(url).header("authorization", format!("Token {TOKEN}"));
        let request = if gzip { request.header("content-encoding", "gzip") } else { request };
        assert_eq!(request.send(body).unwrap().status(), 204);
    }
    total as f64 / began.elapsed().as_secs_f64()
}

/// The program with a free port for what it shows of itself.
struct Sink {
    child: Child,
    status: String,
}

impl Sink {
    fn start(log: &Log, dir: &Path, to: &str, settings: &[(&str, String)]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let mut command: Command = binary_at(&log.servers(), &address.to_string());
        command.envs(std::env::vars().filter(|(name, _)| name.starts_with("TIDEMARK_SINK__")));
        command.args(["--to", to]).env("TIDEMARK_SINK__STATE_PATH", dir.join(format!("state-{to}")));
        command.envs(settings.iter().map(|(name, value)| (format!("TIDEMARK_SINK__{name}"), value)));
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
    let only = std::env::var("TIDEMARK_TEST_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|one| one == name);
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    for from in (0..total).step_by(50_000) {
        log.produce(TOPIC, &(from..(from + 50_000).min(total)).map(row).collect::<Vec<_>>()).await;
    }
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    if wanted("sqlite") {
        Sink::start(&log, dir.path(), "sqlite", &[("SQLITE__PATH", path("p.sqlite"))]).measure("SQLite", total).await;
    }
    if wanted("delta") {
        Sink::start(&log, dir.path(), "delta", &[("DELTA__PATH", path("lake"))]).measure("Delta Lake", total).await;
    }
    let influx = wanted("influxdb").then(|| Database::start(Kind::Influxdb, "throughput", &[])).flatten();
    if let Some(influx) = influx {
        influx.create_bucket("raw", 0);
        influx.create_bucket("packed", 0);
        let url = |bucket: &str| format!("{}/api/v2/write?org=o&bucket={bucket}&precision=ms", influx.url());
        let (raw, packed) = (plain_posts(&url("raw"), total, false), plain_posts(&url("packed"), total, true));
        println!("InfluxDB, posts of the same lines, 5,000 each: {raw:.0} points/s plain, {packed:.0} points/s compressed");
        let place = [("URL", influx.url()), ("TOKEN", TOKEN.into()), ("ORG", "o".into()), ("BUCKET", "b".into())];
        let place = place.map(|(name, value)| (format!("INFLUXDB__{name}"), value));
        let place: Vec<(&str, String)> = place.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let sink = Sink::start(&log, dir.path(), "influxdb", &place).measure("InfluxDB, the sink", total).await;
        println!("InfluxDB: the sink has {:.0} % of the better one of the posts", 100.0 * sink / raw.max(packed));
    }
    let flags = ["-dedup.minScrapeInterval=1ms"];
    let victoria = wanted("victoriametrics").then(|| Database::start(Kind::Victoriametrics, "throughput", &flags)).flatten();
    if let Some(victoria) = victoria {
        let url = format!("{}/api/v2/write?precision=ms", victoria.url());
        let (raw, packed) = (plain_posts(&url, total, false), plain_posts(&url, total, true));
        println!("VictoriaMetrics, posts of the same lines, 5,000 each: {raw:.0} points/s plain, {packed:.0} points/s compressed");
        let settings = [("VICTORIAMETRICS__URL", victoria.url())];
        Sink::start(&log, dir.path(), "victoriametrics", &settings).measure("VictoriaMetrics, the sink", total).await;
    }
}
