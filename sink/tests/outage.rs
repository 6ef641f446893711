//! A database that is away for minutes while rows come, some thousand a second: it hangs at first, then it is dead, then it comes back.
//!
//! `cargo test --release -p sink --test outage -- --ignored --nocapture`; `TIDEMARK_TEST_OUTAGE` (120) is for how many seconds.
#![allow(clippy::unwrap_used, dead_code)]

mod database;
mod log;
mod rows;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::Settings;
use common::settings::Database as To;
use database::{Database, Kind, TOKEN};
use log::Log;
use rows::{binary, row, verify_now};

const TOPIC: &str = "iot.agg.q";
const BEGIN: i64 = 1_700_000_000_000;
/// Between two times 5,000 rows.
const PACE: Duration = Duration::from_millis(500);
const FLAGS: [&str; 2] = ["-dedup.minScrapeInterval=1ms", "-inmemoryDataFlushInterval=1s"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn influxdb_away_for_minutes() {
    let Some(influx) = Database::start(Kind::Influxdb, "influxdb_away", &[]) else { return };
    let mut settings = Settings::default();
    settings.sink.to = vec![To::Influxdb];
    settings.sink.influxdb.url = influx.url();
    settings.sink.influxdb.org = "o".into();
    settings.sink.influxdb.bucket = "b".into();
    settings.sink.influxdb.token = Some(TOKEN.into());
    let place = [("URL", influx.url()), ("TOKEN", TOKEN.into()), ("ORG", "o".into()), ("BUCKET", "b".into())];
    away_for_minutes(influx, settings, "influxdb", &place).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn victoriametrics_away_for_minutes() {
    let Some(victoria) = Database::start(Kind::Victoriametrics, "victoriametrics_away", &FLAGS) else { return };
    let mut settings = Settings::default();
    settings.sink.to = vec![To::Victoriametrics];
    settings.sink.victoriametrics.url = victoria.url();
    let place = [("URL", victoria.url())];
    away_for_minutes(victoria, settings, "victoriametrics", &place).await;
}

async fn away_for_minutes(mut database: Database, mut settings: Settings, to: &str, place: &[(&str, String)]) {
    let outage = Duration::from_secs(std::env::var("TIDEMARK_TEST_OUTAGE").map_or(120, |text| text.parse().unwrap()));
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    settings.kafka.bootstrap_servers = log.servers();
    settings.sink.state_path = dir.path().join("state");
    let mut command = binary(&log.servers());
    command.args(["--to", to]).env("TIDEMARK_SINK__STATE_PATH", dir.path().join("state")).stderr(Stdio::null());
    command.envs(place.iter().map(|(name, value)| (format!("TIDEMARK_SINK__{}__{name}", to.to_uppercase()), value)));
    let mut child = command.spawn().unwrap();
    let mut rows = 0_i64;
    let mut produce = async |log: &Log| {
        log.produce(TOPIC, &(rows..rows + 5_000).map(reading).collect::<Vec<_>>()).await;
        rows += 5_000;
        rows as u64
    };
    produce(&log).await;
    wait_for_all(&settings, &database, 5_000).await;
    database.hang();
    let began = Instant::now();
    while began.elapsed() < outage / 2 {
        produce(&log).await;
        tokio::time::sleep(PACE).await;
    }
    database.down();
    while began.elapsed() < outage {
        produce(&log).await;
        tokio::time::sleep(PACE).await;
    }
    database.up();
    let produced = produce(&log).await;
    wait_for_all(&settings, &database, produced).await;
    let peak = peak_mib(Path::new(&format!("/proc/{}/status", child.id())));
    child.kill().unwrap();
    child.wait().unwrap();
    println!("{to}: away for {outage:?}, {produced} rows, all there, at most {peak} MiB");
    assert!(peak < 100, "{peak} MiB");
}

fn reading(i: i64) -> log::Row {
    row(&format!("s-{:04}", i % 1000), BEGIN + i / 1000 * 10_000, i as f64 / 7.0, i, true)
}

/// Until every point is as the log has it, and no other is there.
async fn wait_for_all(settings: &Settings, database: &Database, rows: u64) {
    let began = Instant::now();
    loop {
        database.flush();
        let report = verify_now(settings).await;
        if report.pending == 0 && report.equal + report.different + report.missing == rows {
            assert!(report.is_equal(), "{report}");
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(300), "{report}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn peak_mib(status: &Path) -> u64 {
    let status = std::fs::read_to_string(status).unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap() >> 10
}
