//! A query whose groups lie in all input partitions, shared by several processors (`query.repartition`).
//!
//! ```text
//! iot 0 ─▶ shard 0 ─▶ journal 0 ─┬─▶ shard 2 ─▶ journal 2 ─▶ results of half of the groups
//!                                ╳
//! iot 1 ─▶ shard 1 ─▶ journal 1 ─┴─▶ shard 3 ─▶ journal 3 ─▶ results of the others
//! ```
//! The journal of a shard that reads is what others merge: an entry has the whole new states of the groups that it touched, and how far the
//! partition was read. A shard that merges keeps them by input partition, as a single owner of all partitions would, and has a journal of
//! its own. It *tells* the readers two things, in the group's committed metadata: how far it has their journals in its own, so that nobody
//! cuts away what it needs, and the window that it waits for, so that idle partitions are closed for it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use common::Settings;
use common::client_log::Quiet;
use common::topics::journal;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::error::TaskError;
use crate::engine::Entry;
use crate::format::encode::key_text;
use crate::query::{StreamQuery, fnv1a};

/// What is told is text of the group's metadata, of which Kafka takes 4096 bytes (`offset.metadata.max.bytes`).
pub(crate) const MOST_PARTITIONS: u32 = 200;
/// How often those that merge are asked what they wait for.
const ASK: Duration = Duration::from_secs(1);
/// Longest wait for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// First word of what is told, for later forms.
const FORM: &str = "1";

/// What a shard does for its query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// It reads input partitions and gives their results.
    #[default]
    Whole,
    /// It reads one input partition, and others merge what is in its journal.
    Reads,
    /// It merges its share of the groups, and gives their results.
    Merges(Share),
}

/// One of so many parts of the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) number: u32,
    pub(crate) of: u32,
}

impl Role {
    pub(crate) fn gives_results(self) -> bool {
        self != Self::Reads
    }

    pub(crate) fn merges(self) -> bool {
        matches!(self, Self::Merges(_))
    }
}

impl Share {
    /// Leaves in an entry what this share merges: groups by the text of their key, which is the same in every release.
    pub(crate) fn cut(self, query: &StreamQuery, entry: &mut Entry) -> Result<(), TaskError> {
        // Duplicates are looked for by whoever reads the partition.
        entry.seen.clear();
        let Some(grouping) = query.groups.as_ref().filter(|_| self.of > 1) else { return Ok(()) };
        let keys = grouping.group_keys.columns(entry.groups.iter().map(|group| &*group.key));
        let keys = keys.map_err(|error| TaskError::Fatal(format!("the keys of groups cannot be read: {error}")))?;
        let (mut row, mut text) = (0, Vec::new());
        entry.groups.retain(|_| {
            text.clear();
            key_text(&keys, row, &mut text);
            row += 1;
            fnv1a(&text) % u64::from(self.of) == u64::from(self.number)
        });
        Ok(())
    }
}

/// The group of the shards that merge: only what is told is in it.
pub(crate) fn group(query: &StreamQuery) -> String {
    format!("tidemark.merge.{}", query.file.name)
}

/// What a shard that merges tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The end of the newest window that is open and past.
    pub(crate) waits_for: Option<i64>,
    /// By input partition: the offset in its journal up to which everything is in this shard's own.
    pub(crate) read: Vec<Option<i64>>,
}

impl Told {
    pub(crate) fn text(&self) -> String {
        let mut text = FORM.to_owned();
        for number in std::iter::once(&self.waits_for).chain(&self.read) {
            match number {
                Some(number) => write!(text, " {number}"),
                None => write!(text, " -"),
            }
            .unwrap_or_default();
        }
        text
    }

    /// `None`: nothing that this release knows.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        words.next().filter(|form| *form == FORM)?;
        let number = |word: &str| if word == "-" { Some(None) } else { word.parse().ok().map(Some) };
        let waits_for = number(words.next()?)?;
        Some(Self { waits_for, read: words.map(number).collect::<Option<_>>()? })
    }
}

/// Those that merge what a shard has read, as it asks what they tell.
pub(crate) struct Merges {
    consumer: BaseConsumer<Quiet>,
    /// Their journal partitions.
    them: TopicPartitionList,
    partition: i32,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    /// When it was last asked what they wait for, and the answer.
    asked: Option<Instant>,
    waits_for: Option<i64>,
    /// Where the snapshots of the journal begin that nothing was cut at yet.
    snapshots: VecDeque<i64>,
}

impl Merges {
    /// Those of a shard that reads an input partition; `snapshot`: where its journal's newest one begins.
    pub(crate) fn of(
        settings: &Settings,
        query: &StreamQuery,
        partition: i32,
        readers: u32,
        snapshot: Option<i64>,
    ) -> Result<Self, TaskError> {
        let mut config = common::kafka::client(&settings.kafka, "processor-merges");
        config.set("group.id", group(query)).set("enable.auto.commit", "false");
        let (topic, mut them) = (journal(&query.file.name), TopicPartitionList::new());
        for merges in readers..readers + query.merges() {
            them.add_partition(&topic, i32::try_from(merges).unwrap_or(i32::MAX));
        }
        let inner = RefCell::new(Inner { snapshots: snapshot.into_iter().collect(), ..Inner::default() });
        Ok(Self { consumer: config.create_with_context(Quiet)?, them, partition, inner })
    }

    /// What each of them tells; `None` for one that has told nothing, or when the log does not answer.
    fn ask(&self) -> Vec<Option<Told>> {
        match self.consumer.committed_offsets(self.them.clone(), PATIENCE) {
            Ok(told) => told.elements().iter().map(|element| Told::parse(element.metadata())).collect(),
            Err(error) => {
                tracing::debug!(%error, "what the shards that merge tell cannot be heard");
                vec![None; self.them.count()]
            }
        }
    }

    /// The end of the newest window that any of them waits for.
    pub(crate) fn wait_for(&self) -> Option<i64> {
        let due = self.inner.borrow().asked.is_none_or(|asked| asked.elapsed() >= ASK);
        if due {
            let waits_for = self.ask().into_iter().flatten().filter_map(|told| told.waits_for).max();
            let mut inner = self.inner.borrow_mut();
            (inner.asked, inner.waits_for) = (Some(Instant::now()), waits_for);
        }
        self.inner.borrow().waits_for
    }

    /// Up to where the journal may be cut, now that a snapshot begins at `snapshot`: to the newest one before which all have read everything.
    pub(crate) fn cut(&self, snapshot: i64) -> Option<i64> {
        let place = usize::try_from(self.partition).unwrap_or(usize::MAX);
        let read = self.ask().into_iter().map(|told| told.and_then(|told| told.read.get(place).copied().flatten()));
        let mut inner = self.inner.borrow_mut();
        inner.snapshots.push_back(snapshot);
        newest_before(&mut inner.snapshots, read.min().flatten()?)
    }
}

/// The newest of the snapshots that does not lie beyond `read`; the older ones are forgotten with it.
fn newest_before(snapshots: &mut VecDeque<i64>, read: i64) -> Option<i64> {
    let mut newest = None;
    while let Some(first) = snapshots.front().copied().filter(|first| *first <= read) {
        newest = Some(first);
        snapshots.pop_front();
    }
    newest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_survives_a_round_trip() {
        for told in [
            Told::default(),
            Told { waits_for: Some(-5), read: vec![Some(7), None, Some(1 << 60)] },
            Told { waits_for: None, read: vec![None] },
        ] {
            assert_eq!(Told::parse(&told.text()), Some(told));
        }
        assert!(["", "1", "2 -", "1 x", "1 - 5 y"].iter().all(|text| Told::parse(text).is_none()));
        let most = Told { waits_for: Some(i64::MIN), read: vec![Some(1 << 50); MOST_PARTITIONS as usize] };
        assert!(most.text().len() <= 4096, "{}", most.text().len());
    }

    #[test]
    fn the_journal_is_kept_for_those_who_have_not_read_it() {
        let mut snapshots = VecDeque::from([10, 20, 30]);
        assert_eq!(newest_before(&mut snapshots, 9), None);
        assert_eq!(newest_before(&mut snapshots, 25), Some(20));
        assert_eq!(newest_before(&mut snapshots, 29), None);
        assert_eq!(newest_before(&mut snapshots, 30), Some(30));
        assert!(snapshots.is_empty());
    }
}
