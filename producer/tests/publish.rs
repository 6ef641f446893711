//! `run` against librdkafka's mock broker: what arrives, what is counted, and what happens when the log misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod read_back;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::reading::{Name, Reading};
use common::units::Span;
use common::{Settings, Shutdown, Telemetry};
use producer::{ProducerError, Summary};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::read_back::{PARTITIONS, readings};

type Mock = MockCluster<'static, DefaultProducerContext>;

/// A log with the three topics: the mock cannot be asked to create them.
fn log() -> (Mock, Settings) {
    let mock = MockCluster::new(1).unwrap();
    let mut settings = Settings::default();
    for topic in [&settings.topics.input, &settings.topics.late, &settings.topics.dead] {
        mock.create_topic(topic, PARTITIONS, 1).unwrap();
    }
    // The first call to a coordinator sets one; without it the mock logs about it.
    mock.coordinator(MockCoordinator::Group("test".into()), 1).unwrap();
    settings.kafka.bootstrap_servers = mock.bootstrap_servers();
    settings.producer.simulator.out_of_order = 0.0;
    (mock, settings)
}

fn read(settings: &Settings, topic: &str, count: u64) -> Vec<OwnedMessage> {
    read_back::read(&settings.kafka.bootstrap_servers, topic, count)
}

async fn finish(settings: &Settings) -> Result<Summary, ProducerError> {
    producer::run(settings.clone(), Telemetry::default(), Shutdown::manual()).await
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn status(telemetry: &Telemetry, key: &str) -> serde_json::Value {
    telemetry.status()["parts"]["producer"]["status"][key].clone()
}

/// Where devices connect.
async fn listener(telemetry: &Telemetry) -> std::net::SocketAddr {
    let address = || status(telemetry, "mqtt_listener")["listen"].as_str()?.parse().ok();
    until("the devices' door", || address().is_some()).await;
    address().unwrap()
}

/// Readings that the client has taken; unlike the status' `in_flight` it is told at once.
fn handed_over(telemetry: &Telemetry) -> u64 {
    let families = telemetry.registry().gather();
    let readings = families.iter().find(|family| family.name() == "tidemark_producer_readings_total").unwrap();
    readings.get_metric()[0].get_counter().get_value() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_arrives_whole_in_order_and_its_bad_lines_in_the_dead_lane() {
    let (_mock, mut settings) = log();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let pump: String = (0..300).map(|i| format!("1970-01-01 00:00:{:02}.{:03},{i}\n", i / 10, i % 10 * 100)).collect();
    settings.producer.replay.files = vec![
        write("pump.csv", &format!("timestamp,value\nnever,1\n{pump}")),
        write("own.csv", "sensor_id,ts,value,kind,seq\nfan,-5,0.5,vibration,7\nfan,90000,1e300,vibration,8\n"),
    ];
    settings.producer.replay.speed = "max".into();
    let before = chrono::Utc::now().timestamp_millis();
    let summary = finish(&settings).await.unwrap();
    assert_eq!((summary.published, summary.dead, summary.complete), (302, 1, true));

    let messages = read(&settings, &settings.topics.input, 302);
    assert_eq!(messages.len(), 302);
    let mut partitions: BTreeMap<Name, BTreeSet<i32>> = BTreeMap::new();
    let mut of_sensor: BTreeMap<Name, Vec<Reading>> = BTreeMap::new();
    for (message, reading) in messages.iter().zip(readings(&messages)) {
        assert_eq!(message.key().unwrap(), reading.sensor_id.as_bytes());
        let received = message.timestamp().to_millis().unwrap();
        assert!((before..=chrono::Utc::now().timestamp_millis()).contains(&received), "{received}");
        partitions.entry(reading.sensor_id.clone()).or_default().insert(message.partition());
        of_sensor.entry(reading.sensor_id.clone()).or_default().push(reading);
    }
    assert!(partitions.values().all(|partitions| partitions.len() == 1), "{partitions:?}");
    let expected =
        |i: i64| Reading { sensor_id: "pump".into(), ts: i * 100, value: i as f64, kind: None, seq: Some(i + 1), ..Reading::default() };
    assert_eq!(of_sensor["pump"], (0..300).map(expected).collect::<Vec<_>>());
    assert_eq!(of_sensor["fan"].iter().map(|r| (r.ts, r.value, r.seq)).collect::<Vec<_>>(), [(-5, 0.5, Some(7)), (90_000, 1e300, Some(8))]);

    let dead = read(&settings, &settings.topics.dead, 1);
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].payload().unwrap(), dead[0].key()), (&b"never,1"[..], None));
    let headers: BTreeMap<&str, String> =
        dead[0].headers().unwrap().iter().map(|h| (h.key, String::from_utf8(h.value.unwrap().to_vec()).unwrap())).collect();
    let expected = [("topic", "pump.csv"), ("partition", "0"), ("offset", "2"), ("reason", "wrong_type"), ("stage", "producer")];
    for (name, value) in expected {
        assert_eq!(headers[format!("tidemark-{name}").as_str()], value);
    }
    assert!(headers["tidemark-detail"].contains("'never'"));
}

/// The mock acknowledges within a millisecond, and each acknowledgement wakes the thread that waits for the next slice.
#[tokio::test(flavor = "multi_thread")]
async fn readings_that_are_due_within_a_slice_leave_together() {
    let (_mock, mut settings) = log();
    settings.producer.simulator.rate = 400.0;
    settings.producer.simulator.count = Some(400);
    finish(&settings).await.unwrap();
    let messages = read(&settings, &settings.topics.input, 400);
    // At its usual 2.5 ms a reading nothing would be further apart.
    let times: BTreeSet<i64> = messages.iter().map(|message| message.timestamp().to_millis().unwrap()).collect();
    let pause = times.iter().zip(times.iter().skip(1)).map(|(before, after)| after - before).max();
    assert!(pause >= Some(100), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counted_simulation_arrives_with_its_duplicates_and_is_counted() {
    let (_mock, mut settings) = log();
    settings.producer.simulator.rate = 0.0;
    settings.producer.simulator.count = Some(5_000);
    settings.producer.simulator.duplicates = 0.1;
    let telemetry = Telemetry::default();
    let summary = producer::run(settings.clone(), telemetry.clone(), Shutdown::manual()).await.unwrap();
    assert_eq!(summary.published, 5_000 + summary.tally.duplicates);
    let messages = read(&settings, &settings.topics.input, summary.published);
    assert_eq!(messages.len() as u64, summary.published);
    let distinct: BTreeSet<_> = readings(&messages).into_iter().map(|r| (r.sensor_id, r.seq)).collect();
    assert_eq!(distinct.len(), 5_000);
    assert_eq!(status(&telemetry, "published"), summary.published);
    assert_eq!(status(&telemetry, "in_flight"), 0);
    assert_eq!((status(&telemetry, "ended"), status(&telemetry, "rate")), (true.into(), 0.0.into()));
    assert_eq!(telemetry.status()["parts"]["producer"]["ready"], true);
    let metrics = telemetry.metrics();
    for line in ["readings_total", "published_total", "delivery_seconds_count"] {
        assert!(metrics.contains(&format!("tidemark_producer_{line} {}\n", summary.published)), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_queue_slows_the_source_and_loses_nothing() {
    let (_mock, mut settings) = log();
    settings.producer.simulator.rate = 0.0;
    settings.producer.simulator.count = Some(4_000);
    settings.kafka.properties.insert("queue.buffering.max.messages".into(), "50".into());
    assert_eq!(finish(&settings).await.unwrap().published, 4_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_drains_what_was_taken_and_is_no_fault() {
    let (_mock, mut settings) = log();
    settings.producer.simulator.rate = 2_000.0;
    settings.producer.drain_timeout = Span::from_secs(60);
    let (telemetry, shutdown) = (Telemetry::default(), Shutdown::manual());
    let running = tokio::spawn(producer::run(settings.clone(), telemetry.clone(), shutdown.clone()));
    until("some readings", || status(&telemetry, "published").as_u64() > Some(100)).await;
    shutdown.trigger();
    let summary = running.await.unwrap().unwrap();
    assert!(!summary.complete);
    assert_eq!(summary.published, summary.tally.readings);
    assert_eq!(read(&settings, &settings.topics.input, summary.published).len() as u64, summary.published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_goes_away_for_a_while_loses_nothing() {
    let (mock, mut settings) = log();
    settings.producer.simulator.rate = 2_000.0;
    settings.producer.drain_timeout = Span::from_secs(60);
    let (telemetry, shutdown) = (Telemetry::default(), Shutdown::manual());
    let running = tokio::spawn(producer::run(settings.clone(), telemetry.clone(), shutdown.clone()));
    let published = || status(&telemetry, "published").as_u64().unwrap_or(0);
    until("some readings", || published() > 100).await;
    mock.broker_down(1).unwrap();
    until("the log to be missed", || status(&telemetry, "log_away") == true).await;
    let before = published();
    until("readings that wait", || handed_over(&telemetry) > before + 500).await;
    mock.broker_up(1).unwrap();
    until("the log to be there again", || status(&telemetry, "log_away") == false && published() > before + 500).await;
    shutdown.trigger();
    let summary = running.await.unwrap().unwrap();
    assert_eq!(summary.published, summary.tally.readings);
    assert_eq!(read(&settings, &settings.topics.input, summary.published).len() as u64, summary.published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_log_is_away_ends_in_time_and_tells_what_is_missing() {
    let (mock, mut settings) = log();
    settings.producer.simulator.rate = 2_000.0;
    settings.producer.drain_timeout = Span::from_millis(300);
    let (telemetry, shutdown) = (Telemetry::default(), Shutdown::manual());
    let running = tokio::spawn(producer::run(settings.clone(), telemetry.clone(), shutdown.clone()));
    until("some readings", || status(&telemetry, "published").as_u64() > Some(100)).await;
    mock.broker_down(1).unwrap();
    until("the log to be missed", || status(&telemetry, "log_away") == true).await;
    // Readings come by the slice: one that the log does not take is waited for.
    until("a reading that is missing", || handed_over(&telemetry) > status(&telemetry, "published").as_u64().unwrap()).await;
    shutdown.trigger();
    let error = tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap().unwrap_err();
    let ProducerError::Undelivered { count, waited, .. } = error else { panic!("{error:?}") };
    assert!(count > 0 && waited == Duration::from_millis(300), "{error:?}");
    assert!(error.to_string().contains("producer.drain_timeout"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_log_refuses_is_an_error_with_advice() {
    let (mock, mut settings) = log();
    settings.producer.simulator.rate = 1_000.0;
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 200]);
    let error = finish(&settings).await.unwrap_err();
    assert!(matches!(&error, ProducerError::Delivery { failed, .. } if *failed > 0), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&RDKafkaErrorCode::MessageSizeTooLarge.to_string()) && text.contains("message.max.bytes"), "{text}");
}

/// A batch that is too large says nothing of its records: sent alone, they pass.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_batch_that_is_too_large_pass_alone() {
    let (mock, mut settings) = log();
    settings.producer.simulator.rate = 0.0;
    settings.producer.simulator.count = Some(2_000);
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    let summary = finish(&settings).await.unwrap();
    assert_eq!((summary.published, summary.dead), (2_000, 0));
    let found = read(&settings, &settings.topics.input, 2_000);
    assert_eq!(found.len(), 2_000);
    assert_eq!(readings(&found).into_iter().map(|r| (r.sensor_id, r.seq)).collect::<BTreeSet<_>>().len(), 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_dropped_stops_publishing() {
    let (_mock, mut settings) = log();
    settings.producer.simulator.rate = 2_000.0;
    let telemetry = Telemetry::default();
    let running = tokio::spawn(producer::run(settings, telemetry.clone(), Shutdown::manual()));
    until("some readings", || status(&telemetry, "published").as_u64() > Some(100)).await;
    running.abort();
    let mut last = 0;
    until("the counter to stand still", || {
        // Longer than the simulator's slice.
        std::thread::sleep(Duration::from_secs(1));
        let now = status(&telemetry, "published").as_u64().unwrap();
        std::mem::replace(&mut last, now) == now
    })
    .await;
}

/// A log that refuses is no end for devices: what it did not take is taken from them again, and arrives.
#[tokio::test(flavor = "multi_thread")]
async fn devices_outlast_a_log_that_refuses() {
    let (mock, mut settings) = log();
    settings.producer.mqtt_listener.listen = Some("127.0.0.1:0".parse().unwrap());
    // Not for ever: the first two attempts are refused.
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    mock.request_errors(RDKafkaApiKey::Produce, &[refused; 2]);
    let shutdown = Shutdown::manual();
    let (telemetry, stop) = (Telemetry::default(), shutdown.clone());
    let run = tokio::spawn(producer::run(settings.clone(), telemetry.clone(), shutdown));
    let mut options = rumqttc::MqttOptions::new("device", "127.0.0.1", listener(&telemetry).await.port());
    // The session keeps what is not acknowledged when the listener ends the connection.
    options.set_clean_session(false);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
    client.publish("sensors/p-1", rumqttc::QoS::AtLeastOnce, false, "21.5").await.unwrap();
    let acknowledged = async {
        loop {
            match events.poll().await {
                Ok(rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))) => return,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), acknowledged).await.unwrap();
    let messages = read(&settings, &settings.topics.input, 1);
    assert_eq!(readings(&messages)[0].sensor_id, "p-1");
    assert_eq!(status(&telemetry, "failed"), 0);
    stop.trigger();
    assert_eq!(run.await.unwrap().unwrap().published, 1);
}

/// A record that the log finds too large is set aside, and its neighbours pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_for_the_log_is_set_aside() {
    let (_mock, mut settings) = log();
    settings.producer.mqtt_listener.listen = Some("127.0.0.1:0".parse().unwrap());
    settings.kafka.properties.insert("message.max.bytes".into(), "20000".into());
    let (telemetry, shutdown) = (Telemetry::default(), Shutdown::manual());
    let stop = shutdown.clone();
    let run = tokio::spawn(producer::run(settings.clone(), telemetry.clone(), shutdown));
    let mut options = rumqttc::MqttOptions::new("device", "127.0.0.1", listener(&telemetry).await.port());
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
    let large = format!(r#"{{"sensor_id":"p","value":1,"note":"{}"}}"#, "x".repeat(50_000));
    for payload in [large, "oops".repeat(10_000), "2".to_owned()] {
        client.publish("sensors/p", rumqttc::QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    let acknowledged = async {
        let mut count = 0;
        while count < 3 {
            match events.poll().await {
                Ok(rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))) => count += 1,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), acknowledged).await.unwrap();
    stop.trigger();
    let summary = run.await.unwrap().unwrap();
    assert_eq!((summary.published, summary.dead), (1, 2));
    let dead = read(&settings, &settings.topics.dead, 2);
    assert!(dead.iter().all(|row| row.payload().unwrap().len() <= 16 * 1024), "cut");
}
