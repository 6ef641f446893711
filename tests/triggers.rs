//! What each trigger promises beside its rows, what `/status` tells of it, and what `why` answers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::binaries::{self, House};
use harness::log::{Kind, Log};
use harness::process::Process;
use harness::query::Query;
use harness::wait::{wait_for, wait_until};
use harness::{http, ledger, oracle, readings, results, topic};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const WINDOW: i64 = 60_000;
const DELAY: i64 = 5_000;

fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap()
}

fn fill(house: &House<'_>) -> readings::Sorted {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fleet.csv");
    house.replay(&[file]).wait_success(LIMIT);
    readings::sort(house.log, WINDOW, DELAY)
}

/// The last line of JSON that the processor wrote as its progress.
fn progress_lines(process: &Process) -> Vec<Value> {
    let output = process.output();
    let lines = output.lines().filter(|line| line.contains(" progress: ")).filter_map(|line| line.find('{').map(|start| &line[start..]));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn once_is_one_commit_and_available_now_is_several() {
    let Some(log) = Log::start(Kind::Embedded, "once_is_one_commit_and_available_now_is_several") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    let sorted = fill(&house);
    let wanted = oracle::fold(&sorted.used, WINDOW);
    for (trigger, commits) in [("once", 1..=1), ("available_now", 2..=u64::MAX)] {
        // One journal for all partitions, so that the commits can be counted.
        let query = Query::new(trigger, "1 minute").key("kind").filter("WHERE kind IS NOT NULL").trigger(&format!("\"{trigger}\""));
        let mut command = house.processor_command(&[&query]);
        command.env("TIDEMARK_PROCESSOR__MAX_ROWS_PER_STEP", "100").env("TIDEMARK_LOG__LEVEL", "info,progress=debug");
        let mut processor = Process::start(trigger, &mut command);
        processor.wait_success(LIMIT);
        let mut reports = progress_lines(&processor);
        let last = reports.pop().expect("the last report is there a second time, at level info");
        assert_eq!(reports.last(), Some(&last));
        assert!(commits.contains(&(reports.len() as u64)), "{trigger}: {} commits", reports.len());
        let sum = |pointer: &str| reports.iter().map(|report| report.pointer(pointer).unwrap().as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum("/numInputRows"), sorted.read() as u64);
        let got = results::read(&log, &query);
        assert_eq!(sum("/sink/numOutputRows"), got.rows as u64);
        if trigger == "once" {
            assert_eq!(got.rows, got.last.len(), "each row once");
        }
        assert_eq!(last["ledger"]["imbalance"], 0);
        assert_eq!(last["ledger"]["read"], sorted.read());
        assert_eq!(last["name"], trigger);
        assert!(last["eventTime"]["max"].as_str().unwrap() > last["eventTime"]["watermark"].as_str().unwrap());
        assert_eq!(last["sources"][0]["endOffset"], last["sources"][0]["latestOffset"]);
        // Again: nothing is left to do, and nothing comes twice.
        Process::start(trigger, &mut command).wait_success(LIMIT);
        let again = results::read(&log, &query);
        assert_eq!(again.cells(), got.cells());
    }
    let by_sensor = Query::new("by-sensor", "1 minute").trigger("\"once\"");
    house.processor(&[&by_sensor]).wait_success(LIMIT);
    oracle::assert_equal("once, by sensor", &results::read(&log, &by_sensor).cells(), &wanted);
}

#[test]
fn continuous_sends_first_and_commits_at_its_interval() {
    let Some(log) = Log::start(Kind::Embedded, "continuous_sends_first_and_commits_at_its_interval") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    topic::create(&log, "iot", 2);
    // An interval that does not end within the test: only the end of the run commits.
    let query = Query::new("ahead", "1 minute").trigger("{ continuous = \"1 hour\" }");
    let mut command = house.processor_command(&[&query]);
    command.env("TIDEMARK_PROCESSOR__SESSION_TIMEOUT", "4 minutes").env("TIDEMARK_LOG__LEVEL", "info,progress=debug");
    let mut processor = Process::start("processor", &mut command);
    let address = ledger::address(&mut processor);
    ledger::wait_some(&mut processor, &query, 0, LIMIT);
    let sorted = fill(&house);
    let read = sorted.read() as u64;
    let wanted = oracle::fold(&sorted.used, WINDOW);
    ledger::wait_read(&mut processor, &query, read, LIMIT);
    wait_until("all results, without a commit", LIMIT, || results::read(&log, &query).cells() == wanted);
    assert!(progress_lines(&processor).is_empty(), "nothing was committed");
    let status = http::get_json(address, "/status").unwrap();
    assert!(status.pointer("/parts/processor/status/queries/0/why/reasons/0").is_some(), "{status}");
    processor.signal("TERM");
    processor.wait_success(LIMIT);
    let reports = progress_lines(&processor);
    let rows = |report: &Value| report["numInputRows"].as_u64().unwrap();
    assert_eq!(reports.iter().map(rows).sum::<u64>(), read, "the end of the run commits all");
    assert!(reports.len() <= 2, "one entry of each shard: {}", reports.len());

    // Killed instead: the rows that were ahead of the journal are sent again, and nothing else changes.
    let killed = Query::new("killed", "1 minute").trigger("{ continuous = \"1 hour\" }").idle_timeout("500ms");
    let mut command = house.processor_command(&[&killed]);
    let mut victim = Process::start("processor", &mut command);
    wait_until("all results", LIMIT, || results::read(&log, &killed).cells() == wanted);
    victim.kill();
    let mut last = Process::start("processor", &mut command);
    ledger::wait_read(&mut last, &killed, read, LIMIT);
    wait_until("every window to be final", LIMIT, || {
        let results = results::read(&log, &killed);
        results.finals() == results.last.len()
    });
    last.signal("TERM");
    last.wait_success(LIMIT);
    oracle::assert_equal("after the kill", &results::read(&log, &killed).cells(), &wanted);
}

/// `processor why`, and its exit code.
fn why(arguments: &[&str]) -> (Option<i32>, String) {
    let output = binaries::command("processor").arg("why").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn why_names_what_holds_a_result_back() {
    let Some(log) = Log::start(Kind::Embedded, "why_names_what_holds_a_result_back") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    let append = Query::new("held", "1 minute").trigger("").key("kind");
    let refused = Query::new("refused", "1 minute").trigger("").filter("WHERE value > 1e12");
    let mut processor = house.processor(&[&append, &refused]);
    let url = format!("http://{}", ledger::address(&mut processor));
    let ask = |query: &str| {
        let (code, text) = why(&["--url", &url, "--query", query, "--output", "json"]);
        assert_eq!(code, Some(0), "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer[0]["why"]["reasons"].clone()
    };
    let codes = |query: &str| -> Vec<String> {
        ask(query).as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect()
    };
    // The address answers before the queries run.
    wait_until("the processor to say so", LIMIT, || why(&["--url", &url, "--query", "held"]).0 == Some(0));
    wait_until("an empty input to be told", LIMIT, || codes("held").contains(&"no_data".to_owned()));

    // One sensor, one partition: the other one has no reading and holds the window of both.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let value = format!(r#"{{"sensor_id":"a","ts":{now},"value":1,"kind":"k","seq":1}}"#);
    topic::write(&log, "iot", &[("a", value.as_bytes())]);
    let silent = wait_for("the silent partition to be named", LIMIT, || {
        ask("held").as_array().unwrap().iter().find(|reason| reason["code"] == "partition_without_data").cloned()
    });
    let taken = topic::read(&log, "iot")[0].partition;
    assert_eq!(silent["partition"], 1 - taken, "{silent}");
    assert!(silent["text"].as_str().unwrap().contains("has had no reading yet"), "{silent}");
    wait_until("rows that WHERE refuses to be told", LIMIT, || codes("refused").first().is_some_and(|code| code == "all_refused"));

    let (code, text) = why(&["--url", &url]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("query 'held'") && text.contains("query 'refused'") && text.contains("  => "), "{text}");
    let (code, text) = why(&["--url", &url, "--query", "nobody"]);
    assert!(code == Some(1) && text.contains("it runs: held, refused"), "{text}");
    drop(log);
    wait_until("a log that is away to be told", LIMIT, || codes("held").contains(&"log_away".to_owned()));
    processor.kill();
    let (code, text) = why(&["--url", &url]);
    assert!(code == Some(1) && text.contains("no processor answers"), "{text}");

    let mut appliance: Command = harness::appliance::command();
    let output = appliance.args(["why", "--url", &url, "--query", "held"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no processor answers"));
}
