//! Input records, as they are read from the log.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Settings;
use common::client_log::Quiet;
use common::lifeline::Lifeline;
use common::presence::Presence;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::range;
use super::drain::{Drain, Taken};
use super::error::TaskError;
use super::owner::Owner;
use super::pile::{Heard, Pile};
use super::records::Records;
use super::source::{Filled, Source};
use crate::query::StreamQuery;
use crate::query::file::Trigger;

/// A step takes no more rows than this: enough to share its cost out, and few enough that they stay near the processor on their way through
/// the stages, and that two of them fit into a small memory. An entry of a backlog has many.
const PIECE: usize = 20_000;

/// The same where each step is a batch, or has results that leave at once.
pub(crate) const BATCH: usize = 100_000;

/// A step takes no more bytes than this, however few rows they are: large records must not add up to a memory that is not there.
pub(crate) const MAX_STEP_BYTES: usize = 64 * 1024 * 1024;

/// How long a step waits for records that the log is known to have.
const ON_ITS_WAY: Duration = Duration::from_millis(2);

/// After this long without a row, offsets at the end of a partition hold none.
const SETTLED: Duration = Duration::from_secs(10);

/// The log holds a fetch of a quiet partition so long. Rows end it at once, and each is some wake-ups of both.
const LONGEST_FETCH: Duration = Duration::from_millis(500);

/// Each answer without rows says where the log ends, which somebody may wait for: a bounded run for its own end, a `continuous` one that catches
/// up, and the clock that closes idle partitions. The latter asks for the end as well, behind the fetch, as Kafka answers a connection in turn.
fn longest_fetch(query: &StreamQuery) -> Duration {
    let shortest = Duration::from_millis(100);
    let trigger = query.file.query.trigger;
    if trigger.is_bounded() || matches!(trigger, Trigger::Continuous(_)) {
        return shortest;
    }
    let idle = query.file.source.idle_timeout().map(|timeout| timeout.duration() / 10);
    idle.map_or(LONGEST_FETCH, |tenth| tenth.clamp(shortest, LONGEST_FETCH))
}

fn ends<'a>(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partitions: impl Iterator<Item = &'a i32>,
    owner: &Owner,
) -> Result<BTreeMap<i32, i64>, TaskError> {
    partitions.map(|partition| Ok((*partition, range(consumer, topic, *partition, owner)?.1))).collect()
}

/// How long the client may take for what it does by itself.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Reads the input partitions of one shard.
pub(crate) struct Reader {
    drain: Drain,
    topic: Arc<str>,
    /// The same for the client.
    topic_name: CString,
    pile: Pile,
    max_rows: usize,
    /// Where each partition stands, and since when it is quiet.
    quiet: BTreeMap<i32, Quietness>,
    /// Where reading began.
    firsts: BTreeMap<i32, i64>,
    /// No partition has been read before: there is nothing that could be lost.
    fresh: bool,
    presence: Presence,
    lifeline: Lifeline,
    /// Of each partition that was to be closed: where it stood, the log's end, and since when that is so.
    ends_heard: BTreeMap<i32, (i64, i64, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Quietness {
    /// The next offset to read.
    offset: i64,
    since: Instant,
}

impl Reader {
    /// Starts to read each partition at its offset; `None` is the beginning of the log.
    pub(crate) fn start(
        settings: &Settings,
        query: &StreamQuery,
        positions: &BTreeMap<i32, Option<i64>>,
        owner: &Owner,
    ) -> Result<Self, TaskError> {
        let mut config = common::kafka::client(&settings.kafka, "processor-input");
        config
            .set("group.id", super::membership::group(query))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that is gone must be said, never jumped over.
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", longest_fetch(query).as_millis().to_string())
            .set("fetch.error.backoff.ms", "50")
            // A full queue must not stop fetching for the default second: that would halve the speed of a catch-up.
            .set("fetch.queue.backoff.ms", "5")
            // Prefetch queues are per consumer and large by default. The client needs some 400 bytes for a record beside its own, so this is as much
            // as a step takes, and an answer of the log, which comes on top and is compressed, is not much more.
            .set("queued.min.messages", PIECE.to_string())
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.message.max.bytes", "262144")
            .set("check.crcs", "true")
            // Lines of its log that come with the records ([`Drain`]) would go to standard error as they are.
            .set_log_level(RDKafkaLogLevel::Emerg);
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
        let topic: Arc<str> = query.file.source.topic.as_str().into();
        let mut list = TopicPartitionList::new();
        let mut quiet = BTreeMap::new();
        for (partition, position) in positions {
            let offset = position.map_or_else(|| Ok::<_, TaskError>(range(&consumer, &topic, *partition, owner)?.0), Ok)?;
            list.add_partition_offset(&topic, *partition, Offset::Offset(offset))?;
            quiet.insert(*partition, Quietness { offset, since: Instant::now() });
        }
        let ends = match query.file.query.trigger.is_bounded() {
            true => ends(&consumer, &topic, positions.keys(), owner)?,
            false => BTreeMap::new(),
        };
        let firsts = quiet.iter().map(|(partition, quiet): (&i32, &Quietness)| (*partition, quiet.offset)).collect();
        consumer.assign(&list)?;
        let pile = Pile::new(&topic, positions.keys().copied(), &ends);
        let fresh = positions.values().all(Option::is_none);
        let gathers = query.file.has_journal_topic() && !matches!(query.file.query.trigger, Trigger::Continuous(_));
        let topic_name = CString::new(&*topic).map_err(KafkaError::from)?;
        Ok(Self {
            drain: Drain::new(consumer)?,
            topic,
            topic_name,
            pile,
            max_rows: settings.processor.max_rows_per_step.min(if gathers { PIECE } else { BATCH }),
            quiet,
            firsts,
            fresh,
            presence: Presence::new(&settings.kafka.bootstrap_servers),
            lifeline: Lifeline::new(&settings.kafka.bootstrap_servers),
            ends_heard: BTreeMap::new(),
        })
    }

    fn note(&mut self, error: KafkaError) -> Result<(), TaskError> {
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) if self.fresh => {
                Err(TaskError::Retry(format!("topic '{}' was cut while the query began to read it", self.topic)))
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Err(TaskError::Fatal(format!(
                    "topic '{}' no longer has the offset at which the query stopped: retention deleted rows that were never read, or the \
                     topic was created anew; raise its retention, or give the query another name to start from what is there",
                    self.topic
                )))
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                Err(TaskError::Retry(format!("topic '{}' is gone", self.topic)))
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::BadCompression) => {
                Err(TaskError::Retry(format!(
                    "topic '{}' has a batch that cannot be read ({error}); its rows cannot be left out silently: repair it, or delete it by hand",
                    self.topic
                )))
            }
            other => {
                self.pile.forget_ends();
                if self.presence.lost(&other) { self.ask_for_ends() } else { Ok(()) }
            }
        }
    }

    /// Has the client tell the ends of the partitions anew: it tells each end once, and whether it still is one, only the log can say, once it is
    /// back.
    fn ask_for_ends(&self) -> Result<(), TaskError> {
        for (partition, quiet) in &self.quiet {
            let next = self.pile.next_offset(*partition).unwrap_or(quiet.offset);
            // The client itself does that, without the log. What it holds already is read again.
            self.drain.consumer().seek(&self.topic, *partition, Offset::Offset(next), AT_ONCE).map_err(|error| {
                TaskError::Retry(format!("topic '{}' cannot be read on from offset {next} of partition {partition}: {error}", self.topic))
            })?;
        }
        Ok(())
    }

    /// For how long no row has come; of a partition that is read to its end, since the log last said that it ends there: what nobody could hear of
    /// before that is not silence.
    fn silence(&self, partition: i32, quiet: &Quietness) -> Duration {
        self.pile.at_end_since(partition).map_or(quiet.since, |since| quiet.since.max(since)).elapsed()
    }
}

impl Source for Reader {
    fn rows(&self) -> usize {
        self.pile.rows()
    }

    fn lags(&self) -> bool {
        let most = i64::try_from(self.max_rows).unwrap_or(i64::MAX);
        self.quiet.iter().any(|(partition, quiet)| {
            let next = self.pile.next_offset(*partition).unwrap_or(quiet.offset);
            self.drain.known_end(&self.topic_name, *partition).is_some_and(|end| end - next >= most)
        })
    }

    /// What the client has said of its connections meanwhile may have passed unheard: it goes with the records, where it is lost.
    fn was_deaf(&mut self) -> Result<(), TaskError> {
        self.pile.forget_ends();
        self.ask_for_ends()
    }

    /// Whether a bounded run has read everything that was there at its start.
    fn is_done(&self) -> bool {
        self.quiet
            .iter()
            .all(|(partition, quiet)| self.pile.end(*partition).is_none_or(|end| quiet.offset >= end || self.pile.is_through(*partition)))
    }

    /// Of a bounded run: each partition with the offsets from where and to where it is read.
    fn goal(&self) -> BTreeMap<i32, (i64, i64)> {
        self.pile.ends().filter_map(|(partition, end)| Some((partition, (*self.firsts.get(&partition)?, end)))).collect()
    }

    /// For each partition its end as the log says it now, or the offset `most` beyond the one that it stands at when that is nearer.
    fn ends_within(&self, most: i64, owner: &Owner) -> Result<BTreeMap<i32, i64>, TaskError> {
        let mut targets = ends(self.drain.consumer(), &self.topic, self.quiet.keys(), owner)?;
        for (partition, quiet) in &self.quiet {
            targets.entry(*partition).and_modify(|end| *end = (*end).min(quiet.offset + most));
        }
        Ok(targets)
    }

    /// Whether a step has taken all rows before `target`. The last offsets of a partition may have no rows.
    fn has_passed(&self, partition: i32, target: i64) -> bool {
        self.pile.is_through(partition) || self.quiet.get(&partition).is_none_or(|quiet| quiet.offset >= target)
    }

    /// Of each partition: whether it is read to its end, and for how long no row has come.
    fn quiet(&self) -> Vec<(i32, bool, Duration)> {
        self.quiet.iter().map(|(partition, quiet)| (*partition, self.pile.is_at_end(*partition), self.silence(*partition, quiet))).collect()
    }

    /// Whether the log has not answered since it was last asked.
    fn is_away(&self) -> bool {
        self.presence.is_away()
    }

    /// Whether the log says that nothing lies beyond `offset`: no row, that is. A transaction ends with offsets that hold none, so an end
    /// beyond it counts when it has stayed where it is for a while without a row coming.
    fn stands_at_end(&mut self, partition: i32, offset: i64) -> bool {
        let answer = self.drain.consumer().fetch_watermarks(&self.topic, partition, LONGEST_FETCH + Duration::from_secs(1));
        let Ok((_first, end)) = answer else {
            self.ends_heard.remove(&partition);
            self.pile.doubt_end(partition);
            return false;
        };
        let heard = self.ends_heard.entry(partition).or_insert((offset, end, Instant::now()));
        if (heard.0, heard.1) != (offset, end) {
            *heard = (offset, end, Instant::now());
        }
        end == offset || heard.2.elapsed() >= SETTLED
    }

    /// The partitions that are read to their ends and have been quiet for `timeout`, with the offsets that they stand at. Never one with
    /// rows that a step has still to take.
    fn idle(&self, timeout: Duration) -> Vec<(i32, i64)> {
        let idle =
            self.quiet.iter().filter(|(partition, quiet)| self.pile.is_through(**partition) && self.silence(**partition, quiet) >= timeout);
        idle.map(|(partition, quiet)| (*partition, quiet.offset)).collect()
    }

    /// Takes records until the step is full, nothing more is there, or it is `due`. Waits for a first record up to `patience`.
    fn fill(&mut self, patience: Duration, due: Option<Instant>, owner: &Owner) -> Result<Filled, TaskError> {
        let mut wait = patience;
        loop {
            if self.pile.rows() >= self.max_rows || self.pile.bytes() >= MAX_STEP_BYTES {
                return Ok(Filled::Full);
            }
            if due.is_some_and(|due| Instant::now() >= due) || owner.stop.is_set() {
                return Ok(Filled::Due);
            }
            if self.lifeline.is_due(self.presence.is_away(), Instant::now()) {
                self.lifeline.throw(self.drain.consumer().client());
            }
            let (rows, mut heard) = (self.pile.rows(), Heard::default());
            if self.drain.each(self.max_rows - rows, |came| self.pile.hear(came, &mut heard)) == 0 {
                // Only this one hears what the client says of its connections.
                let Some(came) = self.drain.consumer().poll(wait) else { return Ok(Filled::Drained) };
                self.pile.hear(came.as_ref().map(Taken::from).map_err(Clone::clone), &mut heard);
            }
            if heard.answered {
                self.presence.found();
            }
            heard.errors.into_iter().try_for_each(|error| self.note(error))?;
            if heard.beyond && self.is_done() {
                return Ok(Filled::Drained);
            }
            if self.pile.rows() > rows {
                // Of a backlog the next records are on their way.
                wait = if self.lags() { ON_ITS_WAY } else { Duration::ZERO };
            }
        }
    }

    /// The records so far, by partition; partitions without any are left out.
    fn taken(&self) -> Vec<&Records> {
        self.pile.records().collect()
    }

    /// Forgets the records so far; their buffers stay.
    fn clear(&mut self) {
        for records in self.pile.records() {
            if let Some(offset) = records.next_offset() {
                self.quiet.insert(records.partition(), Quietness { offset, since: Instant::now() });
            }
        }
        self.pile.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
