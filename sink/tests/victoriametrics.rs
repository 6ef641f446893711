//! The sink into a real VictoriaMetrics.
#![allow(clippy::unwrap_used, dead_code)]

mod database;
mod faults;
mod gate;
mod log;
mod rows;

use std::path::Path;

use common::Settings;
use common::settings::{Database as To, Output};
use common::topics::result_header;
use database::{Database, Kind};
use faults::{fill_and_free, kill_ten_times, meet_all};
use gate::{Fate, Gate};
use log::{Log, Row};
use rows::{binary, row, start, until, verify, with_value};

const TOPIC: &str = "iot.agg.q";
const BEGIN: i64 = 1_700_000_000_000;
const FLAGS: [&str; 2] = ["-dedup.minScrapeInterval=1ms", "-inmemoryDataFlushInterval=1s"];

fn settings(log: &Log, url: &str, dir: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.kafka.bootstrap_servers = log.servers();
    settings.sink.to = vec![To::Victoriametrics];
    settings.sink.state_path = dir.join("state");
    settings.sink.victoriametrics.url = url.into();
    settings
}

/// Values that go up and down, so that neither the largest nor the first of a window is the right one.
fn updates(sensors: i64, windows: i64) -> Vec<Row> {
    let revisions = (0..windows).flat_map(|window| (0..3).map(move |revision| (window, revision)));
    let rows = revisions.flat_map(|(window, revision)| (0..sensors).map(move |sensor| (window, revision, sensor)));
    rows.map(|(window, revision, sensor)| {
        let value = f64::from(u8::from(revision == 1)) * 1000.0 + (sensor * 7 + revision) as f64 / 3.0;
        row(&format!("s-{sensor}"), BEGIN + window * 10_000, value, window * 3 + revision, revision == 2)
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn update_mode_leaves_the_final_row_whatever_is_repeated() {
    let Some(victoria) = Database::start(Kind::Victoriametrics, "update_mode", &FLAGS) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(victoria.address);
    let mut settings = settings(&log, &gate.url(), dir.path());
    let names = ["two words", "a,b=c", "line\nbreak", "🌡 é", "back\\slash", "end\\", "\\n", "\"q\"", "C:\\new"];
    let mut rows: Vec<Row> = names.iter().map(|name| row(name, BEGIN, 1.5, 1, true)).collect();
    rows.extend(updates(20, 30));
    rows.push(with_value("mixed", BEGIN, 1, true, r#"{"sensor_id":"mixed","avg":3,"ok":true,"top":"text","bad":"NaN"}"#.into()));
    // A correction and a deletion come too late for a database that cannot change a sample.
    let mut corrected = row("s-0", BEGIN, 9_999.0, 99, true);
    corrected.headers.push((result_header::RESTATED, "true".into()));
    rows.push(corrected);
    log.produce(TOPIC, &rows).await;
    let total = rows.len() as u64;
    // The database has the rows and nobody hears of it: they are sent again.
    gate.set(Fate::CutAfterBody);
    let running = start(&settings);
    until("it is cut off twice", || gate.requests() >= 4).await;
    gate.set(Fate::Pass);
    running.done(total).await;
    assert_eq!(running.status("points"), 9 + 600 + 1);
    assert_eq!(running.status("left_out"), 20 * 30 * 2 + 1 + 1 + 1, "updates, the correction, the text, the NaN");
    running.stop().await;
    victoria.flush();
    // The uncorrected row is what differs, and verify says so.
    let report = verify(&settings).await;
    assert_eq!((report.equal, report.missing, report.different, report.extra), (609, 0, 0, 1), "{report}");

    settings.sink.outputs = vec![Output {
        name: Some("again".into()),
        to: To::Victoriametrics,
        victoriametrics: settings.sink.victoriametrics.clone(),
        ..Output::default()
    }];
    let again = start(&settings);
    again.done(total).await;
    again.stop().await;
    victoria.flush();
    let replayed = verify(&settings).await;
    assert_eq!((replayed.equal, replayed.extra), (609, 1), "{replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_would_drop_without_a_word_is_in_the_dead_lane() {
    let Some(mut victoria) = Database::start(Kind::Victoriametrics, "what_it_would_drop", &FLAGS) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(&log, &victoria.url(), dir.path());
    let mut rows: Vec<Row> =
        (0..100_000).map(|i| row(&format!("s-{:03}", i % 1000), BEGIN + (i / 1000) * 10_000, i as f64, i, true)).collect();
    rows[10] = with_value("w", BEGIN, 1, true, r#"{"sensor_id":"wrong","avg":"warm"}"#.into());
    rows[50_000] = row("old", -10_000, 1.0, 1, true);
    rows[99_999] = row(&"x".repeat(70_000), BEGIN, 1.0, 1, true);
    log.produce(TOPIC, &rows).await;
    let running = start(&settings);
    running.done(100_000).await;
    assert_eq!((running.status("rejected"), running.status("points")), (3.into(), 99_997.into()));
    // It is killed with rows that it has confirmed and not yet put on its disk, and more come while it is away.
    log.produce(TOPIC, &[row("before", BEGIN, 1.0, 1, true)]).await;
    until("it has confirmed the row", || running.status("points") == 99_998).await;
    victoria.down();
    log.produce(TOPIC, &[row("after", BEGIN, 1.0, 1, true)]).await;
    until("the sink waits", || running.status("error").is_string()).await;
    victoria.up();
    until("all is committed", || sink::verify::verify(&settings, None, sink::verify::Span::default(), 5).unwrap().pending == 0).await;
    running.stop().await;
    victoria.flush();
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 99_999, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_database_or_the_network_loses_a_row_or_adds_one() {
    let Some(victoria) = Database::start(Kind::Victoriametrics, "no_fault", &FLAGS) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(victoria.address);
    let mut settings = settings(&log, &gate.url(), dir.path());
    settings.sink.batch_rows = 500;
    settings.sink.victoriametrics.timeout = common::units::Span::from_secs(1);
    let running = start(&settings);
    let produced = meet_all(&log, TOPIC, &gate, &running, &updates(10, 40)).await;
    running.done(produced).await;
    assert_eq!(running.status("rejected"), 0);
    running.stop().await;
    victoria.flush();
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 10 * 40, "{report}");
}

/// Samples that it has taken since its start, those that came twice included.
fn taken(victoria: &Database) -> u64 {
    let page = ureq::get(format!("{}/metrics", victoria.url())).call().unwrap().body_mut().read_to_string().unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix("vm_rows_inserted_total{type=\"influx\"} "));
    line.map_or(0, |count| count.parse::<f64>().unwrap() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_leave_every_final_row_once() {
    let Some(victoria) = Database::start(Kind::Victoriametrics, "ten_kills", &FLAGS) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(&log, &victoria.url(), dir.path());
    let mut command = binary(&log.servers());
    command
        .args(["--to", "victoriametrics"])
        .env("TIDEMARK_SINK__VICTORIAMETRICS__URL", victoria.url())
        .env("TIDEMARK_SINK__INSTANCE_ID", "one")
        .env("TIDEMARK_SINK__BATCH_ROWS", "200")
        .env("TIDEMARK_SINK__STATE_PATH", dir.path().join("state"))
        .stderr(std::process::Stdio::null());
    let mut child = kill_ten_times(&log, TOPIC, &mut command, &updates(50, 100), || taken(&victoria)).await;
    until("all is committed", || {
        victoria.flush();
        let report = sink::verify::verify(&settings, None, sink::verify::Span::default(), 5).unwrap();
        report.pending == 0 && report.equal + report.different + report.missing == 50 * 100
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 50 * 100, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_and_loses_nothing() {
    let flags = [&FLAGS[..], &["-storage.minFreeDiskSpaceBytes=16MB"]].concat();
    let Some(mut victoria) = Database::start_on_a_small_disk(Kind::Victoriametrics, "a_full_disk", &flags, 128) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(&log, &victoria.url(), dir.path());
    let running = start(&settings);
    log.produce(TOPIC, &updates(10, 10)).await;
    running.done(300).await;
    victoria.flush();
    // It stops taking samples while there is a little room left, and looks once a second.
    let said = fill_and_free(&log, TOPIC, (&mut victoria, 8 << 20), is_read_only, false, &running, &updates(100, 100)).await;
    assert!(said.contains("VictoriaMetrics at http://") && said.contains("keeps trying"), "{said}");
    running.done(300 + 30_000).await;
    running.stop().await;
    victoria.flush();
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 100 * 100, "{report}");
}

fn is_read_only(victoria: &Database) -> bool {
    let page = ureq::get(format!("{}/metrics", victoria.url())).call().unwrap().body_mut().read_to_string().unwrap();
    page.lines().any(|line| line.starts_with("vm_storage_is_read_only") && line.ends_with(" 1"))
}
