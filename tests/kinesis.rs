//! Queries that read Amazon Kinesis Data Streams, from a server of the same interface: each record once, in one order, whatever is killed and
//! resharded on the way.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::Ordering;

use harness::kinesis::{Kinesis, Moody, aggregated, is_ready};
use harness::place::{LIMIT, Place, stop};
use harness::process::Process;
use harness::random::Random;
use harness::wait::wait_until;
use serde_json::Value;

const COPY: &str = "SELECT sensor_id, seq, partition_key FROM kinesis";
const WINDOWS: &str = "SELECT window.start AS start, sensor_id, count(*) AS n, sum(value) AS s, avg(value) AS a FROM kinesis GROUP BY window(ts, '10 \
                       seconds'), sensor_id";
const BASE: u64 = 1_700_000_000_000;

/// A query of the stream `readings`; `keys` are further ones of `[source.kinesis]`, `query` of `[query]`.
fn query(server: SocketAddr, sql: &str, keys: &str, query: &str) -> String {
    format!(
        "name = 'q'\n[source]\nformat = 'kinesis'\nschema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE, seq BIGINT'\nevent_time = 'ts'\n\
         watermark = '5 seconds'\nmax_future = '36500 days'\nidle_timeout = \
         '1 hour'\n[source.kinesis]\nstream = 'readings'\nregion = 'eu-south-1'\nendpoint = \
         'http://{server}'\npoll_interval = '200ms'\n{keys}\n[query]\nsql = \"{sql}\"\noutput_mode = 'append'\ncheckpoint = 'state'\n{query}\n\
         [sink]\nformat = 'json'\npath = 'out'\n"
    )
}

/// With credentials, and without looking for the role of a machine.
fn command(place: &Place) -> Command {
    let mut command = place.command();
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_CONFIG_FILE", "/nowhere").env("AWS_SHARED_CREDENTIALS_FILE", "/nowhere");
    for name in ["AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command
}

fn start(place: &Place) -> Process {
    Process::start("processor", &mut command(place))
}

fn reading(sensor: &str, seq: u64, time: u64) -> (String, Vec<u8>) {
    let json = format!(r#"{{"sensor_id":"{sensor}","ts":{time},"value":{}.{},"seq":{seq}}}"#, seq % 100, seq % 7);
    (sensor.to_owned(), json.into_bytes())
}

/// Readings of many sensors, some out of order and some late.
struct Sensors {
    random: Random,
    seqs: BTreeMap<String, u64>,
    time: u64,
}

impl Sensors {
    fn new() -> Self {
        Self { random: Random::seeded(1), seqs: BTreeMap::new(), time: BASE }
    }

    fn next(&mut self, count: usize) -> Vec<(String, Vec<u8>)> {
        let mut next = || {
            let sensor = format!("s{}", self.random.between(0, 12));
            let seq = self.seqs.entry(sensor.clone()).or_default();
            *seq += 1;
            self.time += self.random.between(0, 100);
            reading(&sensor, *seq, self.time - self.random.between(0, 7_000))
        };
        (0..count).map(|_| next()).collect()
    }

    fn total(&self) -> usize {
        usize::try_from(self.seqs.values().sum::<u64>()).unwrap()
    }
}

fn rows(place: &Place) -> Vec<String> {
    if place.path("out").exists() { place.rows("out") } else { Vec::new() }
}

/// Each reading is there once, and those of a sensor in the order in which they were put.
#[track_caller]
fn assert_each_once(place: &Place, sensors: &Sensors) {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in rows(place) {
        let row: Value = serde_json::from_str(&row).unwrap();
        assert_eq!(row["partition_key"], row["sensor_id"]);
        found.entry(row["sensor_id"].as_str().unwrap().to_owned()).or_default().push(row["seq"].as_u64().unwrap());
    }
    let wanted: BTreeMap<String, Vec<u64>> = sensors.seqs.iter().map(|(sensor, last)| (sensor.clone(), (1..=*last).collect())).collect();
    assert_eq!(found, wanted);
}

#[test]
fn each_record_is_counted_once_through_kills_faults_splits_and_merges() {
    if !is_ready("each_record_is_counted_once_through_kills_faults_splits_and_merges") {
        return;
    }
    let server = Kinesis::start();
    let moody = Moody::start(server.address);
    moody.moods.faulty.store(true, Ordering::Relaxed);
    server.create("readings", 2);
    let (mut sensors, copy, windows) = (Sensors::new(), Place::new(), Place::new());
    copy.write("q.toml", &query(moody.address, COPY, "", ""));
    windows.write("q.toml", &query(moody.address, WINDOWS, "", ""));
    server.put("readings", &sensors.next(600));
    // Many readings in a record: a step ends in the midst of it.
    let many: Vec<_> = (1..=120).map(|seq| reading("s0-many", seq, BASE)).collect();
    server.put("readings", &[("s0-many".into(), aggregated(&many))]);
    server.put("readings", &[("broken".into(), b"no reading".to_vec())]);
    sensors.seqs.insert("s0-many".into(), 120);
    for round in 0..8 {
        let (mut one, mut other) = (start(&copy), start(&windows));
        // The moment is counted in work done, so that slow machines are killed in the midst, too.
        let more = rows(&copy).len() + usize::try_from(sensors.random.between(1, 150)).unwrap();
        wait_until("rows to be written", LIMIT, || rows(&copy).len() >= more.min(sensors.total()));
        match round {
            2 | 4 => server.split("readings"),
            3 | 6 => server.merge("readings"),
            _ => {}
        }
        server.put("readings", &sensors.next(150));
        one.kill();
        other.kill();
    }
    let (mut one, mut other) = (start(&copy), start(&windows));
    wait_until("all readings", LIMIT, || rows(&copy).len() >= sensors.total());
    // And once more while it runs.
    server.split("readings");
    server.put("readings", &sensors.next(300));
    server.merge("readings");
    server.put("readings", &sensors.next(300));
    // Far ahead, so that all windows close.
    sensors.time += 60_000;
    server.put("readings", &sensors.next(40));
    wait_until("all readings", LIMIT, || rows(&copy).len() >= sensors.total());
    assert_eq!(stop(&mut one), Some(0), "{}", one.output());
    assert_each_once(&copy, &sensors);
    let dead = copy.lanes();
    assert!(dead.len() == 1 && dead[0].contains("no reading") && dead[0].contains("broken"), "{dead:?}");
    assert!(moody.moods.throttled.load(Ordering::Relaxed) > 10);

    // The same stream read anew, straight, cut in another way and without a fault, gives the same.
    let sorted = |place: &Place| rows(place).into_iter().collect::<BTreeSet<_>>();
    let (straight, again) = (Place::new(), Place::new());
    for (place, sql) in [(&straight, COPY), (&again, WINDOWS)] {
        place.write("q.toml", &query(server.address, sql, "", "trigger = 'available_now'"));
        let mut process = start(place);
        assert_eq!(process.wait_exit(LIMIT), Some(0), "{}", process.output());
    }
    assert_eq!(rows(&straight), rows(&copy));
    assert_eq!(straight.lanes(), dead);
    let closed = rows(&again);
    assert!(closed.len() > 50 && again.lanes().len() > 10, "{} {}", closed.len(), again.lanes().len());
    wait_until("the windows", LIMIT, || rows(&windows).len() >= closed.len());
    assert_eq!(stop(&mut other), Some(0), "{}", other.output());
    // In one batch they come by window and key, and the batches were cut in another way.
    assert_eq!(sorted(&windows), sorted(&again));
    assert_eq!(rows(&windows).len(), closed.len());
    assert_eq!(windows.lanes(), again.lanes());
}

#[test]
fn a_query_begins_where_it_says() {
    if !is_ready("a_query_begins_where_it_says") {
        return;
    }
    let server = Kinesis::start();
    server.create("readings", 2);
    let (mut sensors, latest, from_then) = (Sensors::new(), Place::new(), Place::new());
    server.put("readings", &sensors.next(50));
    latest.write("q.toml", &query(server.address, COPY, "start = 'latest'", ""));
    let mut process = start(&latest);
    let reads = |process: &mut Process, shard: &str| {
        process.wait_line("the shard", LIMIT, |line| (line.contains("reads a shard") && line.contains(shard)).then_some(()));
    };
    reads(&mut process, "shardId-000000000000");
    reads(&mut process, "shardId-000000000001");
    assert!(rows(&latest).is_empty());
    let before = sensors.seqs.clone();
    server.put("readings", &sensors.next(50));
    let count = |place: &Place| rows(place).into_iter().collect::<BTreeSet<_>>().len();
    wait_until("the new readings", LIMIT, || count(&latest) == 50);
    process.kill();
    // What came meanwhile is not what came before the first start.
    server.put("readings", &sensors.next(50));
    let mut process = start(&latest);
    wait_until("the readings of the pause", LIMIT, || count(&latest) == 100);
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
    let late = |row: &String| {
        let row: Value = serde_json::from_str(row).unwrap();
        row["seq"].as_u64().unwrap() > before.get(row["sensor_id"].as_str().unwrap()).copied().unwrap_or(0)
    };
    assert!(rows(&latest).iter().all(late));
    assert_eq!(rows(&latest).len(), 100);

    // By the time of receipt.
    from_then.write("q.toml", &query(server.address, COPY, "start = 'at 2020-01-01'", "trigger = 'available_now'"));
    let mut process = start(&from_then);
    assert_eq!(process.wait_exit(LIMIT), Some(0), "{}", process.output());
    assert_each_once(&from_then, &sensors);
    // Nothing has come since.
    let mut process = start(&from_then);
    assert_eq!(process.wait_exit(LIMIT), Some(0), "{}", process.output());
    assert_each_once(&from_then, &sensors);
}

#[test]
fn what_cannot_be_read_is_said_in_a_sentence() {
    if !is_ready("what_cannot_be_read_is_said_in_a_sentence") {
        return;
    }
    let server = Kinesis::start();
    let moody = Moody::start(server.address);
    server.create("other", 1);
    let place = Place::new();
    let text = query(moody.address, COPY, "", "");
    let fails = |text: &str, change: &dyn Fn(&mut Command), part: &str| {
        place.write("q.toml", text);
        let mut started = command(&place);
        change(&mut started);
        let mut process = Process::start("processor", &mut started);
        assert_eq!(process.wait_exit(LIMIT), Some(1), "{}", process.output());
        let output = process.output();
        // Not by its place: the two outputs are read apart.
        let said: Vec<&str> = output.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(said.len() == 1 && said[0].contains(part), "'{part}' is not what is said:\n{output}");
    };
    fails(&text, &|_| {}, "there is no Kinesis stream 'readings' in eu-south-1 at http://127.0.0.1");
    let nobody = |command: &mut Command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    };
    fails(&text, &nobody, "there are no AWS credentials for the Kinesis stream 'readings' in eu-south-1");
    fails(&text.replace("region = 'eu-south-1'\n", ""), &|_| {}, "source.kinesis.region is missing");
    fails(&text.replace("[query]", "start = 'at 2999-01-01'\n[query]").replace("'readings'", "'other'"), &|_| {}, "has not come yet");
    moody.moods.refusing.store(true, Ordering::Relaxed);
    fails(&text, &|_| {}, "Kinesis does not let these credentials read the stream 'readings' in eu-south-1");
    // Credentials in a file, relative to the query file.
    place.write("secret", "test\n");
    moody.moods.refusing.store(false, Ordering::Relaxed);
    let by_file = query(moody.address, COPY, "access_key_id = 'test'\nsecret_access_key_file = 'secret'", "trigger = 'available_now'");
    place.write("q.toml", &by_file.replace("'readings'", "'other'"));
    let mut started = command(&place);
    nobody(&mut started);
    let mut process = Process::start("processor", &mut started);
    assert_eq!(process.wait_exit(LIMIT), Some(0), "{}", process.output());
}
