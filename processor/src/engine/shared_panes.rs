//! The panes of hopping windows, looked up and made columns once for all the windows that share them.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use datafusion_common::Result;
use hashbrown::HashMap;

use super::cells::{Book, Cell};
use crate::query::{Grouping, Pane, RowBytes, Window, WindowSpec};

/// Of a key, by timeline of its book: its panes in order, with the row that each one's state has.
type PanesOfKey = Vec<Vec<(Pane, u32)>>;

/// The states of some cells' keys in all panes that their windows may need.
pub(super) struct SharedPanes<'a> {
    window: &'a WindowSpec,
    columns: Vec<ArrayRef>,
    keys: HashMap<(usize, &'a RowBytes), PanesOfKey>,
}

impl<'a> SharedPanes<'a> {
    /// `None` when no two windows share a pane.
    pub(super) fn of(grouping: &'a Grouping, books: &[Book<'a>], cells: &[Cell<'a>]) -> Result<Option<Self>> {
        let Some(Window::Panes(window)) = &grouping.window else { return Ok(None) };
        if window.slide == window.size {
            return Ok(None);
        }
        let starts = cells.iter().map(|cell| cell.start).min().unwrap_or(0)..cells.iter().map(|cell| cell.end).max().unwrap_or(0);
        let mut keys: HashMap<(usize, &RowBytes), PanesOfKey> = HashMap::new();
        let mut states: Vec<&[u8]> = Vec::new();
        for cell in cells {
            keys.entry((cell.book, cell.key)).or_insert_with(|| {
                let mut lines = Vec::with_capacity(books[cell.book].lines.len());
                for line in &books[cell.book].lines {
                    let mut panes = Vec::new();
                    for (pane, state) in line.panes.of_key(starts.clone(), cell.key) {
                        panes.push((pane, u32::try_from(states.len()).unwrap_or(u32::MAX)));
                        states.push(state);
                    }
                    lines.push(panes);
                }
                lines
            });
        }
        let columns = grouping.state_rows.columns(states.into_iter())?;
        Ok(Some(Self { window, columns, keys }))
    }

    /// Appends the rows of a cell's states in one timeline of its book, in order.
    pub(super) fn push(&self, cell: &Cell<'_>, line: usize, rows: &mut Vec<u32>) {
        let Some(panes) = self.keys.get(&(cell.book, cell.key)).and_then(|lines| lines.get(line)) else { return };
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
