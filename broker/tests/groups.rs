//! Consumer groups: balancing, commits, static members, restarts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use broker::Broker;
use common::*;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

fn member(broker: &Broker, group: &str, instance: Option<&str>) -> BaseConsumer {
    let mut config = client(broker);
    config
        .set("group.id", group)
        .set("session.timeout.ms", "120000")
        .set("heartbeat.interval.ms", "100")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    if let Some(instance) = instance {
        config.set("group.instance.id", instance);
    }
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&["iot"]).unwrap();
    consumer
}

fn assigned(consumer: &BaseConsumer) -> usize {
    // Polling is what lets librdkafka take part in the balancing: every member must be polled for any of them to go on.
    drop(consumer.poll(Duration::from_millis(10)));
    consumer.assignment().unwrap().count()
}

fn commit(consumer: &BaseConsumer, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("iot", partition, Offset::Offset(offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

fn committed(consumer: &BaseConsumer, partition: i32) -> Offset {
    let mut list = TopicPartitionList::new();
    list.add_partition("iot", partition);
    consumer.committed_offsets(list, PATIENCE).unwrap().elements()[0].offset()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_and_one_takes_over() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "iot", 2, &[]).await;
    let first = member(&broker, "g", None);
    until("all for the first", || assigned(&first) == 2).await;
    let second = member(&broker, "g", None);
    until("one for each", || [assigned(&first), assigned(&second)] == [1, 1]).await;
    drop(second);
    until("all for the first again", || assigned(&first) == 2).await;
    assert_eq!(broker.stats().groups, 1);
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_survive_a_restart() {
    let home = Home::new();
    let broker = home.start().await;
    let addr = broker.addr();
    create(&broker, "iot", 2, &[]).await;
    let producer = producer(&broker);
    for i in 0..20 {
        send(&producer, "iot", i % 2, &format!("{i}"), 1).await;
    }
    let consumer = member(&broker, "g", None);
    until("an assignment", || assigned(&consumer) == 2).await;
    commit(&consumer, 0, 4);
    commit(&consumer, 1, 7);
    broker.shutdown().await.unwrap();
    let broker = home.start_at(addr).await;
    let other: BaseConsumer = client(&broker).set("group.id", "g").create().unwrap();
    assert_eq!((committed(&other, 0), committed(&other, 1)), (Offset::Offset(4), Offset::Offset(7)));
    // The member of before goes on in its old generation.
    commit(&consumer, 1, 8);
    assert_eq!(committed(&other, 1), Offset::Offset(8));
    drop(consumer);
    let next = member(&broker, "g", None);
    let mut least = [i64::MAX; 2];
    until("records from the committed offsets on", || {
        if let Some(Ok(message)) = next.poll(Duration::from_millis(10)) {
            let at = &mut least[message.partition() as usize];
            *at = (*at).min(message.offset());
        }
        least.iter().all(|offset| *offset < i64::MAX)
    })
    .await;
    assert_eq!(least, [4, 8]);
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_comes_back_to_its_place() {
    let home = Home::new();
    let broker = home.start().await;
    let addr = broker.addr();
    create(&broker, "iot", 2, &[]).await;
    let first = member(&broker, "g", Some("one"));
    let second = member(&broker, "g", Some("two"));
    until("one for each", || [assigned(&first), assigned(&second)] == [1, 1]).await;
    let held = |consumer: &BaseConsumer| consumer.assignment().unwrap().elements()[0].partition();
    let (of_first, of_second) = (held(&first), held(&second));
    // librdkafka's static members do not say goodbye; the next incarnation takes the place without a rebalance.
    drop(second);
    let second = member(&broker, "g", Some("two"));
    until("the old place", || assigned(&second) == 1).await;
    assert_eq!((held(&first), held(&second)), (of_first, of_second));
    drop(second);
    drop(first);
    broker.shutdown().await.unwrap();
    let broker = home.start_at(addr).await;
    let second = member(&broker, "g", Some("two"));
    until("the old place after a restart of the broker", || assigned(&second) == 1).await;
    assert_eq!(held(&second), of_second);
    broker.shutdown().await.unwrap();
}
