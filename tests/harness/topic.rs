use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::topics::lane_header;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::log::{Log, client};

const LIMIT: Duration = Duration::from_secs(60);

/// A record as it stands in a topic. Header values are text in all our topics.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Record {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name} in {:?} of {}", self.headers, self.text()))
    }

    /// Of a record in a lane: partition and offset of the original.
    #[track_caller]
    pub(crate) fn place(&self) -> (i32, i64) {
        (self.header(lane_header::PARTITION).parse().unwrap(), self.header(lane_header::OFFSET).parse().unwrap())
    }

    pub(crate) fn from(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().map(|all| all.iter().map(|one| (one.key.to_owned(), text(one.value))).collect());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.unwrap_or_default(),
        }
    }
}

/// Every record of the topic, partition after partition, each in its order. No such topic is the same as an empty one.
pub(crate) fn read(log: &Log, topic: &str) -> Vec<Record> {
    let mut records = Vec::new();
    scan(log, topic, |message| records.push(Record::from(message)));
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// How many records lie in the topic.
pub(crate) fn count(log: &Log, topic: &str) -> u64 {
    let consumer = consumer(log);
    let ends = partitions(&consumer, topic).into_iter().map(|partition| consumer.fetch_watermarks(topic, partition, LIMIT).unwrap());
    ends.map(|(low, high)| u64::try_from(high - low).unwrap()).sum()
}

/// Hands every record to `visit`, without keeping any.
pub(crate) fn scan(log: &Log, topic: &str, mut visit: impl FnMut(&BorrowedMessage<'_>)) {
    let consumer = consumer(log);
    let mut open: BTreeSet<i32> = partitions(&consumer, topic).into_iter().collect();
    let mut list = TopicPartitionList::new();
    for partition in &open {
        list.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut last = Instant::now();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                last = Instant::now();
                visit(&message);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(error)) => assert!(last.elapsed() < LIMIT, "reading {topic}: {error}"),
            None => assert!(last.elapsed() < LIMIT, "reading {topic}: no end of partitions {open:?}"),
        }
    }
}

/// Waits for records that come from now on.
pub(crate) struct Watch(BaseConsumer);

impl Watch {
    pub(crate) fn from_end(log: &Log, topic: &str) -> Self {
        let consumer = consumer(log);
        let mut list = TopicPartitionList::new();
        for partition in partitions(&consumer, topic) {
            let (_, end) = consumer.fetch_watermarks(topic, partition, LIMIT).unwrap();
            list.add_partition_offset(topic, partition, Offset::Offset(end)).unwrap();
        }
        consumer.assign(&list).unwrap();
        Self(consumer)
    }

    /// Until a record is the one that is wanted.
    pub(crate) fn wait(&self, limit: Duration, wanted: impl Fn(&BorrowedMessage<'_>) -> bool) {
        let end = Instant::now() + limit;
        loop {
            assert!(Instant::now() < end, "waited {limit:?} in vain for a record");
            if let Some(Ok(message)) = self.0.poll(Duration::from_millis(100))
                && wanted(&message)
            {
                return;
            }
        }
    }
}

fn consumer(log: &Log) -> BaseConsumer {
    let mut config = client(&log.servers());
    config
        .set("group.id", "tidemark-test")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "20")
        // The default makes a reader that is quicker than its queue sleep for a second.
        .set("fetch.queue.backoff.ms", "10");
    config.create().unwrap()
}

pub(crate) fn exists(log: &Log, topic: &str) -> bool {
    !partitions(&consumer(log), topic).is_empty()
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    // All topics, not this one: asking for a topic by name may create it.
    let metadata = consumer.fetch_metadata(None, LIMIT).unwrap();
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    found.map(|topic| topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()).unwrap_or_default()
}

pub(crate) fn create(log: &Log, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = client(&log.servers()).create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    let results = runtime.block_on(admin.create_topics(&[new], &options)).unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    super::wait::wait_until("the new topic to show up", LIMIT, || exists(log, topic));
}

/// Writes `(key, value)` records in order and waits until the log has them.
pub(crate) fn write(log: &Log, topic: &str, records: &[(&str, &[u8])]) {
    let mut writer = Writer::new(log, topic);
    for (key, value) in records {
        writer.send(key.as_bytes(), value);
    }
    writer.finish();
}

/// Hands a record over; while the queue is full the client works.
pub(crate) fn send(producer: &BaseProducer, mut record: BaseRecord<'_, [u8], [u8]>) {
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(rdkafka::error::RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(1));
        record = back;
    }
}

/// Writes many records; the partition follows from the key as with every Kafka client.
pub(crate) struct Writer<'a> {
    producer: BaseProducer,
    topic: &'a str,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(log: &Log, topic: &'a str) -> Self {
        let mut config = client(&log.servers());
        config.set("acks", "all").set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "5");
        Self { producer: config.create().unwrap(), topic }
    }

    pub(crate) fn send(&mut self, key: &[u8], value: &[u8]) {
        send(&self.producer, BaseRecord::to(self.topic).key(key).payload(value));
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until the log has all.
    pub(crate) fn finish(self) {
        self.producer.flush(LIMIT).unwrap();
    }
}
