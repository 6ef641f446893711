//! Restore, merge, fold: the new states of the groups that some rows touch.

use std::hash::BuildHasher as _;

use arrow::array::ArrayRef;
use datafusion_common::Result;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::judge::Used;
use super::state::PartitionState;
use crate::query::{Pane, RowBytes, StreamQuery};

/// Gives each distinct (pane, key) a dense number, in order of first appearance.
struct Interner {
    hasher: DefaultHashBuilder,
    table: HashTable<usize>,
    groups: Vec<(Pane, RowBytes)>,
}

impl Interner {
    fn new() -> Self {
        Self { hasher: DefaultHashBuilder::default(), table: HashTable::new(), groups: Vec::new() }
    }

    fn group(&mut self, pane: Pane, key: &[u8]) -> usize {
        let hash = self.hasher.hash_one((pane, key));
        if let Some(group) = self.table.find(hash, |group| self.groups[*group].0 == pane && *self.groups[*group].1 == *key) {
            return *group;
        }
        let group = self.groups.len();
        self.groups.push((pane, key.into()));
        let (hasher, groups) = (&self.hasher, &self.groups);
        self.table.insert_unique(hash, group, |group| hasher.hash_one((groups[*group].0, &*groups[*group].1)));
        group
    }
}

/// Folds the rows onto the old states of their groups, in log order, and gives the new states. Cost follows the touched groups.
pub(crate) fn fold_rows(query: &StreamQuery, old: &PartitionState, used: &Used) -> Result<Vec<(Pane, RowBytes, RowBytes)>> {
    if used.panes.is_empty() {
        return Ok(Vec::new());
    }
    let keys = query.group_keys.rows(&used.keys)?;
    let mut interner = Interner::new();
    let ids: Vec<usize> = used.panes.iter().enumerate().map(|(row, pane)| interner.group(*pane, keys.row(row))).collect();
    let groups = interner.groups;

    let mut fold = query.aggregates.fold()?;
    let (old_ids, old_states): (Vec<usize>, Vec<&RowBytes>) =
        groups.iter().enumerate().filter_map(|(id, (pane, key))| Some((id, old.get(*pane, key)?))).unzip();
    if !old_ids.is_empty() {
        let columns: Vec<ArrayRef> = query.state_rows.columns(old_states.iter().map(|state| &***state))?;
        fold.merge(&columns, &old_ids, groups.len())?;
    }
    fold.update(&used.arguments, &ids, groups.len())?;
    let states = query.state_rows.rows(&fold.states()?)?;
    Ok(groups.into_iter().enumerate().map(|(id, (pane, key))| (pane, key, states.row(id).into())).collect())
}
