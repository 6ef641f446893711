//! Processes that die or stand still at random moments under load: the rows are those of a run in which nothing happened.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::fmt::Write as _;
use std::time::Duration;

use harness::binaries::House;
use harness::load::Load;
use harness::log::{Kind, Log};
use harness::process::Process;
use harness::query::Query;
use harness::random::Random;
use harness::wait::wait_until;
use harness::{ledger, load, oracle, readings, results, topic};

const LIMIT: Duration = Duration::from_secs(120);
const WINDOW: i64 = 10_000;
const DELAY: i64 = 5_000;

/// Nothing lost, nothing doubled: in the log each reading of the load once, in the results what a fold of the log gives.
fn check(log: &Log, query: &Query, load: &Load) -> results::Results {
    let sorted = readings::sort(log, WINDOW, DELAY);
    load::check_input(log, load);
    assert!(!sorted.late.is_empty());
    let got = results::read(log, query);
    oracle::assert_equal("fold in the order of the log", &got.cells(), &oracle::fold(&sorted.used, WINDOW));
    let mut late: Vec<(i32, i64)> = topic::read(log, "iot.late")
        .iter()
        .filter(|record| record.header(common::topics::lane_header::STAGE) == query.name)
        .map(topic::Record::place)
        .collect();
    late.sort_unstable();
    let deliveries = late.len();
    late.dedup();
    assert_eq!(late, sorted.late, "the late lane has each late row");
    println!(
        "{} cells from {} rows in the result topic; {} late rows, {deliveries} records in their lane",
        got.last.len(),
        got.rows,
        late.len()
    );
    got
}

#[test]
fn the_log_dies_under_the_producer() {
    let Some(mut log) = Log::start(Kind::Embedded, "the_log_dies_under_the_producer") else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let mut random = Random::seeded(22);
    let load = Load::write(dir.path(), 12, &mut random);
    let mut producer = load.start(&House { log: &log, dir: dir.path() });
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(random.between(100, 2_500)));
        assert!(producer.try_wait().is_none_or(|status| status.success()), "the producer ended:\n{}", producer.output());
        log.kill_and_restart();
    }
    producer.wait_success(LIMIT);
    load::check_input(&log, &load);
}

#[test]
fn twenty_kills_on_the_embedded_log() {
    twenty_kills(Kind::Embedded, "twenty_kills_on_the_embedded_log");
}

#[test]
fn twenty_kills_on_apache_kafka() {
    twenty_kills(Kind::Apache, "twenty_kills_on_apache_kafka");
}

/// SIGKILL of the processor at 20 random moments, its recovery included, and of the log in the middle.
fn twenty_kills(kind: Kind, test: &str) {
    let Some(mut log) = Log::start(kind, test) else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let mut random = Random::seeded(20);
    let load = Load::write(dir.path(), 30, &mut random);
    let query = Query::new("crash", "10 seconds").trigger("{ processing_time = \"100ms\" }");
    let mut producer = load.start(&House { log: &log, dir: dir.path() });
    // Not by sensor: one journal for all input partitions.
    let fleet = Query::new("fleet", "1 minute").key("kind").trigger("");
    // Its results go ahead of its journal, over partitions that are read in another order after each kill. After that of the log the producer may
    // be a second later than the processor, for which the timeout must have room.
    let ahead = Query::new("ahead", "1 minute").key("kind").trigger("{ continuous = \"200ms\" }").idle_timeout("5 seconds");
    // Small snapshots, so that some of the kills meet one.
    let processor = |log: &Log| {
        let mut command = House { log, dir: dir.path() }.processor_command(&[&query, &fleet, &ahead]);
        Process::start("processor", command.env("TIDEMARK_PROCESSOR__SNAPSHOT_EVERY", "256KiB"))
    };
    let mut moments = String::new();
    for kill in 1..=20 {
        let mut victim = processor(&log);
        let moment = Duration::from_millis(random.between(100, 2_500));
        write!(moments, " {}", moment.as_millis()).unwrap();
        // The one place where a test sleeps: the moment of the kill is the point.
        std::thread::sleep(moment);
        assert!(victim.try_wait().is_none(), "kill {kill}: the processor had ended by itself:\n{}", victim.output());
        if kill == 10 {
            println!("kill {kill}: first the log, under the processor and the producer");
            log.kill_and_restart();
            std::thread::sleep(Duration::from_millis(random.between(100, 2_500)));
            assert!(victim.try_wait().is_none(), "the processor does not outlive a restart of the log:\n{}", victim.output());
        }
        victim.kill();
    }
    println!("killed after (ms):{moments}");
    producer.wait_success(LIMIT);
    let mut last = processor(&log);
    let counts = ledger::wait_read(&mut last, &query, load.rows, LIMIT);
    ledger::wait_read(&mut last, &fleet, load.rows, LIMIT);
    ledger::wait_read(&mut last, &ahead, load.rows, LIMIT);
    wait_until("every window to be final", LIMIT, || {
        let results = results::read(&log, &ahead);
        results.finals() == results.last.len()
    });
    last.signal("TERM");
    last.wait_success(LIMIT);
    let got = check(&log, &query, &load);
    assert_eq!(got.stale, 0, "one processor at a time: no row of a fenced one");
    assert_eq!(counts.dead + counts.filtered, 0);
    assert_eq!(counts.used, got.cells().values().map(|cell| cell.n).sum::<u64>());

    let used = readings::sort(&log, 60_000, DELAY).used;
    let by_kind: Vec<_> = used.into_iter().map(|reading| readings::Reading { sensor: reading.kind.clone().unwrap(), ..reading }).collect();
    let got = results::read(&log, &fleet);
    // The sums of the partitions are added at the end, so the last bits are not those of one long sum.
    oracle::assert_close("the fleet by kind", &got.cells(), &oracle::fold(&by_kind, 60_000));
    assert_eq!(got.stale, 0);
    let got = results::read(&log, &ahead);
    oracle::assert_close("the fleet by kind, ahead of the journal", &got.cells(), &oracle::fold(&by_kind, 60_000));
    println!("ahead of the journal: {} rows, {} of them older than what was sent before a kill", got.rows, got.stale);
}

#[test]
fn a_processor_that_stood_still_changes_nothing() {
    let test = "a_processor_that_stood_still_changes_nothing";
    let Some(log) = Log::start(Kind::Embedded, test) else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let house = House { log: &log, dir: dir.path() };
    let mut random = Random::seeded(21);
    let load = Load::write(dir.path(), 20, &mut random);
    let query = Query::new("paused", "10 seconds").trigger("");
    let processor = |instance: &str| {
        let mut command = house.processor_command(&[&query]);
        command.env("TIDEMARK_PROCESSOR__INSTANCE_ID", instance).env("TIDEMARK_PROCESSOR__SESSION_TIMEOUT", "6s");
        Process::start(&format!("processor {instance}"), &mut command)
    };
    let mut producer = load.start(&house);
    let mut first = processor("first");
    ledger::wait_some(&mut first, &query, 10_000, LIMIT);
    first.signal("STOP");
    // The second takes over when the first one's session has run out.
    let mut second = processor("second");
    ledger::wait_some(&mut second, &query, load.rows / 2, LIMIT);
    first.signal("CONT");
    producer.wait_success(LIMIT);
    // Whatever the two make of it: when the first has left, the second has all.
    first.signal("TERM");
    first.wait_exit(LIMIT);
    ledger::wait_read(&mut second, &query, load.rows, LIMIT);
    second.signal("TERM");
    second.wait_success(LIMIT);
    let got = check(&log, &query, &load);
    println!("{} rows of the fenced processor in the result topic, none of them counts", got.stale);
}

#[test]
fn processors_come_and_go() {
    let Some(log) = Log::start(Kind::Embedded, "processors_come_and_go") else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let house = House { log: &log, dir: dir.path() };
    let load = Load::write(dir.path(), 15, &mut Random::seeded(23));
    let query = Query::new("shared", "10 seconds").trigger("{ processing_time = \"50ms\" }");
    // Without a name of its own a processor that leaves gives its partitions to the others at once.
    let processor = |name: &str| {
        let mut command = house.processor_command(&[&query]);
        Process::start(name, command.env_remove("TIDEMARK_PROCESSOR__INSTANCE_ID"))
    };
    let mut producer = load.start(&house);
    let mut first = processor("first processor");
    ledger::wait_some(&mut first, &query, 5_000, LIMIT);
    let mut second = processor("second processor");
    ledger::wait_partitions(&mut second, &query, 1, LIMIT);
    ledger::wait_partitions(&mut first, &query, 1, LIMIT);
    first.signal("TERM");
    first.wait_success(LIMIT);
    ledger::wait_partitions(&mut second, &query, 2, LIMIT);
    let mut third = processor("third processor");
    ledger::wait_partitions(&mut third, &query, 1, LIMIT);
    second.kill();
    producer.wait_success(LIMIT);
    ledger::wait_read(&mut third, &query, load.rows, LIMIT);
    third.signal("TERM");
    third.wait_success(LIMIT);
    check(&log, &query, &load);
}
