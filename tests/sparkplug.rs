//! Sparkplug B with somebody else's edge node.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::binaries::House;
use harness::log::{Kind, Log};
use harness::mosquitto::Mosquitto;
use harness::process::Process;
use harness::producer::Producer;
use harness::wait::wait_until;
use harness::{clients, topic};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn an_edge_node_of_pysparkplug() {
    let test = "an_edge_node_of_pysparkplug";
    let Some(python) = clients::python("sparkplug", test) else { return };
    let Some(broker) = Mosquitto::start(test, "allow_anonymous true") else { return };
    let log = Log::start(Kind::Embedded, test).unwrap();
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    // The node is born first: its births are not to be had again unless it is asked.
    let mut command = Command::new(python);
    command.arg(clients::beside("sparkplug_node.py")).args(["127.0.0.1", &broker.address.port().to_string()]);
    let mut node = Process::start("edge node", &mut command);
    node.wait_line("its birth", LIMIT, |line| (line == "born").then_some(()));
    let producer = Producer::start(House { log: &log, dir: dir.path() }.command("producer").args(["--mqtt", &broker.url()]));
    producer.wait_subscribed();
    node.signal("USR1");
    node.wait_line("the end of its work", LIMIT, |line| (line == "all is sent").then_some(()));
    assert_eq!(node.output().matches("asked for births").count(), 2);
    // Two births after the start, of three metrics each; five messages of data that can be read.
    wait_until("its readings", LIMIT, || topic::count(&log, "iot") >= 12);
    node.signal("USR1");
    node.wait_success(LIMIT);
    let dropped = producer.metric("tidemark_producer_dropped_total{reason=\"no_number\"} ");
    producer.stop();

    let rows: Vec<Value> = topic::read(&log, "iot").iter().map(|record| serde_json::from_slice(&record.value).unwrap()).collect();
    let of = |sensor: &str| rows.iter().filter(|row| row["sensor_id"] == sensor).collect::<Vec<_>>();
    let values = |sensor: &str| of(sensor).iter().map(|row| row["value"].as_f64().unwrap()).collect::<Vec<_>>();
    // 21 was sent before the birth that names it, 23 got lost on the way; a birth repeats the last value.
    assert_eq!(values("plant/press/temperature"), [21.0, 22.0, 19.0, 24.0, 24.0, 25.0]);
    assert_eq!(values("plant/press/position"), [-5.0, -7.0, -7.0]);
    assert_eq!(values("plant/press/pump/rpm"), [900.0, 950.0, 950.0]);
    assert_eq!(rows.len(), 12);
    let old = of("plant/press/temperature").into_iter().find(|row| row["value"] == 19.0).unwrap();
    assert_eq!((old["ts"].as_i64(), &old["is_historical"]), (Some(1_600_000_000_000), &Value::from(true)));
    let rpm = of("plant/press/pump/rpm")[1];
    assert_eq!(
        (&rpm["group"], &rpm["node"], &rpm["device"], &rpm["kind"]),
        (&"plant".into(), &"press".into(), &"pump".into(), &"rpm".into())
    );
    // The maker's name is no number, and no fault.
    assert_eq!(dropped, 2.0);
    let dead = topic::read(&log, "iot.dead");
    assert_eq!(dead.iter().map(|row| row.header("tidemark-reason")).collect::<Vec<_>>(), ["no_birth"]);
    assert_eq!(dead[0].header("tidemark-topic"), "spBv1.0/plant/NDATA/press");
}
