//! Result rows: the windows of the groups that an entry touched, and those that it closed.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, concat_batches, filter, filter_record_batch};
use datafusion_common::Result;

use super::cells::{self, Book, Cell, Changed, Pieces};
use super::halves::in_halves;
use super::shared_panes::SharedPanes;
use super::{Engine, Entry};
use crate::query::{Grouping, RowBytes, Step, StreamQuery};

/// Result rows of one step, or some of them.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// The query's columns.
    pub(crate) rows: RecordBatch,
    /// The grouping columns other than the window, for the rows' keys.
    pub(crate) keys: Vec<ArrayRef>,
    /// Start and end of each row's window, milliseconds; empty for a query without a window.
    pub(crate) windows: Vec<(i64, i64)>,
    /// Whether each row's window has closed.
    pub(crate) finals: Vec<bool>,
    /// Whether each row says something new, and not only that its window has closed.
    pub(crate) changed: Vec<bool>,
    /// Whether the rows are in an order that the query asks for.
    pub(crate) ranked: bool,
    /// The rows that have left a whole result.
    pub(crate) gone: Gone,
    /// Why the result of a cell could not be computed, for each such cell.
    pub(crate) failed: Vec<String>,
}

/// Rows of complete mode that are no longer in the result.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gone {
    pub(crate) keys: Vec<ArrayRef>,
    /// As [`Output::windows`].
    pub(crate) windows: Vec<(i64, i64)>,
    pub(crate) count: usize,
}

/// A row's place in a whole result: its window and its key.
pub(crate) type Identity = ((i64, i64), RowBytes);

/// Rows of some cells.
pub(crate) struct Evaluated {
    pub(crate) rows: RecordBatch,
    /// Of each row, the place of its cell.
    pub(crate) kept: UInt32Array,
    pub(crate) failed: Vec<String>,
}

/// Cells that are merged at a time: what they have on the way stays near the processor.
const CHUNK: usize = 4096;

/// The results after an entry has been absorbed and before anything is evicted, part by part, so that they need not all be there at once.
pub(crate) struct Parts<'a> {
    engine: &'a Engine,
    grouping: &'a Grouping,
    books: &'a [Book<'a>],
    pieces: Pieces<'a>,
    /// A whole result, of complete mode: its rows come together, also when there are none.
    whole: bool,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(engine: &'a Engine, grouping: &'a Grouping, books: &'a [Book<'a>], entry: &'a Entry) -> Self {
        let (pieces, whole) = (Pieces::of(engine, grouping, books, entry), engine.query.is_complete());
        Self { engine, grouping, books, pieces, whole }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Output>> {
        if std::mem::take(&mut self.whole) {
            let cells = self.pieces.by_ref().flat_map(|piece| piece.cells).collect();
            let all = Changed { cells, new: true, states: Vec::new() };
            return rows_in_order(self.engine, self.grouping, self.books, &all).map(Some);
        }
        let Some(piece) = self.pieces.find(|piece| !piece.cells.is_empty()) else { return Ok(None) };
        rows_in_order(self.engine, self.grouping, self.books, &piece).map(Some)
    }
}

/// The results of no groups.
pub(crate) fn no_rows(engine: &Engine, grouping: &Grouping) -> Result<Output> {
    rows_in_order(engine, grouping, &[], &Changed { cells: Vec::new(), new: true, states: Vec::new() })
}

/// The current rows of the result, whatever was given before.
pub(crate) fn current<'a>(engine: &'a Engine, grouping: &'a Grouping, books: &[Book<'a>]) -> Result<RecordBatch> {
    let cells = cells::current(engine, grouping, books);
    Ok(rows_in_order(engine, grouping, books, &Changed { cells, new: false, states: Vec::new() })?.rows)
}

/// The rows of cells.
fn rows_in_order(engine: &Engine, grouping: &Grouping, books: &[Book<'_>], changed: &Changed<'_>) -> Result<Output> {
    let Changed { cells, new, states } = changed;
    let steps = &engine.query.after;
    let ordered = steps.iter().position(|step| matches!(step, Step::Order(_) | Step::Cut(_)));
    let (steps, tail) = steps.split_at(ordered.unwrap_or(steps.len()));
    let Evaluated { mut rows, mut kept, mut failed } = evaluate_with(grouping, books, cells, states, steps)?;
    if !tail.is_empty() {
        match Step::apply_all(tail, rows.clone(), kept.clone()) {
            Ok(sorted) => (rows, kept) = sorted,
            // As in the other steps, but an order is over all rows.
            Err(fault) => {
                failed.push(format!("the whole result cannot be put in order: {}", fault.strip_backtrace()));
                (rows, kept) = Step::apply_all(tail, rows.slice(0, 0), kept.slice(0, 0))?;
            }
        }
    }
    let shown: Vec<&Cell<'_>> = kept.values().iter().map(|place| &cells[*place as usize]).collect();
    let windowed = grouping.window.is_some();
    // A whole result takes every row, however old: none of it is ever final.
    let is_final = |cell: &&Cell<'_>| grouping.distinct || (windowed && !engine.query.is_complete() && books[cell.book].is_final(cell.end));
    Ok(Output {
        rows,
        keys: grouping.group_keys.columns(shown.iter().map(|cell| &**cell.key))?,
        windows: if windowed { shown.iter().map(|cell| (cell.start, cell.end)).collect() } else { Vec::new() },
        finals: shown.iter().map(is_final).collect(),
        changed: vec![*new; kept.len()],
        ranked: tail.iter().any(|step| matches!(step, Step::Order(_))),
        gone: Gone::default(),
        failed,
    })
}

/// The rows of `cells` after `steps`.
///
/// The entry is in the journal by then, so nothing that the data do may be an error here: a cell whose result cannot be computed is left
/// out and told, and its neighbours pass.
pub(crate) fn evaluate(grouping: &Grouping, books: &[Book<'_>], cells: &[Cell<'_>], steps: &[Step]) -> Result<Evaluated> {
    evaluate_with(grouping, books, cells, &[], steps)
}

/// The same with the states of the first cells.
fn evaluate_with(grouping: &Grouping, books: &[Book<'_>], cells: &[Cell<'_>], states: &[&RowBytes], steps: &[Step]) -> Result<Evaluated> {
    let shared = SharedPanes::of(grouping, books, cells)?;
    let source = States { books, shared: shared.as_ref(), known: states };
    let (mut parts, mut failed) = (Vec::new(), Vec::new());
    // A cell of a hopping window has many states.
    let panes = grouping.panes().map_or(1, |window| usize::try_from(window.size / window.slide).unwrap_or(1));
    let length = CHUNK / panes.clamp(1, 4);
    for first in (0..cells.len()).step_by(length) {
        let chunk = &cells[first..cells.len().min(first + length)];
        let rows_of = |start: usize, length: usize| rows_of(grouping, &source, (&chunk[start..start + length], first + start), steps);
        let (good, broken) = in_halves(chunk.len(), rows_of);
        parts.extend(good);
        failed.extend(broken.into_iter().map(|(_, fault)| fault));
    }
    if parts.is_empty() {
        parts.push(rows_of(grouping, &source, (&[], 0), steps)?);
    }
    let rows = concat_batches(&parts[0].0.schema(), parts.iter().map(|(rows, _)| rows))?;
    let kept = parts.iter().flat_map(|(_, kept)| kept.values().iter().copied()).collect::<Vec<u32>>().into();
    Ok(Evaluated { rows, kept, failed })
}

/// Where the states of cells are.
struct States<'a> {
    books: &'a [Book<'a>],
    shared: Option<&'a SharedPanes<'a>>,
    /// Those of the first cells, each one whole.
    known: &'a [&'a RowBytes],
}

/// The rows of some cells, of which the first has the place `first`.
fn rows_of(
    grouping: &Grouping,
    states: &States<'_>,
    (cells, first): (&[Cell<'_>], usize),
    steps: &[Step],
) -> Result<(RecordBatch, UInt32Array)> {
    // Some accumulators have no columns to show for no groups.
    let results = if cells.is_empty() { grouping.no_results() } else { merge_states(grouping, states, (cells, first))? };
    let windows: Vec<(i64, i64)> = cells.iter().map(|cell| (cell.start, cell.end)).collect();
    let keys = grouping.group_keys.columns(cells.iter().map(|cell| &**cell.key))?;
    let batch = grouping.group_batch(&windows, &keys, results)?;
    let place = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
    Step::apply_all(steps, batch, UInt32Array::from_iter_values(place(first)..place(first + cells.len())))
}

/// The aggregates of each cell: its states merged in the order of partition and pane, which does not depend on when they were read.
fn merge_states(grouping: &Grouping, states: &States<'_>, (cells, first): (&[Cell<'_>], usize)) -> Result<Vec<ArrayRef>> {
    let mut fold = grouping.aggregates.fold()?;
    // All in one call: accumulators take all groups of a call as seen in it.
    let (ids, columns) = states.of(grouping, cells, first)?;
    fold.merge(&columns, &ids, cells.len())?;
    fold.results()
}

impl States<'_> {
    /// The states of some cells as columns, and the cell of each.
    fn of(&self, grouping: &Grouping, cells: &[Cell<'_>], first: usize) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        if let Some(known) = self.known.get(first..first + cells.len()) {
            return Ok(((0..cells.len()).collect(), grouping.state_rows.columns(known.iter().map(|state| &***state))?));
        }
        let most = self.books.iter().map(|book| book.lines.len()).max().unwrap_or(0);
        let (mut ids, mut states, mut rows): (Vec<usize>, Vec<&[u8]>, Vec<u32>) = (Vec::new(), Vec::new(), Vec::new());
        for place in 0..most {
            for (id, cell) in cells.iter().enumerate() {
                let book = &self.books[cell.book];
                let Some(line) = book.lines.get(place) else { continue };
                match self.shared {
                    Some(shared) => shared.push(cell, place, &mut rows),
                    None => cell.push_states(grouping, line, book, &mut states),
                }
                ids.resize(states.len().max(rows.len()), id);
            }
        }
        let columns = match self.shared {
            Some(shared) => shared.take(rows)?,
            None => grouping.state_rows.columns(states.into_iter())?,
        };
        Ok((ids, columns))
    }
}

impl Output {
    /// Of a query without a grouping, whose rows are sent before the entry.
    pub(crate) fn none(query: &StreamQuery) -> Self {
        Self {
            rows: RecordBatch::new_empty(Arc::clone(&query.output)),
            keys: Vec::new(),
            windows: Vec::new(),
            finals: Vec::new(),
            changed: Vec::new(),
            ranked: false,
            gone: Gone::default(),
            failed: Vec::new(),
        }
    }

    /// The parts of one result together; there is at least one.
    pub(crate) fn concat(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let rows = concat_batches(&parts[0].rows.schema(), parts.iter().map(|part| &part.rows))?;
        let keys = (0..parts[0].keys.len()).map(|column| {
            let columns: Vec<&dyn Array> = parts.iter().map(|part| part.keys[column].as_ref()).collect();
            Ok(concat(&columns)?)
        });
        let mut all = Self { rows, keys: keys.collect::<Result<_>>()?, ..parts.remove(0) };
        for part in parts {
            all.windows.extend(part.windows);
            all.finals.extend(part.finals);
            all.changed.extend(part.changed);
            all.failed.extend(part.failed);
        }
        Ok(all)
    }

    /// The rows without those that only tell that a window has closed.
    pub(crate) fn changed_rows(&self) -> Result<RecordBatch> {
        Ok(filter_record_batch(&self.rows, &BooleanArray::from(self.changed.clone()))?)
    }

    /// The rows but for those of `others`; what could not be computed was told before.
    pub(crate) fn without(self, grouping: &Grouping, others: &HashSet<Identity>) -> Result<Self> {
        let kept: Vec<bool> = self.identities(grouping)?.iter().map(|identity| !others.contains(identity)).collect();
        let mask = BooleanArray::from(kept.clone());
        let keys = self.keys.iter().map(|column| Ok(filter(column, &mask)?)).collect::<Result<_>>()?;
        Ok(Self {
            rows: filter_record_batch(&self.rows, &mask)?,
            keys,
            windows: of_kept(self.windows, &kept),
            finals: of_kept(self.finals, &kept),
            changed: of_kept(self.changed, &kept),
            failed: Vec::new(),
            ..self
        })
    }

    /// What tells its rows apart, in the order of the rows.
    pub(crate) fn identities(&self, grouping: &Grouping) -> Result<Vec<Identity>> {
        let keys = grouping.group_keys.rows(&self.keys)?;
        Ok((0..self.rows.num_rows()).map(|row| (self.windows.get(row).copied().unwrap_or_default(), keys.row(row).into())).collect())
    }
}

/// May be empty, where rows have no windows.
fn of_kept<T>(all: Vec<T>, kept: &[bool]) -> Vec<T> {
    all.into_iter().zip(kept).filter(|(_, kept)| **kept).map(|(value, _)| value).collect()
}

impl Gone {
    pub(crate) fn of(grouping: &Grouping, mut identities: Vec<Identity>) -> Result<Self> {
        identities.sort_unstable();
        let windowed = grouping.window.is_some();
        Ok(Self {
            keys: grouping.group_keys.columns(identities.iter().map(|(_, key)| &**key))?,
            windows: if windowed { identities.iter().map(|(window, _)| *window).collect() } else { Vec::new() },
            count: identities.len(),
        })
    }
}

/// The rows of a query without a grouping: each is the result of one input row.
#[derive(Debug)]
pub(crate) struct PlainRows {
    /// The query's columns.
    pub(crate) rows: RecordBatch,
    /// Of each row: the record's index in its input, and its event time.
    pub(crate) sources: Vec<(u32, i64)>,
}
