//! When all input stops, the last windows close all the same, and a restart finds them closed. A log that is away is no input that has stopped.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::path::Path;
use std::time::Duration;

use harness::binaries::House;
use harness::log::{Kind, Log};
use harness::query::Query;
use harness::wait::wait_until;
use harness::{ledger, results, topic};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_last_windows_close_on_the_embedded_log() {
    last_windows(Kind::Embedded, "the_last_windows_close_on_the_embedded_log");
}

#[test]
fn the_last_windows_close_on_apache_kafka() {
    last_windows(Kind::Apache, "the_last_windows_close_on_apache_kafka");
}

fn last_windows(kind: Kind, test: &str) {
    let Some(log) = Log::start(kind, test) else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let house = House { log: &log, dir: dir.path() };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fleet.csv");
    house.replay(&[file]).wait_success(LIMIT);

    let sensor = Query::new("sensor", "1 minute").trigger("").idle_timeout("500ms");
    // Its groups lie in all partitions: a window closes when each of them lets it.
    let fleet = Query::new("fleet", "1 minute").key("kind").filter("WHERE kind IS NOT NULL").trigger("").idle_timeout("500ms");
    let mut cells = Vec::new();
    for run in ["first", "second"] {
        let mut processor = house.processor(&[&sensor, &fleet]);
        for query in [&sensor, &fleet] {
            wait_until(&format!("every window of {} to be final in the {run} run", query.name), LIMIT, || {
                let results = results::read(&log, query);
                !results.last.is_empty() && results.finals() == results.last.len()
            });
        }
        processor.signal("TERM");
        processor.wait_success(LIMIT);
        cells.push([&sensor, &fleet].map(|query| results::read(&log, query).cells()));
    }
    assert_eq!(cells[0], cells[1]);
}

#[test]
fn an_outage_of_the_embedded_log_is_not_silence() {
    outage(Kind::Embedded, "an_outage_of_the_embedded_log_is_not_silence");
}

#[test]
fn an_outage_of_apache_kafka_is_not_silence() {
    outage(Kind::Apache, "an_outage_of_apache_kafka_is_not_silence");
}

/// Who could not write while the log was away has the whole timeout to do so when it is back; and then the windows do close.
fn outage(kind: Kind, test: &str) {
    const IDLE: Duration = Duration::from_secs(4);
    let Some(mut log) = Log::start(kind, test) else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let query = Query::new("outage", "1 minute").trigger("").idle_timeout("4 seconds");
    let mut processor = House { log: &log, dir: dir.path() }.processor(&[&query]);
    processor.wait_line("the first shard, and with it the topics", LIMIT, |line| line.contains(" restored ").then_some(()));
    let reading = |sensor: &str, second: u32| format!(r#"{{"sensor_id":"{sensor}","ts":"2023-11-14T22:13:{second}Z","value":{second}}}"#);
    let write = |log: &Log, sensor: &str, second: u32| topic::write(log, "iot", &[(sensor, reading(sensor, second).as_bytes())]);
    write(&log, "a", 10);
    write(&log, "b", 11);
    ledger::wait_read(&mut processor, &query, 2, LIMIT);

    log.kill();
    processor.wait_line("the word that it is away", LIMIT, |line| line.contains("the Kafka log does not answer").then_some(()));
    // Time itself is what is awaited, here and below.
    std::thread::sleep(IDLE + Duration::from_secs(1));
    log.up();
    processor.wait_line("the word that it is back", LIMIT, |line| line.contains("the Kafka log is back").then_some(()));
    std::thread::sleep(IDLE / 8);
    write(&log, "a", 12);
    let counts = ledger::wait_read(&mut processor, &query, 3, LIMIT);
    assert_eq!((counts.used, counts.late), (3, 0), "the reading that came when the log was back");
    wait_until("both windows to be final", LIMIT, || results::read(&log, &query).finals() == 2);
    let counts: Vec<u64> = results::read(&log, &query).cells().values().map(|cell| cell.n).collect();
    assert_eq!(counts, [2, 1]);
    processor.signal("TERM");
    processor.wait_success(LIMIT);
}
