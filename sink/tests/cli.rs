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
fn a_check_tells_what_can_be_known_without_the_databases() {
    let influx = [("TIDEMARK_SINK__TO", "influxdb"), ("TIDEMARK_SINK__INFLUXDB__BUCKET", "b")];
    let check = |more: &[(&str, &str)]| {
        let output = sink(&["config", "check"], &[&influx[..], more].concat());
        (output.status.code(), stderr(&output))
    };
    let (code, text) = check(&[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("sink output 'influxdb': influxdb.token_file is missing") && text.contains("token = \"\""), "{text}");
    assert_eq!(check(&[("TIDEMARK_SINK__INFLUXDB__TOKEN", "")]).0, Some(0), "an empty one is the word for none");
    assert_eq!(check(&[("TIDEMARK_SINK__INFLUXDB__TOKEN", "t")]).0, Some(0));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let with_file = || check(&[("TIDEMARK_SINK__INFLUXDB__TOKEN_FILE", file.to_str().unwrap())]);
    assert!(with_file().1.contains("cannot be read"), "{}", with_file().1);
    std::fs::write(&file, "\n").unwrap();
    assert!(with_file().1.contains("is empty; write the token into its first line"), "{}", with_file().1);
    std::fs::write(&file, "t\n").unwrap();
    assert_eq!(with_file().0, Some(0));
    // A start says the same, before the log is asked.
    let output = sink(&["--http-listen", "127.0.0.1:0", "--bootstrap-servers", &dead_port()], &influx);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("influxdb.token_file is missing"), "{}", stderr(&output));
}

#[test]
fn outputs_that_are_no_json_are_one_clear_sentence() {
    let output = sink(&["config", "check"], &[("TIDEMARK_SINK__OUTPUTS", r#"[{"to":"influxdb","influxdb":{"token":"hunter2"}"#)]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("sink.outputs (environment TIDEMARK_SINK__OUTPUTS): is no list in JSON (EOF"), "{text}");
    assert!(text.lines().count() == 2 && !text.contains("hunter2"), "{text}");
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
