//! State is rows: for each pane, group key to accumulator state, both as row bytes.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::query::RowBytes;

/// What a group costs beside its bytes: two fat pointers and its share of the table.
const OVERHEAD: usize = 48;

#[derive(Debug, Default)]
pub(crate) struct PartitionState {
    /// By pane start, so that eviction takes a prefix.
    panes: BTreeMap<i64, HashMap<RowBytes, RowBytes>>,
    bytes: u64,
    rows: u64,
}

impl PartitionState {
    pub(crate) fn get(&self, pane: i64, key: &[u8]) -> Option<&RowBytes> {
        self.panes.get(&pane)?.get(key)
    }

    pub(crate) fn put(&mut self, pane: i64, key: RowBytes, state: RowBytes) {
        let added = cost(&key, &state);
        let key_len = key.len();
        match self.panes.entry(pane).or_default().insert(key, state) {
            Some(old) => self.bytes -= (key_len + old.len() + OVERHEAD) as u64,
            None => self.rows += 1,
        }
        self.bytes += added;
    }

    /// Drops the panes for which `closed` holds, which must be a prefix of them.
    pub(crate) fn evict(&mut self, closed: impl Fn(i64) -> bool) {
        while let Some(first) = self.panes.first_entry()
            && closed(*first.key())
        {
            let groups = first.remove();
            self.rows -= groups.len() as u64;
            self.bytes -= groups.iter().map(|(key, state)| cost(key, state)).sum::<u64>();
        }
    }

    /// Every group of the panes for which `closed` holds, which must be a prefix of them.
    pub(crate) fn closing(&self, closed: impl Fn(i64) -> bool) -> impl Iterator<Item = (i64, &RowBytes)> {
        let panes = self.panes.iter().take_while(move |(pane, _)| closed(**pane));
        panes.flat_map(|(pane, groups)| groups.keys().map(|key| (*pane, key)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &RowBytes, &RowBytes)> {
        self.panes.iter().flat_map(|(pane, groups)| groups.iter().map(|(key, state)| (*pane, key, state)))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }
}

fn cost(key: &[u8], state: &[u8]) -> u64 {
    (key.len() + state.len() + OVERHEAD) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> RowBytes {
        text.as_bytes().into()
    }

    #[test]
    fn bytes_and_rows_follow_puts_and_evictions() {
        let mut state = PartitionState::default();
        state.put(0, bytes("a"), bytes("12"));
        state.put(0, bytes("a"), bytes("1234"));
        state.put(10, bytes("a"), bytes(""));
        assert_eq!((state.rows(), state.bytes()), (2, (1 + 4 + 1 + 2 * OVERHEAD) as u64));
        assert_eq!(state.get(0, b"a"), Some(&bytes("1234")));
        state.evict(|pane| pane < 10);
        assert_eq!((state.rows(), state.get(0, b"a")), (1, None));
        state.evict(|_| true);
        assert_eq!((state.rows(), state.bytes()), (0, 0));
    }
}
