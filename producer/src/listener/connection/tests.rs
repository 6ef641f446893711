#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicU64, Ordering};

use common::settings::{MqttListener, Payload};
use prometheus::Registry;
use tokio::io::DuplexStream;

use super::*;
use crate::intake::Intake;
use crate::metrics::Doors;
use crate::payload::Reader;
use crate::source::{Delivery, Next, Source as _};

const LIMIT: Duration = Duration::from_secs(20);

/// The listener's connections, before a log that takes nothing unless told to.
struct House {
    shared: Arc<Shared>,
    intake: Intake,
    stop: Shutdown,
}

impl House {
    fn new(max_buffer: u64) -> Self {
        let (intake, feeder) = Intake::new(max_buffer, "test".into());
        let reader = Arc::new(Reader::new(&Payload::default()).unwrap());
        let metrics = Doors::register(&Registry::new()).unwrap();
        let shared = Shared::new(MqttListener::default(), None, reader, feeder, metrics);
        Self { shared: Arc::new(shared), intake, stop: Shutdown::manual() }
    }

    /// A device of MQTT 3.1.1 with a clean session.
    async fn connected(&self, client_id: &str) -> Device {
        self.served(&connect(4, client_id, 60)).await.0
    }

    /// A device of MQTT 3.1.1 that begins with this packet, and its connection's task.
    async fn served(&self, connect: &[u8]) -> (Device, JoinHandle<()>) {
        // Few bytes on the way: what has not been read is not in anybody's memory.
        let (stream, server) = tokio::io::duplex(1024);
        let serving = tokio::spawn(serve(self.shared.clone(), server, None, self.stop.clone()));
        let mut device = Device(stream);
        device.send(connect).await;
        assert_eq!(device.got().await, [0x20, 2, 0, 0]);
        (device, serving)
    }

    fn dropped(&self) -> u64 {
        self.shared.metrics.dropped.with_label_values(&["qos0_full"]).get()
    }

    /// Waits for this many readings on their way to the log.
    async fn taken(&mut self, count: usize) -> Vec<Delivery> {
        let (begun, mut out) = (Instant::now(), Vec::new());
        while out.len() < count {
            assert!(begun.elapsed() < LIMIT, "{} of {count} readings", out.len());
            self.intake.next(Duration::ZERO, &mut out).unwrap();
            tokio::task::yield_now().await;
        }
        out
    }
}

fn value(delivery: &Delivery) -> f64 {
    match &delivery.content {
        Content::Reading(reading) => reading.value,
        Content::Dead(_) => f64::NAN,
    }
}

/// Until no task has anything to do: they have nothing but each other to wait for.
async fn all_is_quiet() {
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
}

struct Device(DuplexStream);

impl Device {
    async fn send(&mut self, packet: &[u8]) {
        timeout(LIMIT, self.0.write_all(packet)).await.unwrap().unwrap();
    }

    /// The next packet; nothing when the connection is over.
    async fn got(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        if timeout(LIMIT, self.0.read_exact(&mut packet)).await.unwrap().is_err() {
            return Vec::new();
        }
        packet.resize(2 + usize::from(packet[1]), 0);
        timeout(LIMIT, self.0.read_exact(&mut packet[2..])).await.unwrap().unwrap();
        packet
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut packet, mut length) = (vec![first], body.len());
    while length > 127 {
        packet.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend_from_slice(body);
    packet
}

fn connect(level: u8, client_id: &str, keep_alive: u8) -> Vec<u8> {
    let name = if level == 3 { "MQIsdp" } else { "MQTT" };
    let mut body = [&[0, name.len() as u8], name.as_bytes(), &[level, 2, 0, keep_alive, 0, client_id.len() as u8]].concat();
    body.extend_from_slice(client_id.as_bytes());
    packet(0x10, &body)
}

/// A clean session with the will that this topic is `1`.
fn connect_with_will(client_id: &str, topic: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\x06\0\x3C".to_vec();
    for text in [client_id, topic, "1"] {
        body.extend_from_slice(&[0, text.len() as u8]);
        body.extend_from_slice(text.as_bytes());
    }
    packet(0x10, &body)
}

fn publish(qos: u8, id: u8, payload: &[u8]) -> Vec<u8> {
    let id = if qos == 0 { Vec::new() } else { vec![0, id] };
    packet(0x30 | qos << 1, &[b"\0\x09sensors/p", &id[..], payload].concat())
}

#[tokio::test]
async fn an_acknowledgement_of_an_earlier_session_is_not_the_new_ones() {
    let mut house = House::new(1 << 20);
    let mut device = house.connected("x").await;
    device.send(&publish(2, 1, b"2")).await;
    let late = house.taken(1).await;
    drop(device);
    let mut device = house.connected("x").await;
    for delivery in late {
        delivery.ack.unwrap().give();
    }
    device.send(&publish(2, 1, b"3")).await;
    let taken = house.taken(1).await;
    assert_eq!(value(&taken[0]), 3.0);
    for delivery in taken {
        delivery.ack.unwrap().give();
    }
    assert_eq!(device.got().await, [0x50, 2, 0, 1]);
    device.send(&packet(0x62, &[0, 1])).await;
    assert_eq!(device.got().await, [0x70, 2, 0, 1]);
}

#[tokio::test]
async fn a_message_is_acknowledged_as_its_own_quality_of_service_wants() {
    let mut house = House::new(1 << 20);
    let mut device = house.connected("x").await;
    device.send(&publish(2, 1, b"2")).await;
    device.send(&publish(1, 1, b"3")).await;
    for delivery in house.taken(2).await {
        delivery.ack.unwrap().give();
    }
    assert_eq!(device.got().await, [0x50, 2, 0, 1]);
    assert_eq!(device.got().await, [0x40, 2, 0, 1]);
}

#[tokio::test]
async fn packets_that_find_no_room_are_not_read() {
    let mut house = House::new(64 * 1024);
    let sent = Arc::new(AtomicU64::new(0));
    let mut devices = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (mut device, sent) = (house.connected(&format!("d{number}")).await, sent.clone());
        devices.spawn(async move {
            // JSON allows blanks behind a value.
            for piece in publish(1, 1, format!("1{:40000}", "").as_bytes()).chunks(100) {
                device.send(piece).await;
                sent.fetch_add(100, Ordering::Relaxed);
            }
            assert_eq!(device.got().await, [0x40, 2, 0, 1]);
        });
    }
    for done in 1..=8 {
        let taken = house.taken(1).await;
        all_is_quiet().await;
        // One message is in the buffer; of the others there is what a connection reads without a share, and what is on its way.
        let most = done * 40_100 + (8 - done) * (READ as u64 + 1024 + 100);
        assert!(sent.load(Ordering::Relaxed) <= most, "{} of {most}", sent.load(Ordering::Relaxed));
        for delivery in taken {
            delivery.ack.unwrap().give();
        }
    }
    while let Some(ended) = devices.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_message_larger_than_the_buffer_passes_alone() {
    let mut house = House::new(32 * 1024);
    let mut large = house.connected("large").await;
    large.send(&publish(1, 1, format!("1{}", " ".repeat(100_000)).as_bytes())).await;
    let taken = house.taken(1).await;
    assert!(house.shared.feeder.try_hold(0).is_none());
    drop(taken);
    assert!(house.shared.feeder.try_hold(0).is_some());
}

#[tokio::test]
async fn messages_that_become_more_than_they_announced_do_not_wait_for_each_other() {
    let mut house = House::new(64 * 1024);
    let (mut first, mut second) = (house.connected("first").await, house.connected("second").await);
    let list = format!("[{}]", vec![r#"{"value":1}"#; 1000].join(","));
    first.send(&publish(1, 1, list.as_bytes())).await;
    second.send(&publish(1, 1, list.as_bytes())).await;
    for last in [false, true] {
        let taken = house.taken(1000).await;
        all_is_quiet().await;
        // The other one has its share of the buffer, and its turn when this one is in the log.
        let mut more = Vec::new();
        assert!(matches!(house.intake.next(Duration::ZERO, &mut more), Ok(Next::Wait(_))) && more.is_empty());
        assert_eq!(house.shared.beyond.available_permits(), 0);
        for delivery in taken {
            assert_eq!(value(&delivery), 1.0);
            delivery.ack.unwrap().give();
        }
        let device = if last { &mut second } else { &mut first };
        assert_eq!(device.got().await, [0x40, 2, 0, 1]);
    }
}

#[tokio::test]
async fn what_is_written_or_given_up_with_its_connection_counts_no_more() {
    let house = House::new(1 << 20);
    let route = |payload: Vec<u8>| {
        let message = Publish { topic: "cmd".into(), payload: payload.into(), qos: Qos::AtMostOnce, retain: false, dup: false, id: 0 };
        house.shared.hub.route("", &message);
    };
    let mut device = house.connected("x").await;
    device.send(&packet(0x82, b"\0\x01\0\x03cmd\0")).await;
    assert_eq!(device.got().await, [0x90, 3, 0, 1, 0]);
    route(b"on".to_vec());
    assert_eq!(device.got().await, b"\x30\x07\0\x03cmdon");
    all_is_quiet().await;
    assert_eq!(house.shared.hub.waiting(), 0);
    for _ in 0..5 {
        route(vec![0; 1 << 20]);
    }
    all_is_quiet().await;
    assert!(house.shared.hub.waiting() >= 4 << 20);
    drop(device);
    all_is_quiet().await;
    assert_eq!(house.shared.hub.waiting(), 0);
}

#[tokio::test]
async fn a_will_holds_no_place_while_there_is_no_room() {
    let mut house = House::new(1 << 20);
    let all = house.shared.feeder.try_hold(1 << 20).unwrap();
    // One that is no reading waits for nothing; one that is a reading is dropped, and counted.
    for (topic, dropped) in [("presence/p", 0), ("sensors/p", 1)] {
        let (device, serving) = house.served(&connect_with_will("x", topic)).await;
        drop(device);
        timeout(LIMIT, serving).await.unwrap().unwrap();
        assert_eq!(house.dropped(), dropped);
    }
    drop(all);
    let (device, serving) = house.served(&connect_with_will("x", "sensors/p")).await;
    drop(device);
    timeout(LIMIT, serving).await.unwrap().unwrap();
    assert_eq!(value(&house.taken(1).await[0]), 1.0);
    assert_eq!(house.dropped(), 1);
}

#[tokio::test]
async fn a_message_that_waits_for_room_ends_with_its_connection() {
    let mut house = House::new(64 * 1024);
    let beyond = house.shared.beyond.clone().try_acquire_owned().unwrap();
    let list = format!("[{}]", vec![r#"{"value":1}"#; 1000].join(","));
    for (qos, dropped) in [(1, 0), (0, 1)] {
        let (mut old, serving) = house.served(&connect(4, "x", 60)).await;
        old.send(&publish(qos, 1, list.as_bytes())).await;
        all_is_quiet().await;
        assert!(!serving.is_finished());
        // The device has heard nothing and connects anew; nobody closes the old socket.
        let new = house.connected("x").await;
        timeout(LIMIT, serving).await.unwrap().unwrap();
        assert_eq!(house.dropped(), dropped);
        drop((old, new));
    }
    drop(beyond);
    let mut none = Vec::new();
    assert!(matches!(house.intake.next(Duration::ZERO, &mut none), Ok(Next::Wait(_))) && none.is_empty());
    assert!(house.shared.feeder.try_hold(64 * 1024).is_some());
}

#[tokio::test]
async fn a_message_on_its_way_does_not_keep_the_socket_of_a_device_that_is_gone() {
    let house = House::new(1 << 20);
    let (stream, server) = tokio::io::duplex(1024);
    let (packets, queue) = unbounded_channel();
    let backlog = house.shared.hub.backlog();
    let writing = tokio::spawn(write_all(server, queue, Version::V3, backlog.clone()));
    let message = packets.clone();
    end_writer(writing, packets, &backlog, Duration::from_millis(10)).await;
    assert!(Device(stream).got().await.is_empty());
    // Its acknowledgement finds nobody, and is not kept.
    timeout(LIMIT, message.closed()).await.unwrap();
    backlog.queue(&message, Outgoing::PubAck(1));
}
