//! The log from its beginning to its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::Settings;
use common::client_log::Quiet;
use common::kafka::LogError;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::VerifyError;
use crate::batch::Offsets;

pub(super) struct Log {
    consumer: BaseConsumer<Quiet>,
    servers: String,
    patience: Duration,
}

impl Log {
    /// `output` is the name behind the consumer group, whose committed offsets are asked for.
    pub(super) fn open(settings: &Settings, output: &str) -> Result<Self, VerifyError> {
        let mut config = common::kafka::client(&settings.kafka, "sink-verify");
        config
            .set("group.id", format!("tidemark.sink.{output}"))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "10");
        common::kafka::apply_properties(&mut config, &settings.kafka);
        let (servers, patience) = (settings.kafka.bootstrap_servers.clone(), settings.kafka.request_timeout.duration());
        Ok(Self { consumer: config.create_with_context(Quiet)?, servers, patience })
    }

    /// The topics that an output with these settings reads, with the numbers of their partitions.
    pub(super) fn topics(&self, wanted: &[String]) -> Result<BTreeMap<String, i32>, VerifyError> {
        let default = [format!("^{}.*", common::topics::aggregate("").replace('.', r"\."))];
        let wanted = if wanted.is_empty() { &default } else { wanted };
        let mut tests: Vec<(bool, String)> = Vec::new();
        for name in wanted {
            tests.push(match name.strip_prefix('^') {
                None => (false, name.clone()),
                // Only a beginning is understood, which is what patterns are used for.
                Some(pattern) => {
                    let prefix = pattern.strip_suffix(".*").map(|prefix| prefix.replace(r"\.", "."));
                    let plain = prefix.filter(|prefix| common::topics::check_name(prefix).is_ok());
                    (true, plain.ok_or_else(|| VerifyError::Pattern(name.clone()))?)
                }
            });
        }
        let away = |error: KafkaError| LogError::Unreachable { servers: self.servers.clone(), cause: error.to_string() };
        let metadata = self.consumer.fetch_metadata(None, self.patience).map_err(away)?;
        let matches = |topic: &str| tests.iter().any(|(prefix, name)| if *prefix { topic.starts_with(name) } else { topic == name });
        let found = metadata.topics().iter().filter(|topic| matches(topic.name()));
        Ok(found.map(|topic| (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))).collect())
    }

    /// How far the consumer group has committed.
    pub(super) fn committed(&self, topics: &BTreeMap<String, i32>) -> Result<Offsets, VerifyError> {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                list.add_partition(topic, partition);
            }
        }
        let committed = self.consumer.committed_offsets(list, self.patience)?;
        let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some(((element.topic().to_owned(), element.partition()), offset)),
            _ => None,
        };
        Ok(committed.elements().iter().filter_map(offset).collect())
    }

    /// Hands every record of the topics to `visit`, up to where they end now.
    pub(super) fn scan(&self, topics: &BTreeMap<String, i32>, mut visit: impl FnMut(&BorrowedMessage<'_>)) -> Result<(), VerifyError> {
        let mut open = 0;
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                list.add_partition_offset(topic, partition, Offset::Beginning)?;
                open += 1;
            }
        }
        self.consumer.assign(&list)?;
        let mut last = Instant::now();
        while open > 0 {
            match self.consumer.poll(Duration::from_millis(200)) {
                Some(Ok(record)) => {
                    last = Instant::now();
                    visit(&record);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    last = Instant::now();
                    open -= 1;
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
                Some(Err(error @ KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed))) => return Err(error.into()),
                Some(Err(_)) | None if last.elapsed() > self.patience => return Err(VerifyError::Silent(format!("{:?}", self.patience))),
                Some(Err(_)) | None => {}
            }
        }
        self.consumer.unassign()?;
        Ok(())
    }
}
