//! Result rows: the windows of the groups that an entry touched, and those that it closed.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, concat_batches, take};
use datafusion_common::Result;

use super::{Entry, Partition};
use crate::query::file::OutputMode;
use crate::query::{RowBytes, Step, StreamQuery, WindowSpec};

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
    /// Why the result of a cell could not be computed, for each such cell.
    pub(crate) failed: Vec<String>,
}

/// The time up to which every window is final, before and after an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Horizons {
    pub(crate) before: Option<i64>,
    pub(crate) after: Option<i64>,
}

/// A window's start (0 without windows) and a group's key.
type Cell<'a> = (i64, &'a RowBytes);

/// Computes the results after an entry has been absorbed and before anything is evicted.
///
/// The entry is in the journal by then, so nothing that the data do may be an error here: a cell whose result cannot be computed is left
/// out and counted, and its neighbours pass.
pub(crate) fn results(query: &StreamQuery, partitions: &BTreeMap<i32, Partition>, entry: &Entry, horizons: Horizons) -> Result<Output> {
    let cells = changed_cells(query, partitions, entry, horizons);
    let mut parts = Vec::new();
    let mut failed = Vec::new();
    let mut open = vec![cells.as_slice()];
    while let Some(cells) = open.pop() {
        match rows_of(query, partitions, cells, horizons) {
            Ok(part) => parts.push(part),
            Err(fault) if cells.len() <= 1 => failed.push(fault.strip_backtrace()),
            Err(_) => {
                let (first, second) = cells.split_at(cells.len() / 2);
                open.extend([second, first]);
            }
        }
    }
    if parts.is_empty() {
        parts.push(rows_of(query, partitions, &[], horizons)?);
    }
    let mut output = Output::concat(parts)?;
    output.failed = failed;
    Ok(output)
}

impl Output {
    fn concat(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let rows = concat_batches(&parts[0].rows.schema(), parts.iter().map(|part| &part.rows))?;
        let key = |column: usize| {
            let columns: Vec<&dyn Array> = parts.iter().map(|part| part.keys[column].as_ref()).collect();
            Ok(concat(&columns)?)
        };
        let keys = (0..parts[0].keys.len()).map(key).collect::<Result<_>>()?;
        let window_starts = parts.iter().flat_map(|part| part.window_starts.iter().copied()).collect();
        let finals = parts.iter().flat_map(|part| part.finals.iter().copied()).collect();
        Ok(Self { rows, keys, window_starts, finals, failed: Vec::new() })
    }
}

fn rows_of(query: &StreamQuery, partitions: &BTreeMap<i32, Partition>, cells: &[Cell<'_>], horizons: Horizons) -> Result<Output> {
    // Some accumulators have no columns to show for no groups.
    let results = if cells.is_empty() { query.no_results() } else { merge_states(query, partitions, cells)? };
    let starts: Vec<i64> = cells.iter().map(|(start, _)| *start).collect();
    let keys = query.group_keys.columns(cells.iter().map(|(_, key)| &***key))?;
    let batch = query.group_batch(&starts, &keys, results)?;

    let all = UInt32Array::from_iter_values(0..u32::try_from(cells.len()).unwrap_or(u32::MAX));
    let (rows, kept) = Step::apply_all(&query.after, batch, all)?;
    let kept_starts = kept.values().iter().map(|row| starts[*row as usize]);
    let closed = |start: i64| query.window.zip(horizons.after).is_some_and(|(window, horizon)| window.end(start) <= horizon);
    Ok(Output {
        rows,
        keys: keys.iter().map(|column| Ok(take(column, &kept, None)?)).collect::<Result<_>>()?,
        finals: kept_starts.clone().map(closed).collect(),
        window_starts: if query.window.is_some() { kept_starts.collect() } else { Vec::new() },
        failed: Vec::new(),
    })
}

/// The touched cells in the entry's order, then the closing ones in order of window and key, each once.
fn changed_cells<'a>(query: &StreamQuery, partitions: &'a BTreeMap<i32, Partition>, entry: &'a Entry, horizons: Horizons) -> Vec<Cell<'a>> {
    // A snapshot changes nothing: what it holds was delivered before it.
    if entry.snapshot {
        return Vec::new();
    }
    let mut seen: HashSet<Cell<'_>> = HashSet::new();
    let mut cells = Vec::new();
    // In append mode a row shows once, when its window closes.
    let touched = if query.file.query.output_mode == OutputMode::Append { &[] } else { entry.groups.as_slice() };
    for group in touched {
        match query.window {
            None => cells.extend(Some((0, &group.key)).filter(|cell| seen.insert(*cell))),
            Some(window) => cells.extend(window.windows(group.pane).map(|start| (start, &group.key)).filter(|cell| seen.insert(*cell))),
        }
    }
    if let (Some(window), Some(after)) = (query.window, horizons.after) {
        let mut closing: Vec<Cell<'_>> = closing_cells(window, partitions, horizons.before.unwrap_or(i64::MIN), after);
        closing.sort_unstable();
        cells.extend(closing.into_iter().filter(|cell| seen.insert(*cell)));
    }
    cells
}

/// The cells of the windows that end after `before` and not after `after`.
fn closing_cells(window: WindowSpec, partitions: &BTreeMap<i32, Partition>, before: i64, after: i64) -> Vec<Cell<'_>> {
    if before >= after {
        return Vec::new();
    }
    let mut cells = Vec::new();
    // A window that has ended by `after` has no pane that starts later.
    for (pane, groups) in partitions.values().flat_map(|partition| partition.state.panes(i64::MIN..after)) {
        for start in window.windows(pane).filter(|start| before < window.end(*start) && window.end(*start) <= after) {
            cells.extend(groups.keys().map(|key| (start, key)));
        }
    }
    cells
}

/// The aggregates of each cell: the states of its panes merged in the order of partition and pane, which does not depend on when they
/// were read.
fn merge_states(query: &StreamQuery, partitions: &BTreeMap<i32, Partition>, cells: &[Cell<'_>]) -> Result<Vec<ArrayRef>> {
    let mut fold = query.aggregates.fold()?;
    for partition in partitions.values() {
        let (mut ids, mut states): (Vec<usize>, Vec<&[u8]>) = (Vec::new(), Vec::new());
        for (id, (start, key)) in cells.iter().enumerate() {
            let span = query.window.map_or(0..1, |window| *start..window.end(*start));
            for (_, groups) in partition.state.panes(span).filter(|(pane, _)| pane.since <= *start) {
                if let Some(state) = groups.get(*key) {
                    ids.push(id);
                    states.push(state);
                }
            }
        }
        if !ids.is_empty() {
            fold.merge(&query.state_rows.columns(states.into_iter())?, &ids, cells.len())?;
        }
    }
    fold.results()
}
