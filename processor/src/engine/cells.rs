//! Which groups of which windows give a row after an entry.
//!
//! They are found piece by piece and never all at once: with many windows over each reading there are many more of them than groups.

use std::collections::BTreeSet;
use std::ops::Range;

use hashbrown::{HashMap, HashSet};

use super::line::Line;
use super::sessions::unions;
use super::{Engine, Entry, GroupState};
use crate::query::file::OutputMode;
use crate::query::{Grouping, Pane, RowBytes, Window, WindowSpec};

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

    /// Up to where the entry closes windows; `None` when it closes none.
    fn closes_until(&self) -> Option<i64> {
        self.after.filter(|after| self.before.is_none_or(|before| before < *after))
    }

    /// Whether the entry has made a window that ends at `end` final.
    fn closes(&self, end: i64) -> bool {
        self.before.is_none_or(|before| before < end) && self.is_final(end)
    }
}

/// Some of the cells that give a row, in the order of the rows.
pub(crate) struct Changed<'a> {
    pub(crate) cells: Vec<Cell<'a>>,
    /// Whether they say something new: others of update mode only tell that their window has closed.
    pub(crate) new: bool,
    /// The whole states of the cells, where they are those of the entry's groups: nothing has to be looked up.
    pub(crate) states: Vec<&'a RowBytes>,
}

/// Cells that are found at a time: enough of them to share the panes of hopping windows, few enough to forget what they take.
const PIECE: usize = 16_384;

/// All cells that give a row, piece by piece.
pub(crate) struct Pieces<'a> {
    grouping: &'a Grouping,
    books: &'a [Book<'a>],
    groups: &'a [GroupState],
    mode: OutputMode,
    stage: Stage<'a>,
    /// How many groups of the entry are in each window that has closed, by book and end: they have had their rows.
    told: HashMap<(usize, i64), usize>,
    /// The same as cells; with a stage of groups, only those of windows of which other groups have still to be told.
    seen: HashSet<Cell<'a>>,
}

enum Stage<'a> {
    /// The whole result, or that of a DISTINCT: cells, and how many are taken.
    Listed(Vec<Cell<'a>>, usize),
    /// The entry's groups, each one a cell, from this one on.
    Groups(usize),
    /// The cells of the entry's groups, key by key.
    Keys(KeyedGroups<'a>, usize),
    Closing(Closing<'a>),
}

impl<'a> Pieces<'a> {
    pub(crate) fn of(engine: &'a Engine, grouping: &'a Grouping, books: &'a [Book<'a>], entry: &'a Entry) -> Self {
        let (mode, groups) = (engine.query.file.query.output_mode, entry.groups.as_slice());
        let stage = if mode == OutputMode::Complete {
            Stage::Listed(all(grouping, books), 0)
        } else if grouping.distinct {
            let mut seen = HashSet::new();
            Stage::Listed(first_seen(engine, grouping, entry).filter(|cell| seen.insert(*cell)).collect(), 0)
        } else if mode != OutputMode::Update {
            // In append mode a row shows once, when its window closes.
            Stage::Closing(Closing::of(grouping, books))
        } else if are_cells(grouping, books) {
            Stage::Groups(0)
        } else {
            Stage::Keys(KeyedGroups::of(groups), 0)
        };
        Self { grouping, books, groups, mode, stage, told: HashMap::new(), seen: HashSet::new() }
    }

    fn close(&mut self) {
        let mut closing = Closing::of(self.grouping, self.books);
        if !self.told.is_empty() {
            closing.leave_out(self.grouping, self.books, &self.told);
            let told = |cell: &Cell<'_>| self.told.contains_key(&(cell.book, cell.end)) && closing.has(cell.start);
            let cells = self.groups.iter().flat_map(|group| cell_of(self.grouping, group)).filter(told);
            self.seen = cells.collect();
        }
        self.stage = Stage::Closing(closing);
    }

    fn see(&mut self, cells: &[Cell<'a>]) {
        self.seen.extend(cells.iter().filter(|cell| self.books[cell.book].is_final(cell.end)));
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Changed<'a>;

    fn next(&mut self) -> Option<Changed<'a>> {
        let (grouping, groups) = (self.grouping, self.groups);
        loop {
            match &mut self.stage {
                Stage::Listed(cells, taken) => {
                    let piece = cells[*taken..].iter().take(PIECE).copied().collect::<Vec<_>>();
                    *taken += piece.len();
                    return (!piece.is_empty()).then_some(Changed { cells: piece, new: true, states: Vec::new() });
                }
                Stage::Groups(taken) if *taken == groups.len() => self.close(),
                Stage::Groups(taken) => {
                    let groups = &groups[*taken..groups.len().min(*taken + PIECE)];
                    *taken += groups.len();
                    let cells: Vec<Cell<'a>> = groups.iter().flat_map(|group| cell_of(grouping, group)).collect();
                    // A day that clocks skip has no window.
                    let whole = cells.len() == groups.len();
                    let states = if whole { groups.iter().map(|group| &group.state).collect() } else { Vec::new() };
                    let closed = cells.iter().filter(|cell| grouping.window.is_some() && self.books[cell.book].is_final(cell.end));
                    for cell in closed {
                        *self.told.entry((cell.book, cell.end)).or_default() += 1;
                    }
                    return Some(Changed { cells, new: true, states });
                }
                Stage::Keys(keys, taken) if *taken == keys.keys.len() => self.close(),
                Stage::Keys(keys, taken) => {
                    let mut cells = Vec::new();
                    while *taken < keys.keys.len() && cells.len() < PIECE {
                        keys.cells(grouping, groups, *taken, &mut cells);
                        *taken += 1;
                    }
                    self.see(&cells);
                    return Some(Changed { cells, new: true, states: Vec::new() });
                }
                Stage::Closing(closing) => {
                    let mut cells = closing.next(grouping, self.books)?;
                    if !self.seen.is_empty() {
                        cells.retain(|cell| !self.seen.contains(cell));
                    }
                    return Some(Changed { cells, new: self.mode != OutputMode::Update, states: Vec::new() });
                }
            }
        }
    }
}

/// The groups of an entry by their keys, in the order in which the keys come first.
struct KeyedGroups<'a> {
    /// The book, the key, and where its groups end in `order`.
    keys: Vec<(usize, &'a RowBytes, usize)>,
    /// Places of groups, those of a key together.
    order: Vec<u32>,
}

impl<'a> KeyedGroups<'a> {
    fn of(groups: &'a [GroupState]) -> Self {
        let mut numbers: HashMap<(usize, &RowBytes), u32> = HashMap::new();
        let mut keys: Vec<(usize, &RowBytes, usize)> = Vec::new();
        let mut key_of = Vec::with_capacity(groups.len());
        for group in groups {
            let (book, key) = (Engine::book_number(group.line), &group.key);
            let number = *numbers.entry((book, key)).or_insert_with(|| {
                keys.push((book, key, 0));
                u32::try_from(keys.len() - 1).unwrap_or(u32::MAX)
            });
            keys[number as usize].2 += 1;
            key_of.push(number);
        }
        let mut before = 0;
        for key in &mut keys {
            // For now where its groups begin; each that is put in its place moves it on.
            before += std::mem::replace(&mut key.2, before);
        }
        let mut order = vec![0; groups.len()];
        for (place, number) in (0..).zip(key_of) {
            let next = &mut keys[number as usize].2;
            order[*next] = place;
            *next += 1;
        }
        Self { keys, order }
    }

    /// Appends the cells of a key, in the order of their windows.
    fn cells(&self, grouping: &Grouping, groups: &[GroupState], number: usize, cells: &mut Vec<Cell<'a>>) {
        let (book, key, end) = self.keys[number];
        let Some(window) = grouping.panes() else {
            // Without a window there is one cell, of no time.
            return cells.push(Cell { end: 0, start: 0, key, book });
        };
        let first = number.checked_sub(1).map_or(0, |before| self.keys[before].2);
        let mut panes: Vec<Pane> = self.order[first..end].iter().map(|place| groups[*place as usize].pane).collect();
        panes.sort_unstable();
        let mut starts = Starts::default();
        panes.into_iter().for_each(|pane| starts.add(window.windows(pane)));
        cells.extend(starts.in_order().into_iter().map(|start| Cell { end: window.end(start), start, key, book }));
    }
}

/// Windows of a key, gathered from its panes, whose windows overlap.
#[derive(Default)]
struct Starts {
    starts: Vec<i64>,
    /// All windows between these two are among `starts`.
    run: Option<(i64, i64)>,
}

impl Starts {
    /// Adds windows that follow each other. Those of panes that come in their order are looked at once and added once.
    fn add(&mut self, windows: impl Iterator<Item = i64>) {
        let mut own: Option<(i64, i64)> = None;
        for start in windows {
            if !self.run.is_some_and(|(first, last)| first <= start && start <= last) {
                self.starts.push(start);
            }
            own = Some((own.map_or(start, |own| own.0), start));
        }
        let Some((first, last)) = own else { return };
        self.run = Some(match self.run {
            Some(run) if first <= run.1 && run.0 <= last => (run.0.min(first), run.1.max(last)),
            _ => (first, last),
        });
    }

    fn in_order(mut self) -> Vec<i64> {
        if !self.starts.is_sorted_by(|one, next| one < next) {
            self.starts.sort_unstable();
            self.starts.dedup();
        }
        self.starts
    }
}

/// The cells of the windows that an entry closes, in the order in which they end, some windows at a time.
struct Closing<'a> {
    /// The windows of the only book; those of many books are all in `ready`.
    windows: std::vec::IntoIter<i64>,
    /// Windows between those that are left out, in order.
    left_out: Vec<i64>,
    ready: Vec<Cell<'a>>,
    taken: usize,
}

/// Windows are closed together until their panes have so many groups.
const CLOSED_TOGETHER: usize = 4 * PIECE;

impl<'a> Closing<'a> {
    fn of(grouping: &Grouping, books: &[Book<'a>]) -> Self {
        let (windows, ready) = match (grouping.panes(), books) {
            (Some(window), [book]) => (book.closing_windows(window), Vec::new()),
            _ => (Vec::new(), closing(grouping, books)),
        };
        Self { windows: windows.into_iter(), left_out: Vec::new(), ready, taken: 0 }
    }

    /// Leaves windows out of which all groups have been told, given the numbers of those that were, where each group in a pane is a cell.
    fn leave_out(&mut self, grouping: &Grouping, books: &[Book<'a>], told: &HashMap<(usize, i64), usize>) {
        let (Some(window), [book]) = (grouping.panes(), books) else { return };
        let is_told = |start: &i64| {
            let end = window.end(*start);
            told.get(&(0, end)).is_some_and(|told| *told == book.groups_in(*start, end))
        };
        let (left_out, windows): (Vec<i64>, Vec<i64>) = self.windows.as_slice().iter().partition(|start| is_told(start));
        (self.left_out, self.windows) = (left_out, windows.into_iter());
    }

    fn has(&self, start: i64) -> bool {
        self.left_out.binary_search(&start).is_err()
    }

    fn next(&mut self, grouping: &Grouping, books: &[Book<'a>]) -> Option<Vec<Cell<'a>>> {
        while self.taken == self.ready.len() {
            let (Some(window), [book], Some(first)) = (grouping.panes(), books, self.windows.next()) else { return None };
            let (mut last, mut groups) = (first, book.groups_in(first, window.end(first)));
            while let Some(next) = self.windows.as_slice().first()
                && groups < CLOSED_TOGETHER
            {
                groups += book.groups_in(window.end(last), window.end(*next));
                last = *next;
                self.windows.next();
            }
            self.ready.clear();
            self.taken = 0;
            let left_out = &self.left_out;
            let mut cells = std::mem::take(&mut self.ready);
            book.closing_cells(window, 0, first..last + 1, |start| left_out.binary_search(&start).is_err(), &mut cells);
            // Those of a window are in the order of their keys.
            cells.sort_by_key(|cell| (cell.end, cell.start));
            self.ready = cells;
        }
        let piece = self.ready[self.taken..self.ready.len().min(self.taken + PIECE)].to_vec();
        self.taken += piece.len();
        Some(piece)
    }
}

impl<'a> Book<'a> {
    /// The windows that the entry closes, in order.
    fn closing_windows(&self, window: &WindowSpec) -> Vec<i64> {
        let Some(after) = self.closes_until() else { return Vec::new() };
        let panes: BTreeSet<Pane> = self.lines.iter().flat_map(|line| line.panes.panes(i64::MIN..after)).map(|(pane, _)| pane).collect();
        let mut starts = Starts::default();
        panes.into_iter().for_each(|pane| starts.add(window.windows(pane).filter(|start| self.closes(window.end(*start)))));
        starts.in_order()
    }

    /// How many groups the panes have that start in a stretch of time.
    fn groups_in(&self, from: i64, to: i64) -> usize {
        self.lines.iter().flat_map(|line| line.panes.panes(from..to.max(from))).map(|(_, groups)| groups.len()).sum()
    }

    /// Appends the cells of the windows that the entry closes, that start in `starts`, and that are wanted.
    fn closing_cells(
        &self,
        window: &WindowSpec,
        number: usize,
        starts: Range<i64>,
        wanted: impl Fn(i64) -> bool,
        cells: &mut Vec<Cell<'a>>,
    ) {
        let Some(after) = self.closes_until() else { return };
        // A window that has ended by `after` has no pane that starts later.
        let until = if starts.end == i64::MAX { after } else { window.end(starts.end - 1).min(after) };
        let panes = starts.start..until.max(starts.start);
        self.cells(window, number, panes, |start| starts.contains(&start) && self.closes(window.end(start)) && wanted(start), cells);
    }

    /// Appends the cells of the groups in the panes that start in `panes`, of the windows that are wanted, given their starts; those must
    /// follow each other. Those of a window are in the order of their keys.
    fn cells(&self, window: &WindowSpec, number: usize, panes: Range<i64>, wanted: impl Fn(i64) -> bool, cells: &mut Vec<Cell<'a>>) {
        let cell = |key: &'a RowBytes, start: i64| Cell { end: window.end(start), start, key, book: number };
        let is_single = window.slide == window.size && self.lines.len() == 1;
        let mut of_key: HashMap<&'a RowBytes, Starts> = HashMap::new();
        for (pane, groups) in self.lines.iter().flat_map(|line| line.panes.panes(panes.clone())) {
            let windows: Vec<i64> = window.windows(pane).filter(|start| wanted(*start)).collect();
            if is_single {
                let first = cells.len();
                windows.iter().for_each(|start| cells.extend(groups.keys().map(|key| cell(key, *start))));
                cells[first..].sort_unstable();
            } else if !windows.is_empty() {
                groups.keys().for_each(|key| of_key.entry(key).or_default().add(windows.iter().copied()));
            }
        }
        let mut of_key: Vec<_> = of_key.into_iter().collect();
        of_key.sort_unstable_by_key(|(key, _)| *key);
        for (key, starts) in of_key {
            cells.extend(starts.in_order().into_iter().map(|start| cell(key, start)));
        }
    }
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

/// Of a group of an entry that is all of a cell, where its pane has a window.
fn cell_of<'a>(grouping: &'a Grouping, group: &'a GroupState) -> impl Iterator<Item = Cell<'a>> {
    cells_of(grouping, group.pane, &group.key, Engine::book_number(group.line))
}

fn cells_of<'a>(grouping: &'a Grouping, pane: Pane, key: &'a RowBytes, book: usize) -> impl Iterator<Item = Cell<'a>> {
    let window = grouping.panes();
    let windows = window.into_iter().flat_map(move |window| window.windows(pane).map(|start| (start, window.end(start))));
    // Without a window there is one cell, of no time.
    let whole = grouping.window.is_none().then_some((0, 0));
    windows.chain(whole).map(move |(start, end)| Cell { end, start, key, book })
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
        match &grouping.window {
            None => {}
            Some(Window::Panes(window)) => book.closing_cells(window, number, i64::MIN..i64::MAX, |_| true, &mut cells),
            Some(Window::Session { .. }) => {
                let Some(after) = book.closes_until() else { continue };
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
        match grouping.panes() {
            Some(window) => book.cells(window, number, i64::MIN..i64::MAX, |_| true, &mut cells),
            // Without a window there is one cell of each key, of no time.
            None => {
                let groups = book.lines.iter().flat_map(|line| line.panes.iter());
                cells.extend(groups.map(|(_, key, _)| Cell { end: 0, start: 0, key, book: number }));
            }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_windows_of_panes_are_found_once_whatever_their_order(
            rows in prop::collection::vec((0i64..400, -100i64..400), 0..40), sorted: bool,
            (size, slide) in prop_oneof![Just((60, 10)), Just((60, 1)), Just((30, 20)), Just((50, 50))],
        ) {
            let window = WindowSpec { slide, ..WindowSpec::tumbling(size) };
            let mut panes: Vec<Pane> = rows.iter().filter_map(|(time, watermark)| window.pane(*time, *watermark)).collect();
            if sorted {
                panes.sort_unstable();
            }
            let mut starts = Starts::default();
            panes.iter().for_each(|pane| starts.add(window.windows(*pane)));
            let wanted: BTreeSet<i64> = panes.iter().flat_map(|pane| window.windows(*pane)).collect();
            prop_assert_eq!(starts.in_order(), wanted.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn groups_of_a_key_stand_together(keys in prop::collection::vec((0u8..5, 0u32..3, 0i64..50), 0..40)) {
            let group = |(key, line, start): &(u8, u32, i64)| GroupState {
                partition: 0,
                line: Some(*line),
                pane: Pane { start: *start, since: *start },
                key: RowBytes::from([*key]),
                state: RowBytes::from(*b""),
            };
            let groups: Vec<GroupState> = keys.iter().map(group).collect();
            let keyed = KeyedGroups::of(&groups);
            let mut first = 0;
            let mut found = Vec::new();
            for (book, key, end) in &keyed.keys {
                prop_assert!(*end > first);
                let panes = keyed.order[first..*end].iter().map(|place| groups[*place as usize].pane.start);
                found.extend(panes.map(|start| (key[0], u32::try_from(*book).unwrap_or(u32::MAX), start)));
                first = *end;
            }
            let mut wanted = keys.clone();
            wanted.sort_by_key(|one| keys.iter().position(|other| (other.0, other.1) == (one.0, one.1)));
            prop_assert_eq!(found, wanted);
        }
    }
}
