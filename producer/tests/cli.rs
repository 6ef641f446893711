//! The real binary, as a user meets it; no log is needed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn producer(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_producer"));
    command.args(arguments).env_remove("RUST_LOG");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMARK_")) {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn help_names_the_flags_and_their_variables() {
    let output = producer(&["--help"], &[]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for part in ["--sensors", "--rate", "--seed", "--count", "--replay", "--speed", "--bootstrap-servers", "--config", "config"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    for name in ["SIMULATOR__RATE", "REPLAY__FILES", "REPLAY__SPEED"] {
        assert!(help.contains(&format!("TIDEMARK_PRODUCER__{name}")), "{name} in {help}");
    }
}

#[test]
fn mistakes_in_flags_end_with_2() {
    for arguments in
        [&["--rate", "fast"][..], &["--speed", "0"], &["--speed", "quick"], &["--nonsense"], &["--sensors", "0"], &["--rate=-1"]]
    {
        let output = producer(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn config_show_tells_where_a_value_comes_from() {
    let output = producer(&["--rate", "7", "config", "show"], &[("TIDEMARK_PRODUCER__SIMULATOR__SENSORS", "3")]);
    let shown = text(&output.stdout);
    assert!(shown.contains("producer.simulator.rate = 7.0   # flag --rate"), "{shown}");
    assert!(shown.contains("producer.simulator.sensors = 3   # environment TIDEMARK_PRODUCER__SIMULATOR__SENSORS"), "{shown}");
}

#[test]
fn config_check_reports_all_faults_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "bad.toml", "[producer]\nlinger = 5\ncolour = 'red'\n[producer.simulator]\nlate = 2.0\n");
    let output = producer(&["--config", &file, "config", "check"], &[]);
    let faults = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{faults}");
    for part in ["3 faults", "producer.linger", "producer.colour", "producer.simulator.late"] {
        assert!(faults.contains(part), "{part} in {faults}");
    }
    let output =
        producer(&["config", "check"], &[("TIDEMARK_PRODUCER__REPLAY__SPEED", "quick"), ("TIDEMARK_PRODUCER__COMPRESSION", "rar")]);
    let faults = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{faults}");
    assert!(faults.contains("2 faults") && faults.contains("'rar'") && faults.contains("'quick'"), "{faults}");
    assert!(producer(&["config", "check"], &[]).status.success());
}

#[test]
fn a_missing_or_headless_replay_file_is_refused_before_the_log_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    // A log that would be waited for much longer.
    let unreachable = [("TIDEMARK_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1"), ("TIDEMARK_HTTP__LISTEN", "127.0.0.1:0")];
    let missing = producer(&["--replay", "no/such.csv"], &unreachable);
    let said = text(&missing.stderr);
    assert_eq!(missing.status.code(), Some(1), "{said}");
    assert!(said.contains("error: cannot open no/such.csv: No such file"), "{said}");

    let headless = write(folder.path(), "pump.csv", "2013-07-04 00:00:00,1\n");
    let refused = producer(&["--speed", "max", "--replay", &headless], &unreachable);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("no usable header") && said.contains("timestamp,value"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_log_that_is_not_there_is_one_clear_sentence() {
    let arguments = ["--bootstrap-servers", "127.0.0.1:1", "--http-listen", "127.0.0.1:0", "--log-level", "error"];
    let output = producer(&arguments, &[("TIDEMARK_KAFKA__REQUEST_TIMEOUT", "500ms")]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: the Kafka log at 127.0.0.1:1 does not answer"), "{said}");
    assert!(last.contains("--bootstrap-servers"), "{said}");
}

#[test]
fn a_busy_port_is_one_clear_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = producer(&["--http-listen", &address], &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot listen for HTTP") && said.contains("another port"), "{said}");
}
