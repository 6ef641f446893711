//! How many small records go through a log in a second: `cargo run --release -p broker --example throughput [-- os]` starts the broker
//! in the same process; `-- ADDRESS` takes one that runs already, ours or Apache Kafka; `-- ADDRESS fill BYTES` only fills it.
//!
//! librdkafka produces (idempotent, acks=all, lz4) into two partitions and reads them back. `RECORDS` says how many (5,000,000).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use broker::{Broker, BrokerConfig, Durability};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

fn records() -> u64 {
    std::env::var("RECORDS").map_or(5_000_000, |text| text.parse().expect("RECORDS is a number"))
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(address) = arguments.first().filter(|first| first.contains(':')) {
        let (address, bytes) = (address.clone(), arguments.get(2).map(|bytes| bytes.parse().expect("a number of bytes")));
        let work = move || bytes.map_or_else(|| measure(&address), |bytes| fill(&address, bytes));
        tokio::task::spawn_blocking(work).await.unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig::new(dir.path(), "127.0.0.1:0".parse().unwrap());
    if arguments.iter().any(|argument| argument == "os") {
        config.durability = Durability::Os;
    }
    let broker = Broker::start(config).await.unwrap();
    let address = broker.addr().to_string();
    tokio::task::spawn_blocking(move || measure(&address)).await.unwrap();
    println!("{:#?}", broker.stats());
    broker.shutdown().await.unwrap();
}

fn measure(address: &str) {
    let produced = produce(address);
    let consumed = consume(address);
    let rate = |time: Duration| records() as f64 / time.as_secs_f64() / 1e6;
    println!("produced {:.2} M/s, consumed {:.2} M/s", rate(produced), rate(consumed));
}

/// Produces values of 100 kB that do not compress, as many as make `bytes`.
fn fill(address: &str, bytes: u64) {
    create(address, "filled");
    let producer: ThreadedProducer<DefaultProducerContext> =
        client(address).set("acks", "all").set("linger.ms", "20").set("batch.size", "1000000").create().unwrap();
    let mut noise = 1_u64;
    let value: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 56) as u8
    })
    .take(100_000)
    .collect();
    for i in 0..bytes / value.len() as u64 {
        let mut record = BaseRecord::<str, [u8]>::to("filled").partition((i % 2) as i32).payload(&value);
        while let Err((_, back)) = producer.send(record) {
            std::thread::sleep(Duration::from_millis(1));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(120)).unwrap();
}

fn create(address: &str, name: &str) {
    let admin: AdminClient<DefaultClientContext> = client(address).create().unwrap();
    let topic = NewTopic::new(name, 2, TopicReplication::Fixed(1));
    let created = tokio::runtime::Handle::current().block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

fn client(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    config
}

fn produce(address: &str) -> Duration {
    create(address, "iot");
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
    for i in 0..records() {
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
    while found < records() {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            message.unwrap();
            found += 1;
        }
    }
    began.elapsed()
}
