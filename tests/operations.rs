//! Looking at what a query did and correcting it, with the real binaries: lanes, explain, and queries that change.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use harness::binaries::House;
use harness::log::{Kind, Log};
use harness::oracle::{self, Cells};
use harness::query::Query;
use harness::readings::Reading;
use harness::{points, topic};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const BASE: i64 = 1_700_000_000_000;

fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap()
}

/// A sensor and the seconds after [`BASE`]; each reading's value follows from them.
type Row = (&'static str, i64);

fn reading(row: Row) -> Reading {
    let (sensor, seconds) = row;
    Reading { sensor: sensor.into(), ts: BASE + seconds * 1000, value: value(row), kind: None, seq: None }
}

#[allow(clippy::cast_precision_loss)]
fn value((sensor, seconds): Row) -> f64 {
    0.1 * seconds as f64 + sensor.len() as f64 / 3.0
}

fn send(log: &Log, rows: &[Row]) {
    let json = |row: &Row| {
        let text = format!(r#"{{"sensor_id":"{}","ts":{},"value":{}}}"#, row.0, BASE + row.1 * 1000, value(*row));
        (row.0, text.into_bytes())
    };
    let rows: Vec<(&str, Vec<u8>)> = rows.iter().map(json).collect();
    topic::write(log, "iot", &rows.iter().map(|(key, value)| (*key, value.as_slice())).collect::<Vec<_>>());
}

/// Windows of ten seconds over all rows, late or not.
fn batch(rows: &[Row]) -> Cells {
    let readings: Vec<Reading> = rows.iter().map(|row| reading(*row)).collect();
    oracle::fold(&readings, 10_000)
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A command of `processor` that prints JSON: its exit code, and what it says.
#[track_caller]
fn ask(house: &House<'_>, arguments: &[&str]) -> (i32, Value) {
    let output = run(house.command("processor").args(arguments).args(["--output", "json"]));
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output.status.code().unwrap(), value)
}

fn edited(dir: &Path, query: &Query, name: &str, from: &str, to: &str) -> PathBuf {
    let text = std::fs::read_to_string(query.write(dir)).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    let path = dir.join(name);
    std::fs::write(&path, text.replace(from, to)).unwrap();
    path
}

/// Whatever partitions the sensors are in, the last two rows are late.
const ROWS: [Row; 9] = [("a", 1), ("a", 2), ("a", 12), ("bb", 1), ("bb", 12), ("a", 30), ("bb", 30), ("a", 3), ("bb", 13)];

#[test]
fn late_rows_come_into_their_windows_and_twice_is_once() {
    let Some(log) = Log::start(Kind::Embedded, "late_rows_come_into_their_windows_and_twice_is_once") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    topic::create(&log, "iot", 2);
    send(&log, &ROWS);
    let ten = Query::new("ten", "10 seconds");
    house.processor(&[&ten]).wait_success(LIMIT);
    let file = ten.write(dir.path());
    let file = file.to_str().unwrap();

    let (code, lanes) = ask(&house, &["lanes", "ls"]);
    assert_eq!((code, &lanes[0]["lane"], &lanes[0]["query"], &lanes[0]["count"]), (0, &"late".into(), &"ten".into(), &2.into()), "{lanes}");
    let (_, shown) = ask(&house, &["lanes", "show", "--query", "ten", "--reason", "late", "--limit", "1"]);
    assert_eq!((shown.as_array().unwrap().len(), &shown[0]["topic"]), (1, &"iot".into()), "{shown}");
    let (_, none) = ask(&house, &["lanes", "show", "--lane", "dead"]);
    assert_eq!(none, Value::Array(Vec::new()));

    let explain = ["explain", "--query", file, "--window", "2023-11-14T22:13:20Z", "--key", "a"];
    let (code, before) = ask(&house, &explain);
    assert_eq!((code, &before["equal"], &before["recomputed"]["final"]), (0, &true.into(), &true.into()), "{before}");
    let behind = before["partitions"].as_object().unwrap().values().next().unwrap();
    assert_eq!((&behind["used"], &behind["late"], &behind["filtered"]), (&2.into(), &1.into(), &0.into()), "{before}");

    let mut sink = house.sink();
    let in_time = batch(&ROWS[..7]);
    points::wait_equal(&house.database(), "ten", &in_time, &mut sink, LIMIT);
    let written = topic::count(&log, &ten.topic());
    let (code, dry) = ask(&house, &["lanes", "replay", "--query", file, "--dry-run"]);
    assert_eq!((code, &dry["windows"]["restated"], topic::count(&log, &ten.topic())), (0, &2.into(), written), "{dry}");

    let (code, report) = ask(&house, &["lanes", "replay", "--query", file]);
    assert_eq!((code, &report["rows"]["replayed"], &report["windows"]["restated"]), (0, &2.into(), &2.into()), "{report}");
    points::wait_equal(&house.database(), "ten", &batch(&ROWS), &mut sink, LIMIT);

    let written = topic::count(&log, &ten.topic());
    let (code, again) = ask(&house, &["lanes", "replay", "--query", file, "--lane", "late"]);
    assert_eq!((code, &again["windows"]["restated"], &again["windows"]["unchanged"]), (0, &0.into(), &2.into()), "{again}");
    assert_eq!(topic::count(&log, &ten.topic()), written, "the second time nothing is written");

    let (code, after) = ask(&house, &explain);
    assert_eq!((code, &after["result"]["restated"], &after["equal"]), (0, &true.into(), &true.into()), "{after}");
    // The query itself goes on: what it sends once more does not take the corrections back.
    send(&log, &[("a", 31)]);
    house.processor(&[&ten]).wait_success(LIMIT);
    let all: Vec<Row> = ROWS.iter().copied().chain([("a", 31)]).collect();
    points::wait_equal(&house.database(), "ten", &batch(&all), &mut sink, LIMIT);
    sink.signal("TERM");
    sink.wait_success(LIMIT);
}

#[test]
fn a_window_that_is_still_open_is_left_alone() {
    let Some(log) = Log::start(Kind::Embedded, "a_window_that_is_still_open_is_left_alone") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    topic::create(&log, "iot", 1);
    send(&log, &ROWS);
    // In the newest window, which nothing has closed.
    let broken = format!(r#"{{"sensor_id":"a","ts":{},"value":"much"}}"#, BASE + 31_000);
    topic::write(&log, "iot", &[("a", broken.as_bytes())]);
    let ten = Query::new("ten", "10 seconds");
    house.processor(&[&ten]).wait_success(LIMIT);
    let text = edited(dir.path(), &ten, "text.toml", "value DOUBLE", "value STRING");
    let text =
        std::fs::read_to_string(text).unwrap().replace("avg(value) AS avg, min(value) AS min, max(value) AS max", "count(value) AS v");
    let file = dir.path().join("text.toml");
    std::fs::write(&file, text).unwrap();
    let (code, report) = ask(&house, &["lanes", "replay", "--query", file.to_str().unwrap(), "--lane", "dead"]);
    assert_eq!((code, &report["windows"]["open"], &report["rows"]["open"]), (3, &1.into(), &1.into()), "{report}");
    assert_eq!(report["windows"]["restated"], 0);
}

#[test]
fn dead_rows_that_a_changed_schema_can_read_come_into_their_windows() {
    let Some(log) = Log::start(Kind::Embedded, "dead_rows_that_a_changed_schema_can_read_come_into_their_windows") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    topic::create(&log, "iot", 2);
    let odd: Row = ("a", 4);
    let broken = format!(r#"{{"sensor_id":"a","ts":{},"value":{},"seq":"x17"}}"#, BASE + 4000, value(odd));
    send(&log, &ROWS[..2]);
    topic::write(&log, "iot", &[("a", broken.as_bytes()), ("a", b"no reading")]);
    send(&log, &ROWS[2..7]);
    let ten = Query::new("ten", "10 seconds");
    house.processor(&[&ten]).wait_success(LIMIT);
    let mut sink = house.sink();
    points::wait_equal(&house.database(), "ten", &batch(&ROWS[..7]), &mut sink, LIMIT);

    let file = ten.write(dir.path());
    let (code, report) = ask(&house, &["lanes", "replay", "--query", file.to_str().unwrap()]);
    assert_eq!((code, &report["rows"]["still_dead"]["wrong_type"], &report["windows"]["restated"]), (3, &1.into(), &0.into()), "{report}");

    let changed = edited(dir.path(), &ten, "changed.toml", "seq BIGINT", "seq STRING");
    let (code, report) = ask(&house, &["lanes", "replay", "--query", changed.to_str().unwrap(), "--lane", "dead"]);
    assert_eq!((code, &report["rows"]["still_dead"]["not_json"], &report["rows"]["replayed"]), (3, &1.into(), &1.into()), "{report}");
    assert_eq!(report["changes"][0]["what"], "source.schema");
    let rows: Vec<Row> = ROWS[..2].iter().chain([&odd]).chain(&ROWS[2..7]).copied().collect();
    points::wait_equal(&house.database(), "ten", &batch(&rows), &mut sink, LIMIT);
    sink.signal("TERM");
    sink.wait_success(LIMIT);
}

#[test]
fn a_schema_that_cannot_read_what_was_used_restates_nothing() {
    let Some(log) = Log::start(Kind::Embedded, "a_schema_that_cannot_read_what_was_used_restates_nothing") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    topic::create(&log, "iot", 2);
    let broken = format!(r#"{{"sensor_id":"a","ts":{},"value":1,"seq":true}}"#, BASE + 4000);
    let numbered = format!(r#"{{"sensor_id":"a","ts":{},"value":1,"seq":17}}"#, BASE + 5000);
    send(&log, &ROWS[..2]);
    topic::write(&log, "iot", &[("a", broken.as_bytes()), ("a", numbered.as_bytes())]);
    send(&log, &ROWS[2..7]);
    let ten = Query::new("ten", "10 seconds");
    house.processor(&[&ten]).wait_success(LIMIT);
    let written = topic::count(&log, &ten.topic());

    let changed = edited(dir.path(), &ten, "changed.toml", "seq BIGINT", "seq BOOLEAN");
    let output = run(house.command("processor").args(["lanes", "replay", "--query", changed.to_str().unwrap(), "--lane", "dead"]));
    let said = said(&output);
    assert!(!output.status.success() && said.contains("1 rows that it could read before are dead under it"), "{said}");
    assert_eq!(topic::count(&log, &ten.topic()), written, "{said}");
}

#[test]
fn a_lane_is_nobodys_input() {
    let Some(log) = Log::start(Kind::Embedded, "a_lane_is_nobodys_input") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    topic::create(&log, "iot", 1);
    let ten = Query::new("ten", "10 seconds");
    let file = ten.write(dir.path());
    for (lane, topic, code) in [("LATE", "iot", 2), ("DEAD", "iot.agg.ten", 1)] {
        let name = format!("TIDEMARK_TOPICS__{lane}");
        let output = run(house.command("processor").args(["--query", file.to_str().unwrap()]).env(name, topic));
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(&format!("topics.{}", lane.to_lowercase())), "{}", said(&output));
    }
}

#[test]
fn a_changed_query_is_known_before_it_starts() {
    let Some(log) = Log::start(Kind::Embedded, "a_changed_query_is_known_before_it_starts") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    topic::create(&log, "iot", 2);
    send(&log, &ROWS);
    let ten = Query::new("ten", "10 seconds");
    house.processor(&[&ten]).wait_success(LIMIT);
    let check = |file: &Path| {
        let output = run(house.command("processor").arg("--query").arg(file).args(["check", "--against-log"]));
        (output.status.code().unwrap(), said(&output))
    };
    assert!(check(&ten.write(dir.path())).1.contains("it goes on"), "{:?}", check(&ten.write(dir.path())));

    // Only what stands above the aggregate: it goes on, and later windows are those of a fresh run.
    let fuller = ten.clone().having("HAVING count(*) > 1");
    let (code, text) = check(&fuller.write(dir.path()));
    assert!(code == 0 && text.contains("keep the rows that they have") && text.contains("query.sql was"), "{text}");
    send(&log, &[("bb", 31), ("a", 60), ("bb", 60)]);
    let mut processor = house.processor(&[&fuller]);
    processor.wait_success(LIMIT);
    assert!(processor.output().contains("goes on with its state"), "{}", processor.output());
    let fresh = Query { name: "fresh".into(), ..fuller.clone() };
    house.processor(&[&fresh]).wait_success(LIMIT);
    let finals = |query: &Query| {
        let rows = topic::read(&log, &query.topic()).into_iter().filter(|row| row.header("tidemark-final") == "true");
        let later = rows.filter(|row| row.header("tidemark-window-start").parse::<i64>().unwrap() >= BASE + 30_000);
        later.map(|row| row.text()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(finals(&fuller), finals(&fresh));
    assert_eq!(finals(&fresh).len(), 1, "bb has two rows at 30 seconds, a has one");

    // The state would be another: not without being told to, and then anew from the log.
    let slower = fuller.clone().watermark("20 seconds");
    let (code, text) = check(&slower.write(dir.path()));
    assert!(code == 3 && text.contains("source.watermark was '5s' and is '20s'") && text.contains("--rebuild ten"), "{text}");
    let refused = run(&mut house.processor_command(&[&slower]));
    assert!(refused.status.code() == Some(1) && said(&refused).contains("source.watermark was '5s'"), "{}", said(&refused));
    let newest = topic::read(&log, &ten.topic()).iter().map(|row| row.header("tidemark-revision").parse::<i64>().unwrap()).max().unwrap();
    let before = topic::count(&log, &ten.topic());
    let rebuilt = run(house.processor_command(&[&slower]).args(["--rebuild", "ten"]));
    assert!(rebuilt.status.success() && said(&rebuilt).contains("begins anew from this offset"), "{}", said(&rebuilt));
    assert!(topic::count(&log, &ten.topic()) > before);
    let rows = topic::read(&log, &ten.topic());
    let revisions = |row: &topic::Record| row.header("tidemark-revision").parse::<i64>().unwrap();
    assert!(rows.iter().filter(|row| revisions(row) > newest).count() as u64 == topic::count(&log, &ten.topic()) - before);
    let (code, text) = check(&slower.write(dir.path()));
    assert!(code == 0 && text.contains("it goes on"), "{text}");

    // Another input is another query.
    let other = edited(dir.path(), &slower, "other.toml", r#"topic = "iot""#, r#"topic = "elsewhere""#);
    let text = std::fs::read_to_string(&other).unwrap().replace("FROM iot", "FROM elsewhere");
    std::fs::write(&other, text).unwrap();
    let (code, text) = check(&other);
    assert!(code == 3 && text.contains("give it another name"), "{text}");
}
