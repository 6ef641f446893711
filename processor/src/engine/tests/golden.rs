//! Golden cases: `cases/NAME/` holds `query.toml`, `input.jsonl`, what must come out, `expected.jsonl`, and the lookup tables that the query
//! joins. Each is run straight, cut at random places, and killed and restored; all three must give the same bytes.
//!
//! A line of the input is `{"p": partition, "at": time of receipt in ms, "v": value}`; `v` is an object, or a string for bytes that need
//! not be JSON. The first line of the expectation is the ledger, then the lanes, then the rows in order of window and key.
//! `TIDEMARK_BLESS=1` writes the expectations anew; read the difference before you commit it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::harness::{Outcome, Record, Way, compile_at, run};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

fn input(path: &Path) -> Vec<Record> {
    let record = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display()));
        let value = match &line["v"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone().into_bytes()),
            object => Some(object.to_string().into_bytes()),
        };
        Record { partition: line["p"].as_i64().unwrap_or(0) as i32, received: line["at"].as_i64().unwrap_or(-1), value }
    };
    std::fs::read_to_string(path).unwrap().lines().filter(|line| !line.trim().is_empty()).map(record).collect()
}

fn text(outcome: &Outcome) -> String {
    let mut text = format!("{}\n", json!({ "ledger": outcome.ledger, "finals": outcome.finals }));
    writeln!(text, "{}", json!({ "late": outcome.late, "dead": outcome.dead })).unwrap();
    for row in outcome.rows.values() {
        writeln!(text, "{row}").unwrap();
    }
    text
}

#[test]
fn every_case_gives_its_rows_however_the_log_is_cut() {
    let cases = cases();
    assert!(cases.len() >= 8, "the cases are there");
    for case in cases {
        let name = case.display();
        let file = case.join("query.toml");
        let query = compile_at(&std::fs::read_to_string(&file).unwrap(), &file);
        let log = input(&case.join("input.jsonl"));
        let straight = run(&query, &log, Way::Straight);
        assert_eq!(straight.ledger.imbalance(), 0, "{name}");
        let expected = case.join("expected.jsonl");
        if std::env::var_os("TIDEMARK_BLESS").is_some() {
            std::fs::write(&expected, text(&straight)).unwrap();
        }
        assert_eq!(text(&straight), std::fs::read_to_string(&expected).unwrap(), "{name}, straight");
        for seed in 0..20 {
            assert_eq!(text(&run(&query, &log, Way::Cut { seed })), text(&straight), "{name}, cut by seed {seed}");
            assert_eq!(text(&run(&query, &log, Way::Killed { seed })), text(&straight), "{name}, killed by seed {seed}");
        }
    }
}
