//! What databases and networks do to a sink: the same for each database.

use std::process::Command;
use std::time::Duration;

use crate::database::Database;
use crate::gate::{Fate, Gate};
use crate::log::{Log, Row};
use crate::rows::{Running, until};

/// Everything that a server, or something between it and the sink, may do.
pub(crate) fn fates() -> Vec<Fate> {
    vec![
        Fate::Answer("503 Service Unavailable\r\nRetry-After: 1"),
        Fate::Answer("429 Too Many Requests\r\nRetry-After: 1"),
        Fate::Answer("500 Internal Server Error"),
        Fate::Answer("200 OK"),
        Fate::CutAfterBody,
        Fate::Refuse,
        Fate::Slow(Duration::from_secs(3)),
    ]
}

/// A part of `rows` meets each fate, and is written when that is over. Returns how many rows were produced.
pub(crate) async fn meet_all(log: &Log, topic: &str, gate: &Gate, running: &Running, rows: &[Row]) -> u64 {
    let fates = fates();
    let (parts, mut produced) = (fates.len(), 0);
    for (fate, rows) in fates.into_iter().zip(rows.chunks(rows.len().div_ceil(parts))) {
        gate.set(fate.clone());
        let before = gate.requests();
        log.produce(topic, rows).await;
        produced += rows.len() as u64;
        until(&format!("{fate:?} is met twice"), || gate.requests() >= before + 2).await;
        until("the sink says so", || running.status("error").is_string()).await;
        gate.set(Fate::Pass);
        until("the rows are written", || confirmed(running) == produced).await;
    }
    produced
}

/// Rows that the database has, or that the writer leaves out for good.
fn confirmed(running: &Running) -> u64 {
    ["points", "left_out", "stale", "rejected"].iter().filter_map(|key| running.status(key).as_u64()).sum()
}

/// Ten times: the sink is killed (SIGKILL) while it writes, as soon as `held` says that more is there. `command` is left running.
pub(crate) async fn kill_ten_times(
    log: &Log,
    topic: &str,
    command: &mut Command,
    rows: &[Row],
    held: impl Fn() -> u64,
) -> std::process::Child {
    for chunk in rows.chunks(rows.len().div_ceil(10)) {
        let mut child = command.spawn().unwrap();
        let before = held();
        log.produce(topic, chunk).await;
        until("something more is written", || held() > before).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    command.spawn().unwrap()
}

/// The disk has no room left, which the database may find out later: the sink says so, waits, and goes on by itself when there is, and the
/// database has been started anew if it must. Returns what the sink said.
pub(crate) async fn fill_and_free(
    log: &Log,
    topic: &str,
    (database, left): (&mut Database, u64),
    is_full: impl Fn(&Database) -> bool,
    restart: bool,
    running: &Running,
    rows: &[Row],
) -> String {
    database.fill_disk(left);
    until("the database finds its disk full", || is_full(database)).await;
    let before = confirmed(running);
    log.produce(topic, rows).await;
    until("the sink waits for the full database", || running.status("error").is_string()).await;
    let said = running.status("error").as_str().unwrap().to_owned();
    assert!(confirmed(running) < before + rows.len() as u64);
    database.free_disk();
    if restart {
        database.down();
        database.up();
    }
    until("all rows are written", || confirmed(running) == before + rows.len() as u64).await;
    said
}
