//! How long a reading takes from its produce to its result being visible; run by `tests/latency.sh`, on a machine that has nothing else
//! to do. Times are printed and never asserted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use harness::binaries::House;
use harness::log::{self, Kind, Log};
use harness::process::Process;
use harness::query::Query;
use harness::{ledger, oracle, readings, results, topic};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

const LIMIT: Duration = Duration::from_secs(60);
/// Of the start, while connections are made; not counted.
const WARM_UP: u64 = 2;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.replace('_', "").parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// The default query with the newest reading's number in each row.
fn write_query(dir: &std::path::Path, query: &Query) -> std::path::PathBuf {
    let path = query.write(dir);
    let text = std::fs::read_to_string(&path).unwrap().replace("count(*) AS n", "max(seq) AS seq, count(*) AS n");
    std::fs::write(&path, text).unwrap();
    path
}

/// With a linger of 0 it would have a request for each reading, and librdkafka's thread looks without a pause for an answer while five are on
/// their way: it would take a core from what is measured.
fn producer(log: &Log) -> BaseProducer {
    let mut config = log::client(&log.servers());
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", setting("LINGER", 1).to_string());
    config.create().unwrap()
}

fn consumer(log: &Log, topic: &str) -> BaseConsumer {
    let mut config = log::client(&log.servers());
    config.set("group.id", "latency").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..2 {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    consumer
}

/// The sensor of a reading.
fn sensor(seq: u64, sensors: u64) -> String {
    format!("l-{:04}", seq * 7 % sensors)
}

/// Produces at the rate; gives the time of each reading's produce, by its number.
fn produce(log: &Log, count: u64, rate: u64, sensors: u64) -> Vec<Instant> {
    let producer = producer(log);
    let started = Instant::now();
    let mut times = Vec::with_capacity(usize::try_from(count).unwrap());
    for seq in 0..count {
        let due = started + Duration::from_micros(seq * 1_000_000 / rate);
        // The pace is the point.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let sensor = sensor(seq, sensors);
        let value = format!(r#"{{"sensor_id":"{sensor}","ts":{now},"value":{seq}.5,"kind":"k","seq":{seq}}}"#);
        times.push(Instant::now());
        producer.send(BaseRecord::to("iot").key(&sensor).payload(&value)).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(LIMIT).unwrap();
    times
}

/// The time at which each reading was first part of a visible result.
fn watch(log: &Log, topic: &str, count: u64) -> Vec<Instant> {
    let consumer = consumer(log, topic);
    let mut seen: Vec<Option<Instant>> = vec![None; usize::try_from(count).unwrap()];
    // A sensor's readings come in order: with its newest one, all before it are visible.
    let mut next: HashMap<String, u64> = HashMap::new();
    let sensors = setting("SENSORS", 100);
    let firsts: HashMap<String, u64> = (0..sensors).map(|seq| (sensor(seq, sensors), seq)).collect();
    let mut left = count;
    let mut last = Instant::now();
    while left > 0 {
        assert!(last.elapsed() < LIMIT, "{left} readings have no result");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let (message, now) = (message.unwrap(), Instant::now());
        last = now;
        let row: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let (sensor, newest) = (row["sensor_id"].as_str().unwrap().to_owned(), row["seq"].as_u64().unwrap());
        let first = firsts[&sensor];
        let from = next.entry(sensor).or_insert(first);
        while *from <= newest {
            let place = &mut seen[usize::try_from(*from).unwrap()];
            left -= u64::from(place.is_none());
            place.get_or_insert(now);
            *from += sensors;
        }
    }
    seen.into_iter().map(Option::unwrap).collect()
}

#[test]
#[ignore = "a measurement; tests/latency.sh runs it"]
fn from_produce_to_visible_result() {
    let (rate, seconds, sensors) = (setting("RATE", 1_000), setting("READ_SECONDS", 20), setting("SENSORS", 100));
    let count = rate * (seconds + WARM_UP);
    println!("{rate} readings/s for {seconds} s, {sensors} sensors, 2 partitions, embedded log with fsync; milliseconds");
    println!("{:<34} {:>8} {:>8} {:>8} {:>8} {:>8}", "trigger", "p50", "p90", "p99", "p99.9", "max");
    for (name, trigger) in [("continuous", "{ continuous = \"1 second\" }"), ("soon", ""), ("tick", "{ processing_time = \"1 second\" }")] {
        let Some(log) = Log::start(Kind::Embedded, "from_produce_to_visible_result") else { return };
        let dir = tempfile::Builder::new().prefix("tidemark-bench-").tempdir().unwrap();
        topic::create(&log, "iot", 2);
        let query = Query::new(name, "10 seconds").trigger(trigger);
        let house = House { log: &log, dir: dir.path() };
        let mut command = house.command("processor");
        command.arg("--query").arg(write_query(dir.path(), &query)).env("TIDEMARK_PROCESSOR__INSTANCE_ID", "one");
        let mut processor = Process::start("processor", &mut command);
        ledger::wait_some(&mut processor, &query, 0, LIMIT);
        let (sent, seen) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(&log, &query.topic(), count));
            let sent = produce(&log, count, rate, sensors);
            (sent, watcher.join().unwrap())
        });
        let used = readings::sort(&log, 10_000, 5_000).used;
        oracle::assert_equal(name, &results::read(&log, &query).cells(), &oracle::fold(&used, 10_000));
        let mut times: Vec<Duration> =
            sent.iter().zip(&seen).skip(usize::try_from(WARM_UP * rate).unwrap()).map(|(a, b)| *b - *a).collect();
        times.sort_unstable();
        let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000].as_secs_f64() * 1e3;
        let label = if trigger.is_empty() { "(none: as soon as possible)" } else { trigger };
        println!("{label:<34} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1}", at(500), at(900), at(990), at(999), at(1000));
    }
}
