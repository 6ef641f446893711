#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;
use crate::payload::topic::Parts;

const NOW: i64 = 1_800_000_000_000;

struct Plant {
    host: Host,
    now: i64,
    asked: Vec<String>,
}

impl Plant {
    fn new() -> Self {
        Self { host: Host::default(), now: NOW, asked: Vec::new() }
    }

    fn send(&mut self, topic: &str, seq: Option<u64>, metrics: Vec<Metric>) -> Decoded {
        let payload = Payload { timestamp: Some(1_700_000_000_000), metrics, seq }.encode_to_vec();
        self.raw(topic, &payload).unwrap()
    }

    fn raw(&mut self, topic: &str, payload: &[u8]) -> Result<Decoded, Fault> {
        let parts = Parts::default();
        let around = Around { parts: &parts, received: self.now, unit: TimeUnit::Millis, series: "{sensor_id}/{kind}", sensor_tag: "" };
        self.host.read(topic, payload, &around, &mut self.asked)
    }

    fn birth(&mut self) -> Decoded {
        let bd = Metric { name: Some("bdSeq".into()), value: Some(Value::Long(3)), ..Metric::default() };
        let control = Metric { name: Some("Node Control/Rebirth".into()), value: Some(Value::Boolean(false)), ..Metric::default() };
        self.send("spBv1.0/g/NBIRTH/n", Some(0), vec![bd, control, named("t", 1, 9, Value::Float(1.5))])
    }
}

fn named(name: &str, alias: u64, datatype: u32, value: Value) -> Metric {
    Metric { name: Some(name.into()), alias: Some(alias), datatype: Some(datatype), value: Some(value), ..Metric::default() }
}

fn aliased(alias: u64, value: Value) -> Metric {
    Metric { alias: Some(alias), value: Some(value), ..Metric::default() }
}

#[test]
fn births_name_what_data_only_numbers() {
    let mut plant = Plant::new();
    assert_eq!(plant.birth().readings.len(), 1);
    plant.send("spBv1.0/g/DBIRTH/n/d", Some(1), vec![named("count", 7, 3, Value::Int(0))]);
    let decoded = plant.send("spBv1.0/g/DDATA/n/d", Some(2), vec![aliased(7, Value::Int(-5_i32 as u32))]);
    let reading = &decoded.readings[0];
    assert_eq!((reading.sensor_id.as_str(), reading.value, reading.ts), ("g/n/d/count", -5.0, 1_700_000_000_000));
    assert_eq!(reading.labels, [("group".to_owned(), "g".into()), ("node".to_owned(), "n".into()), ("device".to_owned(), "d".into())]);
    let historical = Metric { is_historical: Some(true), timestamp: Some(1_600_000_000_000), ..aliased(1, Value::Float(2.5)) };
    let decoded = plant.send("spBv1.0/g/NDATA/n", Some(3), vec![historical, Metric { is_null: Some(true), ..aliased(1, Value::Int(0)) }]);
    assert_eq!((decoded.readings.len(), decoded.readings[0].ts), (1, 1_600_000_000_000));
    assert!(decoded.readings[0].labels.contains(&("is_historical".to_owned(), true.into())));
    assert_eq!(plant.asked, Vec::<String>::new());
}

#[test]
fn a_gap_asks_for_births_once_in_a_while_and_loses_nothing_that_can_be_read() {
    let mut plant = Plant::new();
    plant.birth();
    assert_eq!(plant.send("spBv1.0/g/NDATA/n", Some(5), vec![aliased(1, Value::Float(1.0))]).readings.len(), 1);
    assert_eq!(plant.asked, ["spBv1.0/g/NCMD/n"]);
    plant.send("spBv1.0/g/NDATA/n", Some(9), vec![aliased(1, Value::Float(1.0))]);
    assert_eq!(plant.asked.len(), 1);
    plant.now += REBIRTH_EVERY_MS;
    plant.send("spBv1.0/g/NDATA/n", Some(20), vec![aliased(1, Value::Float(1.0))]);
    assert_eq!(plant.asked.len(), 2);
}

#[test]
fn the_count_goes_on_after_255_and_a_redelivery_is_no_gap() {
    let mut plant = Plant::new();
    plant.birth();
    for seq in (1..=255).chain([0, 0, 1]) {
        plant.send("spBv1.0/g/NDATA/n", Some(seq), vec![aliased(1, Value::Float(1.0))]);
    }
    assert_eq!(plant.asked, Vec::<String>::new());
}

#[test]
fn data_before_a_birth_is_dead_and_the_node_is_asked() {
    let mut plant = Plant::new();
    let decoded = plant.send("spBv1.0/g/NDATA/n", Some(1), vec![aliased(1, Value::Float(1.0)), aliased(2, Value::Float(1.0))]);
    assert_eq!((decoded.readings.len(), decoded.pieces.len(), decoded.pieces[0].fault.reason), (0, 1, "no_birth"));
    assert_eq!(plant.asked, ["spBv1.0/g/NCMD/n"]);
    let request = Payload::decode(&rebirth(NOW)[..]).unwrap();
    assert_eq!(
        (request.metrics[0].name.as_deref(), &request.metrics[0].value),
        (Some("Node Control/Rebirth"), &Some(Value::Boolean(true)))
    );
}

#[test]
fn the_death_of_an_older_connection_is_not_this_ones() {
    let mut plant = Plant::new();
    plant.birth();
    let death = |bd| vec![Metric { name: Some("bdSeq".into()), value: Some(Value::Long(bd)), ..Metric::default() }];
    plant.send("spBv1.0/g/NDEATH/n", None, death(2));
    assert_eq!(plant.send("spBv1.0/g/NDATA/n", Some(1), vec![aliased(1, Value::Float(1.0))]).readings.len(), 1);
    plant.send("spBv1.0/g/NDEATH/n", None, death(3));
    assert_eq!(plant.send("spBv1.0/g/NDATA/n", Some(2), vec![aliased(1, Value::Float(1.0))]).pieces.len(), 1);
    assert_eq!(plant.asked.len(), 1);
}

#[test]
fn what_is_no_sparkplug_is_said() {
    let mut plant = Plant::new();
    assert_eq!(plant.raw("spBv1.0/g/NDATA/n", b"\xff\xff").unwrap_err().reason, "not_sparkplug");
    assert_eq!(plant.raw("spBv1.0/g/NOISE/n", b"").unwrap_err().reason, "unknown_topic");
    assert_eq!(plant.raw("spBv1.0/g", b"").unwrap_err().reason, "unknown_topic");
    assert_eq!(plant.raw("spBv1.0/STATE/scada", b"ONLINE").unwrap(), Decoded::default());
    let decoded = plant.send("spBv1.0/g/NDATA/n", None, vec![named("name", 1, 12, Value::Text("x".into()))]);
    assert_eq!((decoded.pieces.len(), decoded.no_numbers), (0, 1));
    let decoded = plant.send("spBv1.0/g/NDATA/n", None, vec![named("name", 1, 9, Value::Text("x".into()))]);
    assert_eq!(decoded.pieces[0].fault.reason, "wrong_type");
    assert_eq!(plant.raw("spBv1.0/g/NDATA/n", b"").unwrap_err().reason, "empty");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(payload in prop::collection::vec(any::<u8>(), 0..100), verb in 0..5_usize) {
        let verb = ["NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH"][verb];
        let outcome = Plant::new().raw(&format!("spBv1.0/g/{verb}/n/d"), &payload);
        prop_assert!(outcome.is_ok() || !outcome.unwrap_err().detail.is_empty());
    }
}
