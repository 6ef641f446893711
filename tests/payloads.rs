//! The corpus of payloads (`producer/fuzz/corpus`) through a real producer, each in every format.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::settings::TopicSetting;
use harness::binaries::House;
use harness::log::{Kind, Log, free_address};
use harness::mosquitto::{self, Mosquitto};
use harness::producer::Producer;
use harness::topic;
use harness::wait::wait_until;
use producer::fuzzing::{FORMATS, read, settings};

const LIMIT: Duration = Duration::from_secs(120);

/// Rows by the file that they come from: how many readings, how many in the dead lane.
type Rows = BTreeMap<String, (usize, usize)>;

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("producer/fuzz/corpus");
    let mut files: Vec<PathBuf> =
        FORMATS.iter().flat_map(|(name, _)| std::fs::read_dir(folder.join(name)).unwrap()).map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A topic for each format, and one for the neighbours.
fn config(dir: &Path) -> PathBuf {
    let mut payload = settings();
    payload.topics.push(TopicSetting::Template("neighbours/{sensor_id}".into()));
    let mut producer = toml::Table::new();
    producer.insert("payload".into(), toml::Value::try_from(payload).unwrap());
    let mut whole = toml::Table::new();
    whole.insert("producer".into(), producer.into());
    let path = dir.join("tidemark.toml");
    std::fs::write(&path, whole.to_string()).unwrap();
    path
}

/// Publishes the corpus in every format with a neighbour after each file; what must become of it, and how many neighbours there are.
fn publish(address: SocketAddr) -> (Rows, usize) {
    let mut wanted = Rows::new();
    let files = corpus();
    for (number, path) in files.iter().enumerate() {
        let payload = std::fs::read(path).unwrap();
        for (name, format) in FORMATS {
            let file = format!("{name}.{number}");
            let rows = read(format, &file, &payload, 0).unwrap();
            wanted.insert(file.clone(), (rows.readings.len(), rows.dead.len()));
            let mut command = mosquitto::publish(address);
            command.args(["-t", &producer::fuzzing::topic(format, &file)]);
            let sent = if payload.is_empty() { command.arg("-n").status() } else { command.arg("-f").arg(path).status() };
            assert!(sent.unwrap().success(), "{path:?} as {name}");
        }
        assert!(mosquitto::publish(address).args(["-t", "neighbours/n", "-m", &number.to_string()]).status().unwrap().success());
    }
    wanted.retain(|_, (readings, dead)| *readings + *dead > 0);
    (wanted, files.len())
}

fn found(log: &Log) -> (Rows, usize) {
    let (mut rows, mut neighbours) = (Rows::new(), 0);
    for record in topic::read(log, "iot") {
        let reading: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        match reading["file"].as_str().or(reading["node"].as_str()) {
            Some(file) => rows.entry(file.to_owned()).or_default().0 += 1,
            None => neighbours += 1,
        }
    }
    for record in topic::read(log, "iot.dead") {
        // corpus/FORMAT/FILE/device, spBv1.0/corpus/NDATA/FILE
        let topic = record.header("tidemark-topic");
        let file = topic.split('/').nth(if topic.starts_with("spBv1.0") { 3 } else { 2 }).unwrap();
        rows.entry(file.to_owned()).or_default().1 += 1;
    }
    (rows, neighbours)
}

fn wait_rows(log: &Log, wanted: &Rows, neighbours: usize) {
    let readings: usize = wanted.values().map(|(readings, _)| readings).sum();
    let dead: usize = wanted.values().map(|(_, dead)| dead).sum();
    wait_until("the readings", LIMIT, || topic::count(log, "iot") >= (readings + neighbours) as u64);
    wait_until("the dead rows", LIMIT, || topic::count(log, "iot.dead") >= dead as u64);
}

#[test]
fn each_payload_lands_once_and_its_neighbours_pass() {
    let test = "each_payload_lands_once_and_its_neighbours_pass";
    let Some(broker) = Mosquitto::start(test, "allow_anonymous true") else { return };
    let log = Log::start(Kind::Embedded, test).unwrap();
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let mut command = House { log: &log, dir: dir.path() }.command("producer");
    command.args(["--mqtt", &broker.url(), "--config"]).arg(config(dir.path()));
    // What stays unacknowledged would soon stop everything.
    let producer = Producer::start(command.env("TIDEMARK_PRODUCER__MQTT__RECEIVE_MAXIMUM", "3"));
    producer.wait_subscribed();
    let (wanted, neighbours) = publish(broker.address);
    wait_rows(&log, &wanted, neighbours);
    wait_until("the last acknowledgement", LIMIT, || producer.status("/mqtt/unacknowledged") == 0);
    assert_eq!(producer.status("/mqtt/generation"), 1, "{}", producer.process.output());
    producer.stop();
    assert_eq!(found(&log), (wanted, neighbours));
}

/// The same at our own broker: the device of a payload that nobody can read gets its acknowledgement too.
#[test]
fn each_payload_is_acknowledged_by_our_own_broker() {
    let test = "each_payload_is_acknowledged_by_our_own_broker";
    if !mosquitto::is_installed(test) {
        return;
    }
    let log = Log::start(Kind::Embedded, test).unwrap();
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let address = free_address();
    let mut command = House { log: &log, dir: dir.path() }.command("producer");
    let producer = Producer::start(command.args(["--devices", &address.to_string(), "--config"]).arg(config(dir.path())));
    wait_until("the listener", LIMIT, || TcpStream::connect(address).is_ok());
    let (wanted, neighbours) = publish(address);
    // Each was in the log before its publisher ended.
    assert_eq!(found(&log), (wanted, neighbours));
    producer.stop();
}
