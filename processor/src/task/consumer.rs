//! Plain consumers without a group: one topic, chosen partitions, explicit offsets.

use std::time::{Duration, Instant};

use common::Settings;
use common::client_log::Quiet;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::error::TaskError;
use super::owner::Owner;

/// How long a question may go unanswered before somebody is told.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the first question waits for its answer. Each further one waits twice as long as the one before, for a log that is far away or busy;
/// before it is a pause of a tenth of what that one has waited.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Of a client that reads journals from their beginnings. `group` is for the log's rights, and for what is committed by hand.
pub(crate) fn of_journals(settings: &Settings, client: &str, group: String) -> ClientConfig {
    let mut config = common::kafka::client(&settings.kafka, client);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        // A journal that is cut while it is read goes on with the snapshot before which it was cut.
        .set("auto.offset.reset", "earliest")
        .set("fetch.error.backoff.ms", "50")
        .set("queued.max.messages.kbytes", "16384")
        .set("check.crcs", "true");
    config
}

/// The first offset that the log has of a partition, and the one after its last.
///
/// Asked for explicitly: a new consumer that is sent to "the beginning" before it knows the partition's leader waits half a second. Asked again
/// soon: librdkafka gives up the connection that it began with as soon as it knows the brokers' names, and a question about the leader that is on
/// its way there is lost; the client itself would put it again after half a second.
pub(crate) fn range(consumer: &BaseConsumer<Quiet>, topic: &str, partition: i32, owner: &Owner) -> Result<(i64, i64), TaskError> {
    let started = Instant::now();
    let (mut said, mut wait) = (false, FIRST_WAIT);
    loop {
        match consumer.fetch_watermarks(topic, partition, wait) {
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
        if owner.stop.wait_timeout(wait / 10) {
            return Err(TaskError::Stopped);
        }
        wait = LONGEST_WAIT.min(2 * wait);
    }
}
