//! SIGKILL under load, again and again: every acknowledged record is there once, in order, and committed offsets are kept.
//!
//! `TIDEMARK_TEST_KILLS=50` kills more often than the default, `TIDEMARK_TEST_RECORDS=1000000` kills after as many acknowledged records.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use common::PATIENCE;
use common::process::Process;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, FutureProducer, FutureRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

/// Not a test: the process that is killed.
#[test]
fn broker_process() {
    common::process::run_if_asked();
}

fn client(address: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address.to_string()).set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "100");
    config
}

/// Sends the numbers from 0 on, a hundred at a time in flight, until told to stop; returns how many were acknowledged.
async fn send_numbers(producer: FutureProducer, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> u64 {
    let mut next = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let values: Vec<String> = (next..next + 100).map(|number| number.to_string()).collect();
        let deliveries: Vec<_> = values
            .iter()
            .map(|value| producer.send_result(FutureRecord::<str, str>::to("iot").partition(0).payload(value)).unwrap())
            .collect();
        for (i, delivery) in deliveries.into_iter().enumerate() {
            let delivery = delivery.await.unwrap().map_err(|(fault, _)| fault).unwrap();
            assert_eq!(delivery.offset, next as i64 + i as i64);
        }
        next += 100;
        sent.store(next, Ordering::SeqCst);
    }
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_and_double_nothing() {
    let kills: u64 = std::env::var("TIDEMARK_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let (mut process, address) = Process::start(dir.path(), "127.0.0.1:0");
    let admin: AdminClient<DefaultClientContext> = client(address).create().unwrap();
    let topic = NewTopic::new("iot", 1, TopicReplication::Fixed(1)).set("segment.bytes", "65536");
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    let producer = client(address).set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "1").create().unwrap();
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sending = tokio::spawn(send_numbers(producer, stop.clone(), sent.clone()));
    let group: BaseConsumer = client(address).set("group.id", "g").set("enable.auto.commit", "false").create().unwrap();
    let mut least = 0;
    for kill in 1..=kills {
        common::until("the producer to go on", || sent.load(Ordering::SeqCst) >= least + 300).await;
        least = sent.load(Ordering::SeqCst);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("iot", 0, Offset::Offset(kill as i64)).unwrap();
        group.commit(&list, CommitMode::Sync).unwrap();
        drop(process);
        process = Process::start(dir.path(), &address.to_string()).0;
        let mut list = TopicPartitionList::new();
        list.add_partition("iot", 0);
        let committed = group.committed_offsets(list, PATIENCE).unwrap().elements()[0].offset();
        assert_eq!(committed, Offset::Offset(kill as i64), "kill {kill}");
    }
    stop.store(true, Ordering::SeqCst);
    let count = sending.await.unwrap();
    let consumer: BaseConsumer = client(address).set("group.id", "reader").set("enable.auto.commit", "false").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("iot", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (mut next, deadline) = (0_u64, Instant::now() + PATIENCE);
    while next < count {
        assert!(Instant::now() < deadline, "only {next} of {count} came");
        if let Some(message) = consumer.poll(PATIENCE) {
            let message = message.unwrap();
            let value = std::str::from_utf8(message.payload().unwrap()).unwrap();
            assert_eq!((message.offset(), value), (next as i64, next.to_string().as_str()));
            next += 1;
        }
    }
    assert_eq!(consumer.fetch_watermarks("iot", 0, PATIENCE).unwrap(), (0, count as i64));
    drop(process);
}

/// Counts what is acknowledged in each partition.
#[derive(Clone, Default)]
struct Acknowledged(Arc<[AtomicU64; 2]>);

impl Acknowledged {
    fn counts(&self) -> [u64; 2] {
        [self.0[0].load(Ordering::SeqCst), self.0[1].load(Ordering::SeqCst)]
    }
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let message = result.as_ref().expect("every record is delivered in the end");
        self.0[message.partition() as usize].fetch_add(1, Ordering::SeqCst);
    }
}

/// Sends numbers to two partitions, each from 0 on, as fast as they are taken, until told to stop; returns how many went to each.
fn send_fast(producer: &ThreadedProducer<Acknowledged>, stop: &AtomicBool) -> u64 {
    let mut next = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let value = next.to_string();
        for partition in 0..2 {
            let mut record = BaseRecord::<str, str>::to("iot").partition(partition).payload(&value);
            while let Err((_, back)) = producer.send(record) {
                std::thread::yield_now();
                record = back;
            }
        }
        next += 1;
    }
    next
}

/// Reads a partition from its beginning: the numbers from 0 on, each once, up to `count`.
fn check_numbers(address: SocketAddr, partition: i32, count: u64) {
    let consumer: BaseConsumer = client(address).set("group.id", "reader").set("enable.auto.commit", "false").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("iot", partition, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    for next in 0..count {
        let message = consumer.poll(PATIENCE).unwrap_or_else(|| panic!("only {next} of {count} came")).unwrap();
        let value = std::str::from_utf8(message.payload().unwrap()).unwrap();
        assert_eq!((message.offset(), value), (next as i64, next.to_string().as_str()), "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_with_many_acknowledged_records_loses_and_doubles_nothing() {
    let records: u64 = std::env::var("TIDEMARK_TEST_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let dir = tempfile::tempdir().unwrap();
    let (process, address) = Process::start(dir.path(), "127.0.0.1:0");
    let admin: AdminClient<DefaultClientContext> = client(address).create().unwrap();
    admin.create_topics([&NewTopic::new("iot", 2, TopicReplication::Fixed(1))], &AdminOptions::new()).await.unwrap();
    let acknowledged = Acknowledged::default();
    let mut config = client(address);
    config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5").set("compression.type", "lz4");
    let producer: Arc<ThreadedProducer<_>> = Arc::new(config.create_with_context(acknowledged.clone()).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let sending = {
        let (producer, stop) = (producer.clone(), stop.clone());
        tokio::task::spawn_blocking(move || send_fast(&producer, &stop))
    };
    let more_than = |count: u64| acknowledged.counts().iter().sum::<u64>() >= count;
    common::until("the acknowledgements", || more_than(records)).await;
    drop(process);
    let before = acknowledged.counts();
    let (process, _) = Process::start(dir.path(), &address.to_string());
    for (partition, count) in before.iter().enumerate() {
        let reader: BaseConsumer = client(address).create().unwrap();
        let (start, end) = reader.fetch_watermarks("iot", partition as i32, PATIENCE).unwrap();
        assert!(start == 0 && end >= *count as i64, "{count} were acknowledged, {end} are there");
    }
    let at_kill: u64 = before.iter().sum();
    common::until("the producer to go on", || more_than(at_kill + 1000)).await;
    stop.store(true, Ordering::SeqCst);
    let sent = sending.await.unwrap();
    tokio::task::spawn_blocking(move || producer.flush(PATIENCE)).await.unwrap().unwrap();
    assert_eq!(acknowledged.counts(), [sent, sent]);
    eprintln!("killed after {at_kill} acknowledged records; {} in the end", 2 * sent);
    for partition in 0..2 {
        tokio::task::spawn_blocking(move || check_numbers(address, partition, sent)).await.unwrap();
    }
    drop(process);
}
