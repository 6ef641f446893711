//! Transactions with librdkafka: all or nothing, in one order, whoever dies.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use broker::Broker;
use common::*;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

fn transactional(broker: &Broker, id: &str, timeout_ms: u32) -> BaseProducer {
    let mut config = client(broker);
    config.set("transactional.id", id).set("transaction.timeout.ms", timeout_ms.to_string());
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn put(producer: &BaseProducer, partition: i32, values: std::ops::Range<u32>) {
    for value in values {
        producer.send(BaseRecord::<str, str>::to("t").partition(partition).payload(&value.to_string())).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Values of a partition from the first offset to the end that this isolation shows.
fn values(broker: &Broker, partition: i32, isolation: &str) -> Vec<u32> {
    let consumer: BaseConsumer = client(broker)
        .set("group.id", "reader")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", partition, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut found = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("the end of the partition") {
            Ok(message) => found.push(std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap()),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return found,
            Err(fault) => panic!("{fault}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_aborted_is_never_read_and_what_is_open_not_yet() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "t", 2, &[("segment.bytes", "4096")]).await;
    let (one, two) = (transactional(&broker, "one", 60_000), transactional(&broker, "two", 60_000));
    one.begin_transaction().unwrap();
    put(&one, 0, 0..50);
    put(&one, 1, 0..5);
    two.begin_transaction().unwrap();
    put(&two, 0, 100..150);
    assert_eq!(values(&broker, 0, "read_committed"), Vec::<u32>::new());
    assert_eq!(values(&broker, 0, "read_uncommitted").len(), 100);
    two.commit_transaction(PATIENCE).unwrap();
    assert_eq!(values(&broker, 0, "read_committed"), Vec::<u32>::new(), "what is open comes first");
    one.abort_transaction(PATIENCE).unwrap();
    assert_eq!(values(&broker, 0, "read_committed"), (100..150).collect::<Vec<_>>());
    assert!(values(&broker, 1, "read_committed").is_empty());
    one.begin_transaction().unwrap();
    put(&one, 0, 50..60);
    one.commit_transaction(PATIENCE).unwrap();
    let wanted: Vec<u32> = (100..150).chain(50..60).collect();
    assert_eq!(values(&broker, 0, "read_committed"), wanted);
    assert_eq!(values(&broker, 0, "read_uncommitted").len(), 110);
    let addr = broker.addr();
    drop(broker);
    let broker = home.start_at(addr).await;
    assert_eq!(values(&broker, 0, "read_committed"), wanted, "after a crash");
    broker.shutdown().await.unwrap();
    let broker = home.start_at(addr).await;
    assert_eq!(values(&broker, 0, "read_committed"), wanted, "after a clean stop");
    one.begin_transaction().unwrap();
    put(&one, 0, 60..61);
    one.commit_transaction(PATIENCE).unwrap();
    assert_eq!(values(&broker, 0, "read_committed").last(), Some(&60));
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_producer_shuts_the_older_one_out() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "t", 2, &[]).await;
    let old = transactional(&broker, "same", 60_000);
    old.begin_transaction().unwrap();
    put(&old, 0, 0..10);
    let new = transactional(&broker, "same", 60_000);
    let refused = old.commit_transaction(PATIENCE).unwrap_err();
    let codes = [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::InvalidProducerEpoch, RDKafkaErrorCode::ProducerFenced];
    assert!(refused.rdkafka_error_code().is_some_and(|code| codes.contains(&code)), "{refused:?}");
    new.begin_transaction().unwrap();
    put(&new, 0, 10..20);
    new.commit_transaction(PATIENCE).unwrap();
    assert_eq!(values(&broker, 0, "read_committed"), (10..20).collect::<Vec<_>>());
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_takes_too_long_is_aborted() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "t", 2, &[]).await;
    let slow = transactional(&broker, "slow", 1_000);
    slow.begin_transaction().unwrap();
    put(&slow, 0, 0..10);
    let quick = transactional(&broker, "quick", 60_000);
    quick.begin_transaction().unwrap();
    put(&quick, 0, 10..20);
    quick.commit_transaction(PATIENCE).unwrap();
    until("the slow one to be given up", || values(&broker, 0, "read_committed").len() == 10).await;
    assert_eq!(values(&broker, 0, "read_committed"), (10..20).collect::<Vec<_>>());
    assert!(slow.commit_transaction(PATIENCE).is_err());
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_survives_a_crash_of_the_broker() {
    let home = Home::new();
    let broker = home.start().await;
    let addr = broker.addr();
    create(&broker, "t", 2, &[]).await;
    let producer = transactional(&broker, "long", 60_000);
    producer.begin_transaction().unwrap();
    put(&producer, 0, 0..10);
    drop(broker);
    let broker = home.start_at(addr).await;
    assert!(values(&broker, 0, "read_committed").is_empty());
    put(&producer, 0, 10..20);
    put(&producer, 1, 20..30);
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(values(&broker, 0, "read_committed"), (0..20).collect::<Vec<_>>());
    assert_eq!(values(&broker, 1, "read_committed"), (20..30).collect::<Vec<_>>());
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_part_of_the_transaction() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "t", 2, &[]).await;
    let plain = producer(&broker);
    for i in 0..10 {
        send(&plain, "t", 0, &i.to_string(), 1).await;
    }
    let consumer: BaseConsumer =
        client(&broker).set("group.id", "g").set("enable.auto.commit", "false").set("auto.offset.reset", "earliest").create().unwrap();
    consumer.subscribe(&["t"]).unwrap();
    until("an assignment", || {
        drop(consumer.poll(Duration::from_millis(10)));
        consumer.assignment().unwrap().count() == 2
    })
    .await;
    let committed = || {
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0);
        consumer.committed_offsets(list, PATIENCE).unwrap().elements()[0].offset()
    };
    let through = |offset, commit| {
        let producer = transactional(&broker, "through", 60_000);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Offset(offset)).unwrap();
        producer.begin_transaction().unwrap();
        put(&producer, 1, 0..1);
        producer.send_offsets_to_transaction(&list, &consumer.group_metadata().unwrap(), PATIENCE).unwrap();
        if commit { producer.commit_transaction(PATIENCE).unwrap() } else { producer.abort_transaction(PATIENCE).unwrap() }
    };
    through(4, false);
    assert_eq!(committed(), Offset::Invalid);
    through(5, true);
    assert_eq!(committed(), Offset::Offset(5));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(6)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
    let addr = broker.addr();
    drop(broker);
    let broker = home.start_at(addr).await;
    assert_eq!(committed(), Offset::Offset(6), "the transaction of before does not come back");
    assert_eq!(values(&broker, 1, "read_committed"), [0]);
    broker.shutdown().await.unwrap();
}
