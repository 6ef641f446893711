//! What the tests share: a broker in a temporary directory, and real clients for it.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, clippy::unwrap_used, clippy::expect_used)]

pub mod process;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use broker::{Broker, BrokerConfig};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord, ThreadedProducer};
use rdkafka::{Message, Offset, TopicPartitionList};

/// Long enough for a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Home {
    pub dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn config(&self) -> BrokerConfig {
        // Records here are from 1970; only the tests of retention want them gone.
        let retention_check = Duration::from_hours(24);
        BrokerConfig { retention_check, ..BrokerConfig::new(self.dir.path(), "127.0.0.1:0".parse().unwrap()) }
    }

    pub async fn start(&self) -> Broker {
        Broker::start(self.config()).await.unwrap()
    }

    /// Starts again at the address that clients know.
    pub async fn start_at(&self, addr: std::net::SocketAddr) -> Broker {
        let mut config = self.config();
        config.listen = addr;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Broker::start(config.clone()).await {
                Ok(broker) => return broker,
                Err(fault) if Instant::now() > deadline => panic!("{fault}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

pub fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.addr().to_string()).set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "100");
    config
}

pub fn producer(broker: &Broker) -> FutureProducer {
    client(broker)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "2")
        .create()
        .unwrap()
}

pub fn threaded_producer(broker: &Broker) -> ThreadedProducer<rdkafka::producer::DefaultProducerContext> {
    client(broker).set("enable.idempotence", "true").set("acks", "all").create().unwrap()
}

pub fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    client(broker).create().unwrap()
}

pub async fn create(broker: &Broker, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (name, value) in configs {
        topic = topic.set(name, value);
    }
    let created = admin(broker).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert_eq!(created[0].as_deref().map_err(|(_, code)| *code), Ok(name));
}

pub async fn send(producer: &FutureProducer, topic: &str, partition: i32, value: &str, timestamp: i64) -> i64 {
    let record = FutureRecord::<str, str>::to(topic).partition(partition).payload(value).timestamp(timestamp);
    producer.send(record, PATIENCE).await.unwrap().offset
}

/// A consumer of one partition from `offset` on, without a group's balancing.
pub fn reader(broker: &Broker, topic: &str, partition: i32, offset: Offset) -> BaseConsumer {
    let consumer: BaseConsumer = client(broker).set("group.id", "reader").set("enable.auto.commit", "false").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, offset).unwrap();
    consumer.assign(&list).unwrap();
    consumer
}

/// Reads `count` records as (offset, value).
pub fn read(consumer: &BaseConsumer, count: usize) -> Vec<(i64, String)> {
    let deadline = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while found.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} records came", found.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.unwrap();
            let value = String::from_utf8(message.payload().unwrap_or_default().to_vec()).unwrap();
            found.push((message.offset(), value));
        }
    }
    found
}

/// Number of records in a partition, as the broker says.
pub fn watermarks(broker: &Broker, topic: &str, partition: i32) -> (i64, i64) {
    let consumer: BaseConsumer = client(broker).create().unwrap();
    consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap()
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target: PathBuf = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
