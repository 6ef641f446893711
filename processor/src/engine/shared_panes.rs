//! The panes of hopping windows, looked up and made columns once for all the windows that share them.

use std::ops::Range;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use datafusion_common::Result;
use hashbrown::HashMap;

use super::cells::{Book, Cell};
use super::line::Line;
use crate::query::{Grouping, Pane, RowBytes, Window, WindowSpec};

/// Of a key, by timeline of its book: its panes in order, with the row that each one's state has.
type PanesOfKey = Vec<Vec<(Pane, u32)>>;

/// The states of some cells' keys in all panes that their windows may need.
pub(super) struct SharedPanes<'a> {
    window: &'a WindowSpec,
    columns: Vec<ArrayRef>,
    keys: Vec<PanesOfKey>,
    /// Of each cell, its key's place.
    of_cell: Vec<usize>,
}

impl<'a> SharedPanes<'a> {
    /// `None` when no two windows share a pane.
    pub(super) fn of(grouping: &'a Grouping, books: &[Book<'a>], cells: &[Cell<'a>]) -> Result<Option<Self>> {
        let Some(Window::Panes(window)) = &grouping.window else { return Ok(None) };
        if window.slide == window.size {
            return Ok(None);
        }
        let starts = cells.iter().map(|cell| cell.start).min().unwrap_or(0)..cells.iter().map(|cell| cell.end).max().unwrap_or(0);
        let mut places: HashMap<(usize, &RowBytes), usize> = HashMap::new();
        let (mut keys, mut of_cell): (Vec<PanesOfKey>, Vec<usize>) = (Vec::new(), Vec::with_capacity(cells.len()));
        let mut states: Vec<&[u8]> = Vec::new();
        let mut before: Option<&Cell<'_>> = None;
        for cell in cells {
            let place = match (before, of_cell.last()) {
                // The cells of a key mostly stand together: nothing is hashed.
                (Some(before), Some(place)) if before.book == cell.book && std::ptr::eq(before.key, cell.key) => *place,
                _ => *places.entry((cell.book, cell.key)).or_insert_with(|| {
                    keys.push(panes_of_key(&books[cell.book], cell.key, &starts, &mut states));
                    keys.len() - 1
                }),
            };
            of_cell.push(place);
            before = Some(cell);
        }
        let columns = grouping.state_rows.columns(states.into_iter())?;
        Ok(Some(Self { window, columns, keys, of_cell }))
    }

    /// Appends the rows of a cell's states in one timeline of its book, in order. `place`: of the cell among all of them.
    pub(super) fn push(&self, place: usize, cell: &Cell<'_>, line: usize, rows: &mut Vec<u32>) {
        let Some(panes) = self.of_cell.get(place).and_then(|key| self.keys[*key].get(line)) else { return };
        let from = panes.partition_point(|(pane, _)| pane.start < cell.start);
        let end = self.window.end(cell.start);
        let of_window = panes[from..].iter().take_while(|(pane, _)| pane.start < end);
        rows.extend(of_window.filter(|(pane, _)| pane.since <= cell.start).map(|(_, row)| *row));
    }

    pub(super) fn take(&self, rows: Vec<u32>) -> Result<Vec<ArrayRef>> {
        let rows = UInt32Array::from(rows);
        self.columns.iter().map(|column| Ok(take(column, &rows, None)?)).collect()
    }
}

/// Finds the panes of a key that start in `starts`, and appends their states.
fn panes_of_key<'a>(book: &Book<'a>, key: &'a RowBytes, starts: &Range<i64>, states: &mut Vec<&'a [u8]>) -> PanesOfKey {
    let of_line = |line: &&'a Line| {
        let found = line.panes.of_key(starts.clone(), key).map(|(pane, state)| {
            states.push(state);
            (pane, u32::try_from(states.len() - 1).unwrap_or(u32::MAX))
        });
        found.collect()
    };
    book.lines.iter().map(of_line).collect()
}
