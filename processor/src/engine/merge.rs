//! Several steps in one entry: absorbed one after another, written to the journal once.
//!
//! The union is exact. A later state of a group replaces an earlier one, because states are whole and not differences. Nothing may be
//! evicted between the steps: what closed on the way must still be there when the entry's results are computed, here or by a recovery. A
//! decision of the wall clock is no step: it is told by its entry reading nothing, and has an entry of its own.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::{Entry, GroupState, LineNumber, LineTime, Moved, Progress, SeenKey, SessionState, panes, seen, sessions};
use crate::query::RowBytes;

/// The steps since the newest entry of the journal.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    entry: Entry,
    moved: Moved,
    steps: u64,
    bytes: u64,
    /// From the second step on: most entries have one.
    parts: Parts,
}

/// Where everything stands in the merged entry.
#[derive(Debug, Default)]
struct Parts {
    lines: HashMap<(i32, RowBytes), u32>,
    groups: Places,
    seen: Places,
    /// The sessions of each touched key; they go into the entry together.
    sessions: Vec<Vec<SessionState>>,
    session_keys: Places,
}

#[derive(Debug, Default)]
struct Places {
    hasher: DefaultHashBuilder,
    table: HashTable<Place>,
}

/// Where a part stands, and some bits of the hash of its identity: a table that grows looks at no part, and so at no memory but its own.
#[derive(Debug, Clone, Copy)]
struct Place {
    hash: u32,
    at: u32,
}

/// A table takes the upper bits of a hash to tell parts apart, and the lower ones to place them.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A part of an entry that a later one with the same identity replaces.
trait Part {
    fn identity(&self) -> impl Hash + Eq;

    /// As in [`Entry::bytes`].
    fn bytes(&self) -> u64;
}

impl Part for GroupState {
    fn identity(&self) -> impl Hash + Eq {
        (self.partition, self.line, self.pane, &self.key)
    }

    fn bytes(&self) -> u64 {
        panes::cost(&self.key, &self.state)
    }
}

impl Part for SeenKey {
    fn identity(&self) -> impl Hash + Eq {
        (self.partition, self.line, &self.key)
    }

    fn bytes(&self) -> u64 {
        seen::cost(&self.key)
    }
}

/// Those of one key.
impl Part for Vec<SessionState> {
    fn identity(&self) -> impl Hash + Eq {
        self.first().map(|first| (first.partition, first.line, &first.key))
    }

    fn bytes(&self) -> u64 {
        self.iter().map(|session| sessions::cost(&session.key, &session.state)).sum()
    }
}

impl Places {
    /// Replaces the part with the identity of `new`, or adds it. `bytes` are those of all parts.
    fn put<T: Part>(&mut self, all: &mut Vec<T>, new: T, bytes: &mut u64) {
        // Its lower half; the upper one would do as well.
        let hash = self.hasher.hash_one(new.identity()) as u32;
        *bytes += new.bytes();
        let is_same = |place: &Place| place.hash == hash && all[place.at as usize].identity() == new.identity();
        match self.table.find(spread(hash), is_same) {
            Some(place) => *bytes -= std::mem::replace(&mut all[place.at as usize], new).bytes(),
            None => {
                // An entry is sent long before it has so many parts.
                let at = u32::try_from(all.len()).unwrap_or(u32::MAX);
                all.push(new);
                self.table.insert_unique(spread(hash), Place { hash, at }, |place| spread(place.hash));
            }
        }
    }
}

impl Merged {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps == 0
    }

    pub(crate) fn moved(&self) -> Moved {
        self.moved
    }

    /// How many offsets the steps take.
    pub(crate) fn rows(&self) -> u64 {
        self.entry.progress.iter().map(|progress| (progress.to - progress.from).unsigned_abs()).sum()
    }

    /// What the states of all steps take together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The steps as one entry.
    pub(crate) fn entry(&mut self) -> &Entry {
        if self.steps > 1 {
            self.entry.sessions = self.parts.sessions.iter().flatten().cloned().collect();
        }
        &self.entry
    }

    /// Most offsets that the steps take from one partition, with `next` among them.
    pub(crate) fn span_with(&self, next: &Entry) -> i64 {
        let first = |partition: i32, from: i64| {
            self.entry.progress.iter().find(|progress| progress.partition == partition).map_or(from, |progress| progress.from)
        };
        next.progress.iter().map(|progress| progress.to - first(progress.partition, progress.from)).max().unwrap_or(0)
    }

    /// Adds the next step, which goes on where the one before it ended.
    pub(crate) fn extend(&mut self, next: Entry, moved: Moved) {
        self.steps += 1;
        self.moved = self.moved.max(moved);
        if self.steps == 1 {
            self.bytes = next.bytes();
            self.entry = next;
            return;
        }
        if self.steps == 2 {
            self.bytes = 0;
            let first = std::mem::take(&mut self.entry);
            self.add(first);
        }
        self.add(next);
    }

    fn add(&mut self, step: Entry) {
        // By name, so that a new part of an entry cannot be forgotten here.
        let Entry { snapshot, progress, lines, groups, sessions, seen, second, decisions, base: _ } = step;
        debug_assert!(!snapshot && second.is_empty() && decisions.is_empty(), "neither a snapshot nor a decision is a step");
        for progress in progress {
            self.progress(progress);
        }
        let numbers: Vec<u32> = lines.into_iter().map(|line| self.line(line)).collect();
        let number = |line: LineNumber| line.and_then(|line| numbers.get(line as usize).copied());
        for group in groups {
            let group = GroupState { line: number(group.line), ..group };
            self.parts.groups.put(&mut self.entry.groups, group, &mut self.bytes);
        }
        for seen in seen {
            let seen = SeenKey { line: number(seen.line), ..seen };
            self.parts.seen.put(&mut self.entry.seen, seen, &mut self.bytes);
        }
        for of_key in sessions.chunk_by(SessionState::is_of_same_key) {
            let of_key = of_key.iter().map(|session| SessionState { line: number(session.line), ..session.clone() }).collect();
            self.parts.session_keys.put(&mut self.parts.sessions, of_key, &mut self.bytes);
        }
    }

    fn progress(&mut self, newer: Progress) {
        match self.entry.progress.iter_mut().find(|older| older.partition == newer.partition) {
            Some(older) => {
                debug_assert_eq!(older.to, newer.from, "steps follow each other");
                *older = Progress { from: older.from, ..newer };
            }
            None => self.entry.progress.push(newer),
        }
    }

    /// Gives the number of the device's time in the merged entry.
    fn line(&mut self, line: LineTime) -> u32 {
        let next = u32::try_from(self.entry.lines.len()).unwrap_or(u32::MAX);
        let number = *self.parts.lines.entry((line.partition, line.device.clone())).or_insert(next);
        match self.entry.lines.get_mut(number as usize) {
            Some(older) => older.time = line.time,
            None => self.entry.lines.push(line),
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::super::sessions::Session;
    use super::*;
    use crate::engine::{Ledger, PartitionTime};
    use crate::query::Pane;

    fn bytes(text: &str) -> RowBytes {
        text.as_bytes().into()
    }

    fn step(partition: i32, from: i64, to: i64, groups: &[(&str, &str)]) -> Entry {
        let time = PartitionTime { max_event_time: Some(to), floor: None };
        let ledger = Ledger { read: to.unsigned_abs(), ..Ledger::default() };
        let group =
            |(key, state): &(&str, &str)| GroupState { partition, line: None, pane: Pane::default(), key: bytes(key), state: bytes(state) };
        Entry {
            progress: vec![Progress { partition, from, to, time, ledger }],
            groups: groups.iter().map(group).collect(),
            ..Entry::default()
        }
    }

    #[test]
    fn the_newest_states_and_the_whole_way() {
        let mut merged = Merged::default();
        assert!(merged.is_empty());
        merged.extend(step(0, 3, 5, &[("a", "1"), ("b", "1")]), Moved::Touched);
        merged.extend(step(0, 5, 9, &[("b", "2"), ("c", "1")]), Moved::All);
        merged.extend(step(1, 0, 4, &[("b", "9")]), Moved::Touched);
        assert_eq!(merged.span_with(&step(0, 9, 13, &[])), 10);
        assert_eq!(merged.moved(), Moved::All);
        let entry = merged.entry();
        let way: Vec<_> = entry.progress.iter().map(|p| (p.partition, p.from, p.to, p.time.max_event_time, p.ledger.read)).collect();
        assert_eq!(way, [(0, 3, 9, Some(9), 9), (1, 0, 4, Some(4), 4)]);
        let groups: Vec<_> = entry.groups.iter().map(|group| (group.partition, &*group.key, &*group.state)).collect();
        assert_eq!(groups, [(0, &b"a"[..], &b"1"[..]), (0, b"b", b"2"), (0, b"c", b"1"), (1, b"b", b"9")]);
    }

    #[test]
    fn devices_keep_their_groups_and_keys_their_sessions() {
        let line = |device: &str, time: i64| LineTime {
            partition: 0,
            device: bytes(device),
            time: PartitionTime { max_event_time: Some(time), floor: None },
        };
        let session = |line: u32, start: i64| SessionState {
            partition: 0,
            line: Some(line),
            key: bytes("k"),
            session: Session { start, end: start + 10, from: start },
            state: bytes("s"),
        };
        let seen = |line: u32, expiry: i64| SeenKey { partition: 0, line: Some(line), key: bytes("id"), expiry };
        let mut merged = Merged::default();
        let first = Entry { lines: vec![line("x", 5)], sessions: vec![session(0, 0)], seen: vec![seen(0, 9)], ..step(0, 0, 1, &[]) };
        merged.extend(first, Moved::Touched);
        let second = Entry {
            lines: vec![line("y", 7), line("x", 8)],
            sessions: vec![session(0, 100), session(1, 0), session(1, 50)],
            seen: vec![seen(0, 11), seen(1, 12)],
            ..step(0, 1, 4, &[])
        };
        merged.extend(second, Moved::Touched);
        let entry = merged.entry();
        let times: Vec<_> = entry.lines.iter().map(|line| (&*line.device, line.time.max_event_time)).collect();
        assert_eq!(times, [(&b"x"[..], Some(8)), (b"y", Some(7))]);
        // The newest of x, together; then those of y.
        let sessions: Vec<_> = entry.sessions.iter().map(|session| (session.line, session.session.start)).collect();
        assert_eq!(sessions, [(Some(0), 0), (Some(0), 50), (Some(1), 100)]);
        let seen: Vec<_> = entry.seen.iter().map(|seen| (seen.line, seen.expiry)).collect();
        assert_eq!(seen, [(Some(0), 12), (Some(1), 11)]);
    }
}
