//! Result rows: the groups that an entry touched, and those whose window it closed.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion_common::Result;

use super::{Entry, Partition};
use crate::query::{RowBytes, Step, StreamQuery};

/// Result rows of one step.
#[derive(Debug)]
pub(crate) struct Output {
    /// The query's columns.
    pub(crate) rows: RecordBatch,
    /// The grouping columns other than the window, for the rows' keys.
    pub(crate) keys: Vec<ArrayRef>,
    /// Start of each row's window, milliseconds; empty for a query without a window.
    pub(crate) window_starts: Vec<i64>,
    /// Whether each row's window has closed.
    pub(crate) finals: Vec<bool>,
}

/// Computes the results after an entry has been absorbed and before anything is evicted.
pub(crate) fn results(query: &StreamQuery, partitions: &BTreeMap<i32, Partition>, entry: &Entry, horizon: Option<i64>) -> Result<Output> {
    let closed = |pane: i64| match (query.window, horizon) {
        (Some(window), Some(horizon)) => window.pane_end(pane) <= horizon,
        _ => false,
    };
    let groups = changed_groups(partitions, entry, closed);
    // Some accumulators have no columns to show for no groups.
    let results = if groups.is_empty() { query.no_results() } else { merge_states(query, partitions, &groups)? };
    let starts: Vec<i64> = groups.iter().map(|(pane, _)| *pane).collect();
    let keys = query.group_keys.columns(groups.iter().map(|(_, key)| &***key))?;
    let batch = query.group_batch(&starts, &keys, results)?;

    let all = UInt32Array::from_iter_values(0..u32::try_from(groups.len()).unwrap_or(u32::MAX));
    let (rows, kept) = Step::apply_all(&query.after, batch, all)?;
    let window_starts: Vec<i64> = match query.window {
        Some(_) => kept.values().iter().map(|row| starts[*row as usize]).collect(),
        None => Vec::new(),
    };
    Ok(Output {
        rows,
        keys: keys.iter().map(|column| Ok(take(column, &kept, None)?)).collect::<Result<_>>()?,
        finals: kept.values().iter().map(|row| closed(starts[*row as usize])).collect(),
        window_starts,
    })
}

/// The touched groups in the entry's order, then the closing ones in order of window and key, each once.
fn changed_groups<'a>(
    partitions: &'a BTreeMap<i32, Partition>,
    entry: &'a Entry,
    closed: impl Fn(i64) -> bool + Copy,
) -> Vec<(i64, &'a RowBytes)> {
    let mut seen: HashSet<(i64, &RowBytes)> = HashSet::new();
    let mut groups = Vec::new();
    // A snapshot changes nothing: what it holds was delivered before it.
    let touched = entry.groups.iter().filter(|_| !entry.snapshot).map(|group| (group.pane, &group.key));
    groups.extend(touched.filter(|group| seen.insert(*group)));
    let mut closing: Vec<(i64, &RowBytes)> = partitions.values().flat_map(|partition| partition.state.closing(closed)).collect();
    closing.sort_unstable();
    groups.extend(closing.into_iter().filter(|group| seen.insert(*group)));
    groups
}

/// The aggregates of each group: its states merged in the order of the partitions, which does not depend on when they were read.
fn merge_states(query: &StreamQuery, partitions: &BTreeMap<i32, Partition>, groups: &[(i64, &RowBytes)]) -> Result<Vec<ArrayRef>> {
    let mut fold = query.aggregates.fold()?;
    for partition in partitions.values() {
        let (ids, states): (Vec<usize>, Vec<&RowBytes>) =
            groups.iter().enumerate().filter_map(|(id, (pane, key))| Some((id, partition.state.get(*pane, key)?))).unzip();
        if !ids.is_empty() {
            fold.merge(&query.state_rows.columns(states.iter().map(|state| &***state))?, &ids, groups.len())?;
        }
    }
    fold.results()
}
