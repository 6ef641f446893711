//! Several processors of one query: they join, die, leave and stand still at random, and nobody sees it in the rows. How long results pause
//! when partitions move, and what a standby copy saves, is measured by hand: `tests/scale.sh`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::binaries::House;
use harness::load::{self, Load};
use harness::log::{Kind, Log};
use harness::process::Process;
use harness::query::Query;
use harness::random::Random;
use harness::wait::{wait_for, wait_until};
use harness::{http, ledger, oracle, readings, results, topic};

const LIMIT: Duration = Duration::from_secs(180);
const DELAY: i64 = 5_000;
const PARTITIONS: i32 = 4;
/// Apache Kafka takes none that is shorter.
const SESSION: Duration = Duration::from_secs(6);

/// A processor of these queries; `instance`: its name is one that its partitions are kept for.
fn command(house: &House<'_>, queries: &[&Query], name: &str, instance: bool) -> Command {
    let mut command = house.processor_command(queries);
    command.env("TIDEMARK_PROCESSOR__SESSION_TIMEOUT", format!("{}s", SESSION.as_secs()));
    match instance {
        true => command.env("TIDEMARK_PROCESSOR__INSTANCE_ID", name),
        false => command.env_remove("TIDEMARK_PROCESSOR__INSTANCE_ID"),
    };
    command
}

// ---- at random

/// A processor of a fleet.
struct Member {
    process: Process,
    name: String,
    instance: bool,
    /// Stopped by a signal, until then.
    paused: Option<Instant>,
}

/// Processors that share queries, and what happens to them.
struct Fleet<'a> {
    house: House<'a>,
    queries: Vec<&'a Query>,
    standby: bool,
    members: Vec<Member>,
    started: u32,
    told: Vec<String>,
}

impl Fleet<'_> {
    fn tell(&mut self, what: &str, name: &str) {
        self.told.push(format!("{what} {name}"));
    }

    fn join(&mut self, random: &mut Random) {
        self.started += 1;
        let (name, instance) = (format!("p{}", self.started), random.between(0, 2) == 0);
        self.start(name, instance);
    }

    fn start(&mut self, name: String, instance: bool) {
        self.tell(if instance { "start (static)" } else { "start" }, &name);
        let mut command = command(&self.house, &self.queries, &name, instance);
        // Small snapshots, so that some of what happens meets one.
        command.env("TIDEMARK_PROCESSOR__SNAPSHOT_EVERY", "256KiB").env("TIDEMARK_PROCESSOR__STANDBY", self.standby.to_string());
        let process = Process::start(&name, &mut command);
        self.members.push(Member { process, name, instance, paused: None });
    }

    /// One of those that run.
    fn pick(&self, random: &mut Random) -> Option<usize> {
        let running: Vec<usize> = (0..self.members.len()).filter(|at| self.members[*at].paused.is_none()).collect();
        (!running.is_empty()).then(|| running[usize::try_from(random.between(0, running.len() as u64)).unwrap()])
    }

    fn kill(&mut self, at: usize, random: &mut Random) {
        let mut member = self.members.remove(at);
        self.tell("kill", &member.name);
        member.process.kill();
        if random.between(0, 2) == 0 {
            self.start(member.name, member.instance);
        }
    }

    fn end(&mut self, at: usize) {
        let mut member = self.members.remove(at);
        self.tell("end", &member.name);
        member.process.signal("TERM");
        member.process.wait_success(LIMIT);
    }

    /// Stands still for longer than its session lasts.
    fn pause(&mut self, at: usize, random: &mut Random) {
        let name = self.members[at].name.clone();
        self.tell("pause", &name);
        let still = SESSION + Duration::from_millis(random.between(500, 4_000));
        self.members[at].process.signal("STOP");
        self.members[at].paused = Some(Instant::now() + still);
    }

    fn resume(&mut self, all: bool) {
        for at in 0..self.members.len() {
            if self.members[at].paused.is_some_and(|until| all || until <= Instant::now()) {
                let name = self.members[at].name.clone();
                self.tell("go on", &name);
                self.members[at].process.signal("CONT");
                self.members[at].paused = None;
            }
        }
    }

    /// One thing happens.
    fn event(&mut self, random: &mut Random) {
        self.resume(false);
        for member in &mut self.members {
            assert!(member.process.try_wait().is_none(), "{} ended by itself:\n{}", member.name, member.process.output());
        }
        let running = self.members.iter().filter(|member| member.paused.is_none()).count();
        let what = random.between(0, 10);
        let Some(at) = self.pick(random) else { return self.join(random) };
        match what {
            _ if self.members.len() < 2 => self.join(random),
            0..3 if self.members.len() < 4 => self.join(random),
            3..6 => self.kill(at, random),
            6..8 => self.end(at),
            _ if running > 1 => self.pause(at, random),
            _ => {}
        }
    }
}

#[test]
fn processors_at_random_on_the_embedded_log() {
    at_random(Kind::Embedded, "processors_at_random_on_the_embedded_log", 30, false);
}

#[test]
fn processors_with_standbys_at_random_on_the_embedded_log() {
    at_random(Kind::Embedded, "processors_with_standbys_at_random_on_the_embedded_log", 31, true);
}

#[test]
fn processors_at_random_on_apache_kafka() {
    at_random(Kind::Apache, "processors_at_random_on_apache_kafka", 32, true);
}

/// `TIDEMARK_TEST_SCALE_SECONDS` makes it longer.
fn at_random(kind: Kind, test: &str, seed: u64, standby: bool) {
    let Some(log) = Log::start(kind, test) else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    topic::create(&log, "iot", PARTITIONS);
    let mut random = Random::seeded(seed);
    let seconds = std::env::var("TIDEMARK_TEST_SCALE_SECONDS").ok().map_or(30, |text| text.parse().unwrap());
    let load = Load::write(dir.path(), seconds, &mut random);
    // One by sensor, one of windows that overlap, and one whose groups lie in all partitions; that one also shared by many.
    let sharded = Query::new("sharded", "10 seconds").trigger("{ processing_time = \"100ms\" }");
    let hopping = Query::new("hopping", "20 seconds', '10 seconds").trigger("");
    let fleet = Query::new("fleet", "1 minute").key("kind").trigger("{ processing_time = \"100ms\" }");
    let shared = Query::new("shared", "1 minute").key("kind").trigger("{ processing_time = \"100ms\" }").repartition(2);
    let queries = vec![&sharded, &hopping, &fleet, &shared];
    let house = House { log: &log, dir: dir.path() };
    let mut producer = load.start(&house);
    let mut processors = Fleet { house, queries: queries.clone(), standby, members: Vec::new(), started: 0, told: Vec::new() };
    processors.join(&mut random);
    processors.join(&mut random);
    let end = Instant::now() + Duration::from_secs(seconds.unsigned_abs());
    while Instant::now() < end {
        // The moment is the point.
        std::thread::sleep(Duration::from_millis(random.between(300, 3_000)));
        processors.event(&mut random);
    }
    processors.resume(true);
    println!("{}", processors.told.join(", "));
    producer.wait_success(LIMIT);
    while !processors.members.is_empty() {
        processors.end(0);
    }
    let last = Process::start("last", &mut command(&processors.house, &queries, "last", false));
    check_at_random(&log, last, &load, [&sharded, &hopping, &fleet, &shared]);
}

fn check_at_random(log: &Log, mut last: Process, load: &Load, [sharded, hopping, fleet, shared]: [&Query; 4]) {
    let counts = ledger::wait_read(&mut last, sharded, load.rows, LIMIT);
    ledger::wait_read(&mut last, hopping, load.rows, LIMIT);
    ledger::wait_read(&mut last, fleet, load.rows, LIMIT);
    let of_shared = ledger::wait_read(&mut last, shared, load.rows, LIMIT);
    ledger::wait_merged(&mut last, shared, LIMIT);
    last.signal("TERM");
    last.wait_success(LIMIT);
    load::check_input(log, load);

    let sorted = readings::sort(log, 10_000, DELAY);
    let got = results::read(log, sharded);
    oracle::assert_equal("by sensor", &got.cells(), &oracle::fold(&sorted.used, 10_000));
    assert_eq!((counts.used, counts.late), (sorted.used.len() as u64, sorted.late.len() as u64));
    assert!(counts.late > 0 && counts.dead + counts.filtered == 0, "{counts:?}");
    told("by sensor", &got);

    let windows = readings::hopping(log, (20_000, 10_000), DELAY);
    let got = results::read(log, hopping);
    // A window's panes are added at its end, so the last bits are not those of one long sum.
    oracle::assert_close("hopping", &got.cells(), &oracle::fold_windows(windows.iter().map(|(start, reading)| (*start, reading))));
    told("hopping", &got);

    let minutes = readings::sort(log, 60_000, DELAY);
    let (used, late) = (minutes.used.len() as u64, minutes.late.len() as u64);
    let by_kind: Vec<_> =
        minutes.used.into_iter().map(|reading| readings::Reading { sensor: reading.kind.clone().unwrap(), ..reading }).collect();
    let got = results::read(log, fleet);
    oracle::assert_close("by kind", &got.cells(), &oracle::fold(&by_kind, 60_000));
    told("by kind", &got);
    // The same bytes, whoever has merged them.
    let of_many = results::read(log, shared);
    assert_eq!((of_shared.used, of_shared.late, of_shared.dead + of_shared.filtered), (used, late, 0));
    assert_eq!(of_many.values(), got.values(), "those of many owners are not those of one");
    told("by kind, shared", &of_many);
}

fn told(what: &str, got: &results::Results) {
    assert_eq!(got.contradictions, 0, "{what}: two owners said different things of the same rows");
    let (cells, finals) = (got.last.len(), got.finals());
    println!("{what}: {cells} cells, {finals} of them final, from {} rows; {} of former owners, none of them counts", got.rows, got.stale);
    assert!(finals * 2 > cells, "{what}: few windows are final");
}

// ---- how long results pause

/// Readings of now, at a pace, until it is told to stop.
fn pace(log: &Log, stop: &AtomicBool) {
    let mut writer = topic::Writer::new(log, "iot");
    let started = Instant::now();
    for seq in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let value = format!(r#"{{"sensor_id":"g-{:02}","ts":{},"value":1.5,"kind":"k","seq":{seq}}}"#, seq % 40, now_ms());
        writer.send(format!("g-{:02}", seq % 40).as_bytes(), value.as_bytes());
        let due = started + Duration::from_millis(seq * 5);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    writer.finish();
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The longest time between two result rows of each input partition, from a moment before `since` on.
fn longest_gaps(log: &Log, query: &Query, since: i64) -> BTreeMap<i32, i64> {
    let until = now_ms();
    let mut home: HashMap<Vec<u8>, i32> = HashMap::new();
    topic::scan(log, "iot", |message| {
        use rdkafka::message::Message as _;
        home.insert(message.key().unwrap().to_vec(), message.partition());
    });
    let mut rows: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for record in topic::read(log, &query.topic()) {
        let row: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        let partition = home[row["sensor_id"].as_str().unwrap().as_bytes()];
        rows.entry(partition).or_default().push(record.timestamp);
    }
    let gap = |mut times: Vec<i64>| {
        times.retain(|time| (since - 500..=until).contains(time));
        times.push(until);
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(until - since)
    };
    rows.into_iter().map(|(partition, times)| (partition, gap(times))).collect()
}

/// Lets something happen to processors, waits until they are `settled`, and tells how long each partition gave no result.
fn measure<T>(log: &Log, query: &Query, what: &str, happens: impl FnOnce() -> T, settled: impl FnOnce(&mut T)) -> T {
    let since = now_ms();
    let mut happened = happens();
    settled(&mut happened);
    let calm = now_ms() + 1_500;
    wait_until("some more results", LIMIT, || now_ms() > calm);
    let mut gaps: Vec<i64> = longest_gaps(log, query, since).into_values().collect();
    gaps.sort_unstable();
    println!("{what}: longest pause of each partition {gaps:?} ms");
    happened
}

#[test]
#[ignore = "a measurement: tests/scale.sh"]
fn pauses_on_the_embedded_log() {
    pauses(Kind::Embedded, "pauses_on_the_embedded_log");
}

#[test]
#[ignore = "a measurement: tests/scale.sh"]
fn pauses_on_apache_kafka() {
    pauses(Kind::Apache, "pauses_on_apache_kafka");
}

fn pauses(kind: Kind, test: &str) {
    let Some(log) = Log::start(kind, test) else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    topic::create(&log, "iot", PARTITIONS);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| pace(&log, &stop));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| measure_pauses(&log, dir.path())));
        stop.store(true, Ordering::Relaxed);
        assert!(ended.is_ok());
    });
}

fn measure_pauses(log: &Log, dir: &Path) {
    let house = House { log, dir };
    let query = Query::new("pauses", "10 seconds").trigger("{ processing_time = \"100ms\" }");
    let start = |name: &str, instance: bool| Process::start(name, &mut command(&house, &[&query], name, instance));
    let owns = |process: &mut Process, partitions| ledger::wait_partitions(process, &query, partitions, LIMIT);
    let mut first = start("first", false);
    owns(&mut first, 4);
    wait_until("results of all partitions", LIMIT, || longest_gaps(log, &query, 0).len() == 4);

    for (end, signal) in [("leaves (SIGTERM)", "TERM"), ("is killed (SIGKILL); its session lasts 6 s", "KILL")] {
        let join = || start("second", false);
        let mut second = measure(log, &query, "a second processor joins", join, |second| owns(second, 2));
        owns(&mut first, 2);
        measure(log, &query, &format!("the second {end}"), || second.signal(signal), |()| owns(&mut first, 4));
        second.wait_exit(LIMIT);
    }
    for signal in ["TERM", "KILL"] {
        let mut named = start("named", true);
        owns(&mut named, 2);
        owns(&mut first, 2);
        let restart = || {
            named.signal(signal);
            named.wait_exit(LIMIT);
            start("named", true)
        };
        let what = format!("one with an instance_id gets SIG{signal} and is started again");
        let mut again = measure(log, &query, &what, restart, |again| owns(again, 2));
        again.kill();
        owns(&mut first, 4);
    }
}

// ---- two of a name

#[test]
fn two_of_a_name_on_the_embedded_log() {
    two_of_a_name(Kind::Embedded, "two_of_a_name_on_the_embedded_log");
}

#[test]
fn two_of_a_name_on_apache_kafka() {
    two_of_a_name(Kind::Apache, "two_of_a_name_on_apache_kafka");
}

/// Processors with one instance id put each other out of the group. Who is put out once joins anew, and who is put out twice gives up and says
/// why; the other one goes on.
fn two_of_a_name(kind: Kind, test: &str) {
    let Some(log) = Log::start(kind, test) else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let house = House { log: &log, dir: dir.path() };
    let load = Load::write(dir.path(), 5, &mut Random::seeded(33));
    let mut producer = load.start(&house);
    let query = Query::new("twins", "10 seconds").trigger("{ processing_time = \"100ms\" }");
    let mut twins = ["one", "other"].map(|twin| Process::start(twin, &mut command(&house, &[&query], "twin", true)));
    let (gone, status) = wait_for("one of them to give up", LIMIT, || {
        twins.iter_mut().enumerate().find_map(|(number, twin)| Some((number, twin.try_wait()?)))
    });
    let said = twins[gone].output();
    assert!(!status.success() && said.contains("it joins anew"), "{said}");
    assert!(said.contains("give each processor its own processor.instance_id"), "{said}");
    producer.wait_success(LIMIT);
    let last = &mut twins[1 - gone];
    ledger::wait_read(last, &query, load.rows, LIMIT);
    last.signal("TERM");
    last.wait_success(LIMIT);
    let sorted = readings::sort(&log, 10_000, DELAY);
    oracle::assert_equal("of twins", &results::read(&log, &query).cells(), &oracle::fold(&sorted.used, 10_000));
}

// ---- standby copies

const GROUPS: usize = 120_000;

/// One reading of each of many sensors, all in one window.
fn write_groups(log: &Log, seq: i64) {
    let mut writer = topic::Writer::new(log, "iot");
    for group in 0..GROUPS {
        let (sensor, ts) = (format!("sensor-{group:06}"), 1_700_000_000_000 + seq);
        let value = format!(r#"{{"sensor_id":"{sensor}","ts":{ts},"value":{}.5,"kind":"k","seq":{seq}}}"#, group % 97);
        writer.send(sensor.as_bytes(), value.as_bytes());
    }
    writer.finish();
}

/// What the processor says of each restore so far: journal, bytes that it read, and how long it took.
fn restores(process: &Process) -> Vec<(String, u64, String)> {
    let field = |line: &str, name: &str| {
        let rest = line.split_once(&format!("{name}="))?.1;
        Some(rest.split(' ').next()?.trim_matches('"').to_owned())
    };
    let of_line = |line: &str| Some((field(line, "journal")?, field(line, "read_bytes")?.parse().ok()?, field(line, "took")?));
    process.output().lines().filter(|line| line.contains("restored")).filter_map(of_line).collect()
}

/// The copies that the processor holds: how many, whether all are at their journals' ends, and their groups.
fn standbys(process: &mut Process, query: &Query) -> Option<(usize, bool, u64)> {
    let status = http::get_json(ledger::address(process), "/status")?;
    let queries = status["parts"]["processor"]["status"]["queries"].as_array()?;
    let standbys = queries.iter().find(|found| found["name"] == query.name)?["standbys"].as_array()?;
    let groups = standbys.iter().filter_map(|standby| standby["state_rows"].as_u64()).sum();
    Some((standbys.len(), standbys.iter().all(|standby| standby["at_end"] == true), groups))
}

#[test]
fn a_standby_takes_over_with_little_to_read() {
    let Some(log) = Log::start(Kind::Embedded, "a_standby_takes_over_with_little_to_read") else { return };
    topic::create(&log, "iot", PARTITIONS);
    write_groups(&log, 0);
    let plain = take_over(&log, "plain", false);
    let standby = take_over(&log, "standby", true);
    println!(
        "{GROUPS} groups; journal, bytes read and time of each restore\n  without a standby: {plain:?}\n  with a standby: {standby:?}"
    );
    assert_eq!((plain.len(), standby.len()), (2, 2));
    // A piece of a journal that is read as a whole is large; a fence has 18 bytes.
    assert!(plain.iter().all(|(_, read, _)| *read > 100_000), "{plain:?}");
    assert!(standby.iter().all(|(_, read, _)| *read < 1_000), "{standby:?}");
}

/// Kills the owner of many groups under a second processor; gives that one's restores.
fn take_over(log: &Log, name: &str, standby: bool) -> Vec<(String, u64, String)> {
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let house = House { log, dir: dir.path() };
    let query = Query::new(name, "1 hour").trigger("").idle_timeout("1 hour");
    let start = |name: &str| {
        let mut command = command(&house, &[&query], name, false);
        command.env("TIDEMARK_PROCESSOR__STANDBY", standby.to_string());
        Process::start(name, &mut command)
    };
    let rows = topic::count(log, "iot");
    let mut first = start("first");
    ledger::wait_read(&mut first, &query, rows, LIMIT);
    let mut second = start("second");
    ledger::wait_partitions(&mut second, &query, 2, LIMIT);
    ledger::wait_partitions(&mut first, &query, 2, LIMIT);
    if standby {
        let held = |process: &mut Process| {
            let (copies, at_end, groups) = standbys(process, &query)?;
            (copies == 2 && at_end && groups > GROUPS as u64 / 3).then_some(groups)
        };
        wait_for("the second's copies of the first's state", LIMIT, || held(&mut second));
    }
    // What a worker says comes after what its status shows.
    wait_until("its own restores to be said", LIMIT, || restores(&second).len() == 2);
    first.kill();
    ledger::wait_partitions(&mut second, &query, 4, LIMIT);
    wait_until("those after the kill to be said", LIMIT, || restores(&second).len() >= 4);
    let restores = restores(&second).split_off(2);
    // The state is whole: one more reading of each sensor falls into the same groups.
    write_groups(log, 1);
    ledger::wait_read(&mut second, &query, rows + GROUPS as u64, LIMIT);
    second.signal("TERM");
    second.wait_success(LIMIT);
    let sorted = readings::sort(log, 3_600_000, DELAY);
    oracle::assert_equal("after the takeover", &results::read(log, &query).cells(), &oracle::fold(&sorted.used, 3_600_000));
    restores
}
