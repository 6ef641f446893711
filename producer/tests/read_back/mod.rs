//! Reads a topic from its beginning.

use std::time::{Duration, Instant};

use common::reading::Reading;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub(crate) const PARTITIONS: i32 = 2;

/// All records of a topic once there are `count`, and one more if there is one too many.
pub(crate) fn read(servers: &str, topic: &str, count: u64) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", servers).set("group.id", "test").set("enable.auto.commit", "false").create().unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut messages = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while (messages.len() as u64) < count && Instant::now() < deadline {
        // An error passes: the topic may still be in the making.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            messages.push(message.detach());
        }
    }
    if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
        messages.push(message.detach());
    }
    messages
}

pub(crate) fn readings(messages: &[OwnedMessage]) -> Vec<Reading> {
    messages.iter().map(|message| serde_json::from_slice(message.payload().unwrap()).unwrap()).collect()
}
