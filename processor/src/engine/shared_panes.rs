//! The panes of hopping windows, looked up and made columns once for all the windows that share them.
//!
//! A window of many panes is merged block by block: the panes of each [block](super::blocks) that lies in it as a whole are merged first, once for
//! all windows over the block. Floats added in another order differ in their last bits, so the order follows from the window alone, and never from
//! what is asked for together.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use datafusion_common::Result;
use hashbrown::HashMap;

use super::blocks::BlockSpec;
use super::cells::{Book, Cell};
use super::halves::in_halves;
use crate::query::{Grouping, Pane, RowBytes, Window, WindowSpec};

/// The states of some cells' keys in all panes that their windows may need.
pub(super) struct SharedPanes<'a> {
    window: &'a WindowSpec,
    blocks: Option<BlockSpec<'a>>,
    /// A row for each pane's state, then one for each merged block.
    columns: Vec<ArrayRef>,
    /// By timeline of their book.
    keys: HashMap<(usize, &'a RowBytes), Vec<PanesOfKey>>,
    /// Of each merge that was asked for, its row; `None` when it failed.
    merged: Vec<Option<u32>>,
}

/// The panes of a key in one timeline, in order.
struct PanesOfKey {
    /// With the row that each one's state has.
    panes: Vec<(Pane, u32)>,
    /// None for windows of few panes.
    blocks: Vec<Block>,
}

/// The panes of a key in a block.
struct Block {
    number: i64,
    /// Its panes stand from here to there.
    first: usize,
    end: usize,
    /// The place of their merge among all; `None` when it is too few panes to merge. One that begins to count later than others is in `late` only.
    all: Option<usize>,
    /// For windows that start at or after a time, instead: the merge of those that count by then.
    late: Vec<(i64, usize)>,
}

/// Merges that are to be done.
#[derive(Default)]
struct Wanted {
    /// Rows of pane states, merge after merge.
    rows: Vec<u32>,
    /// Where the rows of each merge end.
    ends: Vec<usize>,
}

impl<'a> SharedPanes<'a> {
    /// `None` when no two windows share a pane.
    pub(super) fn of(grouping: &'a Grouping, books: &[Book<'a>], cells: &[Cell<'a>]) -> Result<Option<Self>> {
        let Some(Window::Panes(window)) = &grouping.window else { return Ok(None) };
        if window.slide == window.size {
            return Ok(None);
        }
        let starts = cells.iter().map(|cell| cell.start).min().unwrap_or(0)..cells.iter().map(|cell| cell.end).max().unwrap_or(0);
        let blocks = BlockSpec::of(window);
        // Those that no window can need are cut off.
        let whole = blocks.as_ref().map_or(0..0, |blocks| blocks.within(starts.start, starts.end));
        let mut keys: HashMap<(usize, &RowBytes), Vec<PanesOfKey>> = HashMap::new();
        let (mut states, mut wanted): (Vec<&[u8]>, Wanted) = (Vec::new(), Wanted::default());
        for cell in cells {
            keys.entry((cell.book, cell.key)).or_insert_with(|| {
                let of_line = |line: &&'a super::line::Line| {
                    let mut panes = Vec::new();
                    for (pane, state) in line.panes.of_key(starts.clone(), cell.key) {
                        panes.push((pane, u32::try_from(states.len()).unwrap_or(u32::MAX)));
                        states.push(state);
                    }
                    let blocks = blocks.as_ref().map_or_else(Vec::new, |blocks| wanted.blocks(blocks, &whole, &panes));
                    PanesOfKey { panes, blocks }
                };
                books[cell.book].lines.iter().map(of_line).collect()
            });
        }
        let mut columns = grouping.state_rows.columns(states.into_iter())?;
        let merged = wanted.merge(grouping, &mut columns)?;
        Ok(Some(Self { window, blocks, columns, keys, merged }))
    }

    /// Appends the rows of a cell's states in one timeline of its book, in order.
    pub(super) fn push(&self, cell: &Cell<'_>, line: usize, rows: &mut Vec<u32>) {
        let Some(PanesOfKey { panes, blocks }) = self.keys.get(&(cell.book, cell.key)).and_then(|lines| lines.get(line)) else { return };
        let from = panes.partition_point(|(pane, _)| pane.start < cell.start);
        let end = self.window.end(cell.start);
        let of_cell = |panes: &[(Pane, u32)], rows: &mut Vec<u32>| {
            let of_window = panes.iter().take_while(|(pane, _)| pane.start < end);
            rows.extend(of_window.filter(|(pane, _)| pane.since <= cell.start).map(|(_, row)| *row));
        };
        let within = self.blocks.as_ref().map_or(0..0, |spec| {
            let numbers = spec.within(cell.start, end);
            let place = |number: i64| blocks.partition_point(|block| block.number < number);
            place(numbers.start)..place(numbers.end)
        });
        let Some(whole) = blocks.get(within).filter(|whole| !whole.is_empty()) else { return of_cell(&panes[from..], rows) };
        of_cell(&panes[from..whole[0].first], rows);
        for block in whole {
            match block.merge_for(cell.start).and_then(|merge| self.merged[merge]) {
                Some(row) => rows.push(row),
                None => of_cell(&panes[block.first..block.end], rows),
            }
        }
        of_cell(&panes[whole[whole.len() - 1].end..], rows);
    }

    pub(super) fn take(&self, rows: Vec<u32>) -> Result<Vec<ArrayRef>> {
        let rows = UInt32Array::from(rows);
        self.columns.iter().map(|column| Ok(take(column, &rows, None)?)).collect()
    }
}

impl Block {
    /// The merge of the panes that a window from `start` on counts.
    fn merge_for(&self, start: i64) -> Option<usize> {
        let late = self.late.iter().rev().find(|(since, _)| *since <= start);
        late.map(|(_, merge)| *merge).or(self.all)
    }
}

impl Wanted {
    /// The blocks of a key's panes with these numbers, whose merges are asked for.
    fn blocks(&mut self, spec: &BlockSpec<'_>, numbers: &Range<i64>, panes: &[(Pane, u32)]) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut first = 0;
        while let Some((pane, _)) = panes.get(first) {
            let number = spec.number(pane.start);
            let end = first + panes[first..].partition_point(|(pane, _)| spec.number(pane.start) == number);
            let own = &panes[first..end];
            let begin = std::mem::replace(&mut first, end);
            if !numbers.contains(&number) {
                continue;
            }
            // A row that came late counts from a later window on than the others of its pane.
            let mut since: Vec<i64> = own.iter().map(|(pane, _)| pane.since).filter(|since| spec.is_late(number, *since)).collect();
            since.sort_unstable();
            since.dedup();
            let all = self.ask(own.iter().filter(|(pane, _)| !spec.is_late(number, pane.since)));
            let late = since.into_iter().filter_map(|since| {
                let counted = own.iter().filter(|(pane, _)| pane.since <= since || !spec.is_late(number, pane.since));
                Some((since, self.ask(counted)?))
            });
            blocks.push(Block { number, first: begin, end, all, late: late.collect() });
        }
        blocks
    }

    /// Asks for a merge of more than one pane.
    fn ask<'p>(&mut self, panes: impl Iterator<Item = &'p (Pane, u32)>) -> Option<usize> {
        let before = self.rows.len();
        self.rows.extend(panes.map(|(_, row)| *row));
        if self.rows.len() <= before + 1 {
            self.rows.truncate(before);
            return None;
        }
        self.ends.push(self.rows.len());
        Some(self.ends.len() - 1)
    }

    /// Does them, and appends the states to those of the panes. Gives the row of each; one that fails has none, and its panes are merged one by
    /// one, for each window.
    fn merge(self, grouping: &Grouping, columns: &mut [ArrayRef]) -> Result<Vec<Option<u32>>> {
        let mut merged = vec![None; self.ends.len()];
        if merged.is_empty() {
            return Ok(merged);
        }
        let (done, _failed) = in_halves(self.ends.len(), |start, length| {
            let from = start.checked_sub(1).map_or(0, |before| self.ends[before]);
            let rows = &self.rows[from..self.ends[start + length - 1]];
            let mut ids = Vec::with_capacity(rows.len());
            for (id, end) in self.ends[start..start + length].iter().enumerate() {
                ids.resize(end - from, id);
            }
            let rows = UInt32Array::from(rows.to_vec());
            let panes = columns.iter().map(|column| Ok(take(column, &rows, None)?)).collect::<Result<Vec<_>>>()?;
            let mut fold = grouping.aggregates.fold()?;
            fold.merge(&panes, &ids, length)?;
            Ok((start..start + length, fold.states()?))
        });
        let mut row = columns.first().map_or(0, |column| column.len());
        for (merges, _) in &done {
            for merge in merges.clone() {
                merged[merge] = u32::try_from(row).ok();
                row += 1;
            }
        }
        for (number, column) in columns.iter_mut().enumerate() {
            let parts: Vec<&dyn Array> =
                std::iter::once(column.as_ref()).chain(done.iter().map(|(_, states)| states[number].as_ref())).collect();
            *column = concat(&parts)?;
        }
        Ok(merged)
    }
}
