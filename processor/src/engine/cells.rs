//! Which groups of which windows give a row after an entry.

use hashbrown::HashSet;

use super::line::Line;
use super::sessions::unions;
use super::{Engine, Entry};
use crate::query::file::OutputMode;
use crate::query::{Grouping, Pane, RowBytes, Window};

/// Timelines whose groups are merged for results, and the time up to which their windows are final, before and after an entry.
///
/// One book holds all partitions of a shard; with a timeline for each device, each device has a book of its own.
pub(crate) struct Book<'a> {
    pub(crate) lines: Vec<&'a Line>,
    pub(crate) before: Option<i64>,
    pub(crate) after: Option<i64>,
}

/// A group in a window. Its order is that in which windows close, whatever the entries: an aggregate over the rows depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cell<'a> {
    /// Of the window; zeros without one.
    pub(crate) end: i64,
    pub(crate) start: i64,
    pub(crate) key: &'a RowBytes,
    /// Its place among the books.
    pub(crate) book: usize,
}

impl Book<'_> {
    pub(crate) fn is_final(&self, end: i64) -> bool {
        self.after.is_some_and(|after| end <= after)
    }

    /// Whether the entry has made a window that ends at `end` final.
    fn closes(&self, end: i64) -> bool {
        self.before.is_none_or(|before| before < end) && self.is_final(end)
    }
}

/// The cells that give a row, in the order of the rows.
pub(crate) struct Changed<'a> {
    pub(crate) cells: Vec<Cell<'a>>,
    /// How many of them, from the first on, say something new: the others of update mode only tell that their window has closed.
    pub(crate) new: usize,
    /// The whole states of the first cells, where they are those of the entry's groups: nothing has to be looked up.
    pub(crate) states: Vec<&'a RowBytes>,
}

pub(crate) fn changed<'a>(engine: &'a Engine, grouping: &'a Grouping, books: &[Book<'a>], entry: &'a Entry) -> Changed<'a> {
    let mode = engine.query.file.query.output_mode;
    if mode == OutputMode::Complete {
        let cells = all(grouping, books);
        return Changed { new: cells.len(), cells, states: Vec::new() };
    }
    let (mut cells, mut states) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    if grouping.distinct {
        cells.extend(first_seen(engine, grouping, entry).filter(|cell| seen.insert(*cell)));
        return Changed { new: cells.len(), cells, states };
    }
    // In append mode a row shows once, when its window closes.
    if mode == OutputMode::Update {
        cells.extend(touched(grouping, entry));
        // Where a group is one cell, and a cell one group, none comes twice, and only what closes is looked for again below.
        if are_cells(grouping, books) && cells.len() == entry.groups.len() {
            states.extend(entry.groups.iter().map(|group| &group.state));
            seen.extend(cells.iter().filter(|cell| books[cell.book].is_final(cell.end)));
        } else {
            seen.reserve(cells.len());
            cells.retain(|cell| seen.insert(*cell));
        }
    }
    let touched = cells.len();
    cells.extend(closing(grouping, books).into_iter().filter(|cell| seen.insert(*cell)));
    let new = if mode == OutputMode::Update { touched } else { cells.len() };
    Changed { cells, new, states }
}

/// Whether a group in a pane is all of a cell.
fn are_cells(grouping: &Grouping, books: &[Book<'_>]) -> bool {
    let whole = match &grouping.window {
        None => true,
        Some(Window::Panes(window)) => window.slide == window.size,
        Some(Window::Session { .. }) => false,
    };
    whole && books.iter().all(|book| book.lines.len() == 1)
}

fn cells_of<'a>(grouping: &'a Grouping, pane: Pane, key: &'a RowBytes, book: usize) -> impl Iterator<Item = Cell<'a>> {
    let window = grouping.panes();
    let windows = window.into_iter().flat_map(move |window| window.windows(pane).map(|start| (start, window.end(start))));
    // Without a window there is one cell, of no time.
    let whole = grouping.window.is_none().then_some((0, 0));
    windows.chain(whole).map(move |(start, end)| Cell { end, start, key, book })
}

fn touched<'a>(grouping: &'a Grouping, entry: &'a Entry) -> impl Iterator<Item = Cell<'a>> {
    entry.groups.iter().flat_map(move |group| cells_of(grouping, group.pane, &group.key, Engine::book_number(group.line)))
}

/// The groups of the entry that no other partition had before it.
fn first_seen<'a>(engine: &'a Engine, grouping: &'a Grouping, entry: &'a Entry) -> impl Iterator<Item = Cell<'a>> {
    let new: HashSet<(i32, Pane, &RowBytes)> = entry.groups.iter().map(|group| (group.partition, group.pane, &group.key)).collect();
    let known = move |pane: Pane, key: &RowBytes| {
        let mut others = engine.partitions.iter().filter(|(_, partition)| partition.shared.panes.get(pane, key).is_some());
        others.any(|(number, _)| !new.contains(&(*number, pane, key)))
    };
    entry.groups.iter().filter(move |group| !known(group.pane, &group.key)).flat_map(|group| cells_of(grouping, group.pane, &group.key, 0))
}

/// The cells of the windows that an entry closes, in the order in which they end.
pub(crate) fn closing<'a>(grouping: &Grouping, books: &[Book<'a>]) -> Vec<Cell<'a>> {
    let mut cells = Vec::new();
    for (number, book) in books.iter().enumerate() {
        let Some(after) = book.after.filter(|after| book.before.is_none_or(|before| before < *after)) else { continue };
        match &grouping.window {
            None => {}
            Some(Window::Panes(window)) => {
                // A window that has ended by `after` has no pane that starts later.
                for (pane, groups) in book.lines.iter().flat_map(|line| line.panes.panes(i64::MIN..after)) {
                    let windows = window.windows(pane).map(|start| (start, window.end(start)));
                    for (start, end) in windows.filter(|(_, end)| book.closes(*end)) {
                        cells.extend(groups.keys().map(|key| Cell { end, start, key, book: number }));
                    }
                }
            }
            Some(Window::Session { .. }) => {
                let keys: HashSet<&RowBytes> = book.lines.iter().flat_map(|line| line.sessions.closing(after)).collect();
                cells.extend(keys.into_iter().flat_map(|key| session_cells(book, number, key)).filter(|cell| book.closes(cell.end)));
            }
        }
    }
    cells.sort_unstable();
    cells.dedup();
    cells
}

/// The cells of the current result: of windows those that have not closed, unless the result is a whole.
pub(crate) fn current<'a>(engine: &Engine, grouping: &Grouping, books: &[Book<'a>]) -> Vec<Cell<'a>> {
    let mut cells = all(grouping, books);
    if grouping.window.is_some() && !engine.query.is_complete() {
        cells.retain(|cell| !books[cell.book].is_final(cell.end));
    }
    cells
}

/// The whole result.
fn all<'a>(grouping: &Grouping, books: &[Book<'a>]) -> Vec<Cell<'a>> {
    let mut cells = Vec::new();
    for (number, book) in books.iter().enumerate() {
        if grouping.session_gap().is_some() {
            let keys: HashSet<&RowBytes> = book.lines.iter().flat_map(|line| line.sessions.iter().map(|(key, _)| key)).collect();
            cells.extend(keys.into_iter().flat_map(|key| session_cells(book, number, key)));
            continue;
        }
        for (pane, groups) in book.lines.iter().flat_map(|line| line.panes.panes(i64::MIN..i64::MAX)) {
            let windows: Vec<(i64, i64)> = match grouping.panes() {
                Some(window) => window.windows(pane).map(|start| (start, window.end(start))).collect(),
                None => vec![(0, 0)],
            };
            cells.extend(
                groups.keys().flat_map(|key| windows.iter().map(move |(start, end)| Cell { end: *end, start: *start, key, book: number })),
            );
        }
    }
    cells.sort_unstable();
    cells.dedup();
    cells
}

/// The sessions of a key, those of different partitions that meet as one.
fn session_cells<'a>(book: &Book<'a>, number: usize, key: &'a RowBytes) -> impl Iterator<Item = Cell<'a>> + use<'a> {
    let held = book.lines.iter().flat_map(|line| line.sessions.get(key)).map(|held| held.session).collect();
    unions(held).into_iter().map(move |session| Cell { end: session.end, start: session.start, key, book: number })
}

impl Cell<'_> {
    /// Appends the states of the cell in one timeline of its book, in order.
    pub(crate) fn push_states<'a>(&self, grouping: &Grouping, line: &'a Line, book: &Book<'_>, states: &mut Vec<&'a [u8]>) {
        match &grouping.window {
            None => states.extend(line.panes.panes(0..1).filter_map(|(_, groups)| groups.get(self.key)).map(|state| &**state)),
            Some(Window::Panes(window)) => {
                let panes = line.panes.panes(self.start..window.end(self.start)).filter(|(pane, _)| pane.since <= self.start);
                states.extend(panes.filter_map(|(_, groups)| groups.get(self.key)).map(|state| &**state));
            }
            Some(Window::Session { .. }) => {
                let held = book.lines.iter().flat_map(|line| line.sessions.get(self.key)).map(|held| held.session).collect();
                let whole = unions(held).into_iter().find(|session| (session.start, session.end) == (self.start, self.end));
                let members = line.sessions.get(self.key).iter();
                states.extend(members.filter(|held| whole.is_some_and(|whole| whole.meets(&held.session))).map(|held| &*held.state));
            }
        }
    }
}
