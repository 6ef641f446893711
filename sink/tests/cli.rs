//! The binary from outside: help, settings, faults.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

/// Runs `sink` with `arguments` and none of our variables from outside.
fn sink(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sink"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMARK_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A port that nobody listens on.
fn dead_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn help_names_every_flag() {
    let output = sink(&["--help"], &[]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    for flag in ["--to", "verify", "--sqlite-path", "--topic", "--config", "--bootstrap-servers", "--http-listen", "--log-level"] {
        assert!(text.contains(flag), "{flag} is missing in:\n{text}");
    }
}

#[test]
fn config_shows_where_a_value_comes_from() {
    let output = sink(&["config", "show", "--sqlite-path", "x.sqlite", "--topic", "a", "--topic", "b"], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.contains("x.sqlite") && text.contains("--sqlite-path") && text.contains("--topic"), "{text}");
    assert!(sink(&["config", "check"], &[]).status.success());
}

#[test]
fn faulty_settings_end_with_2_and_name_all_faults() {
    let output = sink(&[], &[("TIDEMARK_SINK__BATCH_WAIT", "5"), ("TIDEMARK_SINK__BATCH_ROW", "5")]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("batch_wait") && text.contains("unit") && text.contains("batch_row"), "{text}");
}

#[test]
fn a_log_that_does_not_answer_is_one_clear_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let arguments = ["--sqlite-path", path.to_str().unwrap(), "--http-listen", "127.0.0.1:0", "--bootstrap-servers", &dead_port()];
    let output = sink(&arguments, &[("TIDEMARK_KAFKA__REQUEST_TIMEOUT", "500ms"), ("RUST_LOG", "off")]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.starts_with("error: the Kafka log at 127.0.0.1:") && text.contains("does not answer"), "{text}");
}

#[test]
fn verify_without_a_log_is_one_clear_sentence() {
    let output = sink(&["verify", "--bootstrap-servers", &dead_port()], &[("TIDEMARK_KAFKA__REQUEST_TIMEOUT", "500ms")]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.starts_with("error: the Kafka log at 127.0.0.1:") && text.contains("does not answer"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn an_unusable_database_is_told_before_the_log_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "these are notes and not a database at all").unwrap();
    let arguments = ["--sqlite-path", file.to_str().unwrap(), "--http-listen", "127.0.0.1:0", "--bootstrap-servers", &dead_port()];
    let output = sink(&arguments, &[("RUST_LOG", "off")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not an SQLite database"), "{}", stderr(&output));
}
