//! Restore, merge, fold: the new states of the groups that some rows touch.

use std::hash::BuildHasher as _;

use arrow::array::ArrayRef;
use datafusion_common::Result;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::judge::Used;
use crate::query::{Grouping, KeyRows, Pane, RowBytes};

/// Gives each distinct (pane, key) a dense number, in order of first appearance.
struct Interner<'a> {
    hasher: DefaultHashBuilder,
    table: HashTable<usize>,
    keys: &'a KeyRows,
    groups: Vec<Group>,
}

struct Group {
    pane: Pane,
    /// The place of its first row among the used rows, whose key is the group's.
    first: usize,
    /// Of pane and key.
    hash: u64,
}

impl<'a> Interner<'a> {
    fn new(keys: &'a KeyRows) -> Self {
        Self { hasher: DefaultHashBuilder::default(), table: HashTable::new(), keys, groups: Vec::new() }
    }

    fn group(&mut self, pane: Pane, row: usize) -> usize {
        let (keys, key) = (self.keys, self.keys.row(row));
        let hash = self.hasher.hash_one((pane, key));
        let same = |group: &usize| {
            let group = &self.groups[*group];
            group.hash == hash && group.pane == pane && keys.row(group.first) == key
        };
        if let Some(group) = self.table.find(hash, same) {
            return *group;
        }
        let group = self.groups.len();
        self.groups.push(Group { pane, first: row, hash });
        let groups = &self.groups;
        self.table.insert_unique(hash, group, |group| groups[*group].hash);
        group
    }
}

/// A group that rows have changed.
pub(crate) struct Folded {
    /// The place of its first row among the used rows.
    pub(crate) first: usize,
    pub(crate) pane: Pane,
    pub(crate) key: RowBytes,
    pub(crate) state: RowBytes,
}

/// Folds the rows onto the old states of their groups, in log order, and gives the states that have changed. `old` finds key and state of a
/// group, given the place of its first row. Cost follows the touched groups.
pub(crate) fn fold_rows<'a>(
    grouping: &Grouping,
    used: &Used,
    old: impl Fn(usize, Pane, &[u8]) -> Option<(&'a RowBytes, &'a RowBytes)>,
) -> Result<Vec<Folded>> {
    if used.panes.is_empty() {
        return Ok(Vec::new());
    }
    let keys = grouping.group_keys.rows(&used.keys)?;
    let mut interner = Interner::new(&keys);
    let ids: Vec<usize> = used.panes.iter().enumerate().map(|(row, pane)| interner.group(*pane, row)).collect();
    let groups = interner.groups;

    let mut fold = grouping.aggregates.fold()?;
    let before: Vec<Option<(&RowBytes, &RowBytes)>> =
        groups.iter().map(|group| old(group.first, group.pane, keys.row(group.first))).collect();
    // Accumulators take all groups of a call as seen in it: those with a state come first, and alone.
    let (known, new): (Vec<usize>, Vec<usize>) = (0..groups.len()).partition(|id| before[*id].is_some());
    let mut places = vec![0; groups.len()];
    known.iter().chain(&new).enumerate().for_each(|(place, id)| places[*id] = place);
    if !known.is_empty() {
        let columns: Vec<ArrayRef> = grouping.state_rows.columns(known.iter().filter_map(|id| before[*id]).map(|(_, state)| &**state))?;
        fold.merge(&columns, &(0..known.len()).collect::<Vec<_>>(), known.len())?;
    }
    let ids: Vec<usize> = ids.into_iter().map(|id| places[id]).collect();
    fold.update(&used.arguments, &ids, groups.len())?;
    let states = grouping.state_rows.rows(&fold.states()?)?;
    // What has not changed is in the journal already, and so are its results.
    let changed = groups.into_iter().zip(before).zip(places);
    let changed = changed.filter(|((_, old), place)| old.is_none_or(|(_, old)| **old != *states.row(*place)));
    let folded = changed.map(|((Group { pane, first, .. }, old), place)| {
        let key = old.map_or_else(|| keys.row(first).into(), |(key, _)| key.clone());
        Folded { first, pane, key, state: states.row(place).into() }
    });
    Ok(folded.collect())
}
