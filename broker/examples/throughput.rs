//! How many small records go through the broker in a second: `cargo run --release -p broker --example throughput [-- os]`.
//!
//! librdkafka produces (idempotent, acks=all, lz4) into two partitions and reads them back, in the same process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use broker::{Broker, BrokerConfig, Durability};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const RECORDS: u64 = 5_000_000;

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig::new(dir.path(), "127.0.0.1:0".parse().unwrap());
    if std::env::args().any(|arg| arg == "os") {
        config.durability = Durability::Os;
    }
    let broker = Broker::start(config).await.unwrap();
    let address = broker.addr().to_string();
    let worked = tokio::task::spawn_blocking(move || {
        let produced = produce(&address);
        let consumed = consume(&address);
        (produced, consumed)
    });
    let (produced, consumed) = worked.await.unwrap();
    let rate = |time: Duration| RECORDS as f64 / time.as_secs_f64() / 1e6;
    println!("produced {:.2} M/s, consumed {:.2} M/s", rate(produced), rate(consumed));
    println!("{:#?}", broker.stats());
    broker.shutdown().await.unwrap();
}

fn client(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    config
}

fn produce(address: &str) -> Duration {
    let admin: AdminClient<DefaultClientContext> = client(address).create().unwrap();
    let topic = NewTopic::new("iot", 2, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Handle::current();
    runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = client(address)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "20000")
        .set("queue.buffering.max.messages", "500000")
        .create()
        .unwrap();
    let began = Instant::now();
    for i in 0..RECORDS {
        let payload = format!(
            r#"{{"sensor_id":"s-{:04}","ts":{},"value":{}.5,"kind":"temperature","seq":{i}}}"#,
            i % 1000,
            1_700_000_000_000 + i,
            i % 40
        );
        let mut record = BaseRecord::<str, str>::to("iot").partition((i % 2) as i32).payload(&payload);
        while let Err((fault, back)) = producer.send(record) {
            assert_eq!(fault, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            std::thread::sleep(Duration::from_millis(1));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    began.elapsed()
}

fn consume(address: &str) -> Duration {
    // With its default queue limits librdkafka pauses for a second (`fetch.queue.backoff.ms`) after every 100,000 records.
    let consumer: BaseConsumer = client(address)
        .set("group.id", "throughput")
        .set("enable.auto.commit", "false")
        .set("queued.min.messages", "1000000")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..2 {
        list.add_partition_offset("iot", partition, Offset::Beginning).unwrap();
    }
    let began = Instant::now();
    consumer.assign(&list).unwrap();
    let mut found = 0;
    while found < RECORDS {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            message.unwrap();
            found += 1;
        }
    }
    began.elapsed()
}
