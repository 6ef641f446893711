//! Each kind of query on the real processor and a real log: the golden cases of the engine, whose rows are read back from the result topic
//! as a reader of it would.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::topics::result_header as header;
use harness::binaries::House;
use harness::log::{Kind, Log, client};
use harness::process::Process;
use harness::topic;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

const CASES: [&str; 13] = [
    "append",
    "calendar_days",
    "chained",
    "complete",
    "complete_top",
    "devices",
    "distinct",
    "duplicates",
    "filter",
    "hopping",
    "session",
    "session_fleet",
    "window_time",
];

#[test]
fn every_kind_gives_its_rows_on_the_embedded_log() {
    CASES.iter().for_each(|case| check(Kind::Embedded, case));
}

#[test]
fn every_kind_gives_its_rows_on_apache_kafka() {
    for case in ["chained", "complete_top", "devices", "duplicates", "filter", "session_fleet"] {
        check(Kind::Apache, case);
    }
}

fn check(kind: Kind, case: &str) {
    let Some(log) = Log::start(kind, case) else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("processor/cases").join(case);
    let (query, name) = query_file(&folder, dir.path());
    topic::create(&log, "iot", 2);
    write_input(&log, &folder.join("input.jsonl"));

    let house = House { log: &log, dir: dir.path() };
    // The second run has nothing to read, and sends the rows of the newest entries again: over themselves.
    for _ in 0..2 {
        let mut command = house.command("processor");
        command.arg("--query").arg(&query);
        let mut processor = Process::start("processor", &mut command);
        processor.wait_success(LIMIT);
        assert_eq!(rows(&log, &format!("iot.agg.{name}")), expected(&folder), "{case}");
    }
}

/// The case's query with an end: all that is there, and no more.
fn query_file(folder: &Path, dir: &Path) -> (PathBuf, String) {
    let text = std::fs::read_to_string(folder.join("query.toml")).unwrap();
    let name = text.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().trim_matches('"').to_owned();
    let path = dir.join("query.toml");
    std::fs::write(&path, text.replace("[query]\n", "[query]\ntrigger = \"available_now\"\n")).unwrap();
    (path, name)
}

/// Writes the case's records where it says, received when it says.
fn write_input(log: &Log, input: &Path) {
    let mut config = client(&log.servers());
    config.set("acks", "all").set("enable.idempotence", "true");
    let producer: BaseProducer = config.create().unwrap();
    for line in std::fs::read_to_string(input).unwrap().lines().filter(|line| !line.trim().is_empty()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let (value, key) = (line["v"].to_string(), line["v"]["sensor_id"].as_str().unwrap().to_owned());
        let partition = i32::try_from(line["p"].as_i64().unwrap_or(0)).unwrap();
        let record = BaseRecord::to("iot").partition(partition).key(&key).payload(&value);
        producer.send(record.timestamp(line["at"].as_i64().unwrap())).unwrap();
    }
    producer.flush(LIMIT).unwrap();
}

/// The rows that a reader ends with: of each identity that of the largest revision, but for those that were taken back.
fn rows(log: &Log, topic: &str) -> BTreeSet<String> {
    let mut last: BTreeMap<(Vec<u8>, String), (i64, Option<String>)> = BTreeMap::new();
    for record in topic::read(log, topic) {
        // A row is told from others by its key and window, or by the record that it stands for.
        let place = record.headers.get(header::ROW).or_else(|| record.headers.get(header::WINDOW_START));
        let identity = (record.key.clone().unwrap_or_default(), place.cloned().unwrap_or_default());
        let revision: i64 = record.header(header::REVISION).parse().unwrap();
        let rank = record.headers.get(header::RANK).map(|rank| format!(" #{rank}")).unwrap_or_default();
        let gone = record.headers.contains_key(header::KEY);
        assert_eq!(gone, record.value.is_empty(), "only a row that is taken back has no value");
        if last.get(&identity).is_none_or(|(newest, _)| *newest <= revision) {
            last.insert(identity, (revision, (!gone).then(|| format!("{}{rank}", record.text()))));
        }
    }
    last.into_values().filter_map(|(_, row)| row).collect()
}

/// The rows of the golden file, below the ledger and the lanes.
fn expected(folder: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
    text.lines().skip(2).map(str::to_owned).collect()
}
