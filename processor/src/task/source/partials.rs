//! The entries of the shards that read the input partitions, for one that merges them: the journals of all of them, each in its order.
//!
//! A journal is read from its beginning, as in a restore: which entries count depends on the fences before them. What the state has already is
//! told apart by whoever takes the entries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Settings;
use common::client_log::Quiet;
use common::lifeline::Lifeline;
use common::presence::Presence;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::super::consumer::{of_journals, range};
use super::super::error::TaskError;
use super::super::input::MAX_STEP_BYTES;
use super::super::journal::Pieces;
use super::super::owner::Owner;
use super::super::records::Records;
use super::super::repartition::{self, Share, Told};
use super::super::worker::Shard;
use super::{Filled, Source};
use crate::engine::{Entry, codec};
use crate::query::StreamQuery;

/// How often the readers are told something new.
const TELL: Duration = Duration::from_millis(500);
/// A step takes no more bytes of journals than this; in memory, states are several times as large.
const MOST_BYTES: usize = MAX_STEP_BYTES / 4;

/// How long a log that was away may take to say that it is back.
const PROBE: Duration = Duration::from_secs(1);

/// An entry of the journal of an input partition.
pub(crate) struct Partial {
    pub(crate) partition: i32,
    pub(crate) entry: Entry,
    /// The offset after it.
    pub(crate) next: i64,
}

/// The journal of one input partition.
struct Followed {
    pieces: Pieces,
    /// The offset that comes next. Another one says that the journal was cut in between.
    next: i64,
    /// Up to where its entries were taken, and up to where they are in the own journal.
    taken: Option<i64>,
    committed: Option<i64>,
}

pub(crate) struct Partials {
    query: Arc<StreamQuery>,
    topic: String,
    own: i32,
    share: Share,
    consumer: BaseConsumer<Quiet>,
    followed: BTreeMap<i32, Followed>,
    pending: VecDeque<Partial>,
    bytes: usize,
    presence: Presence,
    lifeline: Lifeline,
    told: Option<Told>,
    told_at: Option<Instant>,
}

impl Partials {
    pub(crate) fn open(
        settings: &Settings,
        query: &Arc<StreamQuery>,
        shard: &Shard,
        share: Share,
        owner: &Owner,
    ) -> Result<Self, TaskError> {
        let topic = common::topics::journal(&query.file.name);
        let mut config = of_journals(settings, "processor-partials", repartition::group(query));
        config.set("enable.auto.offset.store", "false").set("fetch.wait.max.ms", "100").set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
        let (mut from, mut followed) = (TopicPartitionList::new(), BTreeMap::new());
        for partition in &shard.input_partitions {
            let (first, _end) = range(&consumer, &topic, *partition, owner)?;
            from.add_partition_offset(&topic, *partition, Offset::Offset(first))?;
            followed.insert(
                *partition,
                Followed { pieces: pieces(query, &topic, *partition, first), next: first, taken: None, committed: None },
            );
        }
        consumer.assign(&from)?;
        Ok(Self {
            query: Arc::clone(query),
            topic,
            own: shard.journal_partition,
            share,
            consumer,
            followed,
            pending: VecDeque::new(),
            bytes: 0,
            presence: Presence::new(&settings.kafka.bootstrap_servers),
            lifeline: Lifeline::new(&settings.kafka.bootstrap_servers),
            told: None,
            told_at: None,
        })
    }

    /// The next entry; its journal's order is kept.
    pub(crate) fn pop(&mut self) -> Option<Partial> {
        self.pending.pop_front()
    }

    /// An entry is in the state, and will be in the own journal with what is written next.
    pub(crate) fn absorbed(&mut self, partition: i32, next: i64) {
        if let Some(followed) = self.followed.get_mut(&partition) {
            followed.taken = Some(next);
        }
    }

    pub(crate) fn may_tell(&self) -> bool {
        self.told_at.is_none_or(|at| at.elapsed() >= TELL)
    }

    /// Tells the readers how far their journals are in this one, and which window it waits for. Nothing is lost when they do not hear it.
    pub(crate) fn tell(&mut self, waits_for: Option<i64>) {
        self.told_at = Some(Instant::now());
        let told = Told { waits_for, read: self.followed.values().map(|followed| followed.committed).collect() };
        if self.told.as_ref() == Some(&told) {
            return;
        }
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.topic, self.own);
        element.set_metadata(told.text());
        // The offset means nothing.
        let said = element.set_offset(Offset::Offset(0)).and_then(|()| self.consumer.commit(&list, CommitMode::Async));
        match said {
            Ok(()) => self.told = Some(told),
            Err(error) => tracing::debug!(%error, "the shards that read could not be told"),
        }
    }

    fn record(&mut self, partition: i32, offset: i64, bytes: &[u8]) -> Result<(), TaskError> {
        let Some(followed) = self.followed.get_mut(&partition) else { return Ok(()) };
        if offset != followed.next {
            followed.pieces = pieces(&self.query, &self.topic, partition, offset);
        }
        followed.next = offset + 1;
        let Some(bytes) = followed.pieces.record(offset, bytes)? else { return Ok(()) };
        let decoded = codec::decode(&self.query, &bytes);
        let mut entry = decoded.map_err(|error| followed.pieces.damaged(offset, &error.to_string()))?;
        self.share.cut(&self.query, &mut entry)?;
        self.bytes += bytes.len();
        self.pending.push_back(Partial { partition, entry, next: offset + 1 });
        Ok(())
    }
}

fn pieces(query: &StreamQuery, topic: &str, partition: i32, first: i64) -> Pieces {
    Pieces::new(&query.file.name, format!("{topic}-{partition}"), first)
}

impl Source for Partials {
    fn fill(&mut self, patience: Duration, _due: Option<Instant>, owner: &Owner) -> Result<Filled, TaskError> {
        loop {
            if self.bytes >= MOST_BYTES {
                return Ok(Filled::Full);
            }
            if owner.stop.is_set() {
                return Ok(Filled::Due);
            }
            if self.lifeline.is_due(self.presence.is_away(), Instant::now()) {
                // A log that is back and has nothing new says nothing by itself.
                match self.consumer.fetch_watermarks(&self.topic, self.own, PROBE) {
                    Ok(_) => drop(self.presence.found()),
                    Err(_) => self.lifeline.throw(self.consumer.client()),
                }
            }
            let wait = if self.pending.is_empty() { patience } else { Duration::ZERO };
            let came = match self.consumer.poll(wait) {
                None => return Ok(Filled::Drained),
                Some(Ok(message)) => {
                    self.presence.found();
                    (message.partition(), message.offset(), message.payload().unwrap_or_default().to_vec())
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition))) => {
                    return Err(TaskError::Retry(format!("topic '{}' is gone", self.topic)));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, topic = self.topic, "waiting for the journals");
                    self.presence.lost(&error);
                    return Ok(Filled::Drained);
                }
            };
            let (partition, offset, bytes) = came;
            self.record(partition, offset, &bytes)?;
        }
    }

    fn rows(&self) -> usize {
        self.pending.len()
    }

    fn partials(&mut self) -> Option<&mut Partials> {
        Some(self)
    }

    fn taken(&self) -> Vec<&Records> {
        Vec::new()
    }

    fn clear(&mut self) {
        self.bytes = 0;
    }

    fn committed(&mut self, _positions: &BTreeMap<i32, i64>) -> Result<(), TaskError> {
        self.followed.values_mut().for_each(|followed| followed.committed = followed.taken);
        Ok(())
    }

    fn is_done(&self) -> bool {
        false
    }

    fn goal(&self) -> BTreeMap<i32, (i64, i64)> {
        BTreeMap::new()
    }

    fn ends_within(&self, _most: i64, _owner: &Owner) -> Result<BTreeMap<i32, i64>, TaskError> {
        Ok(BTreeMap::new())
    }

    fn has_passed(&self, _partition: i32, _target: i64) -> bool {
        true
    }

    fn quiet(&self) -> Vec<(i32, bool, Duration)> {
        Vec::new()
    }

    fn is_away(&self) -> bool {
        self.presence.is_away()
    }

    /// It reads no input, so it closes nothing.
    fn stands_at_end(&mut self, _partition: i32, _offset: i64) -> bool {
        false
    }

    fn idle(&self, _timeout: Duration) -> Vec<(i32, i64)> {
        Vec::new()
    }
}
