//! The embedded log for the tests, with a producer and a reader.

use std::time::{Duration, Instant};

use broker::{Broker, BrokerConfig};
use common::kafka::{TopicSpec, ensure_topics};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// One result row as it is produced.
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) headers: Vec<(&'static str, String)>,
}

fn headers_of(row: &Row) -> OwnedHeaders {
    row.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }))
}

pub(crate) struct Log {
    broker: Broker,
    _dir: tempfile::TempDir,
}

impl Log {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerConfig::new(dir.path(), "127.0.0.1:0".parse().unwrap())).await.unwrap();
        Self { broker, _dir: dir }
    }

    pub(crate) fn servers(&self) -> String {
        self.broker.addr().to_string()
    }

    pub(crate) async fn stop(self) {
        self.broker.shutdown().await.unwrap();
    }

    pub(crate) async fn create(&self, topics: &[&str]) {
        let kafka = common::settings::Kafka { bootstrap_servers: self.servers(), ..Default::default() };
        let spec = |name: &&str| TopicSpec { name: (*name).into(), partitions: 2, replication: 1, properties: vec![] };
        ensure_topics(&kafka, &topics.iter().map(spec).collect::<Vec<_>>(), &common::Shutdown::manual()).await.unwrap();
    }

    pub(crate) async fn produce(&self, topic: &str, rows: &[Row]) {
        self.send(topic, rows, true);
    }

    /// Without their values.
    pub(crate) async fn produce_nulls(&self, topic: &str, rows: &[Row]) {
        self.send(topic, rows, false);
    }

    fn send(&self, topic: &str, rows: &[Row], with_value: bool) {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", self.servers()).create().unwrap();
        for row in rows {
            let mut record = BaseRecord::to(topic).key(&row.key).headers(headers_of(row));
            if with_value {
                record = record.payload(&row.value);
            }
            while let Err((error, back)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::error::RDKafkaErrorCode::QueueFull));
                producer.poll(Duration::from_millis(50));
                record = back;
            }
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// One record with these headers, whose names may be any bytes.
    pub(crate) async fn produce_odd(&self, topic: &str, row: &Row, odd: &[(&[u8], &[u8])]) {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", self.servers()).create().unwrap();
        let headers = odd.iter().fold(headers_of(row), |all, (name, value)| common::headers::insert(all, name, Some(*value)));
        producer.send(BaseRecord::to(topic).key(&row.key).payload(&row.value).headers(headers)).unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// The first `count` records of `topic`.
    pub(crate) async fn read(&self, topic: &str, count: usize) -> Vec<OwnedMessage> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.servers()).set("group.id", "reader").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let mut found = Vec::new();
        let started = Instant::now();
        while found.len() < count {
            assert!(started.elapsed() < Duration::from_secs(30), "{topic} has only {} records", found.len());
            // An error passes: the topic may still be in the making.
            found.extend(consumer.poll(Duration::from_millis(100)).and_then(Result::ok).map(|message| message.detach()));
        }
        found
    }
}
