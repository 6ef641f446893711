//! What becomes of each record: acknowledged, or failed for a reason that people can do something about.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{client_log, too_large};
use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, OwnedHeaders};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::metrics::{Metrics, kind};
use crate::source::{Ack, DeadRow};
use crate::summary::Summary;

/// Where a record is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Input,
    /// With the reason.
    Dead(&'static str),
}

/// What is to be done when the fate of a record is known.
#[derive(Debug)]
pub(crate) struct InFlight {
    lane: Lane,
    since: Instant,
    ack: Option<Ack>,
    /// Sent in a batch of its own: a refusal is then about this record and no other.
    alone: bool,
    /// A reading that the log found too large, and whose beginning goes into the dead lane.
    cut: bool,
}

impl InFlight {
    pub(super) fn new(lane: Lane, ack: Option<Ack>) -> Self {
        Self::since(Instant::now(), lane, ack)
    }

    fn since(since: Instant, lane: Lane, ack: Option<Ack>) -> Self {
        Self { lane, since, ack, alone: false, cut: false }
    }
}

/// Travels with a record through librdkafka and comes back with its fate. Odd: a reading whose sender waits for nothing, with the time of
/// its hand-over, so that the bulk of a simulator or a file costs no memory of its own. Even: its place in [`UnderWay`].
#[derive(Debug, Clone, Copy)]
enum Tag {
    Plain { micros: u64 },
    Kept { place: usize },
}

impl Tag {
    fn to_number(self) -> usize {
        match self {
            // The upper bits of a 32-bit number are lost: the time is then wrong, and nothing else.
            Self::Plain { micros } => (micros << 1) as usize | 1,
            Self::Kept { place } => place << 1,
        }
    }

    fn of(number: usize) -> Self {
        if number & 1 == 1 { Self::Plain { micros: number as u64 >> 1 } } else { Self::Kept { place: number >> 1 } }
    }
}

/// The records with more to be known of than the time.
#[derive(Debug, Default)]
struct UnderWay {
    places: Vec<Option<InFlight>>,
    free: Vec<usize>,
}

impl UnderWay {
    fn keep(&mut self, in_flight: InFlight) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(in_flight);
        place
    }

    fn take(&mut self, place: usize) -> Option<InFlight> {
        let kept = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        if self.free.len() == self.places.len() {
            // Nothing is under way: what a crowd needed is given back.
            *self = Self::default();
        }
        Some(kept)
    }
}

/// A record on its way to be sent alone.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) topic: String,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Vec<u8>,
    pub(super) headers: Option<OwnedHeaders>,
    pub(super) in_flight: InFlight,
}

/// What is known of the run at any moment; read by the status page.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// No broker answers; librdkafka keeps trying.
    pub(crate) away: AtomicBool,
    /// The first failure: what happened, what to do.
    first_failure: Mutex<Option<(String, &'static str)>>,
    /// Bits of readings per second.
    rate: AtomicU64,
    /// What fails from now on was given up by ourselves and is reported as a number.
    given_up: AtomicBool,
    ended: AtomicBool,
}

impl Counts {
    /// The run is over: nothing moves any more.
    pub(crate) fn end(&self) {
        self.set_rate(0.0);
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    pub(super) fn set_rate(&self, rate: f64) {
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// How many records failed, why the first did, and what to do about it.
    pub(super) fn failure(&self) -> Option<(u64, String, &'static str)> {
        let failed = self.failed.load(Ordering::Relaxed);
        if failed == 0 {
            return None;
        }
        let first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.as_ref().map(|(cause, advice)| (failed, cause.clone(), *advice))
    }

    /// For another try.
    pub(crate) fn forget_failure(&self) {
        *self.first_failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.failed.store(0, Ordering::Relaxed);
        self.given_up.store(false, Ordering::Relaxed);
    }

    /// A run that was stopped between two tries.
    pub(crate) fn summary(&self) -> Summary {
        Summary { published: self.published.load(Ordering::Relaxed), dead: self.dead.load(Ordering::Relaxed), ..Summary::default() }
    }

    fn fail(&self, cause: &KafkaError) {
        let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| (cause.to_string(), advice(cause)));
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// What to do about a record that was not taken. The delivery timeout is infinite, so it is never just a log that is away.
pub(super) fn advice(error: &KafkaError) -> &'static str {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => {
            "raise max.message.bytes of the topic and message.max.bytes in [kafka.properties], or shorten the line"
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            "the topic was deleted meanwhile; start again to have it created"
        }
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => "give this client the right to write to the topic",
        Some(Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend) => "bring back brokers until min.insync.replicas is met",
        Some(Code::OutOfOrderSequenceNumber | Code::UnknownProducerId | Code::Fatal) => {
            "the log has lost what it knew of this producer; check the log for lost data, then start again"
        }
        _ => "check the log, then start again; what was acknowledged is kept",
    }
}

/// librdkafka's callbacks; served by the publisher's own thread in `poll`.
#[derive(Debug, Clone)]
pub(super) struct Context {
    metrics: Metrics,
    counts: Arc<Counts>,
    /// Where the beginning of what is too large goes.
    dead_topic: String,
    /// What the log refused as too large, to be sent alone.
    again: Arc<Mutex<VecDeque<Again>>>,
    under_way: Arc<Mutex<UnderWay>>,
    clock: Arc<Clock>,
}

/// The time of the publisher's turn: a look at the real clock for each record costs as much as its JSON.
#[derive(Debug)]
struct Clock {
    started: Instant,
    micros: AtomicU64,
}

impl Context {
    pub(super) fn new(metrics: Metrics, counts: Arc<Counts>, dead_topic: &str) -> Self {
        let clock = Arc::new(Clock { started: Instant::now(), micros: AtomicU64::new(0) });
        let (dead_topic, again, under_way) = (dead_topic.to_owned(), Arc::default(), Arc::default());
        Self { metrics, counts, dead_topic, again, under_way, clock }
    }

    /// Looks at the clock; once in each turn.
    pub(super) fn tick(&self) {
        let micros = u64::try_from(self.clock.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.clock.micros.store(micros, Ordering::Relaxed);
    }

    fn now(&self) -> Instant {
        self.clock.started + Duration::from_micros(self.clock.micros.load(Ordering::Relaxed))
    }

    /// The number that a record takes along.
    pub(super) fn sent(&self, lane: Lane, ack: Option<Ack>) -> usize {
        match (lane, ack) {
            (Lane::Input, None) => Tag::Plain { micros: self.clock.micros.load(Ordering::Relaxed) }.to_number(),
            (lane, ack) => self.sent_again(InFlight::since(self.now(), lane, ack)),
        }
    }

    pub(super) fn sent_again(&self, in_flight: InFlight) -> usize {
        Tag::Kept { place: self.under_way.lock().unwrap_or_else(PoisonError::into_inner).keep(in_flight) }.to_number()
    }

    /// What the number stands for; only once.
    pub(super) fn back(&self, number: usize) -> InFlight {
        let kept = match Tag::of(number) {
            Tag::Plain { micros } => Some(InFlight::since(self.clock.started + Duration::from_micros(micros), Lane::Input, None)),
            Tag::Kept { place } => self.under_way.lock().unwrap_or_else(PoisonError::into_inner).take(place),
        };
        let Some(kept) = kept else { unreachable!("librdkafka gives each record back once") };
        kept
    }

    fn again(&self) -> MutexGuard<'_, VecDeque<Again>> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits to be sent alone.
    pub(super) fn take_again(&self) -> VecDeque<Again> {
        std::mem::take(&mut self.again())
    }

    /// There was no room yet; what was refused meanwhile comes after it.
    pub(super) fn put_back(&self, mut records: VecDeque<Again>) {
        let mut again = self.again();
        records.append(&mut again);
        *again = records;
    }

    /// The log refuses a batch as a whole, and most of its records may be small: each is sent again, alone.
    fn send_alone(&self, record: &BorrowedMessage<'_>, mut in_flight: InFlight) {
        in_flight.alone = true;
        self.again().push_back(Again {
            topic: record.topic().to_owned(),
            key: record.key().map(<[u8]>::to_vec),
            value: record.payload().map(<[u8]>::to_vec).unwrap_or_default(),
            headers: record.headers().map(rdkafka::message::BorrowedHeaders::detach),
            in_flight,
        });
    }

    /// Keeps the beginning of a record that was refused alone for the dead lane. Returns whether that can be: the line of a file ends the
    /// run, while a message of a device that keeps it until it is acknowledged would come again and again.
    pub(super) fn set_aside(&self, topic: &str, value: Option<&[u8]>, in_flight: &mut InFlight, cause: &KafkaError) -> bool {
        let value = value.unwrap_or_default();
        let kept = too_large::kept(value.len(), in_flight.lane != Lane::Input);
        if in_flight.ack.is_none() || value.is_empty() {
            return false;
        }
        let detail = format!("the log refused {} bytes ({cause}); the first {kept} are kept", value.len());
        let row = DeadRow { topic: topic.to_owned(), offset: 0, value: value[..kept].to_vec(), reason: "too_large", detail };
        let cut = in_flight.cut || in_flight.lane == Lane::Input;
        let fate = InFlight { alone: true, cut, ..InFlight::new(Lane::Dead(row.reason), in_flight.ack.take()) };
        let headers = Some(super::headers(&row));
        self.again().push_back(Again { topic: self.dead_topic.clone(), key: None, value: row.value, headers, in_flight: fate });
        true
    }

    fn failed(&self, error: &KafkaError) {
        self.metrics.errors.with_label_values(&[kind::DELIVERY]).inc();
        self.counts.fail(error);
    }

    fn acknowledged(&self, in_flight: InFlight) {
        match in_flight.lane {
            Lane::Input => {
                self.counts.published.fetch_add(1, Ordering::Relaxed);
                self.metrics.published.inc();
            }
            Lane::Dead(reason) => {
                self.counts.dead.fetch_add(1, Ordering::Relaxed);
                self.metrics.dead.with_label_values(&[reason]).inc();
            }
        }
        self.metrics.latency.observe(self.now().saturating_duration_since(in_flight.since).as_secs_f64());
        match in_flight.ack {
            Some(ack) if in_flight.cut => ack.give_as_dead(),
            Some(ack) => ack.give(),
            None => {}
        }
        if self.counts.away.load(Ordering::Relaxed) {
            self.counts.away.store(false, Ordering::Relaxed);
            tracing::info!("the log is back");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.metrics.errors.with_label_values(&[kind::CLIENT]).inc();
        client_log::error(&error, reason);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.counts.fail(&error),
            Some(RDKafkaErrorCode::AllBrokersDown) if !self.counts.away.swap(true, Ordering::Relaxed) => {
                let cause = client_log::last_trouble().unwrap_or_else(|| reason.to_owned());
                tracing::warn!(cause, "the log is away; what is in flight is kept and sent when it is back");
            }
            // A connection that breaks or cannot be had: one line when all are gone (above) says enough.
            _ => {}
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut in_flight = self.back(number);
        match result {
            Ok(_) => self.acknowledged(in_flight),
            Err(_) if self.counts.given_up.load(Ordering::Relaxed) => {}
            Err((error, record)) if too_large::is_too_large(error) => {
                if !in_flight.alone {
                    self.send_alone(record, in_flight);
                } else if !self.set_aside(record.topic(), record.payload(), &mut in_flight, error) {
                    self.failed(error);
                }
            }
            Err((error, _)) => self.failed(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context::new(Metrics::register(&prometheus::Registry::new()).unwrap(), Arc::default(), "iot.dead")
    }

    fn too_large() -> KafkaError {
        KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)
    }

    #[test]
    fn a_small_record_is_kept_whole_and_only_the_dead_lane_halves_it() {
        let context = context();
        let mut in_flight = InFlight::new(Lane::Input, Some(Ack::new(|| {})));
        assert!(context.set_aside("iot", Some(&[b'x'; 137]), &mut in_flight, &too_large()));
        let mut row = context.take_again().pop_front().unwrap();
        assert_eq!((row.topic.as_str(), row.value.len()), ("iot.dead", 137));
        // The dead lane refuses it, too, until nothing is left: then it is a failure, not an endless loop.
        let mut lengths = Vec::new();
        while context.set_aside("iot.dead", Some(&row.value), &mut row.in_flight, &too_large()) {
            row = context.take_again().pop_front().unwrap();
            lengths.push(row.value.len());
        }
        assert_eq!(lengths, [68, 34, 17, 8, 4, 2, 1, 0]);
    }

    #[test]
    fn a_reading_that_was_cut_is_acknowledged_as_dead() {
        let context = context();
        let dead = Arc::new(AtomicBool::new(false));
        let flag = dead.clone();
        let ack = Ack::telling(move |as_dead| flag.store(as_dead, Ordering::Relaxed));
        let mut in_flight = InFlight::new(Lane::Input, Some(ack));
        assert!(context.set_aside("iot", Some(b"x"), &mut in_flight, &too_large()));
        context.acknowledged(context.take_again().pop_front().unwrap().in_flight);
        assert!(dead.load(Ordering::Relaxed));
    }

    #[test]
    fn each_record_comes_back_as_what_it_was() {
        let context = context();
        let given = Arc::new(AtomicU64::new(0));
        let acks = |wait: bool| {
            let given = given.clone();
            let ack = Ack::new(move || {
                given.fetch_add(1, Ordering::Relaxed);
            });
            wait.then_some(ack)
        };
        let numbers: Vec<_> =
            (0..100).map(|nth| context.sent(if nth % 3 == 0 { Lane::Dead("late") } else { Lane::Input }, acks(nth % 2 == 0))).collect();
        for (nth, number) in numbers.into_iter().enumerate().rev() {
            let back = context.back(number);
            assert_eq!((back.lane == Lane::Input, back.ack.is_some()), (nth % 3 != 0, nth % 2 == 0), "{nth}");
            context.acknowledged(back);
        }
        assert_eq!((given.load(Ordering::Relaxed), context.metrics.published.get()), (50, 66));
        assert!(context.under_way.lock().unwrap().places.is_empty());
    }

    #[test]
    fn an_acknowledgement_reaches_the_sender_once_the_log_has_the_record() {
        let context = context();
        let given = Arc::new(AtomicBool::new(false));
        let flag = given.clone();
        let in_flight = InFlight::new(Lane::Input, Some(Ack::new(move || flag.store(true, Ordering::Relaxed))));
        assert!(!given.load(Ordering::Relaxed));
        context.acknowledged(in_flight);
        assert!(given.load(Ordering::Relaxed));
        assert_eq!(context.metrics.published.get(), 1);
    }

    #[test]
    fn a_dead_line_is_counted_by_its_reason_and_not_as_published() {
        let context = context();
        context.acknowledged(InFlight::new(Lane::Dead("wrong_type"), None));
        assert_eq!(context.metrics.dead.with_label_values(&["wrong_type"]).get(), 1);
        assert_eq!((context.metrics.published.get(), context.counts.dead.load(Ordering::Relaxed)), (0, 1));
    }

    #[test]
    fn the_first_failure_is_kept_with_advice() {
        let context = context();
        assert!(context.counts.failure().is_none());
        context.counts.fail(&KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge));
        context.counts.fail(&KafkaError::MessageProduction(RDKafkaErrorCode::Fatal));
        let (failed, cause, advice) = context.counts.failure().unwrap();
        assert_eq!(failed, 2);
        assert!(cause.contains("MessageSizeTooLarge"), "{cause}");
        assert!(advice.contains("message.max.bytes"));
    }

    #[test]
    fn brokers_that_are_away_are_no_failure() {
        let context = context();
        context.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert!(context.counts.away.load(Ordering::Relaxed));
        assert!(context.counts.failure().is_none());
        context.acknowledged(InFlight::new(Lane::Input, None));
        assert!(!context.counts.away.load(Ordering::Relaxed));
    }
}
