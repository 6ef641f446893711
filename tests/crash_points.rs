//! SIGKILL at every named step of the commit path, and again inside the recovery: the rows are those of a run in which nothing happened.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::binaries::House;
use harness::log::{Kind, Log};
use harness::process::Process;
use harness::query::Query;
use harness::random::Random;
use harness::wait::wait_until;
use harness::{ledger, oracle, readings, results, topic};

const LIMIT: Duration = Duration::from_secs(120);
const WINDOW: i64 = 10_000;
const DELAY: i64 = 5_000;
const ROWS: u64 = 3_000;
/// Chains of deaths that go on at the same time. With more, Apache Kafka on a small machine takes itself out of its own cluster.
fn at_once(kind: Kind) -> usize {
    if kind == Kind::Apache { 3 } else { 6 }
}

const COMMIT: [&str; 7] =
    ["after_lanes", "after_journal", "before_results", "after_results", "before_snapshot", "after_snapshot", "after_cut"];
const RECOVERY: [&str; 4] = ["after_fence", "mid_restore", "before_redelivery", "after_redelivery"];

/// Two minutes of event time: disorder within the delay, and late rows.
fn load(log: &Log) {
    topic::create(log, "iot", 2);
    let mut random = Random::seeded(24);
    let mut writer = topic::Writer::new(log, "iot");
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for seq in 0..ROWS {
        let now = 1_700_000_000_000 + i64::try_from(seq * 120_000 / ROWS).unwrap();
        let ts = match random.between(0, 100) {
            0 if seq > ROWS / 2 => now - 45_000,
            1..20 => now - i64::try_from(random.between(1, 4_000)).unwrap(),
            _ => now,
        };
        let (sensor, number) = (random.between(0, 20), random.between(0, 100_000));
        key.clear();
        value.clear();
        write!(key, "p-{sensor:02}").unwrap();
        let (whole, part, kind) = (number / 1000, number % 1000, sensor % 3);
        write!(value, r#"{{"sensor_id":"p-{sensor:02}","ts":{ts},"value":{whole}.{part:03},"kind":"kind-{kind}","seq":{seq}}}"#).unwrap();
        writer.send(&key, &value);
    }
    writer.finish();
}

/// A query that dies at each of these places, one after the other, and is then let live.
struct Chain {
    query: Query,
    deaths: Vec<String>,
    bounded: bool,
}

impl Chain {
    fn new(mode: &str, trigger: &str, key: &str, point: &str, count: u32, recovery: &[&str]) -> Self {
        let query = Query::new(&format!("{mode}-{point}"), "10 seconds").trigger(trigger).key(key).idle_timeout("300ms");
        let place = |point: &str, count: u32| format!("{point}:{count}:{}", query.name);
        let deaths = std::iter::once(place(point, count)).chain(recovery.iter().map(|point| place(point, 1))).collect();
        Self { deaths, query, bounded: trigger == "\"once\"" }
    }

    /// One that is shared by shards that read and shards that merge.
    fn shared(mut self) -> Self {
        self.query = self.query.repartition(2);
        self
    }

    fn wanted(&self, sorted: &readings::Sorted) -> oracle::Cells {
        if self.query.key != "kind" {
            return oracle::fold(&sorted.used, WINDOW);
        }
        let kind = |reading: &readings::Reading| readings::Reading { sensor: reading.kind.clone().unwrap(), ..reading.clone() };
        oracle::fold(&sorted.used.iter().map(kind).collect::<Vec<_>>(), WINDOW)
    }

    fn run(&self, log: &Log, dir: &Path, sorted: &readings::Sorted) {
        let cells = self.wanted(sorted).len();
        let house = House { log, dir };
        let command = || {
            let mut command = house.processor_command(&[&self.query]);
            command.env("TIDEMARK_PROCESSOR__MAX_ROWS_PER_STEP", "200").env("TIDEMARK_PROCESSOR__SNAPSHOT_EVERY", "2KiB");
            command
        };
        for death in &self.deaths {
            let mut victim = Process::start(death, command().env("_TIDEMARK_TEST_CRASH", death));
            assert_eq!(victim.wait_exit(LIMIT), None, "{death}: it was not killed:\n{}", victim.output());
        }
        let mut last = Process::start(&self.query.name, &mut command());
        if self.bounded {
            last.wait_success(LIMIT);
            // A bounded run does not wait for the clock: the same query without an end closes what is open, and tells the ledger.
            let endless = self.query.clone().trigger("");
            last = Process::start(&self.query.name, &mut house.processor_command(&[&endless]));
        }
        ledger::wait_read(&mut last, &self.query, ROWS, LIMIT);
        wait_until(&format!("every window of {} to be final", self.query.name), LIMIT, || {
            let results = results::read(log, &self.query);
            results.last.len() >= cells && results.finals() == results.last.len()
        });
        last.signal("TERM");
        last.wait_success(LIMIT);
    }

    /// Nothing lost, nothing doubled.
    fn check(&self, log: &Log, sorted: &readings::Sorted) {
        let name = &self.query.name;
        let got = results::read(log, &self.query);
        let equal = if self.query.key == "kind" { oracle::assert_close } else { oracle::assert_equal };
        equal(name, &got.cells(), &self.wanted(sorted));
        let lane = topic::read(log, "iot.late").into_iter().filter(|record| record.header(common::topics::lane_header::STAGE) == name);
        let mut late: Vec<(i32, i64)> = lane.map(|record| record.place()).collect();
        late.sort_unstable();
        late.dedup();
        assert_eq!(late, sorted.late, "{name}: the late lane has each late row");
    }
}

fn chains() -> Vec<Chain> {
    let mut chains = Vec::new();
    for (number, point) in COMMIT.into_iter().enumerate() {
        // Two shards: with the third time, one of them has an entry in its journal to recover from.
        chains.push(Chain::new("soon", "", "sensor_id", point, 3, &RECOVERY));
        // These have one commit over all; before it, there is nothing to restore but the fence.
        let one = [RECOVERY[number % RECOVERY.len()]];
        let once: &[&str] = if point == "after_lanes" { &["after_fence"] } else { &one };
        chains.push(Chain::new("once", "\"once\"", "kind", point, 1, once));
        let ahead: &[&str] = if ["after_lanes", "before_results", "after_results"].contains(&point) { &["after_fence"] } else { &one };
        chains.push(Chain::new("ahead", "{ continuous = \"10ms\" }", "kind", point, 1, ahead));
        // Some of the deaths meet one that reads, some one that merges.
        let number = u32::try_from(number).unwrap_or(0);
        chains.push(Chain::new("shared", "", "kind", point, 3 + number % 5, &["after_fence", "mid_restore"]).shared());
    }
    chains
}

#[test]
fn killed_at_every_step_on_the_embedded_log() {
    killed_at_every_step(Kind::Embedded, "killed_at_every_step_on_the_embedded_log");
}

#[test]
fn killed_at_every_step_on_apache_kafka() {
    killed_at_every_step(Kind::Apache, "killed_at_every_step_on_apache_kafka");
}

fn killed_at_every_step(kind: Kind, test: &str) {
    let Some(log) = Log::start(kind, test) else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    load(&log);
    let sorted = readings::sort(&log, WINDOW, DELAY);
    assert_eq!(sorted.read() as u64, ROWS);
    assert!(!sorted.late.is_empty());
    let chains = chains();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once(kind) {
            scope.spawn(|| {
                while let Some(chain) = chains.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // The others go on, so that one run tells all that is wrong.
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| chain.run(&log, dir.path(), &sorted))).is_err() {
                        failed.lock().unwrap().push(chain.query.name.clone());
                    }
                }
            });
        }
    });
    assert_eq!(*failed.lock().unwrap(), Vec::<String>::new(), "chains that did not come to their end");
    for chain in &chains {
        chain.check(&log, &sorted);
    }
    println!("{} processes killed in {} chains", chains.iter().map(|chain| chain.deaths.len()).sum::<usize>(), chains.len());
}
