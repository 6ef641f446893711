//! The sink into a data lake, and what other engines read there.
#![allow(clippy::unwrap_used, dead_code)]

mod log;
mod rows;

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

fn sink(log: &Log, dir: &Path) -> Child {
    let lake = dir.join("lake");
    let output = serde_json::json!([{ "to": "delta", "batch_rows": 500, "batch_wait": "100ms", "delta": { "path": lake } }]);
    let mut command = binary(&log.servers());
    command
        .env("TIDEMARK_SINK__INSTANCE_ID", "one")
        .env("TIDEMARK_SINK__STATE_PATH", dir.join("state"))
        .env("TIDEMARK_SINK__OUTPUTS", output.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Rows in the files of the table, as its log says.
fn committed(table: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(table.join("_delta_log")) else { return 0 };
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let texts = paths.filter_map(|path| std::fs::read_to_string(path).ok());
    let actions: Vec<serde_json::Value> =
        texts.flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()).collect();
    let stats = |action: &serde_json::Value| serde_json::from_str::<serde_json::Value>(action["add"]["stats"].as_str()?).ok();
    actions.iter().filter_map(stats).map(|stats| stats["numRecords"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_every_final_row_once_and_other_engines_read_the_same() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("lake/q");
    let rows = updates(20, 200);
    let mut seen = 0;
    for chunk in rows.chunks(rows.len() / 5 + 1) {
        let mut child = sink(&log, dir.path());
        log.produce(TOPIC, chunk).await;
        let before = seen;
        until("something more is committed", || {
            seen = committed(&table);
            seen > before
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut child = sink(&log, dir.path());
    until("all is committed", || committed(&table) >= 20 * 200).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(committed(&table), 20 * 200);
    let sum: i64 = (0..20 * 200).sum();
    let expected = format!("{} {:.1} {} 2", 20 * 200, sum as f64 + 0.5 * 4000.0, 20 * 200);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lake.py");
    let Ok(python) = std::env::var("TIDEMARK_TEST_PYTHON") else {
        eprintln!("skipped: other engines: set TIDEMARK_TEST_PYTHON to a Python that has deltalake, duckdb and pyarrow");
        return;
    };
    let output = Command::new(python).arg(script).arg(&table).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected);
}
