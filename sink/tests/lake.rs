//! The sink into a data lake, and what other engines read there.
#![allow(clippy::unwrap_used, dead_code)]

mod log;
mod rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use log::{Log, Row};
use rows::{binary, row, until};

const TOPIC: &str = "iot.agg.q";
const BEGIN: i64 = 1_700_000_000_000;

/// Windows of 10 s around midnight, three revisions of each.
fn updates(sensors: i64, windows: i64) -> Vec<Row> {
    let revisions = (0..windows).flat_map(|window| (0..3).map(move |revision| (window, revision)));
    let rows = revisions.flat_map(|(window, revision)| (0..sensors).map(move |sensor| (window, revision, sensor)));
    rows.map(|(window, revision, sensor)| {
        let start = BEGIN + 6_000_000 + window * 10_000;
        row(&format!("s-{sensor}"), start, (window * sensors + sensor) as f64 + revision as f64 / 4.0, window * 3 + revision, revision == 2)
    })
    .collect()
}

fn sink(log: &Log, dir: &Path, mode: &str) -> Child {
    let lake = dir.join("lake");
    let output = serde_json::json!([{ "to": "delta", "batch_rows": 500, "batch_wait": "100ms", "delta": { "path": lake, "mode": mode } }]);
    let mut command = binary(&log.servers());
    command
        .env("TIDEMARK_SINK__INSTANCE_ID", "one")
        .env("TIDEMARK_SINK__STATE_PATH", dir.join("state"))
        .env("TIDEMARK_SINK__OUTPUTS", output.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What the table's log says: rows in its files, and how far into the topic it reaches, over all partitions.
fn committed(table: &Path) -> (u64, i64) {
    let Ok(entries) = std::fs::read_dir(table.join("_delta_log")) else { return (0, 0) };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let (mut files, mut positions) = (BTreeMap::new(), BTreeMap::new());
    for text in paths.iter().map(|path| std::fs::read_to_string(path).unwrap()) {
        for action in text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            if let Some(stats) = action["add"]["stats"].as_str() {
                let stats: serde_json::Value = serde_json::from_str(stats).unwrap();
                files.insert(action["add"]["path"].to_string(), stats["numRecords"].as_u64().unwrap());
            }
            files.remove(&action["remove"]["path"].to_string());
            if let Some(position) = action["txn"]["version"].as_i64() {
                positions.insert(action["txn"]["appId"].to_string(), position);
            }
        }
    }
    (files.values().sum(), positions.values().sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_every_final_row_once_and_other_engines_read_the_same() {
    kills_leave_every_row_once("append").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_the_newest_row_of_each_identity_and_other_engines_read_the_same() {
    kills_leave_every_row_once("upsert").await;
}

async fn kills_leave_every_row_once(mode: &str) {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("lake/q");
    let rows = updates(20, 200);
    for chunk in rows.chunks(rows.len() / 5 + 1) {
        let mut child = sink(&log, dir.path(), mode);
        let before = committed(&table);
        log.produce(TOPIC, chunk).await;
        until("something more is committed", || committed(&table) > before).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut child = sink(&log, dir.path(), mode);
    // Appended are only the final rows, so the last position is theirs; an upsert takes every row.
    let last = if mode == "upsert" { rows.len() as i64 } else { 0 };
    until("all is committed", || committed(&table).0 >= 20 * 200 && committed(&table).1 >= last).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(committed(&table).0, 20 * 200);
    let sum: i64 = (0..20 * 200).sum();
    let expected = format!("{} {:.1} {} 2", 20 * 200, sum as f64 + 0.5 * 4000.0, 20 * 200);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    match std::env::var("TIDEMARK_TEST_PYTHON") {
        Ok(python) => assert_eq!(lines(Command::new(python).arg(tests.join("lake.py")).arg(&table)), [expected.as_str()]),
        Err(_) => eprintln!("skipped: other engines: set TIDEMARK_TEST_PYTHON to a Python that has deltalake, duckdb and pyarrow"),
    }
    if std::env::var("TIDEMARK_TEST_SPARK").as_deref() != Ok("1") {
        eprintln!("skipped: Apache Spark: with TIDEMARK_TEST_SPARK=1 it reads the table too");
        return;
    }
    let read = lines(Command::new("bash").arg(tests.join("lake_spark.sh")).arg("read").arg(&table));
    let read: Vec<&str> = read.iter().filter_map(|line| line.strip_prefix("lake: ")).collect();
    assert_eq!(read, [&expected, &expected], "before and after Spark has put the files together");
    // The sink goes on after what Spark has done to the table.
    let mut child = sink(&log, dir.path(), mode);
    log.produce(TOPIC, &[row("s-new", BEGIN + 6_000_000, 1.0, 10_000, true)]).await;
    until("the row is committed", || committed(&table).0 == 20 * 200 + 1).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
