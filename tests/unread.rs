//! Programs whose output nobody reads any more, as when a collector of logs ends or `tee` is interrupted with them: they go on, and they
//! stop as they would.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::binaries::House;
use harness::log::{Kind, Log};
use harness::process::Process;
use harness::query::Query;
use harness::wait::wait_until;
use harness::{appliance, http, topic};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs `command` until it is ready, reads its output no further than to where its page is, and asks it to stop.
fn run_unread(name: &str, mut command: Command) {
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut process = Process::adopt(name, command.spawn().unwrap());
    // It holds the pipe, too.
    drop(command);
    let mut lines = BufReader::new(reader).lines();
    let page = lines.find_map(|line| http::address_in(&line.unwrap())).unwrap_or_else(|| panic!("{name} does not say where its page is"));
    drop(lines);
    wait_until(&format!("{name} to be ready"), LIMIT, || http::get(page, "/readyz").is_some_and(|answer| answer.code == 200));
    process.signal("TERM");
    process.wait_success(LIMIT);
}

#[test]
fn the_three_programs_go_on_and_stop_when_nobody_reads_what_they_say() {
    let Some(log) = Log::start(Kind::Embedded, "the_three_programs_go_on_and_stop_when_nobody_reads_what_they_say") else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let house = House { log: &log, dir: dir.path() };
    topic::create(&log, "iot", 2);
    let query = Query::new("unread", "10 seconds");
    run_unread("processor", house.processor_command(&[&query]));
    run_unread("producer", house.command("producer"));
    run_unread("sink", house.sink_command());
}

#[test]
fn the_appliance_goes_on_and_stops_when_nobody_reads_what_it_says() {
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    run_unread("tidemark", appliance::command_in(dir.path()));
}
