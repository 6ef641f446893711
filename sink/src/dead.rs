//! The dead lane: rows that no database takes, whole, with the reason.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use common::Settings;
use common::client_log;
use common::topics::lane_header;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::SinkError;
use crate::batch::DeadRow;
use crate::mapping::Unreadable;

const STAGE: &str = "sink";
/// A row of the result topic plus our headers must fit; the topic's own limit decides.
const MAX_MESSAGE: &str = "67108864";
const FLUSH: Duration = Duration::from_secs(2);

/// Remembers the first delivery that failed for good.
#[derive(Debug, Default)]
struct Deliveries(Mutex<Option<KafkaError>>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}

/// Where dead rows go before their offsets are committed.
pub(crate) trait DeadLane: Send {
    /// Hands a row over; [`DeadLane::flush`] tells when it is safe.
    fn send(&mut self, row: &DeadRow) -> Result<(), SinkError>;

    /// Whether all rows that were handed over are acknowledged; waits a moment for it.
    fn flush(&mut self) -> Result<bool, SinkError>;
}

/// The topic of the dead lane. Its client is made when the first row needs it.
pub(crate) struct KafkaDeadLane {
    settings: Settings,
    producer: Option<BaseProducer<Deliveries>>,
}

impl KafkaDeadLane {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone(), producer: None }
    }

    fn topic(&self) -> &str {
        &self.settings.topics.dead
    }

    fn refused(&self, cause: &KafkaError) -> SinkError {
        SinkError::DeadLane { topic: self.topic().to_owned(), cause: cause.to_string() }
    }

    fn connect(&mut self) -> Result<(), SinkError> {
        if self.producer.is_none() {
            let mut config = common::kafka::producer(&self.settings.kafka, "sink-dead");
            config.set("message.max.bytes", MAX_MESSAGE);
            let producer = config.create_with_context(Deliveries::default()).map_err(SinkError::Client)?;
            self.producer = Some(producer);
        }
        Ok(())
    }
}

impl DeadLane for KafkaDeadLane {
    fn send(&mut self, row: &DeadRow) -> Result<(), SinkError> {
        self.connect()?;
        let Some(producer) = &self.producer else { return Ok(()) };
        let mut record = BaseRecord::<[u8], [u8], ()>::with_opaque_to(self.topic(), ()).headers(headers(&row.record, &row.why));
        if let Some(key) = row.record.key() {
            record = record.key(key);
        }
        if let Some(payload) = row.record.payload() {
            record = record.payload(payload);
        }
        if let Some(millis) = row.record.timestamp().to_millis() {
            record = record.timestamp(millis);
        }
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => return Err(self.refused(&error)),
            }
        }
    }

    fn flush(&mut self) -> Result<bool, SinkError> {
        let Some(producer) = &self.producer else { return Ok(true) };
        if producer.in_flight_count() > 0 && producer.flush(FLUSH).is_err() {
            return Ok(false);
        }
        match &*producer.context().0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(self.refused(error)),
            None => Ok(true),
        }
    }
}

/// The record's own headers, then where it came from and why it is here.
fn headers(record: &OwnedMessage, why: &Unreadable) -> OwnedHeaders {
    // A copy as a whole: a name may be any bytes.
    let headers = record.headers().cloned().unwrap_or_default();
    let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
    let ours = [
        (lane_header::TOPIC, record.topic()),
        (lane_header::PARTITION, &partition),
        (lane_header::OFFSET, &offset),
        (lane_header::REASON, why.reason),
        (lane_header::DETAIL, &why.detail),
        (lane_header::STAGE, STAGE),
    ];
    ours.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }))
}
