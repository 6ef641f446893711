//! Rows into their topics, and the wait for their acknowledgement.

mod held;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::Settings;
use common::client_log;
use common::lifeline::Lifeline;
use common::waking::WakingProducer;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Header;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use self::held::Held;
use super::error::TaskError;
use super::lanes::Lane;
use super::output::Delivery;
use super::owner::Owner;
use super::records::Records;
use crate::engine::{Output, PlainRows, Refused};
use crate::query::StreamQuery;
use crate::query::file::Trigger;

/// Largest record that is sent, bytes; the topics have limits of their own.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// After so many rows it is looked for reports.
const HEAR_EVERY: u64 = 512;

/// What waits for a row's report; it is sent along.
pub(crate) type Waits = usize;

/// Rows that are in no entry: the next one waits for them.
pub(crate) const AHEAD: Waits = 0;

/// The results of an entry, by its number and the client that sends them: the entry after the next one waits for them.
fn results_of(entry: usize, many: bool) -> Waits {
    1 + entry % 2 + 2 * usize::from(many)
}

/// What has been sent and not reported yet, and the first error of any report until somebody asks.
#[derive(Clone, Default)]
pub(crate) struct Outstanding(Arc<Reports>);

#[derive(Default)]
struct Reports {
    /// By what waits for them.
    waiting: [AtomicU64; 5],
    first_error: Mutex<Option<KafkaError>>,
}

impl Outstanding {
    fn sent(&self, waits: Waits) {
        self.0.waiting[waits].fetch_add(1, Ordering::Relaxed);
    }

    fn waiting(&self) -> u64 {
        self.0.waiting.iter().map(|waiting| waiting.load(Ordering::Relaxed)).sum()
    }

    fn waiting_as(&self, waits: Waits) -> u64 {
        self.0.waiting[waits].load(Ordering::Relaxed)
    }

    fn first_error(&self) -> MutexGuard<'_, Option<KafkaError>> {
        self.0.first_error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Outstanding {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ProducerContext for Outstanding {
    type DeliveryOpaque = Waits;

    /// On the thread that sends, which serves the reports as well.
    fn delivery(&self, result: &DeliveryResult<'_>, waits: Waits) {
        if let Err((error, _)) = result {
            self.first_error().get_or_insert_with(|| error.clone());
        }
        self.0.waiting[waits].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Largest batch, before it is compressed.
const BATCH: usize = 1024 * 1024;

/// Bytes of many rows that may be on their way at a time. A client that promises order has one request of a partition on its way, however many
/// it is allowed, and its thread asks without a pause whether a batch that is ready may leave: so there is to be no other one that is ready.
const MOST_ON_THE_WAY: usize = 3 * BATCH;

/// From here on rows are many: nobody waits for a single one of them, and they leave by full batches.
const MANY: usize = 2_000;

/// Most rows of their batches. Librdkafka asks for the bytes of keys and values alone whether a batch is full, and those of our headers are
/// more: by their bytes, batches of small rows would never be full before their time.
const MANY_IN_BATCH: u64 = 2_000;

/// How long a batch of many rows may stay open; longer than it takes to fill one of each of two partitions.
const MANY_LINGER: &str = "25";

pub(crate) struct Deliverer {
    producer: WakingProducer<Outstanding>,
    /// For many result rows at a time. Its reports wake who waits at `producer`.
    many: Option<WakingProducer<Outstanding>>,
    lifeline: RefCell<Lifeline>,
    outstanding: Outstanding,
    held: Held,
    /// How many entries were appended.
    entries: usize,
    pub(crate) output: String,
    late: String,
    dead: String,
    pub(crate) query: String,
    /// The names of the grouping columns, as the header holds them.
    pub(crate) key_columns: String,
}

impl Deliverer {
    pub(crate) fn new(settings: &Settings, query: &StreamQuery) -> Result<Self, TaskError> {
        let outstanding = Outstanding::default();
        let mut config = common::kafka::producer(&settings.kafka, "processor-results");
        // What a tick brings together may gather. Rows for which somebody waits leave at once, but for as long as it takes to hand over some
        // hundred: one by one they would be many requests, and with five on their way librdkafka's thread looks for an answer without a pause,
        // on the core that the log needs to give it.
        let linger = if matches!(query.file.query.trigger, Trigger::AsSoonAsPossible | Trigger::Continuous(_)) { "0.2" } else { "5" };
        config
            .set("linger.ms", linger)
            .set("compression.type", "lz4")
            .set("batch.size", BATCH.to_string())
            // What came in must go out again, with our headers on it.
            .set("message.max.bytes", MAX_MESSAGE.to_string())
            // Some 30 MB: enough to keep the log busy.
            .set("queue.buffering.max.messages", "50000")
            .set("queue.buffering.max.kbytes", "65536");
        let producer = WakingProducer::create(&config, outstanding.clone())?;
        config.set("linger.ms", MANY_LINGER).set("batch.num.messages", MANY_IN_BATCH.to_string());
        // Not when they come: a new client waits half a second for an id from the log.
        let many = query.file.sink.is_kafka().then(|| {
            let waker = Some(producer.waker());
            WakingProducer::create_and_wake(&config, outstanding.clone(), waker)
        });
        Ok(Self {
            producer,
            many: many.transpose()?,
            lifeline: RefCell::new(Lifeline::new(&settings.kafka.bootstrap_servers)),
            outstanding,
            held: Held::default(),
            entries: 0,
            output: query.file.output_topic(),
            late: settings.topics.late.clone(),
            dead: settings.topics.dead.clone(),
            query: query.file.name.clone(),
            key_columns: serde_json::to_string(&query.key_names).unwrap_or_default(),
        })
    }

    /// As [`WakingProducer::connect`].
    pub(crate) fn connect(&self, topic: &str) {
        self.producer.connect(topic);
        self.many.iter().for_each(|many| many.connect(topic));
    }

    /// Sends the rows that are held to their lanes.
    fn send_held(&mut self, owner: &Owner) -> Result<(), TaskError> {
        for row in self.held.take() {
            let lane = if row.lane == Lane::Late { &self.late } else { &self.dead };
            let mut out: BaseRecord<'_, [u8], [u8], Waits> = BaseRecord::with_opaque_to(lane, AHEAD).headers(row.headers);
            if let Some(key) = &row.key {
                out = out.key(key);
            }
            if let Some(payload) = &row.payload {
                out = out.payload(payload);
            }
            self.send(out, owner)?;
        }
        Ok(())
    }

    /// Who sends so many result rows, and what waits for them. The rows of a group must come in order, so one client waits until the other has
    /// nothing more on its way; what is left of an entry of many rows goes with them.
    pub(crate) fn sender(&self, rows: usize, owner: &Owner) -> Result<(&WakingProducer<Outstanding>, Waits), TaskError> {
        let with_many = rows >= MANY || self.outstanding.waiting_as(results_of(self.entries, true)) > 0;
        let many = self.many.as_ref().filter(|_| with_many);
        self.wait_for(&[0, 1].map(|entry| results_of(entry, many.is_none())), owner)?;
        Ok((many.unwrap_or(&self.producer), results_of(self.entries, many.is_some())))
    }

    /// Of many rows, waits until there is room for one of `bytes` on the way.
    pub(crate) fn make_room(&self, rows: usize, bytes: usize, owner: &Owner) -> Result<(), TaskError> {
        let most = ((MOST_ON_THE_WAY / bytes.max(1)) as u64).min(3 * MANY_IN_BATCH);
        while rows >= MANY
            && self.outstanding.waiting() > most
            && !self.settle(Duration::from_millis(200), |left| left.waiting() <= most - most / 3)
        {
            if owner.given_up() {
                return Err(TaskError::Stopped);
            }
            owner.beat();
        }
        Ok(())
    }

    pub(crate) fn send<K, P>(&self, record: BaseRecord<'_, K, P, Waits>, owner: &Owner) -> Result<(), TaskError>
    where
        K: rdkafka::message::ToBytes + ?Sized,
        P: rdkafka::message::ToBytes + ?Sized,
    {
        self.send_by(&self.producer, record, owner)
    }

    pub(crate) fn send_by<K, P>(
        &self,
        producer: &WakingProducer<Outstanding>,
        mut record: BaseRecord<'_, K, P, Waits>,
        owner: &Owner,
    ) -> Result<(), TaskError>
    where
        K: rdkafka::message::ToBytes + ?Sized,
        P: rdkafka::message::ToBytes + ?Sized,
    {
        self.outstanding.sent(record.delivery_opaque);
        // What has arrived gives its memory back.
        if self.outstanding.waiting().is_multiple_of(HEAR_EVERY) {
            self.serve();
        }
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    if owner.given_up() {
                        return Err(TaskError::Stopped);
                    }
                    owner.beat();
                    record = back;
                    // Backpressure: until half of what is on its way has arrived.
                    let half = self.outstanding.waiting() / 2;
                    self.settle(Duration::from_millis(100), |left| left.waiting() <= half);
                }
                Err((error, _)) => return Err(not_taken(&error)),
            }
        }
    }

    /// Serves reports until so few are missing, or the time is over. Gives whether that is so.
    fn settle(&self, time: Duration, few: impl Fn(&Outstanding) -> bool) -> bool {
        let settled = self.settle_until(Instant::now() + time, few);
        let mut lifeline = self.lifeline.borrow_mut();
        if lifeline.is_due(!settled, Instant::now()) {
            lifeline.throw(self.producer.client());
            self.many.iter().for_each(|many| lifeline.throw(many.client()));
        }
        settled
    }

    fn settle_until(&self, deadline: Instant, few: impl Fn(&Outstanding) -> bool) -> bool {
        loop {
            self.serve();
            if few(&self.outstanding) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.producer.wait(left);
        }
    }

    /// Serves the reports that are there.
    fn serve(&self) {
        self.producer.serve(Duration::ZERO);
        if let Some(many) = &self.many {
            many.serve(Duration::ZERO);
        }
    }

    /// Waits until the log has everything that was sent.
    pub(crate) fn wait(&self, owner: &Owner) -> Result<(), TaskError> {
        self.wait_until(owner, |left| left.waiting() == 0)
    }

    fn wait_for(&self, all: &[Waits], owner: &Owner) -> Result<(), TaskError> {
        self.wait_until(owner, |left| all.iter().all(|waits| left.waiting_as(*waits) == 0))
    }

    fn wait_until(&self, owner: &Owner, few: impl Fn(&Outstanding) -> bool) -> Result<(), TaskError> {
        while !self.settle(Duration::from_millis(200), &few) {
            if owner.given_up() {
                return Err(TaskError::Stopped);
            }
            owner.beat();
        }
        match self.outstanding.first_error().take() {
            None => Ok(()),
            Some(error) => Err(not_taken(&error)),
        }
    }
}

impl Delivery for Deliverer {
    fn lanes(&mut self, records: &Records, late: &[Refused], dead: &[Refused], owner: &Owner) -> Result<(), TaskError> {
        let begun = Instant::now();
        for (lane, refused) in late.iter().map(|row| (Lane::Late, row)).chain(dead.iter().map(|row| (Lane::Dead, row))) {
            self.held.push(records, lane, refused, &self.query);
            // A step may refuse all of its rows: not all of them are to be here twice.
            if self.held.are_enough() {
                self.send_held(owner)?;
            }
        }
        // Those of this step are not.
        if self.held.are_old(begun) { self.send_held(owner) } else { Ok(()) }
    }

    fn plain_rows(&mut self, records: &Records, plain: &PlainRows, base: i64, owner: &Owner) -> Result<(), TaskError> {
        self.row_results(records, plain, base, owner)
    }

    fn results(&mut self, query: &StreamQuery, output: &Output, revision: i64, owner: &Owner) -> Result<(), TaskError> {
        self.group_results(query, output, revision, owner)
    }

    fn before_entry(&mut self, owner: &Owner) -> Result<(), TaskError> {
        self.send_held(owner)?;
        let older = self.entries + 1;
        self.wait_for(&[AHEAD, results_of(older, false), results_of(older, true)], owner)?;
        self.entries += 1;
        Ok(())
    }

    fn flush(&mut self, owner: &Owner) -> Result<(), TaskError> {
        self.send_held(owner)?;
        self.wait(owner)
    }

    /// Its rows are on their way, or there.
    fn committed(&mut self, _entry: i64, _owner: &Owner) -> Result<(), TaskError> {
        Ok(())
    }

    fn hear(&mut self, owner: &Owner) -> Result<(), TaskError> {
        self.serve();
        self.send_held(owner)
    }
}

fn not_taken(error: &KafkaError) -> TaskError {
    match error.rdkafka_error_code() {
        // The same row would come back at every try.
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => TaskError::Fatal(
            "a row is larger than its topic takes: raise max.message.bytes of the result topic and of the late and dead lanes".into(),
        ),
        _ => TaskError::Retry(format!("a row was not taken by its topic: {error}")),
    }
}

pub(crate) fn text<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header { key, value: Some(value) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
