//! Plain consumers without a group: one topic, chosen partitions, explicit offsets.

use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;

use super::error::TaskError;
use super::owner::Owner;

/// How long a question may go unanswered before somebody is told.
const PATIENCE: Duration = Duration::from_secs(3);

/// Says librdkafka's errors once where they are handled, not a second time from its callback.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

/// The first offset that the log has of a partition, and the one after its last.
///
/// Asked for explicitly: a new consumer that is sent to "the beginning" before it knows the partition's leader waits half a second.
pub(crate) fn range(consumer: &BaseConsumer<Quiet>, topic: &str, partition: i32, owner: &Owner) -> Result<(i64, i64), TaskError> {
    let started = Instant::now();
    let mut said = false;
    loop {
        match consumer.fetch_watermarks(topic, partition, Duration::from_secs(1)) {
            Ok(range) => return Ok(range),
            Err(error) if !said && started.elapsed() > PATIENCE => {
                tracing::warn!(topic, partition, %error, "the log does not say where this partition begins; trying on");
                said = true;
            }
            Err(error) => {
                // What the client believes of the topic may be out of date: asking for it anew replaces that.
                let known = consumer.fetch_metadata(Some(topic), Duration::from_secs(1));
                tracing::debug!(topic, partition, %error, known = known.is_ok(), "asking again");
            }
        }
        owner.beat();
        if owner.stop.wait_timeout(Duration::from_millis(50)) {
            return Err(TaskError::Stopped);
        }
    }
}
