//! Result rows as our processor writes them, and a sink that runs in this process.

use std::time::{Duration, Instant};

use common::topics::result_header;
use common::{Settings, Shutdown, Telemetry};
use sink::{SinkError, Summary};

use crate::log::Row;

/// A row of query `q`: tag `sensor_id`, field `avg`, window of 10 s.
pub(crate) fn row(sensor: &str, start: i64, avg: f64, revision: i64, is_final: bool) -> Row {
    let sensor_json = serde_json::to_string(sensor).unwrap();
    with_value(sensor, start, revision, is_final, format!(r#"{{"sensor_id":{sensor_json},"avg":{avg:?}}}"#))
}

pub(crate) fn with_value(key: &str, start: i64, revision: i64, is_final: bool, value: String) -> Row {
    let headers = [
        (result_header::QUERY, "q".to_owned()),
        (result_header::REVISION, revision.to_string()),
        (result_header::FINAL, is_final.to_string()),
        (result_header::WINDOW_START, start.to_string()),
        (result_header::WINDOW_END, (start + 10_000).to_string()),
        (result_header::KEY_COLUMNS, r#"["sensor_id"]"#.to_owned()),
    ];
    Row { key: key.into(), value, headers: headers.to_vec() }
}

pub(crate) async fn until(what: &str, mut fine: impl FnMut() -> bool) {
    let started = Instant::now();
    while !fine() {
        assert!(started.elapsed() < Duration::from_secs(120), "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The binary, with a free port for its telemetry and no setting from outside.
pub(crate) fn binary(servers: &str) -> std::process::Command {
    binary_at(servers, "127.0.0.1:0")
}

/// As [`binary`], with this address for its telemetry.
pub(crate) fn binary_at(servers: &str, address: &str) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sink"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEMARK_")) {
        command.env_remove(name);
    }
    command.args(["--http-listen", address, "--bootstrap-servers", servers]);
    command
}

pub(crate) struct Running {
    telemetry: Telemetry,
    shutdown: Shutdown,
    pub(crate) task: tokio::task::JoinHandle<Result<Summary, SinkError>>,
}

pub(crate) fn start(settings: &Settings) -> Running {
    let (telemetry, shutdown) = (Telemetry::default(), Shutdown::manual());
    let task = tokio::spawn(sink::run(settings.clone(), telemetry.clone(), shutdown.clone()));
    Running { telemetry, shutdown, task }
}

impl Running {
    pub(crate) async fn stop(self) -> Summary {
        self.shutdown.trigger();
        self.task.await.unwrap().unwrap()
    }

    /// Of the first output.
    pub(crate) fn status(&self, key: &str) -> serde_json::Value {
        self.status_of("sink", key)
    }

    pub(crate) fn status_of(&self, part: &str, key: &str) -> serde_json::Value {
        self.telemetry.status()["parts"][part]["status"][key].clone()
    }

    /// Until `rows` rows of the log are read and written. The commit of their offsets is on its way then.
    pub(crate) async fn done(&self, rows: u64) {
        until(&format!("{rows} rows are read"), || self.status("rows").as_u64() == Some(rows) && self.status("waiting") == 0).await;
    }
}

/// `sink verify`, on a thread that may wait.
pub(crate) async fn verify_now(settings: &Settings) -> sink::verify::Report {
    let settings = settings.clone();
    let look = move || sink::verify::verify(&settings, None, sink::verify::Span::default(), 20);
    tokio::task::spawn_blocking(look).await.unwrap().unwrap()
}

/// The same once everything is committed: the log answers a commit when it has written it down, and a sink ends before that.
pub(crate) async fn verify(settings: &Settings) -> sink::verify::Report {
    let started = Instant::now();
    loop {
        let report = verify_now(settings).await;
        if report.pending == 0 {
            return report;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{report}");
    }
}
