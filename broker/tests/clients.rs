//! librdkafka against the broker: topics, producing, consuming, offsets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_in_order_with_every_codec() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "iot", 2, &[]).await;
    for codec in ["none", "lz4", "zstd", "gzip", "snappy"] {
        let producer: rdkafka::producer::FutureProducer =
            client(&broker).set("enable.idempotence", "true").set("acks", "all").set("compression.type", codec).create().unwrap();
        let (before, _) = (watermarks(&broker, "iot", 0).1, 0);
        let sends: Vec<_> = (0..1000)
            .map(|i| {
                let value = format!("{codec} {i} {}", "x".repeat(50));
                producer.send_result(FutureRecord::<str, str>::to("iot").partition(0).payload(&value)).unwrap()
            })
            .collect();
        producer.flush(PATIENCE).unwrap();
        for (i, sent) in sends.into_iter().enumerate() {
            assert_eq!(sent.await.unwrap().unwrap().offset, before + i as i64);
        }
        let consumer = reader(&broker, "iot", 0, Offset::Offset(before));
        for (i, (offset, value)) in read(&consumer, 1000).into_iter().enumerate() {
            assert_eq!(offset, before + i as i64);
            assert!(value.starts_with(&format!("{codec} {i} ")), "{value}");
        }
    }
    assert_eq!(broker.stats().records_in, 5000);
    assert!(broker.stats().fsyncs > 0);
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_described_and_deleted() {
    let home = Home::new();
    let broker = home.start().await;
    let admin = admin(&broker);
    let options = AdminOptions::new();
    create(&broker, "a", 3, &[("retention.ms", "60000"), ("segment.bytes", "1048576")]).await;
    let bad = [
        NewTopic::new("a", 1, TopicReplication::Fixed(1)),
        NewTopic::new("b/..", 1, TopicReplication::Fixed(1)),
        NewTopic::new("c", 1, TopicReplication::Fixed(3)),
        NewTopic::new("d", 1, TopicReplication::Fixed(1)).set("retention.ms", "soon"),
        NewTopic::new("e", 100_000, TopicReplication::Fixed(1)),
    ];
    let results = admin.create_topics(&bad, &options).await.unwrap();
    let codes: Vec<_> = results.into_iter().map(|result| result.unwrap_err().1).collect();
    assert_eq!(
        codes,
        [
            RDKafkaErrorCode::TopicAlreadyExists,
            RDKafkaErrorCode::InvalidTopic,
            RDKafkaErrorCode::InvalidReplicationFactor,
            RDKafkaErrorCode::InvalidConfig,
            RDKafkaErrorCode::InvalidPartitions,
        ]
    );
    let only_checked = NewTopic::new("f", 1, TopicReplication::Fixed(1));
    admin.create_topics([&only_checked], &AdminOptions::new().validate_only(true)).await.unwrap();
    let described = admin.describe_configs([&ResourceSpecifier::Topic("a")], &options).await.unwrap();
    let resource = described.into_iter().next().unwrap().unwrap();
    assert_eq!(resource.get("retention.ms").unwrap().value.as_deref(), Some("60000"));
    assert_eq!(resource.get("cleanup.policy").unwrap().value.as_deref(), Some("delete"));
    let metadata = admin.inner().fetch_metadata(None, PATIENCE).unwrap();
    let names: Vec<_> = metadata.topics().iter().map(|t| (t.name(), t.partitions().len())).collect();
    assert_eq!(names, [("a", 3)], "asking for a topic's data must not create it, nor a dry run");
    admin.delete_topics(&["a"], &options).await.unwrap()[0].as_ref().unwrap();
    let again = admin.delete_topics(&["a"], &options).await.unwrap();
    assert_eq!(again[0].as_ref().unwrap_err().1, RDKafkaErrorCode::UnknownTopicOrPartition);
    create(&broker, "a", 1, &[]).await;
    assert_eq!(watermarks(&broker, "a", 0), (0, 0));
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "t", 1, &[("segment.bytes", "2048")]).await;
    let producer: rdkafka::producer::FutureProducer = client(&broker).set("linger.ms", "0").create().unwrap();
    for i in 0..100 {
        assert_eq!(send(&producer, "t", 0, &"v".repeat(100), 1_000_000 + i * 10).await, i);
    }
    let consumer: rdkafka::consumer::BaseConsumer = client(&broker).create().unwrap();
    let at = |timestamp| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Offset(timestamp)).unwrap();
        consumer.offsets_for_times(list, PATIENCE).unwrap().elements()[0].offset()
    };
    assert_eq!(at(0), Offset::Offset(0));
    for i in [0, 1, 37, 64, 99] {
        assert_eq!(at(1_000_000 + i * 10), Offset::Offset(i));
        assert_eq!(at(1_000_000 + i * 10 - 3), Offset::Offset(i));
    }
    assert_eq!(at(2_000_000), Offset::End);
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_stay_deleted() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "j", 1, &[("segment.bytes", "2048")]).await;
    let producer = producer(&broker);
    for i in 0..60 {
        send(&producer, "j", 0, &format!("{i} {}", "v".repeat(100)), 1_000 + i).await;
    }
    let folder = home.dir.path().join("log").join("j-0");
    let segments = || std::fs::read_dir(&folder).unwrap().flatten().filter(|e| e.path().extension().is_some_and(|e| e == "log")).count();
    let before = segments();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("j", 0, Offset::Offset(45)).unwrap();
    admin(&broker).delete_records(&list, &AdminOptions::new()).await.unwrap();
    assert_eq!(watermarks(&broker, "j", 0), (45, 60));
    assert!(segments() < before);
    broker.shutdown().await.unwrap();
    let broker = home.start().await;
    assert_eq!(watermarks(&broker, "j", 0), (45, 60));
    let consumer = reader(&broker, "j", 0, Offset::Beginning);
    assert_eq!(read(&consumer, 15)[0].0, 45);
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_wakes_up_when_data_arrives() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "w", 1, &[]).await;
    let consumer: rdkafka::consumer::BaseConsumer = client(&broker)
        .set("group.id", "w")
        .set("fetch.wait.max.ms", "60000")
        .set("socket.timeout.ms", "120000")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("w", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    assert!(consumer.poll(std::time::Duration::from_millis(300)).is_none());
    let began = std::time::Instant::now();
    send(&producer(&broker), "w", 0, "hello", 1).await;
    assert_eq!(read(&consumer, 1), [(0, "hello".to_owned())]);
    assert!(began.elapsed().as_secs() < 50, "it waited out its time");
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_segments_are_deleted() {
    let home = Home::new();
    let mut config = home.config();
    config.retention_check = std::time::Duration::from_millis(50);
    let broker = broker::Broker::start(config).await.unwrap();
    create(&broker, "r", 1, &[("segment.bytes", "2048"), ("retention.bytes", "6000"), ("retention.ms", "-1")]).await;
    let producer: rdkafka::producer::FutureProducer = client(&broker).set("linger.ms", "0").create().unwrap();
    for i in 0..80 {
        send(&producer, "r", 0, &"v".repeat(200), 1_000 + i).await;
    }
    until("retention", || broker.stats().log_bytes < 9_000).await;
    let (low, high) = watermarks(&broker, "r", 0);
    assert!(low > 40 && high == 80, "{low} {high}");
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_work_says_why() {
    let home = Home::new();
    let broker = home.start().await;
    let taken = broker::Broker::start(broker::BrokerConfig::new(tempfile::tempdir().unwrap().path(), broker.addr())).await;
    assert!(matches!(taken, Err(broker::BrokerError::PortInUse { .. })));
    let locked = broker::Broker::start(home.config()).await;
    assert!(matches!(locked, Err(broker::BrokerError::Locked { .. })));
    let file = home.dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let wrong = broker::Broker::start(broker::BrokerConfig::new(&file, "127.0.0.1:0".parse().unwrap())).await;
    assert!(wrong.unwrap_err().to_string().contains("a-file"));
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_replicas_are_asked_for_than_there_are() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "m", 1, &[("min.insync.replicas", "2")]).await;
    assert_eq!(send(&producer(&broker), "m", 0, "taken with acks=all", 1).await, 0);
    broker.shutdown().await.unwrap();
}
