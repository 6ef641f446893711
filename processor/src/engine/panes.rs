//! State is rows: for each pane, group key to accumulator state, both as row bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::HashMap;

use crate::query::{Pane, RowBytes};

/// What a group costs beside its bytes: two fat pointers, their counts, and its share of the table.
const OVERHEAD: usize = 80;

#[derive(Debug, Default)]
pub(crate) struct PaneStates {
    /// By pane start, so that eviction takes a prefix.
    panes: BTreeMap<Pane, HashMap<RowBytes, RowBytes>>,
    bytes: u64,
    rows: u64,
}

impl PaneStates {
    pub(crate) fn get(&self, pane: Pane, key: &[u8]) -> Option<&RowBytes> {
        self.panes.get(&pane)?.get(key)
    }

    /// The same with the key as it is kept.
    pub(crate) fn get_pair(&self, pane: Pane, key: &[u8]) -> Option<(&RowBytes, &RowBytes)> {
        self.panes.get(&pane)?.get_key_value(key)
    }

    /// By how many bytes [`PaneStates::put`] would change the state.
    pub(crate) fn growth(&self, pane: Pane, key: &[u8], state: &[u8]) -> i64 {
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        match self.get(pane, key) {
            Some(old) => signed(state.len()) - signed(old.len()),
            None => signed(key.len() + state.len() + OVERHEAD),
        }
    }

    pub(crate) fn put(&mut self, pane: Pane, key: RowBytes, state: RowBytes) {
        let added = cost(&key, &state);
        let key_len = key.len();
        let groups = match self.panes.get_mut(&pane) {
            Some(groups) => groups,
            None => {
                // Mostly the groups of the pane before come again, and a table that grows looks at all that it has. Panes of late rows have few.
                let newest = self.panes.last_key_value().map(|(newest, _)| newest.start).filter(|newest| *newest < pane.start);
                let of_newest = newest.into_iter().flat_map(|start| self.panes(start..start.saturating_add(1)));
                let before = of_newest.map(|(_, groups)| groups.len()).max().unwrap_or(0);
                self.panes.entry(pane).or_insert_with(|| HashMap::with_capacity(before))
            }
        };
        match groups.insert(key, state) {
            Some(old) => self.bytes -= (key_len + old.len() + OVERHEAD) as u64,
            None => self.rows += 1,
        }
        self.bytes += added;
    }

    /// Drops the panes for which `closed` holds, given a pane's start; they must be a prefix of all.
    pub(crate) fn evict(&mut self, closed: impl Fn(i64) -> bool) {
        while let Some(first) = self.panes.first_entry()
            && closed(first.key().start)
        {
            let groups = first.remove();
            self.rows -= groups.len() as u64;
            self.bytes -= groups.iter().map(|(key, state)| cost(key, state)).sum::<u64>();
        }
    }

    /// The panes that start in `starts`, in order, with their groups.
    pub(crate) fn panes(&self, starts: Range<i64>) -> impl Iterator<Item = (Pane, &HashMap<RowBytes, RowBytes>)> {
        let bound = |start| Pane { start, since: i64::MIN };
        self.panes.range(bound(starts.start)..bound(starts.end)).map(|(pane, groups)| (*pane, groups))
    }

    /// The states of a key in those panes, in order.
    pub(crate) fn of_key<'a>(&'a self, starts: Range<i64>, key: &'a [u8]) -> impl Iterator<Item = (Pane, &'a [u8])> {
        self.panes(starts).filter_map(move |(pane, groups)| Some((pane, &**groups.get(key)?)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Pane, &RowBytes, &RowBytes)> {
        self.panes.iter().flat_map(|(pane, groups)| groups.iter().map(|(key, state)| (*pane, key, state)))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }
}

/// What a group takes.
pub(crate) fn cost(key: &[u8], state: &[u8]) -> u64 {
    (key.len() + state.len() + OVERHEAD) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> RowBytes {
        text.as_bytes().into()
    }

    #[test]
    fn only_a_newer_pane_has_room_for_as_many_groups_as_the_newest_one() {
        let mut state = PaneStates::default();
        let put = |state: &mut PaneStates, start, since, key: &str| state.put(Pane { start, since }, bytes(key), bytes(""));
        (0..1_000).for_each(|number| put(&mut state, 10, 10, &number.to_string()));
        put(&mut state, 10, 11, "late");
        put(&mut state, 0, 0, "old");
        put(&mut state, 20, 20, "new");
        let room: Vec<bool> = state.panes.values().map(|groups| groups.capacity() >= 1_000).collect();
        assert_eq!(room, [false, true, false, true]);
    }

    #[test]
    fn bytes_and_rows_follow_puts_and_evictions() {
        let mut state = PaneStates::default();
        let pane = |start| Pane { start, since: start };
        state.put(pane(0), bytes("a"), bytes("12"));
        state.put(pane(0), bytes("a"), bytes("1234"));
        state.put(pane(10), bytes("a"), bytes(""));
        assert_eq!((state.rows(), state.bytes()), (2, (1 + 4 + 1 + 2 * OVERHEAD) as u64));
        assert_eq!(state.get(pane(0), b"a"), Some(&bytes("1234")));
        state.evict(|start| start < 10);
        assert_eq!((state.rows(), state.get(pane(0), b"a")), (1, None));
        state.evict(|_| true);
        assert_eq!((state.rows(), state.bytes()), (0, 0));
    }
}
