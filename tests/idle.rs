//! When all input stops, the last windows close all the same, and a restart finds them closed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::path::Path;
use std::time::Duration;

use harness::binaries::House;
use harness::log::{Kind, Log};
use harness::query::Query;
use harness::results;
use harness::wait::wait_until;

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
