//! The owner's side: fence, append, snapshot.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use common::Settings;
use common::client_log;
use common::lifeline::Lifeline;
use common::waking::WakingProducer;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Message as _};

use super::super::error::TaskError;
use super::super::owner::Owner;
use super::super::points::Point;
use super::super::repartition::Merges;
use super::Log;
use super::cut::Cuts;
use super::record::{Piece, fence};
use crate::engine::{Entry, codec};
use crate::query::StreamQuery;

/// Largest piece: below Kafka's default limit of a message, with room for its head.
const PIECE: usize = 900 * 1024;

/// Longest wait without looking whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// Pieces that are sent before the first of them is heard of. With more of them the client's thread would ask without a pause whether the next
/// one may leave.
const ON_THE_WAY: u32 = 4;

type Delivery = Result<i64, KafkaError>;

/// Passes each record's offset on, in the order of the records.
struct Reports(Mutex<Sender<Delivery>>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let delivery = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        let sender = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if sender.send(delivery).is_err() {
            tracing::debug!("a journal report came after its owner had ended");
        }
    }
}

/// The client that appends, of no partition yet.
pub(crate) struct Writer {
    producer: WakingProducer<Reports>,
    reports: Receiver<Delivery>,
}

impl Writer {
    pub(crate) fn create(settings: &Settings) -> Result<Self, TaskError> {
        let (sender, reports) = channel();
        let mut config = common::kafka::producer(&settings.kafka, "processor-journal");
        // An entry is one record or few: nothing to wait for.
        config.set("linger.ms", "0").set("compression.type", "none");
        Ok(Self { producer: WakingProducer::create(&config, Reports(Mutex::new(sender)))?, reports })
    }

    /// As [`WakingProducer::connect`].
    pub(crate) fn connect(&self, topic: &str) {
        self.producer.connect(topic);
    }
}

/// A journal partition that this worker owns.
pub(crate) struct Journal {
    topic: String,
    partition: i32,
    producer: WakingProducer<Reports>,
    reports: Receiver<Delivery>,
    settings: common::settings::Kafka,
    cuts: Cuts,
    /// The fence's offset.
    epoch: i64,
    /// Offset of the newest record of ours.
    last: i64,
    /// When the log last took a record of ours: until then at least, nobody else had the shard.
    written: Instant,
    /// Bytes since the newest snapshot.
    pub(crate) bytes: u64,
    /// Bytes of the newest snapshot.
    pub(crate) snapshot_bytes: u64,
    /// Whether this owner has written what its query is.
    described: bool,
    /// Others that read the journal, for whom it is kept.
    pub(crate) merges: Option<Rc<Merges>>,
}

impl Journal {
    /// Takes a journal partition over: appends a fence and waits for its offset.
    pub(crate) fn take_over(
        settings: &Settings,
        Writer { producer, reports }: Writer,
        (topic, partition): (&str, i32),
        owner: &Owner,
    ) -> Result<Self, TaskError> {
        let mut journal = Self {
            topic: topic.to_owned(),
            partition,
            producer,
            reports,
            settings: settings.kafka.clone(),
            cuts: Cuts::new(owner.runtime.clone()),
            epoch: -1,
            last: -1,
            written: Instant::now(),
            bytes: 0,
            snapshot_bytes: 0,
            described: false,
            merges: None,
        };
        journal.send(&fence())?;
        journal.epoch = journal.wait(owner)?;
        journal.last = journal.epoch;
        Ok(journal)
    }

    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }

    fn send(&self, bytes: &[u8]) -> Result<(), TaskError> {
        let mut record = BaseRecord::<(), [u8]>::to(&self.topic).partition(self.partition).payload(bytes);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    // Full is full of our own records: let some of them arrive.
                    self.producer.serve(PATIENCE);
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Hears of our next record: it must be where the one before it ended.
    fn hear_next(&mut self, owner: &Owner) -> Result<(), TaskError> {
        let offset = self.wait(owner)?;
        if offset != self.last + 1 {
            return Err(TaskError::Fenced);
        }
        self.last = offset;
        Ok(())
    }

    /// The next record's offset. The log may be away for as long as it likes; only the owner's end stops the wait.
    fn wait(&self, owner: &Owner) -> Result<i64, TaskError> {
        let mut lifeline = Lifeline::new(&self.settings.bootstrap_servers);
        loop {
            match self.reports.try_recv() {
                Ok(Ok(offset)) => return Ok(offset),
                Ok(Err(error)) => return Err(TaskError::Retry(format!("journal {}-{}: {error}", self.topic, self.partition))),
                Err(TryRecvError::Empty) if owner.given_up() => return Err(TaskError::Stopped),
                Err(TryRecvError::Empty) => {
                    owner.beat();
                    if !self.producer.serve(PATIENCE) && lifeline.is_due(true, Instant::now()) {
                        lifeline.throw(self.producer.client());
                    }
                }
                Err(TryRecvError::Disconnected) => return Err(TaskError::Retry("the journal's producer has ended".into())),
            }
        }
    }
}

impl Log for Journal {
    fn last(&self) -> i64 {
        self.last
    }

    /// Appends an entry and waits until the log has it. Gives the number of bytes.
    fn append(&mut self, query: &StreamQuery, entry: &Entry, owner: &Owner) -> Result<u64, TaskError> {
        let started = Instant::now();
        let described = !std::mem::replace(&mut self.described, true);
        let bytes = codec::encode_with(query, entry, described)
            .map_err(|error| TaskError::Fatal(format!("a journal entry cannot be written: {error}")))?;
        let chunks: Vec<&[u8]> = bytes.chunks(PIECE).collect();
        let pieces = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        for (piece, bytes) in (0..).zip(&chunks) {
            if piece >= ON_THE_WAY {
                self.hear_next(owner)?;
            }
            self.send(&Piece { snapshot: entry.snapshot, epoch: self.epoch, piece, pieces, bytes }.to_bytes())?;
        }
        for _ in 0..pieces.min(ON_THE_WAY) {
            self.hear_next(owner)?;
        }
        // When it was sent, not when we heard of it: what counts is what the log can have seen.
        self.written = started;
        self.bytes += bytes.len() as u64;
        Ok(bytes.len() as u64)
    }

    /// Writes the whole state and begins to delete what lies before it. Safe because the append has shown that nobody else wrote meanwhile.
    fn snapshot(&mut self, query: &StreamQuery, entry: &Entry, owner: &Owner) -> Result<(), TaskError> {
        let first = self.last + 1;
        self.snapshot_bytes = self.append(query, entry, owner)?;
        self.bytes = 0;
        owner.at(Point::AfterSnapshot);
        // Up to an older snapshot, where others have not read as far.
        let cut = self.merges.as_ref().map_or(Some(first), |merges| merges.cut(first));
        let Some(cut) = cut else {
            owner.at(Point::AfterCut);
            return Ok(());
        };
        self.cuts.begin(&self.settings, (&self.topic, self.partition), cut, &query.file.name);
        Ok(())
    }

    fn gives_two_again(&self) -> bool {
        true
    }

    fn wants_snapshot(&self, limit: u64) -> bool {
        // A large state is written again when as much has changed, or the snapshots would be most of what is written.
        self.bytes >= limit.max(self.snapshot_bytes)
    }

    fn written(&self) -> Instant {
        self.written
    }

    fn hear(&self) {
        self.producer.serve(Duration::ZERO);
    }

    fn end(&mut self) {
        self.cuts.wait();
    }
}
