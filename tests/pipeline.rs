//! Readings in, windows out: CSV files through the real `producer`, `processor` and `sink`, on the embedded log and on Apache Kafka.
//! Every final row is compared with the same computation done elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::topics::lane_header;
use harness::binaries::House;
use harness::ledger;
use harness::log::{Kind, Log};
use harness::query::Query;
use harness::readings::{self, Reading, Sorted};
use harness::topic::{self, Record};
use harness::{oracle, points, results};

const LIMIT: Duration = Duration::from_secs(90);
const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;

fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[test]
fn committed_series_on_the_embedded_log() {
    committed_series(Kind::Embedded, "committed_series_on_the_embedded_log");
}

#[test]
fn committed_series_on_apache_kafka() {
    committed_series(Kind::Apache, "committed_series_on_apache_kafka");
}

/// Several sensors, disorder, late rows and lines that are no reading, through all three binaries.
fn committed_series(kind: Kind, test: &str) {
    let Some(log) = Log::start(kind, test) else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    let files = ["fleet.csv", "boiler.csv", "cellar.csv", "bad.csv"].map(data);
    let all: Vec<Reading> = files.iter().flat_map(|file| readings::of_file(file)).collect();

    house.replay(&files).wait_success(LIMIT);
    assert_eq!(topic::count(&log, "iot"), all.len() as u64, "every line that is a reading is in the log, once");

    let ten = Query::new("ten", "10 seconds");
    let warm = Query::new("warm", "1 minute").filter("WHERE value > 25").having("HAVING count(*) > 1");
    // Not by sensor: the rows of a group lie in all partitions.
    let fleet = Query::new("fleet", "1 minute").key("kind").filter("WHERE kind IS NOT NULL");
    house.processor(&[&ten, &warm, &fleet]).wait_success(LIMIT);

    // All rows: against SQLite over the files, and bit for bit against a fold in the order of the log.
    let sorted = readings::sort(&log, 10 * SECOND, 5 * SECOND);
    let late = late_rows(&files[0]);
    let on_time: Vec<&Reading> = all.iter().filter(|reading| !is_late(reading, &late)).collect();
    assert_eq!(sorted.used.len(), on_time.len(), "the log's order makes just those rows late that the file says");
    let got = results::read(&log, &ten);
    oracle::assert_equal("10 seconds, fold in the order of the log", &got.cells(), &oracle::fold(&sorted.used, 10 * SECOND));
    oracle::assert_close("10 seconds, SQLite over the files", &got.cells(), &oracle::sqlite(on_time, 10 * SECOND));
    assert!(got.finals() > 0 && got.finals() < got.last.len(), "{} of {} rows are final", got.finals(), got.last.len());

    // WHERE and HAVING.
    let sorted_warm = readings::sort_where(&log, 60 * SECOND, 5 * SECOND, |reading| reading.value > 25.0);
    let mut want = oracle::sqlite(&sorted_warm.used, 60 * SECOND);
    want.retain(|_, cell| cell.n > 1);
    oracle::assert_close("1 minute, WHERE and HAVING, SQLite", &results::read(&log, &warm).cells(), &want);

    let sorted_fleet = readings::sort_where(&log, 60 * SECOND, 5 * SECOND, |reading| reading.kind.is_some());
    let by_kind = |reading: &Reading| Reading { sensor: reading.kind.clone().unwrap(), ..reading.clone() };
    let want = oracle::sqlite(&sorted_fleet.used.iter().map(by_kind).collect::<Vec<_>>(), 60 * SECOND);
    let got_fleet = results::read(&log, &fleet);
    oracle::assert_close("1 minute of the fleet by kind, SQLite", &got_fleet.cells(), &want);
    assert!(got_fleet.finals() > 0);

    assert_eq!(check_late_lane(&log, &ten, &sorted), late, "the rows that the file marks");
    assert!(check_late_lane(&log, &warm, &sorted_warm).is_subset(&late));
    check_lines_of_the_producer(&log);

    // A processor that goes on finds the ledger in the journal.
    let ten = ten.trigger("{ processing_time = \"100ms\" }");
    let warm = warm.trigger("");
    let mut processor = house.processor(&[&ten, &warm, &fleet]);
    let counts = ledger::wait_read(&mut processor, &ten, sorted.read() as u64, LIMIT);
    assert_eq!((counts.used, counts.late, counts.dead, counts.filtered), (sorted.used.len() as u64, late.len() as u64, 0, 0));
    let counts = ledger::wait_read(&mut processor, &warm, sorted_warm.read() as u64, LIMIT);
    let of = |sorted: &Sorted| (sorted.used.len() as u64, sorted.late.len() as u64, sorted.filtered as u64);
    assert_eq!((counts.used, counts.late, counts.filtered), of(&sorted_warm));
    let counts = ledger::wait_read(&mut processor, &fleet, sorted_fleet.read() as u64, LIMIT);
    assert_eq!((counts.used, counts.late, counts.filtered), of(&sorted_fleet));
    processor.signal("TERM");
    processor.wait_success(LIMIT);
    assert_eq!(results::read(&log, &fleet).cells(), got_fleet.cells(), "and nothing of the fleet's");
    assert_eq!(results::read(&log, &ten).cells(), got.cells(), "a second run over the same readings changes nothing");

    // And into the database.
    let mut sink = house.sink();
    points::wait_equal(&house.database(), &ten.name, &got.cells(), &mut sink, LIMIT);
    points::wait_equal(&house.database(), &warm.name, &results::read(&log, &warm).cells(), &mut sink, LIMIT);
    sink.signal("TERM");
    sink.wait_success(LIMIT);
}

/// The sequence numbers that `fleet.csv` marks as late.
fn late_rows(fleet: &Path) -> BTreeSet<i64> {
    let text = std::fs::read_to_string(fleet).unwrap();
    let fields = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    fields.filter(|fields| fields[5] == "1").map(|fields| fields[4].parse().unwrap()).collect()
}

fn is_late(reading: &Reading, late: &BTreeSet<i64>) -> bool {
    reading.seq.is_some_and(|seq| late.contains(&seq))
}

/// Gives the sequence numbers of the rows in the lane.
fn check_late_lane(log: &Log, query: &Query, sorted: &Sorted) -> BTreeSet<i64> {
    let input: BTreeMap<(i32, i64), Record> = topic::read(log, "iot").into_iter().map(|r| ((r.partition, r.offset), r)).collect();
    let lane: Vec<Record> =
        topic::read(log, "iot.late").into_iter().filter(|record| record.header(lane_header::STAGE) == query.name).collect();
    let mut places: Vec<_> = lane.iter().map(Record::place).collect();
    places.sort_unstable();
    assert_eq!(places, sorted.late, "the late lane of {} has each late row once", query.name);
    let mut seqs = BTreeSet::new();
    for record in lane {
        let original = &input[&record.place()];
        assert_eq!(record.header(lane_header::TOPIC), "iot");
        assert_eq!(record.header(lane_header::REASON), "late");
        assert!(!record.header(lane_header::DETAIL).is_empty());
        assert_eq!((&record.key, &record.value), (&original.key, &original.value), "whole");
        assert_eq!(record.header(lane_header::TIMESTAMP), original.timestamp.to_string(), "with its time of receipt");
        let value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        seqs.extend(value["seq"].as_i64());
    }
    seqs
}

/// The lines of `bad.csv` that make no reading are in the dead lane as they stand in the file.
fn check_lines_of_the_producer(log: &Log) {
    let text = std::fs::read_to_string(data("bad.csv")).unwrap();
    let bad = |line: &str| !line.rsplit(',').next().unwrap().is_empty();
    let want: Vec<(String, String)> = text
        .lines()
        .enumerate()
        .skip(1)
        .filter(|(_, line)| bad(line))
        .map(|(number, line)| ((number + 1).to_string(), line.to_owned()))
        .collect();
    let lane: Vec<Record> =
        topic::read(log, "iot.dead").into_iter().filter(|record| record.header(lane_header::STAGE) == "producer").collect();
    let mut got: Vec<(String, String)> = lane.iter().map(|record| (record.header(lane_header::OFFSET).to_owned(), record.text())).collect();
    got.sort();
    assert_eq!(got, want);
    let reasons: BTreeSet<&str> = lane.iter().map(|record| record.header(lane_header::REASON)).collect();
    assert_eq!(reasons, BTreeSet::from(["no_event_time", "no_value", "wrong_type"]));
    assert!(lane.iter().all(|record| record.header(lane_header::TOPIC) == "bad.csv"));
}

#[test]
fn poison_on_the_embedded_log() {
    poison(Kind::Embedded, "poison_on_the_embedded_log");
}

#[test]
fn poison_on_apache_kafka() {
    poison(Kind::Apache, "poison_on_apache_kafka");
}

/// Records that other programs wrote into the topic: what is no reading goes to the dead lane whole, its neighbours pass.
fn poison(kind: Kind, test: &str) {
    let Some(log) = Log::start(kind, test) else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    topic::create(&log, "iot", 2);
    let tomorrow = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 86_400_000;
    let future = format!(r#"{{"sensor_id":"p","ts":{tomorrow},"value":1.0}}"#);
    let long = format!(r#"{{"sensor_id":"p","ts":"{}","value":1}}"#, "9".repeat(100_000));
    let deep = "[".repeat(50_000);
    let poison: [(&[u8], &str); 14] = [
        (b"hello", "not_json"),
        (b"", "not_json"),
        (b"{\"sensor_id\":\"p\",\"ts\":1700000001000,\"value\":1.0", "not_json"),
        (b"{\"sensor_id\":\"\xff\xfe\",\"ts\":1700000001000,\"value\":1.0}", "not_json"),
        (deep.as_bytes(), "not_json"),
        (b"[1,2,3]", ""),
        (b"17", ""),
        (br#"{"sensor_id":"p","value":1.0}"#, "no_event_time"),
        (br#"{"sensor_id":"p","ts":null,"value":1.0}"#, "no_event_time"),
        (br#"{"sensor_id":"p","ts":"yesterday","value":1.0}"#, "wrong_type"),
        (br#"{"sensor_id":"p","ts":1700000001000,"value":"warm"}"#, "wrong_type"),
        (br#"{"sensor_id":"p","ts":1700000001000,"value":1.0,"seq":"first"}"#, "wrong_type"),
        (long.as_bytes(), "wrong_type"),
        (future.as_bytes(), "future"),
    ];
    let good: Vec<String> = (0..200)
        .map(|i| match i % 3 {
            0 => format!(r#"{{"sensor_id":"p","ts":{},"value":{}.5,"kind":"x","seq":{i}}}"#, 1_700_000_000_000_i64 + i * 500, i),
            // Another order, other columns, a value without a fraction, an escaped key.
            1 => format!(r#" {{ "extra":{{"a":[1]}}, "value":{i} , "t\u0073":{}, "sensor_id":"p" }} "#, 1_700_000_000_000_i64 + i * 500),
            _ => format!(r#"{{"ts":"2023-11-14T22:15:{:02}.{:03}Z","sensor_id":"p","value":-{i}e-3}}"#, 10 + i / 20, i),
        })
        .collect();
    let mut records: Vec<(&str, &[u8])> = Vec::new();
    for (index, line) in good.iter().enumerate() {
        records.push(("p", line.as_bytes()));
        if let Some((bytes, _)) = poison.get(index / 10).filter(|_| index % 10 == 5) {
            records.push(("p", bytes));
        }
    }
    topic::write(&log, "iot", &records);

    let query = Query::new("poison", "10 seconds").watermark("5 minutes");
    house.processor(&[&query]).wait_success(LIMIT);

    let sorted = readings::sort(&log, 10 * SECOND, 300 * SECOND);
    assert_eq!((sorted.used.len(), sorted.late.len(), sorted.dead.len()), (good.len(), 0, poison.len()));
    let got = results::read(&log, &query);
    oracle::assert_equal("the neighbours", &got.cells(), &oracle::fold(&sorted.used, 10 * SECOND));

    let lane = topic::read(&log, "iot.dead");
    let mut places: Vec<_> = lane.iter().map(Record::place).collect();
    places.sort_unstable();
    assert_eq!(places, sorted.dead, "the dead lane has each once");
    for record in &lane {
        let (_, reason) = poison.iter().find(|(bytes, _)| *bytes == record.value).expect("whole");
        let found = record.header(lane_header::REASON);
        assert!(reason.is_empty() || found == *reason, "'{found}' where '{reason}' was meant: {:.80}", record.text());
        assert_eq!(record.header(lane_header::STAGE), "poison");
        assert!(!record.header(lane_header::DETAIL).is_empty());
        assert_eq!(record.key.as_deref(), Some(&b"p"[..]));
    }
    assert!(topic::read(&log, "iot.late").is_empty());

    let query = query.trigger("");
    let mut processor = house.processor(&[&query]);
    let counts = ledger::wait_read(&mut processor, &query, records.len() as u64, LIMIT);
    assert_eq!((counts.used, counts.late, counts.dead, counts.filtered), (good.len() as u64, 0, poison.len() as u64, 0));
    // The state of the open windows goes on: one more reading lands on what was there.
    let before = got.cells().len();
    topic::write(&log, "iot", &[("p", br#"{"sensor_id":"p","ts":1700009999000,"value":2.0}"#)]);
    ledger::wait_read(&mut processor, &query, records.len() as u64 + 1, LIMIT);
    processor.signal("TERM");
    processor.wait_success(LIMIT);
    let got = results::read(&log, &query);
    assert_eq!(got.cells().len(), before + 1);
    assert_eq!(got.finals(), before, "the reading of a later hour has closed all windows before");
}

#[test]
fn real_series_on_the_embedded_log() {
    real_series(Kind::Embedded, "real_series_on_the_embedded_log");
}

#[test]
fn real_series_on_apache_kafka() {
    real_series(Kind::Apache, "real_series_on_apache_kafka");
}

/// Real series from a folder beside the checkout, when it is there, or from `TIDEMARK_TEST_SERIES`.
fn real_series(kind: Kind, test: &str) {
    let folder = std::env::var_os("TIDEMARK_TEST_SERIES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "csv")).collect())
        .unwrap_or_default();
    if files.is_empty() {
        harness::skipped(test, "no series; name a folder of CSV files with TIDEMARK_TEST_SERIES");
        return;
    }
    files.sort();
    let Some(log) = Log::start(kind, test) else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    let all: Vec<Reading> = files.iter().flat_map(|file| readings::of_file(file)).collect();
    house.replay(&files).wait_success(LIMIT);

    // The files have some rows out of order (an hour that a clock put back told twice): late for the first query, not for the second.
    let ten = Query::new("real-10s", "10 seconds");
    let hour = Query::new("real-1h", "1 hour").watermark("2 hours");
    house.processor(&[&ten, &hour]).wait_success(LIMIT);
    let sorted = readings::sort(&log, 10 * SECOND, 5 * SECOND);
    assert_eq!((sorted.read(), sorted.dead.len()), (all.len(), 0));
    let got = results::read(&log, &ten);
    oracle::assert_equal("10 seconds, fold in the order of the log", &got.cells(), &oracle::fold(&sorted.used, 10 * SECOND));
    oracle::assert_close("10 seconds, SQLite over the rows that are not late", &got.cells(), &oracle::sqlite(&sorted.used, 10 * SECOND));
    check_late_lane(&log, &ten, &sorted);
    let got = results::read(&log, &hour);
    oracle::assert_equal("1 hour, fold file by file", &got.cells(), &oracle::fold(&all, HOUR));
    oracle::assert_close("1 hour, SQLite over the files", &got.cells(), &oracle::sqlite(&all, HOUR));

    let mut sink = house.sink();
    points::wait_equal(&house.database(), &hour.name, &oracle::fold(&all, HOUR), &mut sink, LIMIT);
    sink.signal("TERM");
    sink.wait_success(LIMIT);
}
