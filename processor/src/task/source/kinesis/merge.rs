//! The shards of a stream, and the one order of their records. Pure: time is a count of what was asked and answered.
//!
//! A record may be given when every other shard that is read has one behind it, or was empty and open after the record had come. A shard that
//! was closed a moment ago may answer once more that it is empty before it says that it is closed, and then its children have records
//! already. Whether it says so can depend on where its iterator was made: one that stands behind a record may be from before the end, one
//! that an empty answer gave is as new as that answer. So an empty answer tells of the moment of the question before it, if that one was
//! answered by nothing, too, and gave the iterator. No clock of ours takes part, and a shard that cannot be read holds the others back, as
//! an input partition of Kafka does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

/// A shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) parents: Vec<String>,
    /// The hashes of the partition keys that it takes.
    pub(super) hashes: (u128, u128),
}

/// Up to where the records of a shard are given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The sequence number of the newest record; `None`: none was there yet.
    pub(super) record: Option<String>,
    /// How many rows of that record are given, of one that holds several; 0: all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) rows: u32,
    /// The latest time of receipt so far.
    pub(super) time: i64,
    /// Nothing comes after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) ended: bool,
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(rows: &u32) -> bool {
    *rows == 0
}

/// A row that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) payload: Vec<u8>,
    /// Epoch milliseconds, as Kinesis says them.
    pub(super) received: i64,
    /// Where the shard stands when the row is given; its time never goes back.
    pub(super) place: Place,
}

/// What a row weighs beside its bytes.
const WEIGHT: usize = 200;

impl Row {
    fn weight(&self) -> usize {
        self.key.len() + self.payload.len() + WEIGHT
    }
}

/// What a question to a shard has brought.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) rows: Vec<Row>,
    /// Behind the last record, whether it had rows or not.
    pub(super) read: Place,
    /// No record was there, with rows or without.
    pub(super) empty: bool,
    /// Nothing was behind it when it was asked.
    pub(super) tip: bool,
    /// It was asked by an iterator that no answer gave.
    pub(super) anew: bool,
    /// The shard is closed and read to its end.
    pub(super) closed: bool,
}

/// A shard that is read.
#[derive(Debug)]
struct Lane {
    shard: Shard,
    /// With the moment at which each came.
    rows: VecDeque<(u64, Row)>,
    bytes: usize,
    given: Place,
    read: Place,
    /// When the newest question began, if nothing answered it: by the next answer it is known whether the shard was open then.
    rested: Option<u64>,
    /// At this moment it was open, and nothing was there that is not here.
    empty_at: u64,
    /// It was found empty since the start.
    met_tip: bool,
    closed: bool,
}

impl Lane {
    /// Of the next row, if there is one.
    fn time(&self) -> Option<i64> {
        self.rows.front().map(|(_, row)| row.place.time)
    }
}

#[derive(Debug)]
pub(super) struct Merge {
    lanes: BTreeMap<String, Lane>,
    /// Their parents are not read to the end.
    waiting: BTreeMap<String, Shard>,
    /// What the log of positions has still to hear.
    changed: BTreeMap<String, Place>,
    /// Shards that have ended.
    ended: BTreeSet<String>,
    /// Closed shards whose children no list has named yet.
    childless: BTreeSet<String>,
    /// Counts questions and answers.
    now: u64,
    bytes: usize,
    /// Only what was there at the start counts.
    bounded: bool,
}

/// Bytes that may wait here before shards that have some are asked for more, and those of one shard.
const ENOUGH: usize = 64 * 1024 * 1024;
const ENOUGH_OF_ONE: usize = 8 * 1024 * 1024;

impl Merge {
    /// Goes on where the shards stand. Gives also those that have a place and are gone.
    pub(super) fn new(shards: Vec<Shard>, places: BTreeMap<String, Place>, bounded: bool) -> (Self, Vec<String>) {
        let mut merge = Self {
            lanes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            changed: BTreeMap::new(),
            ended: BTreeSet::new(),
            childless: BTreeSet::new(),
            now: 1,
            bytes: 0,
            bounded,
        };
        let mut lost = Vec::new();
        let listed: BTreeSet<&str> = shards.iter().map(|shard| shard.id.as_str()).collect();
        for (id, place) in &places {
            if place.ended {
                merge.ended.insert(id.clone());
            } else if !listed.contains(id.as_str()) {
                lost.push(id.clone());
                merge.end(id, place.clone());
            }
        }
        merge.waiting =
            shards.into_iter().filter(|shard| !merge.ended.contains(&shard.id)).map(|shard| (shard.id.clone(), shard)).collect();
        merge.admit(&places);
        (merge, lost)
    }

    /// A new list of the stream's shards. Gives those that were read and are gone.
    pub(super) fn listed(&mut self, shards: Vec<Shard>) -> Vec<String> {
        let gone: Vec<String> = self.lanes.keys().filter(|id| shards.iter().all(|shard| shard.id != **id)).cloned().collect();
        for id in &gone {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.closed = true;
            }
        }
        self.childless.retain(|id| !shards.iter().any(|shard| shard.parents.contains(id)));
        for shard in shards {
            if !self.lanes.contains_key(&shard.id) && !self.ended.contains(&shard.id) {
                self.waiting.insert(shard.id.clone(), shard);
            }
        }
        self.settle();
        gone
    }

    /// Lets shards in whose parents are done with.
    fn admit(&mut self, places: &BTreeMap<String, Place>) {
        loop {
            let is_open = |id: &String| self.lanes.contains_key(id) || self.waiting.contains_key(id);
            let ready = self.waiting.iter().find(|(_, shard)| !shard.parents.iter().any(is_open)).map(|(id, _)| id.clone());
            let Some(shard) = ready.and_then(|id| self.waiting.remove(&id)) else { return };
            let place = places.get(&shard.id).cloned().unwrap_or_default();
            let lane = Lane {
                rows: VecDeque::new(),
                bytes: 0,
                given: place.clone(),
                read: place,
                rested: None,
                empty_at: 0,
                met_tip: false,
                closed: false,
                shard,
            };
            self.lanes.insert(lane.shard.id.clone(), lane);
        }
    }

    fn end(&mut self, id: &str, place: Place) {
        self.ended.insert(id.to_owned());
        self.changed.insert(id.to_owned(), Place { ended: true, ..place });
    }

    /// Ends the shards that are closed and given to the end.
    fn settle(&mut self) {
        let done: Vec<String> =
            self.lanes.iter().filter(|(_, lane)| lane.closed && lane.rows.is_empty()).map(|(id, _)| id.clone()).collect();
        for id in done {
            if let Some(lane) = self.lanes.remove(&id) {
                self.end(&id, lane.given);
            }
        }
        self.admit(&BTreeMap::new());
    }

    /// A question begins, or an answer has come.
    pub(super) fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// Takes what a question that began at `asked` has brought.
    pub(super) fn push(&mut self, id: &str, asked: u64, brought: Brought) {
        let came = self.tick();
        let has_children = self.has_children(id);
        let Some(lane) = self.lanes.get_mut(id) else { return };
        lane.read = brought.read;
        let bytes: usize = brought.rows.iter().map(Row::weight).sum();
        lane.bytes += bytes;
        self.bytes += bytes;
        lane.met_tip |= brought.tip;
        let before = lane.rested.take().filter(|_| !brought.anew);
        if brought.tip && brought.empty {
            lane.empty_at = before.unwrap_or(lane.empty_at);
            lane.rested = Some(asked);
        }
        lane.rows.extend(brought.rows.into_iter().map(|row| (came, row)));
        lane.closed = brought.closed;
        if brought.closed && !has_children {
            self.childless.insert(id.to_owned());
        }
        self.settle();
    }

    /// Whether a shard follows this one, as far as it is known.
    fn has_children(&self, id: &str) -> bool {
        let mut known = self.lanes.values().map(|lane| &lane.shard).chain(self.waiting.values());
        known.any(|shard| shard.parents.iter().any(|parent| parent == id))
    }

    /// Whether a bounded run has what was there of a shard. One that others follow has an end, which must be met.
    fn is_enough(&self, lane: &Lane) -> bool {
        self.bounded && lane.met_tip && !self.has_children(&lane.shard.id)
    }

    /// The shard whose row is next, if any may be given.
    fn next(&self) -> Option<&str> {
        if !self.childless.is_empty() {
            return None;
        }
        let filled = self.lanes.iter().filter(|(_, lane)| !lane.rows.is_empty());
        let (id, first) = filled.min_by(|(one, a), (other, b)| (a.time(), one).cmp(&(b.time(), other)))?;
        let came = first.rows.front().map_or(0, |(came, _)| *came);
        let is_known = |lane: &Lane| !lane.rows.is_empty() || lane.empty_at >= came || self.is_enough(lane);
        self.lanes.values().all(is_known).then_some(id.as_str())
    }

    pub(super) fn has_next(&self) -> bool {
        self.next().is_some()
    }

    /// Up to `most` rows, in order.
    pub(super) fn take(&mut self, most: usize) -> Vec<Row> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(id) = self.next().map(str::to_owned)
            && let Some(lane) = self.lanes.get_mut(&id)
            && let Some((_, row)) = lane.rows.pop_front()
        {
            lane.bytes -= row.weight();
            self.bytes -= row.weight();
            lane.given = row.place.clone();
            if lane.rows.is_empty() {
                // Records without rows behind it are done with, too.
                lane.given = lane.read.clone();
            }
            let ends = lane.closed && lane.rows.is_empty();
            self.changed.insert(id, lane.given.clone());
            taken.push(row);
            if ends {
                self.settle();
            }
        }
        taken
    }

    /// Where shards stand that have moved since they were last asked for.
    pub(super) fn take_changed(&mut self) -> BTreeMap<String, Place> {
        std::mem::take(&mut self.changed)
    }

    /// The shards that are to be read on.
    pub(super) fn open(&self) -> impl Iterator<Item = &Shard> {
        self.lanes.values().filter(|lane| !lane.closed && !self.is_enough(lane)).map(|lane| &lane.shard)
    }

    /// Where the next question to a shard begins; `None` when it is not to be asked any more.
    pub(super) fn read_to(&self, id: &str) -> Option<&Place> {
        self.lanes.get(id).filter(|lane| !lane.closed && !self.is_enough(lane)).map(|lane| &lane.read)
    }

    /// Whether there is room for more of a shard.
    pub(super) fn has_room(&self, id: &str) -> bool {
        self.lanes.get(id).is_none_or(|lane| lane.rows.is_empty() || (self.bytes < ENOUGH && lane.bytes < ENOUGH_OF_ONE))
    }

    /// Whether closed shards wait for a list that names their children.
    pub(super) fn wants_list(&self) -> bool {
        !self.childless.is_empty()
    }

    /// Whether nothing was there at `moment` that is not given.
    pub(super) fn is_empty_since(&self, moment: u64) -> bool {
        self.childless.is_empty() && self.lanes.values().all(|lane| lane.rows.is_empty() && lane.empty_at >= moment)
    }

    /// Whether a bounded run has been given everything that was there at its start.
    pub(super) fn is_spent(&self) -> bool {
        self.childless.is_empty() && self.waiting.is_empty() && self.lanes.values().all(|lane| lane.rows.is_empty() && self.is_enough(lane))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: &[&str]) -> Shard {
        Shard { id: id.into(), parents: parents.iter().map(|parent| (*parent).to_owned()).collect(), hashes: (0, u128::MAX) }
    }

    fn place(record: u32, time: i64) -> Place {
        Place { record: Some(record.to_string()), time, ..Place::default() }
    }

    fn brought(records: &[(u32, i64)]) -> Brought {
        let row =
            |(record, time): &(u32, i64)| Row { key: String::new(), payload: Vec::new(), received: *time, place: place(*record, *time) };
        let read = records.last().map_or_else(Place::default, |(record, time)| place(*record, *time));
        let empty = records.is_empty();
        Brought { rows: records.iter().map(row).collect(), read, empty, tip: empty, anew: false, closed: false }
    }

    fn merge(shards: &[(&str, &[&str])]) -> Merge {
        Merge::new(shards.iter().map(|(id, parents)| shard(id, parents)).collect(), BTreeMap::new(), false).0
    }

    /// Asks and is answered.
    fn push(merge: &mut Merge, id: &str, brought: Brought) {
        let asked = merge.tick();
        merge.push(id, asked, brought);
    }

    /// Is answered twice that nothing is there.
    fn rest(merge: &mut Merge, id: &str) {
        push(merge, id, brought(&[]));
        push(merge, id, brought(&[]));
    }

    fn times(merge: &mut Merge) -> Vec<i64> {
        merge.take(100).into_iter().map(|row| row.received).collect()
    }

    fn open(merge: &Merge) -> Vec<&str> {
        merge.open().map(|shard| shard.id.as_str()).collect()
    }

    #[test]
    fn records_come_by_their_time_whatever_is_asked_first() {
        for first in ["a", "b"] {
            let mut merge = merge(&[("a", &[]), ("b", &[])]);
            let (one, other) = (brought(&[(1, 10), (2, 30), (3, 30)]), brought(&[(1, 20), (2, 30), (3, 40)]));
            if first == "a" {
                push(&mut merge, "a", one);
                assert!(!merge.has_next(), "b has said nothing");
                push(&mut merge, "b", other);
            } else {
                push(&mut merge, "b", other);
                push(&mut merge, "a", one);
            }
            let given: Vec<(i64, Option<String>)> = merge.take(100).into_iter().map(|row| (row.received, row.place.record)).collect();
            let wanted = [(10, "1"), (20, "1"), (30, "2"), (30, "3")].map(|(time, record)| (time, Some(record.to_owned())));
            assert_eq!(given, wanted, "then a has to say whether it has more");
            rest(&mut merge, "a");
            assert_eq!(times(&mut merge), [30, 40]);
        }
    }

    #[test]
    fn only_a_question_that_was_asked_later_shows_a_shard_empty() {
        let mut merge = merge(&[("a", &[]), ("b", &[])]);
        let early = merge.tick();
        push(&mut merge, "a", brought(&[(1, 10)]));
        merge.push("b", early, brought(&[]));
        assert!(!merge.has_next(), "what came to b before a was read may have been missed");
        push(&mut merge, "b", brought(&[]));
        assert!(!merge.has_next(), "it may have been closed, and its children may have begun");
        push(&mut merge, "b", brought(&[]));
        assert_eq!(times(&mut merge), [10]);
        let moment = merge.tick();
        assert!(!merge.is_empty_since(moment));
        rest(&mut merge, "a");
        rest(&mut merge, "b");
        assert!(merge.is_empty_since(moment));
    }

    #[test]
    fn a_shard_is_known_to_be_empty_by_an_iterator_that_an_empty_answer_gave() {
        let mut merge = merge(&[("a", &[]), ("b", &[])]);
        push(&mut merge, "b", brought(&[(1, 10)]));
        push(&mut merge, "a", brought(&[(1, 5)]));
        push(&mut merge, "b", brought(&[(2, 20)]));
        assert_eq!(times(&mut merge), [5]);
        // The iterators stand behind the records 5 and 7, and can be from before the end of the shard.
        push(&mut merge, "a", brought(&[]));
        push(&mut merge, "a", brought(&[(2, 7)]));
        assert_eq!(times(&mut merge), [7]);
        push(&mut merge, "a", brought(&[]));
        assert!(!merge.has_next());
        // So can one that was made for a place.
        push(&mut merge, "a", Brought { anew: true, ..brought(&[]) });
        assert!(!merge.has_next());
        // Nor is anything known by records without rows, or when more is behind.
        push(&mut merge, "a", Brought { empty: false, ..brought(&[]) });
        push(&mut merge, "a", brought(&[]));
        push(&mut merge, "a", Brought { tip: false, ..brought(&[]) });
        push(&mut merge, "a", brought(&[]));
        assert!(!merge.has_next());
        push(&mut merge, "a", brought(&[]));
        assert_eq!(times(&mut merge), [10, 20]);
    }

    #[test]
    fn children_begin_when_their_parents_are_given() {
        let mut merge = merge(&[("a", &[]), ("b", &[])]);
        assert_eq!(open(&merge), ["a", "b"]);
        push(&mut merge, "a", Brought { closed: true, ..brought(&[(1, 10)]) });
        push(&mut merge, "b", brought(&[(1, 20)]));
        assert!(merge.wants_list() && !merge.has_next(), "a child may have begun before 20");
        // A split and, at the same time, a merge of one half with b.
        let all = || vec![shard("a", &[]), shard("b", &[]), shard("c", &["a"]), shard("d", &["a"]), shard("e", &["d", "b"])];
        assert!(merge.listed(all()).is_empty());
        assert_eq!(times(&mut merge), [10]);
        assert_eq!(open(&merge), ["b", "c", "d"]);
        push(&mut merge, "c", brought(&[(1, 15)]));
        push(&mut merge, "d", Brought { closed: true, ..brought(&[]) });
        assert_eq!(times(&mut merge), [15]);
        rest(&mut merge, "c");
        assert_eq!(times(&mut merge), [20]);
        push(&mut merge, "b", Brought { closed: true, ..brought(&[]) });
        assert_eq!(open(&merge), ["c", "e"]);
        let changed = merge.take_changed();
        let ended: Vec<&str> = changed.iter().filter(|(_, place)| place.ended).map(|(id, _)| id.as_str()).collect();
        assert_eq!(ended, ["a", "b", "d"]);
        assert_eq!(changed["a"], Place { ended: true, ..place(1, 10) });
        // A restart knows the same; a shard that has no place and no parent that is read begins.
        let (resumed, lost) = Merge::new(all(), changed, false);
        assert_eq!((open(&resumed), lost), (vec!["c", "e"], Vec::new()));
        assert_eq!(resumed.read_to("c").unwrap(), &place(1, 15));
    }

    #[test]
    fn a_shard_that_the_stream_has_no_more_ends() {
        let places = [("a".to_owned(), place(1, 10)), ("b".to_owned(), Place { ended: true, ..place(9, 10) })].into();
        let (mut merge, lost) = Merge::new(vec![shard("c", &["a", "b"])], places, false);
        assert_eq!((lost, open(&merge)), (vec!["a".to_owned()], vec!["c"]));
        assert!(merge.take_changed()["a"].ended);
        assert_eq!(merge.listed(vec![shard("d", &["c"])]), ["c"]);
        assert_eq!(open(&merge), ["d"]);
    }

    #[test]
    fn a_bounded_run_reads_to_the_tips() {
        let (mut merge, _) = Merge::new(vec![shard("a", &[]), shard("b", &[])], BTreeMap::new(), true);
        push(&mut merge, "a", Brought { tip: true, ..brought(&[(1, 10)]) });
        assert_eq!(open(&merge), ["b"]);
        push(&mut merge, "b", brought(&[(1, 5)]));
        assert!(!merge.is_spent());
        push(&mut merge, "b", Brought { tip: true, ..brought(&[]) });
        assert_eq!(times(&mut merge), [5, 10]);
        assert!(merge.is_spent());
    }

    #[test]
    fn a_bounded_run_reads_a_shard_that_others_follow_to_its_end() {
        let (mut merge, _) = Merge::new(vec![shard("a", &[]), shard("b", &["a"])], BTreeMap::new(), true);
        push(&mut merge, "a", Brought { tip: true, ..brought(&[(1, 10)]) });
        assert_eq!((times(&mut merge), open(&merge)), (vec![10], vec!["a"]));
        push(&mut merge, "a", Brought { closed: true, ..brought(&[]) });
        assert!(!merge.is_spent());
        assert_eq!(open(&merge), ["b"]);
        push(&mut merge, "b", Brought { tip: true, ..brought(&[(1, 20)]) });
        assert_eq!((times(&mut merge), merge.is_spent()), (vec![20], true));
    }

    #[test]
    fn room_is_bounded_and_an_empty_shard_always_has_some() {
        let mut merge = merge(&[("a", &[]), ("b", &[])]);
        let mut large = brought(&[(1, 10)]);
        large.rows[0].payload = vec![0; ENOUGH + 1];
        push(&mut merge, "a", large);
        assert!(!merge.has_room("a") && merge.has_room("b"));
        push(&mut merge, "b", brought(&[(1, 5), (2, 20)]));
        assert!(!merge.has_room("b"));
        assert_eq!(times(&mut merge), [5, 10]);
        assert!(merge.has_room("a") && merge.has_room("b"));
    }
}
