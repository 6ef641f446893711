//! The real binary: help, faults before the start, exit codes.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Command, Output};

fn processor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_processor"));
    command.args(arguments).env("TIDEMARK_HTTP__LISTEN", "127.0.0.1:0").env("TIDEMARK_KAFKA__REQUEST_TIMEOUT", "500ms");
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn query_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

const QUERY: &str = "name = 'q'\n[source]\ntopic = 'iot'\nschema = 'sensor_id STRING, ts TIMESTAMP'\nevent_time = 'ts'\n\
                     watermark = '5 seconds'\n[query]\n";

#[test]
fn help_names_the_flags_and_their_environment() {
    let output = processor(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in ["--query", "--bootstrap-servers", "TIDEMARK_PROCESSOR__QUERIES", "config", "check"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn check_compiles_and_starts_nothing() {
    let file = query_file(&format!("{QUERY}sql = \"SELECT sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '1 minute'), sensor_id\""));
    let output = processor(&["--query", file.path().to_str().unwrap(), "check"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.contains("60000 ms") && text.contains("iot.agg.q"), "{text}");
}

#[test]
fn check_tells_the_zone_of_a_calendar() {
    let sql = "sql = \"SELECT sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '1 month'), sensor_id\"";
    let check = |zone: &str| {
        let file = query_file(&format!("{QUERY}{zone}{sql}"));
        processor(&["--query", file.path().to_str().unwrap(), "check"])
    };
    let rome = check("time_zone = 'Europe/Rome'\n");
    let text = String::from_utf8(rome.stdout.clone()).unwrap();
    assert!(text.contains("1 month, every 1 month, counted from 1970-01-01 00:00:00 in Europe/Rome"), "{text}{}", stderr(&rome));
    for (zone, advice) in [("", "time_zone"), ("time_zone = 'Rome'\n", "did you mean 'Europe/Rome'?")] {
        let output = check(zone);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(advice), "{}", stderr(&output));
    }
}

#[test]
fn check_names_the_lookup_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.toml");
    let (table, path) = (folder.path().join("rooms.csv"), path.to_str().unwrap());
    let sql = "SELECT room, count(*) AS n FROM iot JOIN rooms USING (sensor_id) GROUP BY window(ts, '1 minute'), room";
    let lookup = "\n[[lookup]]\nname = 'rooms'\npath = 'rooms.csv'\nschema = 'sensor_id STRING, room STRING'\n";
    std::fs::write(path, format!("{QUERY}sql = \"{sql}\"{lookup}")).unwrap();

    let output = processor(&["--query", path, "check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("{} cannot be read", table.display())), "{}", stderr(&output));

    std::fs::write(&table, "sensor_id,room,note\na,hall,\nb,attic,\n").unwrap();
    let output = processor(&["--query", path, "check"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.contains(&format!("joins   rooms: sensor_id Utf8, room Utf8 ({}, 2 rows)", table.display())), "{text}");
    assert!(text.contains("all input partitions together"), "{text}");
}

#[test]
fn sql_that_does_not_stream_is_refused_before_the_log_is_touched() {
    let file = query_file(&format!("{QUERY}sql = 'SELECT sensor_id FROM iot ORDER BY ts'"));
    let output = processor(&["--query", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("ORDER BY"), "{}", stderr(&output));
}

#[test]
fn two_queries_need_two_names() {
    let sql = format!("{QUERY}sql = \"SELECT count(*) AS n FROM iot GROUP BY window(ts, '1 minute')\"");
    let (first, second) = (query_file(&sql), query_file(&sql));
    let output = processor(&["--query", first.path().to_str().unwrap(), "--query", second.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("named twice"), "{}", stderr(&output));
}

#[test]
fn faults_of_settings_end_with_2_and_come_together() {
    let output = Command::new(env!("CARGO_BIN_EXE_processor"))
        .args(["config", "check"])
        .env("TIDEMARK_PROCESSOR__MAX_ROWS_PER_STEP", "0")
        .env("TIDEMARK_NONSENSE", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("max_rows_per_step") && stderr(&output).contains("TIDEMARK_NONSENSE"), "{}", stderr(&output));
}

#[test]
fn a_log_that_is_away_is_one_sentence() {
    let output = processor(&["--bootstrap-servers", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("127.0.0.1:1") && text.contains("--bootstrap-servers"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("error")).count(), 1, "{text}");
}
