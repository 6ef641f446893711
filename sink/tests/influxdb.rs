//! The sink into a real InfluxDB 2, with faults between them.
#![allow(clippy::unwrap_used, dead_code)]

mod database;
mod faults;
mod gate;
mod log;
mod rows;

use std::path::Path;

use common::Settings;
use common::settings::{Database as To, Output};
use common::topics::{lane_header, result_header};
use database::{Database, Kind, TOKEN};
use faults::{fill_and_free, kill_ten_times, meet_all};
use gate::{Fate, Gate};
use log::{Log, Row};
use rdkafka::message::{Headers as _, Message as _};
use rows::{binary, row, start, until, verify, with_value};

const TOPIC: &str = "iot.agg.q";
const BEGIN: i64 = 1_700_000_000_000;

fn settings(log: &Log, url: &str, dir: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.kafka.bootstrap_servers = log.servers();
    settings.sink.to = vec![To::Influxdb];
    settings.sink.state_path = dir.join("state");
    settings.sink.influxdb.url = url.into();
    settings.sink.influxdb.org = "o".into();
    settings.sink.influxdb.bucket = "b".into();
    settings.sink.influxdb.token = Some(TOKEN.into());
    settings.sink.influxdb.timeout = common::units::Span::from_secs(5);
    settings
}

/// `windows` windows of each of `sensors`, three revisions of each, as update mode has them.
fn updates(sensors: i64, windows: i64) -> Vec<Row> {
    let mut rows = Vec::new();
    for window in 0..windows {
        for revision in 0..3 {
            for sensor in 0..sensors {
                let number = (window * 3 + revision) * sensors + sensor;
                let start = BEGIN + window * 10_000;
                rows.push(row(&format!("s-{sensor:03}"), start, number as f64 / 7.0, number, revision == 2));
            }
        }
    }
    rows
}

async fn dead(log: &Log, count: usize) -> Vec<(String, String, i64)> {
    let header = |message: &rdkafka::message::OwnedMessage, name: &str| {
        let headers = message.headers().unwrap();
        let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value).unwrap();
        String::from_utf8_lossy(found).into_owned()
    };
    let read = log.read("iot.dead", count).await;
    let mut dead: Vec<(String, String, i64)> = read
        .iter()
        .map(|one| (header(one, lane_header::REASON), header(one, lane_header::DETAIL), header(one, lane_header::OFFSET).parse().unwrap()))
        .collect();
    dead.sort();
    dead
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_reads_back_and_a_replay_changes_nothing() {
    let Some(influx) = Database::start(Kind::Influxdb, "every_row_reads_back", &[]) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&log, &influx.url(), dir.path());
    let names =
        ["two words", "a,b", "a=b", "line\nbreak", "cr\r", "🌡 °C é", "back\\slash", "end\\", "\\", "C:\\new", "\"quoted\"", "a\\,b", " x "];
    let mut rows: Vec<Row> = names.iter().enumerate().map(|(at, name)| row(name, BEGIN, at as f64, 1, true)).collect();
    rows.extend(updates(20, 50));
    // Numbers of both spellings, what is not finite, truth and text, a null.
    let mixed = r#"{"sensor_id":"mixed","avg":3,"ok":true,"top":"say \"hi\"\nthere \\","bad":"NaN","none":null}"#;
    rows.push(with_value("mixed", BEGIN, 1, true, mixed.into()));
    // A row that came, and left the result again.
    rows.push(row("gone \"x\\", BEGIN, 1.0, 1, false));
    let mut gone = row("gone \"x\\", BEGIN, 1.0, 2, false);
    gone.headers.push((result_header::KEY, r#"{"sensor_id":"gone \"x\\"}"#.into()));
    log.produce(TOPIC, &rows).await;
    log.produce_nulls(TOPIC, &[gone]).await;
    // A value that becomes a null, in batches of their own, and a row that comes too late.
    rows.push(with_value("null", BEGIN, 1, false, r#"{"sensor_id":"null","avg":1.0,"max":7.0}"#.into()));
    log.produce(TOPIC, &rows[rows.len() - 1..]).await;
    let total = rows.len() as u64 + 1;

    let running = start(&settings);
    running.done(total).await;
    rows.push(with_value("null", BEGIN, 5, true, r#"{"sensor_id":"null","avg":2.0,"max":null}"#.into()));
    log.produce(TOPIC, &rows[rows.len() - 1..]).await;
    let total = total + 1;
    running.done(total).await;
    rows.push(row("null", BEGIN, 3.0, 4, false));
    log.produce(TOPIC, &rows[rows.len() - 1..]).await;
    let total = total + 1;
    running.done(total).await;
    assert_eq!((running.status("left_out"), running.status("stale")), (1.into(), 1.into()), "the NaN; the late row");
    running.stop().await;
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.pending == 0, "{report}");
    assert_eq!(report.equal, 13 + 20 * 50 + 2);

    // Another consumer group reads the whole topic again.
    settings.sink.outputs =
        vec![Output { name: Some("again".into()), to: To::Influxdb, influxdb: settings.sink.influxdb.clone(), ..Output::default() }];
    let again = start(&settings);
    again.done(total).await;
    again.stop().await;
    let replayed = verify(&settings).await;
    assert!(replayed.is_equal() && replayed.equal == report.equal, "{replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_database_or_the_network_loses_or_doubles_a_row() {
    let Some(mut influx) = Database::start(Kind::Influxdb, "no_fault", &[]) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(influx.address);
    let mut settings = settings(&log, &gate.url(), dir.path());
    settings.sink.batch_rows = 500;
    settings.sink.influxdb.timeout = common::units::Span::from_secs(1);
    let running = start(&settings);
    let mut produced = meet_all(&log, TOPIC, &gate, &running, &updates(10, 40)).await;
    // The whole server is killed under load, and comes back.
    influx.down();
    log.produce(TOPIC, &updates(10, 80)).await;
    produced += 10 * 80 * 3;
    until("the sink waits", || running.status("error").is_string()).await;
    assert!(running.status("rows").as_u64().unwrap() < produced, "reading pauses, so that memory stays bounded");
    influx.up();
    running.done(produced).await;
    assert_eq!(running.status("rejected"), 0);
    running.stop().await;
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 800, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_100_000_rows_exactly_the_three_bad_ones_are_dead() {
    let Some(influx) = Database::start(Kind::Influxdb, "of_100_000_rows", &[]) else { return };
    influx.create_bucket("short", 7 * 24 * 3600);
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&log, &influx.url(), dir.path());
    settings.sink.influxdb.bucket = "short".into();
    let now = chrono::Utc::now().timestamp_millis() / 10_000 * 10_000;
    let mut rows: Vec<Row> =
        (0..100_000).map(|i| row(&format!("s-{:04}", i % 1000), now - (i / 1000) * 10_000, i as f64, i, true)).collect();
    rows[33_333] = with_value("s-0333", now - 5, 1, true, r#"{"sensor_id":"wrong","avg":"warm"}"#.into());
    rows[66_666] = row("old", BEGIN, 1.0, 1, true);
    rows[99_998] = row(&"x".repeat(70_000), now, 1.0, 1, true);
    log.produce(TOPIC, &rows).await;
    let running = start(&settings);
    running.done(100_000).await;
    assert_eq!((running.status("rejected"), running.status("points")), (3.into(), 99_997.into()));
    running.stop().await;
    let dead = dead(&log, 3).await;
    assert_eq!(dead.iter().map(|(reason, ..)| reason.as_str()).collect::<Vec<_>>(), ["refused", "refused", "wrong_type"]);
    assert!(dead.iter().any(|(_, detail, _)| detail.contains("InfluxDB answers 422") && detail.contains("retention policy")), "{dead:?}");
    assert!(
        dead.iter().any(|(_, detail, _)| detail.contains("InfluxDB answers 400") && detail.contains("max key length exceeded")),
        "{dead:?}"
    );
    assert!(dead.iter().any(|(_, detail, _)| detail.contains("field 'avg'") && detail.contains("'warm'")), "{dead:?}");
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 99_997, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_stops_the_sink_keeps_the_position_and_a_new_one_goes_on() {
    let Some(influx) = Database::start(Kind::Influxdb, "a_wrong_token", &[]) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    let mut settings = settings(&log, &influx.url(), dir.path());
    settings.sink.influxdb.token = None;
    settings.sink.influxdb.token_file = Some(token.clone());
    std::fs::write(&token, "wrong\n").unwrap();
    log.produce(TOPIC, &updates(5, 10)).await;
    let fault = start(&settings).task.await.unwrap().unwrap_err().to_string();
    assert!(fault.contains("401") && fault.contains("unauthorized access") && fault.contains("position is kept"), "{fault}");
    assert!(!fault.contains("wrong\n") && log.read("iot.dead", 0).await.is_empty());

    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let running = start(&settings);
    running.done(150).await;
    // A token that is changed in the file is taken without a restart: the old one is refused, the new one is read.
    std::fs::write(&token, "wrong again\n").unwrap();
    log.produce(TOPIC, &[row("late", BEGIN, 1.0, 1, true)]).await;
    running.done(151).await;
    running.stop().await;
    settings.sink.influxdb.bucket = "nowhere".into();
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    log.produce(TOPIC, &[row("later", BEGIN, 1.0, 1, true)]).await;
    let fault = start(&settings).task.await.unwrap().unwrap_err().to_string();
    assert!(fault.contains("404") && fault.contains("\"nowhere\" not found"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_leave_every_point_as_the_log_has_it() {
    let Some(influx) = Database::start(Kind::Influxdb, "ten_kills", &[]) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(&log, &influx.url(), dir.path());
    let mut command = binary(&log.servers());
    command
        .args(["--to", "influxdb"])
        .envs([("TIDEMARK_SINK__INFLUXDB__URL", influx.url()), ("TIDEMARK_SINK__INFLUXDB__TOKEN", TOKEN.into())])
        .envs([("TIDEMARK_SINK__INFLUXDB__ORG", "o"), ("TIDEMARK_SINK__INFLUXDB__BUCKET", "b"), ("TIDEMARK_SINK__INSTANCE_ID", "one")])
        .env("TIDEMARK_SINK__BATCH_ROWS", "200")
        .env("TIDEMARK_SINK__STATE_PATH", dir.path().join("state"))
        .stderr(std::process::Stdio::null());
    let mut child = kill_ten_times(&log, TOPIC, &mut command, &updates(50, 200), || held(&influx)).await;
    until("all is committed", || {
        let report = sink::verify::verify(&settings, None, sink::verify::Span::default(), 5).unwrap();
        report.pending == 0 && report.equal + report.different + report.missing == 50 * 200
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 50 * 200, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_and_loses_nothing() {
    let Some(mut influx) = Database::start_on_a_small_disk(Kind::Influxdb, "a_full_disk", &[], 64) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(&log, &influx.url(), dir.path());
    let running = start(&settings);
    log.produce(TOPIC, &updates(10, 10)).await;
    running.done(300).await;
    // What it could not open while the disk was full it does not try again before it is started anew.
    let said = fill_and_free(&log, TOPIC, (&mut influx, 0), |_| true, true, &running, &updates(100, 100)).await;
    assert!(said.contains("InfluxDB at http://") && said.contains("no space left on device") && said.contains("keeps trying"), "{said}");
    running.done(300 + 30_000).await;
    assert_eq!(running.status("rejected"), 0);
    running.stop().await;
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 100 * 100, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_while_the_database_is_away_and_after_it() {
    let Some(influx) = Database::start(Kind::Influxdb, "memory_stays_bounded", &[]) else { return };
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let gate = Gate::new(influx.address);
    gate.set(Fate::Refuse);
    let dir = tempfile::tempdir().unwrap();
    for from in (0..300_000).step_by(50_000) {
        let rows = (from..from + 50_000).map(|i| row(&format!("s-{:04}", i % 1000), BEGIN + i / 1000 * 10_000, i as f64, i, true));
        log.produce(TOPIC, &rows.collect::<Vec<_>>()).await;
    }
    let mut command = binary(&log.servers());
    command
        .args(["--to", "influxdb"])
        .envs([("TIDEMARK_SINK__INFLUXDB__URL", gate.url()), ("TIDEMARK_SINK__INFLUXDB__TOKEN", TOKEN.into())])
        .envs([("TIDEMARK_SINK__INFLUXDB__ORG", "o"), ("TIDEMARK_SINK__INFLUXDB__BUCKET", "b")])
        .env("TIDEMARK_SINK__STATE_PATH", dir.path().join("state"))
        .stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    until("it is refused some times", || gate.requests() >= 10).await;
    gate.set(Fate::Pass);
    until("all is written", || held(&influx) == 300_000).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    println!("at most {} MiB", peak >> 10);
    assert!(peak < 100 << 10, "{peak} KiB");
}

/// How many points the bucket has.
fn held(influx: &Database) -> u64 {
    let query = "select count(avg) from q";
    let url = format!("{}/query?db=b&epoch=ms&q={}", influx.url(), query.replace(' ', "%20"));
    let answer = ureq::get(url).header("authorization", format!("Token {TOKEN}")).call();
    let answer: serde_json::Value = serde_json::from_str(&answer.unwrap().body_mut().read_to_string().unwrap()).unwrap();
    answer["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_independent_and_readings_are_written_as_they_are() {
    let Some(influx) = Database::start(Kind::Influxdb, "outputs_are_independent", &[]) else { return };
    let log = Log::start().await;
    log.create(&["iot", TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(influx.address);
    gate.set(Fate::Refuse);
    let mut settings = settings(&log, &gate.url(), dir.path());
    let raw = Output {
        name: Some("raw".into()),
        to: To::Influxdb,
        topics: vec!["iot".into()],
        influxdb: settings.sink.influxdb.clone(),
        ..Output::default()
    };
    let sqlite = common::settings::Sqlite { path: dir.path().join("p.sqlite"), retention: None };
    let results = Output { to: To::Sqlite, sqlite, ..Output::default() };
    settings.sink.outputs = vec![raw, results];
    let reading = |i: i64| Row {
        key: "s".into(),
        value: format!(
            r#"{{"sensor_id":"s","ts":{},"value":{},"kind":"temperature","seq":{i}}}"#,
            BEGIN + i * 100,
            if i % 2 == 0 { "21" } else { "21.5" }
        ),
        headers: vec![],
    };
    log.produce("iot", &(0..1000).map(reading).collect::<Vec<_>>()).await;
    log.produce(TOPIC, &updates(10, 10)).await;
    let running = start(&settings);
    until("SQLite has all", || running.status_of("sink-sqlite", "points") == 300).await;
    until("InfluxDB is waited for", || running.status("error").is_string()).await;
    assert_eq!(running.status("points"), 0);
    gate.set(Fate::Pass);
    running.done(1000).await;
    running.stop().await;
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 1000, "{report}");
    settings.sink.outputs.remove(0);
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 100, "{report}");
}

/// A bucket and tokens are made once, kept the second time, and each token does its one thing only.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_prepared_again_and_again() {
    use sink::influxdb::{Access, Administrator, PrepareError, prepare};
    let Some(influx) = Database::start(Kind::Influxdb, "a_database_is_prepared", &[]) else { return };
    let mut settings = Settings::default().sink.influxdb;
    (settings.url, settings.org, settings.bucket) = (influx.url(), "o".into(), "fresh".into());
    let admin = |token: &str| Administrator { username: "admin".into(), password: "local-test-pw".into(), token: token.into() };
    tokio::task::spawn_blocking(move || {
        let mut first = prepare(&settings, &admin(TOKEN)).unwrap();
        let write = first.token("writer", Access::Write, None).unwrap();
        let read = first.token("reader", Access::Read, None).unwrap();
        let mut again = prepare(&settings, &admin(TOKEN)).unwrap();
        assert_eq!(again.token("writer", Access::Write, Some(&write)).unwrap(), write);
        assert_ne!(again.token("reader", Access::Read, Some(&write)).unwrap(), write, "a token with other rights is not taken");

        let post = |token: &str| {
            let url = format!("{}/api/v2/write?org=o&bucket=fresh", settings.url);
            ureq::post(url).header("authorization", format!("Token {token}")).send("m value=1 1").map(|answer| answer.status().as_u16())
        };
        assert_eq!(post(&write).unwrap(), 204);
        assert!(matches!(post(&read), Err(ureq::Error::StatusCode(401 | 403 | 404))));

        assert!(matches!(prepare(&settings, &admin("another")), Err(PrepareError::Stranger { .. })));
        settings.org = "nobody".into();
        assert!(matches!(prepare(&settings, &admin(TOKEN)), Err(PrepareError::NoOrg { .. })));
        settings.url = "http://127.0.0.1:9".into();
        assert!(matches!(prepare(&settings, &admin(TOKEN)), Err(PrepareError::Away { .. })));
    })
    .await
    .unwrap();
}
