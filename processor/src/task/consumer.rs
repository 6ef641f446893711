//! Plain consumers without a group: one topic, chosen partitions, explicit offsets.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;

use super::error::TaskError;
use super::owner::Owner;

/// Says librdkafka's errors once where they are handled, not a second time from its callback.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

/// The first offset that the log has of a partition.
///
/// Asked for explicitly: a new consumer that is sent to "the beginning" before it knows the partition's leader waits half a second.
pub(crate) fn beginning(consumer: &BaseConsumer<Quiet>, topic: &str, partition: i32, owner: &Owner) -> Result<i64, TaskError> {
    loop {
        match consumer.fetch_watermarks(topic, partition, Duration::from_secs(1)) {
            Ok((first, _end)) => return Ok(first),
            Err(error) => tracing::debug!(topic, partition, %error, "waiting for the log"),
        }
        owner.beat();
        if owner.stop.wait_timeout(Duration::from_millis(50)) {
            return Err(TaskError::Stopped);
        }
    }
}
