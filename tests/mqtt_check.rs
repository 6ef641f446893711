//! The whole promise at once: other people's devices, Mosquitto, Apache Kafka, and everything fails on the way.
//!
//! Small by default. The figures of docs/measured.md are those of
//! `TIDEMARK_TEST_KAFKA=1 TIDEMARK_TEST_MQTT_FULL=1 cargo test --release --test mqtt_check -- --nocapture apache_kafka`:
//! a million readings of 200 clients, and a minute for each time that Kafka is away or hangs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::binaries::House;
use harness::clients::{self, MosquittoPub, Name, Paho, now};
use harness::log::Log;
use harness::mosquitto::Mosquitto;
use harness::producer::Producer;
use harness::query::Query;
use harness::random::Random;
use harness::wait::wait_until;
use harness::{results, topic};

/// For what takes its time in the full size.
const LIMIT: Duration = Duration::from_secs(600);

struct Size {
    clients: u32,
    readings: u64,
    /// Readings per second.
    rate: u64,
    /// How long Kafka is away, and how long it hangs.
    hold: Duration,
    /// Acknowledged readings between two faults.
    step: u64,
}

impl Size {
    fn of_this_run() -> Self {
        if std::env::var("TIDEMARK_TEST_MQTT_FULL").as_deref() == Ok("1") {
            Self { clients: 200, readings: 1_000_000, rate: 4_000, hold: Duration::from_secs(60), step: 40_000 }
        } else {
            Self { clients: 40, readings: 60_000, rate: 2_500, hold: Duration::from_secs(3), step: 3_000 }
        }
    }
}

// ---- the producer under watch

/// The producer, killed and started again, and the most memory that it had in each phase.
struct Watched {
    servers: String,
    dir: PathBuf,
    url: String,
    producer: Option<Producer>,
    pid: Arc<AtomicU64>,
    memory: Arc<Mutex<BTreeMap<String, u64>>>,
    phase: Arc<Mutex<String>>,
    /// When messages were left in flight, by kills and restarts: from when to when, in milliseconds since 1970.
    faults: Vec<(i64, i64)>,
    kills: u32,
}

impl Watched {
    fn start(log: &Log, url: String, dir: &Path) -> Self {
        let mut this = Self {
            servers: log.servers(),
            dir: dir.to_owned(),
            url,
            producer: None,
            pid: Arc::default(),
            memory: Arc::default(),
            phase: Arc::default(),
            faults: Vec::new(),
            kills: 0,
        };
        let (pid, memory, phase) = (Arc::downgrade(&this.pid), this.memory.clone(), this.phase.clone());
        std::thread::spawn(move || {
            // Until the test is over.
            while let Some(pid) = pid.upgrade() {
                if let Some(resident) = resident(pid.load(Ordering::Relaxed)) {
                    let mut memory = memory.lock().unwrap();
                    let most = memory.entry(phase.lock().unwrap().clone()).or_default();
                    *most = resident.max(*most);
                }
                drop(pid);
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        this.up();
        this
    }

    fn up(&mut self) {
        let mut command = harness::binaries::command("producer");
        command.args(["--bootstrap-servers", &self.servers, "--http-listen", "127.0.0.1:0"]).current_dir(&self.dir);
        command.args(["--mqtt", &self.url]).env("TIDEMARK_KAFKA__REQUEST_TIMEOUT", "2s");
        let producer = Producer::start(&mut command);
        self.pid.store(producer.process.id().into(), Ordering::Relaxed);
        self.producer = Some(producer);
    }

    fn kill_and_restart(&mut self) {
        self.kills += 1;
        let began = now();
        self.producer().process.kill();
        self.up();
        self.faults.push((began, now()));
    }

    fn restart(&mut self, broker: &mut Mosquitto, keep_store: bool) {
        let began = now();
        broker.restart(keep_store);
        self.faults.push((began, now()));
    }

    fn producer(&mut self) -> &mut Producer {
        self.producer.as_mut().unwrap()
    }

    /// Waits until the log has all that was acknowledged to the devices.
    fn wait_all_published(&mut self, log: &Log, paho: &Paho, publishers: &[MosquittoPub]) {
        let known = || paho.acknowledged() + publishers.iter().map(|publisher| publisher.acknowledged() as u64).sum::<u64>();
        // By their names: after a kill some are there twice.
        wait_until("the log to have it all", LIMIT, || in_the_log(log).len() as u64 >= known());
        let producer = self.producer();
        wait_until("everything to be acknowledged", LIMIT, || {
            producer.status("/mqtt/unacknowledged") == 0 && producer.status("/in_flight") == 0
        });
    }

    fn phase(&mut self, name: &str) {
        println!("{:>12} ms  {name}", now());
        name.clone_into(&mut self.phase.lock().unwrap());
    }
}

/// Of a process, in MiB.
fn resident(pid: u64) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes / 1024)
}

/// Holds a fault for a while, with a kill of the producer at a moment of it.
fn hold(watched: &mut Watched, random: &mut Random, time: Duration) {
    let began = Instant::now();
    let kill_at = time * u32::try_from(random.between(20, 70)).unwrap() / 100;
    wait_until("the moment of the kill", LIMIT, || began.elapsed() >= kill_at);
    watched.kill_and_restart();
    wait_until("the end of the fault", LIMIT, || began.elapsed() >= time);
}

// ---- what must hold afterwards

/// A reading in the log: how often, and the times of receipt of the first and the last copy.
struct Copies {
    count: u32,
    first: i64,
    last: i64,
}

fn in_the_log(log: &Log) -> HashMap<Name, Copies> {
    use rdkafka::message::Message as _;
    let mut found: HashMap<Name, Copies> = HashMap::new();
    topic::scan(log, "iot", |message| {
        let reading: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let name = (reading["sensor_id"].as_str().unwrap().to_owned(), reading["seq"].as_u64().unwrap());
        let time = message.timestamp().to_millis().unwrap();
        let copies = found.entry(name).or_insert(Copies { count: 0, first: time, last: time });
        copies.count += 1;
        copies.first = copies.first.min(time);
        copies.last = copies.last.max(time);
    });
    found
}

/// The rows of a query that leaves out what comes twice, added up.
fn without_duplicates(log: &Log, dir: &Path) -> u64 {
    let query = Query::new("without-duplicates", "1 minute").watermark("1 hour");
    let query = query.source("drop_duplicates_within_watermark = [\"sensor_id\", \"seq\"]");
    House { log, dir }.processor(&[&query]).wait_success(LIMIT);
    assert_eq!(topic::count(log, "iot.late") + topic::count(log, "iot.dead"), 0);
    results::read(log, &query).last.values().map(|row| row.cell.n).sum()
}

/// All that happens on the way, while the devices publish.
fn everything_fails(
    size: &Size,
    watched: &mut Watched,
    broker: &mut Mosquitto,
    log: &mut Log,
    paho: &mut Paho,
    publishers: &[MosquittoPub],
) {
    let mut random = Random::seeded(6);
    watched.phase("nothing yet");
    paho.wait_more(size.step);
    watched.phase("the producer is killed");
    watched.kill_and_restart();
    paho.wait_more(size.step);

    watched.phase("Kafka is away");
    log.kill();
    hold(watched, &mut random, size.hold);
    log.up();
    watched.phase("Kafka is back");
    paho.wait_more(size.step);

    watched.phase("Kafka hangs");
    log.proxy().swallow();
    hold(watched, &mut random, size.hold);
    log.proxy().heal();
    watched.phase("Kafka is there again");
    paho.wait_more(size.step);

    watched.phase("Mosquitto restarts with its store");
    watched.restart(broker, true);
    paho.wait_more(size.step / 4);
    watched.kill_and_restart();
    paho.wait_more(size.step);

    watched.phase("Mosquitto restarts without its store");
    // What Mosquitto has acknowledged and not yet given to us would be gone with the store, and nobody could know.
    paho.pause();
    publishers.iter().for_each(MosquittoPub::pause);
    watched.wait_all_published(log, paho, publishers);
    watched.restart(broker, false);
    let producer = watched.producer();
    wait_until("the loss to be said", LIMIT, || producer.metric("tidemark_producer_mqtt_sessions_lost_total ") >= 1.0);
    producer.wait_subscribed();
    paho.go_on();
    publishers.iter().for_each(MosquittoPub::go_on);
    paho.wait_more(size.step / 2);

    watched.phase("Mosquitto and the producer restart");
    watched.restart(broker, true);
    watched.kill_and_restart();
    watched.phase("the rest");
}

fn run(python: &Path, broker: &mut Mosquitto, log: &mut Log, size: &Size, dir: &Path) {
    let mut watched = Watched::start(log, broker.url(), dir);
    watched.producer().wait_subscribed();
    let publishers: Vec<MosquittoPub> = (0..2).map(|number| MosquittoPub::start(broker, &format!("m-{number}"))).collect();
    let mut paho = Paho::start(python, broker, size.clients, size.readings, size.rate, dir);
    everything_fails(size, &mut watched, broker, log, &mut paho, &publishers);
    paho.process.wait_success(LIMIT);
    let failures: u64 = publishers.iter().map(MosquittoPub::failures).sum();
    watched.wait_all_published(log, &paho, &publishers);
    let mut acknowledged: HashSet<Name> = paho.readings().into_iter().collect();
    assert_eq!(acknowledged.len() as u64, size.readings);
    acknowledged.extend(publishers.into_iter().flat_map(MosquittoPub::end));
    watched.phase("the end");
    check(log, &acknowledged, &watched.faults);
    let distinct = in_the_log(log).len() as u64;
    assert_eq!(without_duplicates(log, dir), distinct);
    println!("mosquitto_pub: {} readings, {failures} runs that broke", acknowledged.len() as u64 - size.readings);
    println!("most memory of the producer, MiB: {:?}", watched.memory.lock().unwrap());
    assert_eq!(watched.kills, 5);
    for (phase, most) in watched.memory.lock().unwrap().iter() {
        assert!(*most < 200, "{most} MiB while: {phase}");
    }
}

/// Milliseconds.
const MOMENT: i64 = 500;

fn check(log: &Log, acknowledged: &HashSet<Name>, faults: &[(i64, i64)]) {
    let found = in_the_log(log);
    let lost: Vec<&Name> = acknowledged.iter().filter(|name| !found.contains_key(*name)).collect();
    let twice: Vec<(&Name, &Copies)> = found.iter().filter(|(_, copies)| copies.count > 1).collect();
    let records: u64 = found.values().map(|copies| u64::from(copies.count)).sum();
    println!("acknowledged {}, of these lost {}", acknowledged.len(), lost.len());
    println!("records in the log {records}, readings {}, more than once {}", found.len(), twice.len());
    assert!(lost.is_empty(), "such as {:?}", lost.first());
    // Only what was in flight when something broke comes again. What has waited in Mosquitto meanwhile comes a moment after it.
    for (name, copies) in twice {
        let (first, last) = (copies.first, copies.last);
        assert!(faults.iter().any(|(began, ended)| first <= *ended + MOMENT && last >= *began), "{name:?} at {first} and at {last}");
    }
}

#[test]
fn every_acknowledged_reading_is_in_the_log_on_apache_kafka() {
    let test = "every_acknowledged_reading_is_in_the_log_on_apache_kafka";
    let Some(python) = clients::python("paho", test) else { return };
    let Some(mut broker) = Mosquitto::start(test, "allow_anonymous true") else { return };
    let Some(mut log) = Log::start_apache_behind_proxy(test) else { return };
    let size = Size::of_this_run();
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    run(&python, &mut broker, &mut log, &size, dir.path());
}
