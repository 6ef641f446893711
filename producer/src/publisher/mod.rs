//! From the source into the log, on one plain thread.
//!
//! One turn: ask the source, hand what it gives to librdkafka, serve the acknowledgements, tell the world. librdkafka batches, compresses
//! and retries on threads of its own; the queue between is bounded, so a log that is away stops the source rather than filling memory.

mod client;
mod delivery;
mod limits;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use common::Shutdown;
use common::lifeline::Lifeline;
use common::progress::{Show, Unit};
use common::settings::{Settings, Topics};
use common::telemetry::Part;
use common::topics::lane_header as lane;
use common::waking::{Waker, WakingProducer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use self::delivery::{Again, Context, Lane};
use crate::error::ProducerError;
use crate::metrics::Metrics;
use crate::source::{BATCH, Content, DeadRow, Delivery, Next, Progress, Source};
use crate::summary::Summary;

/// Longest sleep of a turn.
const IDLE_TURN: Duration = Duration::from_millis(250);
/// The same while records are under way that were refused in company.
const ALONE_TURN: Duration = Duration::from_millis(5);
/// While the queue is full; librdkafka's own threads go on sending meanwhile.
const FULL_QUEUE_TURN: Duration = Duration::from_millis(1);
const DRAIN_TURN: Duration = Duration::from_millis(10);
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// A log that owes acknowledgements for so long is not ready.
const SILENCE: Duration = Duration::from_secs(10);

pub(crate) use self::delivery::Counts;
pub(crate) use self::limits::fit_batches;

type Record<'a> = BaseRecord<'a, [u8], [u8], usize>;

/// What the publisher is to others: how it is told to stop, and where it shows itself.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) shutdown: Shutdown,
    pub(crate) part: Part,
    pub(crate) metrics: Metrics,
    pub(crate) counts: Arc<Counts>,
    /// Held by the thread that waits for the result: when it is gone, nobody does.
    pub(crate) waiting: Weak<()>,
}

impl Surroundings {
    fn stopped(&self) -> bool {
        self.shutdown.is_set() || self.waiting.strong_count() == 0
    }
}

pub(crate) struct Publisher {
    producer: WakingProducer<Context>,
    /// The source hears of reports by itself.
    source_wakes: bool,
    /// Sends alone what was refused in company; made when it is needed.
    alone: Option<BaseProducer<Context>>,
    /// More waits to be sent alone than there is room for.
    crowded: bool,
    settings: Settings,
    /// Apart from the settings, so that a record can borrow a name while the publisher turns.
    topics: Arc<Topics>,
    around: Surroundings,
    show: Show,
    progress: Option<Progress>,
    next_report: Instant,
    reported: (Instant, u64),
    silence: Silence,
    lifeline: Lifeline,
}

/// A log that takes nothing: away, hanging, or full. Only the first of these the client can tell.
struct Silence {
    /// The last time that something was acknowledged, or nothing was awaited.
    since: Instant,
    acknowledged: u64,
    said: bool,
}

impl Publisher {
    pub(crate) fn new(settings: Settings, around: Surroundings, waker: Option<Waker>) -> Result<Self, ProducerError> {
        let source_wakes = waker.is_some();
        let context = Context::new(around.metrics.clone(), around.counts.clone(), &settings.topics.dead);
        let producer = WakingProducer::create_and_wake(&client::config(&settings), context, waker).map_err(ProducerError::Client)?;
        let now = Instant::now();
        let topics = Arc::new(settings.topics.clone());
        let lifeline = Lifeline::new(&settings.kafka.bootstrap_servers);
        Ok(Self {
            producer,
            source_wakes,
            alone: None,
            crowded: false,
            settings,
            topics,
            around,
            show: Show::new("replay", Unit::Bytes),
            progress: None,
            next_report: now,
            reported: (now, 0),
            silence: Silence { since: now, acknowledged: 0, said: false },
            lifeline,
        })
    }

    /// Publishes until the source ends or the signal comes, then drains.
    pub(crate) fn run(mut self, source: &mut dyn Source) -> Result<Summary, ProducerError> {
        self.progress = source.progress();
        source.start(chrono::Utc::now().timestamp_millis());
        let started = Instant::now();
        let ended = self.stream(source, started);
        source.close();
        // Whatever ended the stream, what was handed over gets its time to arrive; only a record that the log refused ends it at once.
        let drained = match self.drain(matches!(ended, Ok(true))) {
            Err(ProducerError::Undelivered { servers, count, waited, .. }) if source.keeps_what_is_not_acknowledged() => {
                tracing::warn!(
                    count,
                    servers,
                    ?waited,
                    "records without acknowledgement from the log: their senders keep them and send again"
                );
                Ok(())
            }
            drained => drained,
        };
        // What is thrown away with the client is in the error already.
        self.around.counts.give_up();
        let complete = ended?;
        drained?;
        Ok(Summary {
            published: self.around.counts.published.load(Ordering::Relaxed),
            dead: self.around.counts.dead.load(Ordering::Relaxed),
            tally: source.tally(),
            complete,
            duration: started.elapsed(),
        })
    }

    /// Returns whether the source came to its end.
    fn stream(&mut self, source: &mut dyn Source, started: Instant) -> Result<bool, ProducerError> {
        let mut batch = Vec::with_capacity(2 * BATCH);
        let mut buffer = Vec::with_capacity(256);
        while !self.around.stopped() {
            self.producer.context().tick();
            let next = source.next(started.elapsed(), &mut batch);
            self.progress = source.progress();
            for delivery in batch.drain(..) {
                if !self.send(delivery, &mut buffer)? {
                    return Ok(false);
                }
            }
            match next.inspect_err(|error| tracing::error!(%error, "the source broke; draining what it gave before"))? {
                Next::End => return Ok(true),
                Next::More => self.turn(Duration::ZERO)?,
                Next::Wait(time) if self.source_wakes => {
                    source.rest(time.min(self.longest_turn()), &self.around.shutdown);
                    self.turn(Duration::ZERO)?;
                }
                Next::Wait(time) => self.rest(Instant::now() + time)?,
            }
        }
        Ok(false)
    }

    /// Takes reports until it is time to ask the source again: not with each report, or what is due would leave in many small batches.
    fn rest(&mut self, until: Instant) -> Result<(), ProducerError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.turn(left.min(self.longest_turn()))?;
            if self.around.stopped() || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Of their reports only those of the usual client wake this thread.
    fn longest_turn(&self) -> Duration {
        if self.alone.as_ref().is_some_and(|alone| alone.in_flight_count() > 0) { ALONE_TURN } else { IDLE_TURN }
    }

    /// Hands one delivery over. `false`: stopped before there was room for it; its acknowledgement is dropped with it.
    fn send(&mut self, delivery: Delivery, buffer: &mut Vec<u8>) -> Result<bool, ProducerError> {
        let topics = self.topics.clone();
        let Delivery { content, ack } = delivery;
        match &content {
            Content::Reading(reading) => {
                buffer.clear();
                reading.write_json(buffer);
                let record = BaseRecord::with_opaque_to(&topics.input, self.producer.context().sent(Lane::Input, ack));
                let sent = self.hand_over(record.key(reading.sensor_id.as_bytes()).payload(buffer.as_slice()))?;
                self.around.metrics.readings.inc_by(u64::from(sent));
                Ok(sent)
            }
            Content::Dead(row) => {
                let record = BaseRecord::with_opaque_to(&topics.dead, self.producer.context().sent(Lane::Dead(row.reason), ack));
                self.hand_over(record.payload(row.value.as_slice()).headers(headers(row)))
            }
        }
    }

    fn hand_over(&mut self, mut record: Record<'_>) -> Result<bool, ProducerError> {
        loop {
            if !self.crowded {
                // The Kafka timestamp is left to librdkafka: now, the time of receipt.
                match self.producer.send(record) {
                    Ok(()) => return Ok(true),
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                    Err((error, back)) => {
                        return if self.set_aside(&error, &back) { Ok(true) } else { Err(self.refused(&error, &back)) };
                    }
                }
            }
            self.turn(FULL_QUEUE_TURN)?;
            if self.around.stopped() {
                drop(self.producer.context().back(record.delivery_opaque));
                return Ok(false);
            }
        }
    }

    /// Whether a record that the client itself found too large goes into the dead lane: one message must not hold up its neighbours.
    fn set_aside(&self, error: &KafkaError, record: &Record<'_>) -> bool {
        let context = self.producer.context();
        let mut in_flight = context.back(record.delivery_opaque);
        common::too_large::is_too_large(error) && context.set_aside(record.topic, record.payload, &mut in_flight, error)
    }

    /// Sends what the log refused, each record in a batch of its own.
    fn send_alone(&mut self) -> Result<(), ProducerError> {
        let mut records = self.producer.context().take_again();
        self.crowded = false;
        if records.is_empty() {
            return Ok(());
        }
        let alone = match self.alone.take() {
            Some(alone) => alone,
            None => {
                let context = Context::clone(self.producer.context());
                client::alone(&self.settings).create_with_context(context).map_err(ProducerError::Client)?
            }
        };
        let sent = self.send_all(&alone, &mut records);
        self.alone = Some(alone);
        self.crowded = !records.is_empty();
        self.producer.context().put_back(records);
        sent
    }

    /// As many as there is room for.
    fn send_all(&self, alone: &BaseProducer<Context>, records: &mut VecDeque<Again>) -> Result<(), ProducerError> {
        while let Some(Again { topic, key, value, headers, in_flight }) = records.pop_front() {
            let number = self.producer.context().sent_again(in_flight);
            let mut record = Record::with_opaque_to(&topic, number).payload(value.as_slice());
            record.key = key.as_deref();
            record.headers = headers.clone();
            let (error, record) = match alone.send(record) {
                Ok(()) => continue,
                Err(back) => back,
            };
            if matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                let in_flight = self.producer.context().back(number);
                records.push_front(Again { topic, key, value, headers, in_flight });
                return Ok(());
            }
            if !self.set_aside(&error, &record) {
                return Err(self.refused(&error, &record));
            }
        }
        Ok(())
    }

    fn refused(&self, error: &KafkaError, record: &Record<'_>) -> ProducerError {
        self.around.metrics.errors.with_label_values(&[crate::metrics::kind::DELIVERY]).inc();
        ProducerError::Refused {
            topic: record.topic.to_owned(),
            bytes: record.payload.map_or(0, <[u8]>::len),
            cause: error.to_string(),
            advice: delivery::advice(error),
        }
    }

    /// Serves acknowledgements, waiting for one up to `time`, shows itself and looks for failures.
    fn turn(&mut self, time: Duration) -> Result<(), ProducerError> {
        if !time.is_zero() {
            self.producer.wait(time);
        }
        self.producer.context().tick();
        self.producer.serve(Duration::ZERO);
        self.alone.iter().for_each(serve);
        self.send_alone()?;
        self.around.part.beat();
        let now = Instant::now();
        if now >= self.next_report {
            self.next_report = now + REPORT_EVERY;
            self.report(now);
        }
        match self.around.counts.failure() {
            None => Ok(()),
            Some((failed, cause, advice)) => {
                Err(ProducerError::Delivery { servers: self.settings.kafka.bootstrap_servers.clone(), failed, cause, advice })
            }
        }
    }

    fn in_flight(&self) -> i32 {
        self.producer.in_flight_count() + self.alone.as_ref().map_or(0, |alone| alone.in_flight_count())
    }

    /// Whether the log owes acknowledgements for longer than it should; said once.
    fn is_silent(&mut self, now: Instant) -> bool {
        let counts = &self.around.counts;
        let acknowledged = counts.published.load(Ordering::Relaxed) + counts.dead.load(Ordering::Relaxed);
        let in_flight = self.in_flight();
        if in_flight == 0 || acknowledged != self.silence.acknowledged {
            if self.silence.said {
                tracing::info!("the log acknowledges again");
            }
            self.silence = Silence { since: now, acknowledged, said: false };
            return false;
        }
        let silent = now.duration_since(self.silence.since) >= SILENCE;
        if silent && !self.silence.said {
            self.silence.said = true;
            let servers = &self.settings.kafka.bootstrap_servers;
            tracing::warn!(
                servers,
                in_flight,
                "the log has acknowledged nothing for {SILENCE:?}; what is in flight is kept. Is it full, or does it hang?"
            );
        }
        silent
    }

    fn report(&mut self, now: Instant) {
        let counts = &self.around.counts;
        let published = counts.published.load(Ordering::Relaxed);
        let (before, then) = std::mem::replace(&mut self.reported, (now, published));
        let seconds = now.duration_since(before).as_secs_f64();
        let rate = if seconds > 0.0 { (published - then) as f64 / seconds } else { 0.0 };
        counts.set_rate(rate);
        self.around.metrics.in_flight.set(i64::from(self.in_flight()));
        let away = counts.away.load(Ordering::Relaxed);
        let silent = self.is_silent(now);
        self.around.part.set_ready(!away && !silent);
        if self.lifeline.is_due(away || silent, now) {
            self.lifeline.throw(self.producer.client());
            self.alone.iter().for_each(|alone| self.lifeline.throw(alone.client()));
        }
        if let Some(Progress { done, total }) = self.progress {
            self.show.update(done, total, || format!("{published} readings, {rate:.0}/s"));
        }
    }

    /// Waits for what is in flight. After a stop signal for `drain_timeout` at most; after the end of the source for as long as
    /// acknowledgements come in, and `kafka.request_timeout` longer, so that a restart of the broker loses nothing.
    fn drain(&mut self, mut patient: bool) -> Result<(), ProducerError> {
        let (drain, request) = (self.settings.producer.drain_timeout.duration(), self.settings.kafka.request_timeout.duration());
        let mut since = Instant::now();
        let mut left = self.in_flight();
        while self.in_flight() > 0 {
            if patient && self.around.stopped() {
                (patient, since) = (false, Instant::now());
            }
            let (limit, setting) = if patient { (request.max(drain), "kafka.request_timeout") } else { (drain, "producer.drain_timeout") };
            if since.elapsed() >= limit {
                let count = u64::try_from(self.in_flight()).unwrap_or(0);
                let servers = self.settings.kafka.bootstrap_servers.clone();
                return Err(ProducerError::Undelivered { servers, count, waited: limit, setting });
            }
            // `flush` sends at once what lingers; its own timeout is only the length of this turn.
            let flushed = self.producer.flush(DRAIN_TURN);
            self.alone.iter().for_each(serve);
            tracing::trace!(?flushed, "draining");
            self.turn(Duration::ZERO)?;
            let now_left = self.in_flight();
            if patient && now_left != left {
                (left, since) = (now_left, Instant::now());
            }
        }
        // The last acknowledgements may have brought a failure.
        self.turn(Duration::ZERO)?;
        self.report(Instant::now());
        Ok(())
    }
}

/// Serves the acknowledgements that are there. A poll without a timeout serves one event, the acknowledgement of one batch.
fn serve(producer: &BaseProducer<Context>) {
    let mut left = producer.in_flight_count();
    loop {
        producer.poll(Duration::ZERO);
        let now_left = producer.in_flight_count();
        if now_left == 0 || now_left >= left {
            return;
        }
        left = now_left;
    }
}

fn headers(row: &DeadRow) -> OwnedHeaders {
    let offset = row.offset.to_string();
    let pairs = [
        (lane::TOPIC, row.topic.as_str()),
        (lane::PARTITION, "0"),
        (lane::OFFSET, &offset),
        (lane::REASON, row.reason),
        (lane::DETAIL, &row.detail),
        (lane::STAGE, "producer"),
    ];
    pairs
        .into_iter()
        .fold(OwnedHeaders::new_with_capacity(pairs.len()), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use broker::{Broker, BrokerConfig};

    use super::*;

    /// What librdkafka comes to when a log has named no broker: a client that knows nobody who answers.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_knows_no_broker_is_led_to_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = Broker::start(BrokerConfig::new(folder.path(), "127.0.0.1:0".parse().unwrap())).await.unwrap();
        let mut settings = Settings::default();
        settings.kafka.bootstrap_servers = "127.0.0.1:1".into();
        let client: BaseProducer = common::kafka::client(&settings.kafka, "test").create().unwrap();
        let ask = |patience| client.client().fetch_metadata(None, patience);
        assert!(ask(Duration::from_millis(100)).is_err());
        Lifeline::new(&log.addr().to_string()).throw(client.client());
        assert_eq!(ask(Duration::from_secs(20)).unwrap().brokers().len(), 1);
        drop(client);
        log.shutdown().await.unwrap();
    }
}
