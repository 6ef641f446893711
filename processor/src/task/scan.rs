//! Reading what a topic holds, from its beginning to where it ends now. No group, and nothing is committed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::Settings;
use common::aside::EndsAside;
use common::client_log::Quiet;
use common::kafka::LogError;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::consumer::range;
use super::error::{ProcessorError, TaskError};
use super::owner::Owner;

/// How long a partition may say nothing before the reader gives up.
const SILENCE: Duration = Duration::from_secs(30);

fn consumer(settings: &Settings) -> Result<EndsAside<BaseConsumer<Quiet>>, KafkaError> {
    let mut config = common::kafka::client(&settings.kafka, "processor-scan");
    config
        .set("group.id", "tidemark.scan")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.max.messages.kbytes", "16384")
        .set("check.crcs", "true");
    config.create_with_context(Quiet).map(EndsAside::new)
}

/// The partitions of a topic; none when there is no such topic.
///
/// # Errors
/// When the log does not answer within `kafka.request_timeout`.
pub(crate) fn partitions(settings: &Settings, topic: &str) -> Result<Vec<i32>, ProcessorError> {
    let away = |cause: KafkaError| LogError::Unreachable { servers: settings.kafka.bootstrap_servers.clone(), cause: cause.to_string() };
    let consumer = consumer(settings).map_err(LogError::Client)?;
    // All topics, not this one: asking for a topic by name may create it.
    let metadata = consumer.fetch_metadata(None, settings.kafka.request_timeout.duration()).map_err(away)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    Ok(found.map(|topic| topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()).unwrap_or_default())
}

/// One past the last offset of each partition of a topic.
///
/// # Errors
/// When the log does not answer.
pub(crate) fn ends(settings: &Settings, topic: &str, owner: &Owner) -> Result<BTreeMap<i32, i64>, ProcessorError> {
    let consumer = consumer(settings).map_err(LogError::Client)?;
    let end = |partition| range(&consumer, topic, partition, owner).map(|(_, end)| (partition, end)).map_err(fault);
    partitions(settings, topic)?.into_iter().map(end).collect()
}

/// Reads one partition up to the end that it had when the reading began.
pub(crate) struct PartitionReader {
    consumer: EndsAside<BaseConsumer<Quiet>>,
    place: String,
    first: i64,
    /// The next offset.
    next: i64,
    end: i64,
}

impl PartitionReader {
    pub(crate) fn open(settings: &Settings, topic: &str, partition: i32, owner: &Owner) -> Result<Self, TaskError> {
        let consumer = consumer(settings)?;
        let (first, end) = range(&consumer, topic, partition, owner)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(first))?;
        consumer.assign(&list)?;
        Ok(Self { consumer, place: format!("{topic}-{partition}"), first, next: first, end })
    }

    /// Its name: the topic and the number.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The first offset that the log had when the reading began.
    pub(crate) fn first(&self) -> i64 {
        self.first
    }

    /// The next offset to be read.
    pub(crate) fn position(&self) -> i64 {
        self.next
    }

    /// Reads no further than to `end`.
    pub(crate) fn until(mut self, end: i64) -> Self {
        self.end = self.end.min(end);
        self
    }

    /// The next record; `None` at the end. [`TaskError::Retry`] is a partition that was cut behind the reader, which must begin anew.
    pub(crate) fn next(&mut self, patience: Duration, owner: &Owner) -> Result<Option<BorrowedMessage<'_>>, TaskError> {
        let heard = Instant::now();
        while self.next < self.end {
            if owner.stop.is_set() {
                return Err(TaskError::Stopped);
            }
            match self.consumer.poll(patience) {
                Some(Ok(message)) if message.offset() >= self.end => {
                    self.next = self.end;
                    return Ok(None);
                }
                Some(Ok(message)) => {
                    self.next = message.offset() + 1;
                    return Ok(Some(message));
                }
                // The last offsets of a partition may have no records.
                Some(Err(KafkaError::PartitionEOF(_))) => self.next = self.end,
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))) => {
                    return Err(TaskError::Retry(format!("{} was cut by its retention while it was read; try once more", self.place)));
                }
                Some(Err(error)) if heard.elapsed() > SILENCE => {
                    return Err(TaskError::Fatal(format!("{} cannot be read: {error}", self.place)));
                }
                None if heard.elapsed() > SILENCE => {
                    return Err(TaskError::Fatal(format!("{} cannot be read: the log does not answer", self.place)));
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(None)
    }
}

/// Hands every record of a topic to `visit`, partition by partition. A topic that is not there is an empty one.
///
/// # Errors
/// When the log does not answer, or the first error of `visit`.
pub(crate) fn scan(
    settings: &Settings,
    topic: &str,
    owner: &Owner,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), ProcessorError> {
    for partition in partitions(settings, topic)? {
        let mut reader = PartitionReader::open(settings, topic, partition, owner).map_err(fault)?;
        while let Some(message) = reader.next(Duration::from_millis(100), owner).map_err(fault)? {
            visit(&message);
        }
    }
    Ok(())
}

pub(crate) fn fault(error: TaskError) -> ProcessorError {
    ProcessorError::Task(error.to_string())
}
