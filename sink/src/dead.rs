//! The dead lane: rows that no database takes, whole, with the reason.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::Settings;
use common::topics::lane_header;
use common::{client_log, too_large};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, Header, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::SinkError;
use crate::batch::DeadRow;
use crate::mapping::Unreadable;

const STAGE: &str = "sink";
/// A row of the result topic plus our headers must fit; the topic's own limit decides.
const MAX_MESSAGE: &str = "67108864";
const FLUSH: Duration = Duration::from_secs(2);

/// A row on its way, or one that the lane found too large.
#[derive(Debug)]
struct Row {
    key: Option<Vec<u8>>,
    /// The beginning of it, when the lane did not take the whole.
    value: Option<Vec<u8>>,
    /// How long all of it is.
    whole: usize,
    /// Without the one that says that the value was cut.
    headers: OwnedHeaders,
    /// How often it was sent before.
    tries: usize,
}

/// What travels with a row through librdkafka.
struct Sent {
    whole: usize,
    /// `None`: those of the record.
    headers: Option<OwnedHeaders>,
    tries: usize,
}

/// What has become of the rows that were handed over.
#[derive(Debug, Default)]
struct Outcome {
    /// The first delivery that failed for good.
    failed: Option<KafkaError>,
    too_large: Vec<Row>,
}

#[derive(Debug, Default)]
struct Deliveries(Mutex<Outcome>);

impl Deliveries {
    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let Err((error, record)) = result else { return };
        let of_record = || record.headers().map(BorrowedHeaders::detach).unwrap_or_default();
        let row = Row {
            key: record.key().map(<[u8]>::to_vec),
            value: record.payload().map(<[u8]>::to_vec),
            whole: sent.whole,
            headers: sent.headers.unwrap_or_else(of_record),
            tries: sent.tries,
        };
        self.outcome().refused(error, row);
    }
}

impl Outcome {
    fn refused(&mut self, error: &KafkaError, row: Row) {
        if too_large::is_too_large(error) && (row.tries == 0 || row.value.as_ref().is_some_and(|value| !value.is_empty())) {
            self.too_large.push(row);
        } else {
            self.failed.get_or_insert_with(|| error.clone());
        }
    }
}

impl Row {
    fn of(row: &DeadRow) -> Self {
        let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
        let record = &row.record;
        let (value, headers) = (owned(record.payload()), headers(record, &row.why));
        Self { key: owned(record.key()), whole: value.as_ref().map_or(0, Vec::len), value, headers, tries: 0 }
    }

    /// What is sent next: the whole row alone, since the log refuses a batch as a whole and most of its rows may be small; then less and less of it.
    fn again(mut self) -> Self {
        self.tries += 1;
        if self.tries > 1
            && let Some(value) = &mut self.value
        {
            value.truncate(too_large::kept(value.len(), self.tries > 2));
        }
        self
    }

    fn is_cut(&self) -> bool {
        self.value.as_ref().is_some_and(|value| value.len() < self.whole)
    }

    fn record<'a>(&'a self, topic: &'a str) -> BaseRecord<'a, [u8], [u8], Box<Sent>> {
        let sent = Sent { whole: self.whole, headers: self.is_cut().then(|| self.headers.clone()), tries: self.tries };
        let mut headers = self.headers.clone();
        if self.is_cut() {
            let kept = self.value.as_ref().map_or(0, Vec::len);
            let cut = format!("the lane refused {} bytes; the first {kept} are kept", self.whole);
            headers = headers.insert(Header { key: lane_header::CUT, value: Some(&cut) });
        }
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(sent)).headers(headers);
        if let Some(key) = &self.key {
            record = record.key(key.as_slice());
        }
        if let Some(value) = &self.value {
            record = record.payload(value.as_slice());
        }
        record
    }
}

/// Where dead rows go before their offsets are committed.
pub(crate) trait DeadLane: Send {
    /// Hands a row over; [`DeadLane::flush`] tells when it is safe.
    fn send(&mut self, row: &DeadRow) -> Result<(), SinkError>;

    /// Whether all rows that were handed over are acknowledged; waits a moment for it.
    fn flush(&mut self) -> Result<bool, SinkError>;
}

/// The topic of the dead lane. Its clients are made when the first row needs them.
pub(crate) struct KafkaDeadLane {
    settings: Settings,
    producer: Option<BaseProducer<Deliveries>>,
    /// Sends each row in a batch of its own.
    alone: Option<BaseProducer<Deliveries>>,
}

impl KafkaDeadLane {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone(), producer: None, alone: None }
    }

    fn topic(&self) -> &str {
        &self.settings.topics.dead
    }

    fn refused(&self, cause: &KafkaError) -> SinkError {
        SinkError::DeadLane { topic: self.topic().to_owned(), cause: cause.to_string() }
    }

    fn client(&self, alone: bool) -> Result<BaseProducer<Deliveries>, SinkError> {
        let mut config = common::kafka::producer(&self.settings.kafka, "sink-dead");
        config.set("message.max.bytes", MAX_MESSAGE);
        if alone {
            too_large::send_alone(&mut config);
        }
        config.create_with_context(Deliveries::default()).map_err(SinkError::Client)
    }

    fn send_by(&self, producer: &BaseProducer<Deliveries>, row: Row) -> Result<(), SinkError> {
        let mut record = row.record(self.topic());
        let error = loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => break error,
            }
        };
        if !too_large::is_too_large(&error) {
            return Err(self.refused(&error));
        }
        // The client itself finds it so.
        producer.context().outcome().refused(&error, row);
        Ok(())
    }

    /// Sends what was too large in another way. Gives whether there was anything.
    fn send_again(&mut self) -> Result<bool, SinkError> {
        let mut too_large = Vec::new();
        for producer in [&self.producer, &self.alone].into_iter().flatten() {
            let mut outcome = producer.context().outcome();
            if let Some(error) = &outcome.failed {
                return Err(self.refused(error));
            }
            too_large.append(&mut outcome.too_large);
        }
        if too_large.is_empty() {
            return Ok(false);
        }
        let alone = match self.alone.take() {
            Some(alone) => alone,
            None => self.client(true)?,
        };
        let sent = too_large.into_iter().try_for_each(|row| self.send_by(&alone, row.again()));
        self.alone = Some(alone);
        sent.map(|()| true)
    }
}

impl DeadLane for KafkaDeadLane {
    fn send(&mut self, row: &DeadRow) -> Result<(), SinkError> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.client(false)?,
        };
        let sent = self.send_by(&producer, Row::of(row));
        self.producer = Some(producer);
        sent
    }

    fn flush(&mut self) -> Result<bool, SinkError> {
        let deadline = Instant::now() + FLUSH;
        loop {
            for producer in [&self.producer, &self.alone].into_iter().flatten() {
                let left = deadline.saturating_duration_since(Instant::now());
                if producer.in_flight_count() > 0 && producer.flush(left).is_err() {
                    return Ok(false);
                }
            }
            if !self.send_again()? {
                return Ok(true);
            }
        }
    }
}

/// The record's own headers, then where it came from and why it is here.
fn headers(record: &OwnedMessage, why: &Unreadable) -> OwnedHeaders {
    // A copy as a whole: a name may be any bytes.
    let headers = record.headers().cloned().unwrap_or_default();
    let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
    // Its own timestamp goes into a header: with it, a lane's retention would delete what has only just been set aside, and a lane that refuses times
    // of the future would refuse it.
    let timestamp = record.timestamp().to_millis().unwrap_or(-1).to_string();
    let ours = [
        (lane_header::TOPIC, record.topic()),
        (lane_header::PARTITION, &partition),
        (lane_header::OFFSET, &offset),
        (lane_header::REASON, why.reason),
        (lane_header::DETAIL, &why.detail),
        (lane_header::STAGE, STAGE),
        (lane_header::TIMESTAMP, &timestamp),
    ];
    ours.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use broker::{Broker, BrokerConfig};
    use common::Shutdown;
    use common::kafka::{TopicSpec, ensure_topics};
    use rdkafka::Timestamp;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn row(offset: i64, value: Vec<u8>) -> DeadRow {
        let record = OwnedMessage::new(Some(value), Some(b"k".to_vec()), "iot".into(), Timestamp::CreateTime(7), 3, offset, None);
        DeadRow { record, why: Unreadable { reason: "not_json", detail: "it is none".into() } }
    }

    /// Sends the rows together and reads what is in the lane then.
    fn through_the_lane(settings: &Settings, rows: &[DeadRow]) -> Vec<OwnedMessage> {
        let mut lane = KafkaDeadLane::new(settings);
        rows.iter().for_each(|row| lane.send(row).unwrap());
        let deadline = Instant::now() + LIMIT;
        while !lane.flush().unwrap() {
            assert!(Instant::now() < deadline, "the lane does not acknowledge");
        }
        let consumer: BaseConsumer = common::kafka::client(&settings.kafka, "reader").set("group.id", "reader").create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&settings.topics.dead, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let mut there = Vec::new();
        while there.len() < rows.len() {
            assert!(Instant::now() < deadline, "{} of {} rows came", there.len(), rows.len());
            there.extend(consumer.poll(Duration::from_millis(100)).map(|record| record.unwrap().detach()));
        }
        there
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn small_rows_are_whole_beside_one_that_is_too_large_and_that_one_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerConfig::new(dir.path().join("log"), "127.0.0.1:0".parse().unwrap())).await.unwrap();
        let mut settings = Settings::default();
        settings.kafka.bootstrap_servers = broker.addr().to_string();
        let properties = vec![("max.message.bytes", "10000".to_owned())];
        let dead = TopicSpec { name: settings.topics.dead.clone(), partitions: 1, replication: 1, properties };
        ensure_topics(&settings.kafka, &[dead], &Shutdown::manual()).await.unwrap();
        let rows: Vec<DeadRow> =
            [6_000, 300_000, 6_000, 10].iter().zip(0..).map(|(bytes, offset)| row(offset, vec![b'x'; *bytes])).collect();
        let there = tokio::task::spawn_blocking(move || through_the_lane(&settings, &rows)).await.unwrap();
        let text = |record: &OwnedMessage, name| common::headers::text(record, name).map(str::to_owned);
        let mut seen: Vec<(String, usize, String)> = there
            .iter()
            .map(|record| {
                assert_eq!(text(record, lane_header::TIMESTAMP).as_deref(), Some("7"));
                assert!(record.timestamp().to_millis().unwrap() > 7, "the lane's own time");
                (
                    text(record, lane_header::OFFSET).unwrap(),
                    record.payload().map_or(0, <[u8]>::len),
                    text(record, lane_header::CUT).unwrap_or_default(),
                )
            })
            .collect();
        seen.sort();
        let wanted =
            [("0", 6_000, ""), ("1", 8_192, "the lane refused 300000 bytes; the first 8192 are kept"), ("2", 6_000, ""), ("3", 10, "")];
        assert_eq!(seen, wanted.map(|(offset, bytes, cut)| (offset.to_owned(), bytes, cut.to_owned())));
        broker.shutdown().await.unwrap();
    }
}
