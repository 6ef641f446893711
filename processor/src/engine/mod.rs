//! The streaming engine: pure. It knows no Kafka, no tokio and no clock.
//!
//! ```text
//!            prepare                       apply
//! Input ───────────────▶ Entry + lanes ───────────────▶ state', Output
//! (decoded rows)         (what the journal keeps)       (result rows)
//! ```
//! `prepare` decides about every row and folds the used ones onto the old state; it changes nothing. `apply` puts the entry into the
//! state and gives the result rows, which are a function of the entry and the state. Recovery takes the journal's entries the same way, so there
//! is one path for life and for recovery; the results of the newest are given again ([`Engine::give_again`]).
//!
//! `apply` is `absorb_step`, `give`, `evict`. Steps may also be absorbed one after another and written as one [`Merged`] entry, with their
//! results given step by step or all together; nothing is evicted before the entry is complete.

mod again;
mod blocks;
mod cells;
mod clock;
pub(crate) mod codec;
mod copy;
mod entry;
mod fold_rows;
mod fold_sessions;
mod halves;
mod idle;
mod judge;
mod ledger;
mod line;
mod merge;
mod outlook;
mod output;
mod panes;
mod partials;
mod partition;
pub(crate) mod recount;
mod second;
mod seen;
mod sessions;
mod shared_panes;
mod time;
pub(crate) mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;

use cells::Book;
pub(crate) use clock::MAX_TIME;
pub(crate) use copy::StateCopy;
use datafusion_common::DataFusionError;
use hashbrown::HashSet;

pub(crate) use entry::{Decision, Entry, GroupState, LineNumber, LineTime, Progress, SeenKey, SessionState};
use judge::Judged;
pub(crate) use judge::{Input, Lateness, Refused};
pub(crate) use ledger::Ledger;
use line::Line;
pub(crate) use merge::Merged;
pub(crate) use outlook::NextClose;
pub(crate) use output::{Gone, Output, PlainRows};
use output::{Identity, Parts};
pub(crate) use partials::Takes;
pub(crate) use partition::{MOST_DECISIONS, Partition};
use sessions::{Held, OpenSessions, Sessions};
pub(crate) use time::PartitionTime;

use crate::query::{Grouping, RowBytes, Step, StreamQuery};

/// The state of one shard: the partitions whose groups live together.
#[derive(Debug)]
pub(crate) struct Engine {
    query: Arc<StreamQuery>,
    partitions: BTreeMap<i32, Partition>,
    /// The aggregate over the aggregate; all partitions' rows are one there.
    second: Line,
    /// Up to where windows have been given as final, unless each device has its own time.
    closed: Option<i64>,
    /// As [`Entry::base`].
    base: i64,
    /// The rows of the whole result that was given last, when rows can leave it.
    shown: Option<HashSet<Identity>>,
}

/// What [`Engine::prepare`] found: the entry to journal, and the rows that are sent before it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) entry: Entry,
    /// By input, in the order of the inputs.
    pub(crate) late: Vec<Vec<Refused>>,
    pub(crate) dead: Vec<Vec<Refused>>,
    /// The results of a query without a grouping. They follow from the log alone, so they need no entry before them.
    pub(crate) rows: Vec<PlainRows>,
}

/// Which timelines an entry has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moved {
    /// Those of the entry.
    #[default]
    Touched,
    /// All: the partition's time gives devices up, or the wall clock closes.
    All,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("query '{query}' cannot go on: {cause}")]
    Query { query: String, cause: DataFusionError },
    #[error(
        "the state of query '{query}' would grow to {found} bytes, beyond processor.max_state of {limit}; \
         use coarser groups, a shorter watermark delay, or raise the limit"
    )]
    StateFull { query: String, found: u64, limit: u64 },
    #[error("the journal of query '{query}' does not fit this processor: {cause}")]
    Journal { query: String, cause: String },
}

impl EngineError {
    fn of(query: &StreamQuery, cause: impl Into<DataFusionError>) -> Self {
        Self::Query { query: query.file.name.clone(), cause: cause.into() }
    }
}

impl Engine {
    pub(crate) fn new(query: Arc<StreamQuery>, partitions: impl IntoIterator<Item = i32>) -> Self {
        let partitions = partitions.into_iter().map(|partition| (partition, Partition::default())).collect();
        Self { query, partitions, second: Line::default(), closed: None, base: 0, shown: None }
    }

    pub(crate) fn partitions(&self) -> &BTreeMap<i32, Partition> {
        &self.partitions
    }

    pub(crate) fn state_bytes(&self) -> u64 {
        self.partitions.values().map(Partition::bytes).sum::<u64>() + self.second.bytes()
    }

    /// What the state would take with `entry` in it, before anything is evicted.
    pub(crate) fn bytes_with(&self, entry: &Entry) -> u64 {
        let line = |partition: i32, line: LineNumber| self.partitions.get(&partition)?.line(line, &entry.lines);
        let empty = Line::default();
        let group =
            |group: &GroupState| line(group.partition, group.line).unwrap_or(&empty).panes.growth(group.pane, &group.key, &group.state);
        let grown: i64 = entry.groups.iter().map(group).sum();
        let sessions = |of_key: &[SessionState]| {
            let states: Vec<&[u8]> = of_key.iter().map(|session| &*session.state).collect();
            line(of_key[0].partition, of_key[0].line).unwrap_or(&empty).sessions.growth(&of_key[0].key, &states)
        };
        let grown: i64 = grown + entry.sessions.chunk_by(SessionState::is_of_same_key).map(sessions).sum::<i64>();
        let seen: u64 = entry.seen.iter().map(|seen| seen::cost(&seen.key)).sum();
        (self.state_bytes() + seen).saturating_add_signed(grown)
    }

    pub(crate) fn state_rows(&self) -> u64 {
        self.partitions.values().map(Partition::rows).sum::<u64>() + self.second.rows()
    }

    /// The groups that the state would have with `entry` in it, before anything is evicted.
    pub(crate) fn rows_with(&self, entry: &Entry) -> u64 {
        let line = |partition: i32, line: LineNumber| self.partitions.get(&partition)?.line(line, &entry.lines);
        let is_new =
            |group: &&GroupState| line(group.partition, group.line).and_then(|line| line.panes.get(group.pane, &group.key)).is_none();
        let groups = entry.groups.iter().filter(is_new).count();
        let held =
            |of_key: &[SessionState]| line(of_key[0].partition, of_key[0].line).map_or(0, |line| line.sessions.get(&of_key[0].key).len());
        let replaced: usize = entry.sessions.chunk_by(SessionState::is_of_same_key).map(held).sum();
        (self.state_rows() + (groups + entry.sessions.len()) as u64).saturating_sub(replaced as u64)
    }

    /// The time up to which every window is final: the smallest watermark of the shard's partitions, once all have one.
    pub(crate) fn horizon(&self) -> Option<i64> {
        let delay = self.delay();
        self.partitions.values().map(|partition| partition.time.watermark(delay)).min().flatten()
    }

    fn delay(&self) -> i64 {
        self.query.file.source.watermark.millis()
    }

    /// A larger revision replaces a smaller one: the offsets that the state has seen, summed over the shard's partitions, and the base.
    pub(crate) fn revision(&self) -> i64 {
        self.base + self.partitions.values().filter_map(|partition| partition.position).sum::<i64>()
    }

    pub(crate) fn base(&self) -> i64 {
        self.base
    }

    fn fault(&self, cause: impl Into<DataFusionError>) -> EngineError {
        EngineError::of(&self.query, cause)
    }

    /// Decides about every row of `inputs` and folds the used ones. Changes nothing.
    ///
    /// # Errors
    /// When an aggregate fails over the rows; the state is as before.
    pub(crate) fn prepare(&self, inputs: Vec<Input>) -> Result<Prepared, EngineError> {
        let mut prepared = Prepared { entry: Entry::default(), late: Vec::new(), dead: Vec::new(), rows: Vec::new() };
        for input in inputs {
            let Some(partition) = self.partitions.get(&input.partition) else { continue };
            let judged = judge::judge(&self.query, partition, &input, Lateness::Counts).map_err(|cause| self.fault(cause))?;
            self.fold(&mut prepared.entry, input.partition, partition, &judged).map_err(|cause| self.fault(cause))?;
            prepared.entry.progress.push(Progress {
                partition: input.partition,
                from: partition.position.unwrap_or(input.from),
                to: input.to,
                time: judged.time,
                ledger: partition.ledger + judged.counts,
            });
            if self.query.groups.is_none() {
                let source = |row: &u32| (input.decoded.rows[*row as usize], judged.clock.times[*row as usize]);
                let sources = judged.used.rows.values().iter().map(source).collect();
                prepared.rows.push(PlainRows { rows: judged.used.results, sources });
            }
            prepared.late.push(judged.late);
            prepared.dead.push(judged.dead);
        }
        Ok(prepared)
    }

    /// Adds to `entry` what the used rows of one partition make of its states.
    fn fold(&self, entry: &mut Entry, number: i32, partition: &Partition, judged: &Judged) -> datafusion_common::Result<()> {
        let Judged { used, clock, seen, .. } = judged;
        let lines = clock.devices.iter().flat_map(|devices| &devices.lines);
        entry.lines.extend(lines.map(|(device, time)| LineTime { partition: number, device: device.clone(), time: *time }));
        let seen = seen.iter().map(|(line, key, expiry)| SeenKey { partition: number, line: *line, key: key.clone(), expiry: *expiry });
        entry.seen.extend(seen);
        let Some(grouping) = &self.query.groups else { return Ok(()) };
        if let Some(gap) = grouping.session_gap() {
            entry.sessions.extend(fold_sessions::fold_sessions(&self.query, grouping, gap, (number, partition), used, clock)?);
            return Ok(());
        }
        let line = |place: usize| clock.line(used.rows.value(place));
        let folded =
            fold_rows::fold_rows(grouping, used, |first, pane, key| clock.line_state(partition, line(first))?.panes.get_pair(pane, key))?;
        entry.groups.extend(folded.into_iter().map(|group| GroupState {
            partition: number,
            line: line(group.first),
            pane: group.pane,
            key: group.key,
            state: group.state,
        }));
        Ok(())
    }

    /// Puts an entry into the state and gives its result rows: the groups that it touched, and those whose window it closed.
    ///
    /// # Errors
    /// When a result cannot be computed; the engine must then be thrown away and restored.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Output, EngineError> {
        let moved = self.absorb_step(entry)?;
        let output = self.give(entry, moved)?;
        self.evict(entry, moved);
        Ok(output)
    }

    /// Puts an entry into the state, whose results come later.
    ///
    /// # Errors
    /// As [`Engine::apply`].
    pub(crate) fn absorb_step(&mut self, entry: &Entry) -> Result<Moved, EngineError> {
        if self.shown.is_none() {
            self.show_whole()?;
        }
        self.absorb(entry)
    }

    /// Where rows can leave the whole result: counts those of the state as it is for shown, too.
    fn show_whole(&mut self) -> Result<(), EngineError> {
        if self.rows_can_leave() {
            let whole = self.results(&Entry::default(), Moved::Touched)?;
            let now = self.identities(&whole)?;
            self.shown.get_or_insert_default().extend(now);
        }
        Ok(())
    }

    /// The result rows of what was absorbed since results were last given; nothing may have been evicted since.
    ///
    /// # Errors
    /// As [`Engine::apply`].
    pub(crate) fn give(&mut self, entry: &Entry, moved: Moved) -> Result<Output, EngineError> {
        let mut parts = Vec::new();
        self.give_each(entry, moved, |part| {
            parts.push(part.clone());
            Ok::<_, EngineError>(())
        })?;
        if parts.is_empty() {
            parts.push(self.no_results()?);
        }
        Output::concat(parts).map_err(|cause| self.fault(cause))
    }

    /// The same part by part: an entry may have many more results than it has groups. A whole result is one part.
    ///
    /// # Errors
    /// Those of `take`, too.
    pub(crate) fn give_each<E: From<EngineError>>(
        &mut self,
        entry: &Entry,
        moved: Moved,
        mut take: impl FnMut(&Output) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = self.fold_second(entry, moved)?;
        if !failed.is_empty() {
            take(&Output { failed, ..self.no_results()? })?;
        }
        // A snapshot changes nothing: what it holds was delivered before it.
        if entry.snapshot {
            self.mark_closed(entry, moved);
            return Ok(());
        }
        if self.rows_can_leave() {
            let mut whole = self.results(entry, moved)?;
            whole.gone = self.gone(&whole)?;
            take(&whole)?;
        } else if let Some((grouping, books)) = self.shown_books(entry, moved) {
            let mut parts = Parts::of(self, grouping, &books, entry);
            while let Some(part) = parts.next().map_err(|cause| self.fault(cause))? {
                take(&part)?;
            }
        }
        self.mark_closed(entry, moved);
        Ok(())
    }

    /// Remembers up to where windows have been given as final.
    fn mark_closed(&mut self, entry: &Entry, moved: Moved) {
        if self.query.is_complete() {
            return;
        }
        let (query, delay) = (Arc::clone(&self.query), self.delay());
        let Some(timeline) = &query.timeline else {
            self.closed = self.horizon().or(self.closed);
            return;
        };
        for (number, partition) in &mut self.partitions {
            let time = partition.time;
            let mark = |line: &mut Line| line.closed = timeline.time(line.time, time).watermark(delay).or(line.closed);
            match moved {
                Moved::All => partition.lines.values_mut().for_each(mark),
                Moved::Touched => {
                    let touched = entry.lines.iter().filter(|line| line.partition == *number);
                    for device in touched.map(|line| &line.device) {
                        partition.lines.get_mut(device).into_iter().for_each(mark);
                    }
                }
            }
        }
    }

    /// As [`Engine::apply`] without the results, for entries whose results were delivered before.
    pub(crate) fn absorb_quietly(&mut self, entry: &Entry) -> Result<(), EngineError> {
        let moved = self.absorb(entry)?;
        self.fold_second(entry, moved)?;
        self.evict(entry, moved);
        Ok(())
    }

    fn absorb(&mut self, entry: &Entry) -> Result<Moved, EngineError> {
        let query = Arc::clone(&self.query);
        let unknown = |partition: i32| EngineError::Journal {
            query: query.file.name.clone(),
            cause: format!("it names partition {partition} of the input, which this shard does not have"),
        };
        if entry.snapshot {
            self.partitions.values_mut().for_each(Partition::clear);
            self.second = Line::default();
            self.shown = None;
            self.closed = None;
            self.base = entry.base;
        }
        for decision in &entry.decisions {
            partition_of(&mut self.partitions, decision.partition, unknown)?.decided(*decision);
        }
        let mut moved = Moved::Touched;
        for progress in &entry.progress {
            let partition = partition_of(&mut self.partitions, progress.partition, unknown)?;
            let before = std::mem::replace(&mut partition.time, progress.time);
            partition.position = Some(progress.to);
            partition.ledger = progress.ledger;
            if let Some(timeline) = &query.timeline {
                if timeline.given_up(before) != timeline.given_up(progress.time) || entry.snapshot {
                    moved = Moved::All;
                }
                // An entry that reads nothing is a decision by the wall clock.
                if let Some(floor) = progress.time.floor.filter(|_| progress.from == progress.to && !entry.snapshot) {
                    partition.move_floors(query.groups.as_ref(), floor);
                    moved = Moved::All;
                }
            }
        }
        self.absorb_states(entry, unknown)?;
        Ok(moved)
    }

    fn absorb_states(&mut self, entry: &Entry, unknown: impl Fn(i32) -> EngineError) -> Result<(), EngineError> {
        let partitions = &mut self.partitions;
        let device = |line: LineNumber| line.and_then(|number| entry.lines.get(number as usize)).map(|line| &line.device);
        for line in &entry.lines {
            partition_of(partitions, line.partition, &unknown)?.change(Some(&line.device), |own| own.time = line.time);
        }
        for group in &entry.groups {
            let put = |line: &mut Line| line.panes.put(group.pane, group.key.clone(), group.state.clone());
            partition_of(partitions, group.partition, &unknown)?.change(device(group.line), put);
        }
        for of_key in entry.sessions.chunk_by(SessionState::is_of_same_key) {
            let held = of_key.iter().map(|session| Held { session: session.session, state: session.state.clone() }).collect();
            let replace = |line: &mut Line| line.sessions.replace(of_key[0].key.clone(), held);
            partition_of(partitions, of_key[0].partition, &unknown)?.change(device(of_key[0].line), replace);
        }
        for seen in &entry.seen {
            partition_of(partitions, seen.partition, &unknown)?
                .change(device(seen.line), |line| line.seen.put(seen.key.clone(), seen.expiry));
        }
        for group in &entry.second {
            self.second.panes.put(group.pane, group.key.clone(), group.state.clone());
        }
        Ok(())
    }

    /// The timelines whose groups an entry may have changed or closed.
    fn books(&self, entry: &Entry, moved: Moved) -> Vec<Book<'_>> {
        let Some(timeline) = &self.query.timeline else {
            let lines = self.partitions.values().map(|partition| &partition.shared).collect();
            return vec![Book { lines, before: self.closed, after: self.horizon() }];
        };
        let mut books = Vec::new();
        let after = |partition: &Partition, line: &Line| timeline.time(line.time, partition.time).watermark(self.delay());
        // Those of the entry first: its groups point at them.
        let mut touched = HashSet::new();
        for line in &entry.lines {
            let Some(partition) = self.partitions.get(&line.partition) else { continue };
            let Some(own) = partition.lines.get(&line.device) else { continue };
            touched.insert(&line.device);
            books.push(Book { lines: vec![own], before: own.closed, after: after(partition, own) });
        }
        // A whole result has the rows of all devices.
        if moved == Moved::All || self.query.is_complete() {
            for partition in self.partitions.values() {
                for (_, own) in partition.lines.iter().filter(|(device, _)| !touched.contains(device)) {
                    books.push(Book { lines: vec![own], before: own.closed, after: after(partition, own) });
                }
            }
        }
        books
    }

    /// Where the groups of a timeline of the entry are among the books.
    fn book_number(line: LineNumber) -> usize {
        line.map_or(0, |number| number as usize)
    }

    /// A whole result.
    fn results(&self, entry: &Entry, moved: Moved) -> Result<Output, EngineError> {
        let Some((grouping, books)) = self.shown_books(entry, moved) else { return self.no_results() };
        let whole = Parts::of(self, grouping, &books, entry).next().map_err(|cause| self.fault(cause))?;
        whole.map_or_else(|| self.no_results(), Ok)
    }

    /// The grouping whose groups are result rows, and where they are; `None` without one.
    fn shown_books(&self, entry: &Entry, moved: Moved) -> Option<(&Grouping, Vec<Book<'_>>)> {
        match (self.query.groups.as_ref()?, &self.query.second) {
            (first, None) => Some((first, self.books(entry, moved))),
            (_, Some(over)) => {
                let book = Book { lines: vec![&self.second], before: self.closed, after: self.horizon() };
                Some((&over.grouping, vec![book]))
            }
        }
    }

    fn no_results(&self) -> Result<Output, EngineError> {
        let Some(top) = self.query.top() else { return Ok(Output::none(&self.query)) };
        output::no_rows(self, top).map_err(|cause| self.fault(cause))
    }

    /// Gives the rows of the windows that the entry has closed to the aggregate over them.
    fn fold_second(&mut self, entry: &Entry, moved: Moved) -> Result<Vec<String>, EngineError> {
        let query = Arc::clone(&self.query);
        let (Some(first), Some(second), false) = (&query.groups, &query.second, entry.snapshot) else { return Ok(Vec::new()) };
        let mut line = std::mem::take(&mut self.second);
        let folded = second::fold_closed(first, second, &self.books(entry, moved), &mut line);
        self.second = line;
        folded.map_err(|cause| self.fault(cause))
    }

    /// Whether a row of the whole result can be missing from the next: where steps leave rows out, and where sessions become one.
    fn rows_can_leave(&self) -> bool {
        // A session that grows together with another is another row.
        let merges = self.query.groups.as_ref().is_some_and(|grouping| grouping.session_gap().is_some());
        let leave = |step: &Step| !matches!(step, Step::Project(..) | Step::Order(_));
        self.query.is_complete() && (merges || self.query.after.iter().any(leave))
    }

    fn identities(&self, output: &Output) -> Result<HashSet<Identity>, EngineError> {
        let Some(top) = self.query.top() else { return Ok(HashSet::new()) };
        Ok(output.identities(top).map_err(|cause| self.fault(cause))?.into_iter().collect())
    }

    /// The rows that were in the whole result before, and are not in `output`, the whole result now.
    fn gone(&mut self, output: &Output) -> Result<Gone, EngineError> {
        let now = self.identities(output)?;
        let before = self.shown.take().unwrap_or_default();
        // A session that has only grown is the same row: its start and its key name it.
        let starts: HashSet<(i64, &RowBytes)> = now.iter().map(|((start, _), key)| (*start, key)).collect();
        let gone = before.into_iter().filter(|((start, _), key)| !starts.contains(&(*start, key))).collect();
        drop(starts);
        self.shown = Some(now);
        self.query.top().map_or_else(|| Ok(Gone::default()), |top| Gone::of(top, gone)).map_err(|cause| self.fault(cause))
    }

    /// Gives up what no row can reach any more.
    pub(crate) fn evict(&mut self, entry: &Entry, moved: Moved) {
        let query = Arc::clone(&self.query);
        if query.timeline.is_some() {
            self.evict_devices(entry, moved);
            return;
        }
        // A reading is looked for among those of its own partition, whose time may be further than the others'.
        let delay = self.delay();
        for partition in self.partitions.values_mut() {
            partition.shared.seen.evict(partition.time.watermark(delay).unwrap_or(i64::MIN));
        }
        // A whole result keeps all.
        let Some(horizon) = self.horizon().filter(|_| !query.is_complete()) else { return };
        let sessions: Vec<&Sessions> = self.partitions.values().map(|partition| &partition.shared.sessions).collect();
        let open = sessions::open_over(&sessions, horizon);
        for partition in self.partitions.values_mut() {
            partition.shared.evict(query.groups.as_ref(), horizon, &open);
        }
        if let Some(second) = &query.second {
            self.second.evict(Some(&second.grouping), horizon, &OpenSessions::default());
        }
        self.closed = Some(horizon);
    }

    fn evict_devices(&mut self, entry: &Entry, moved: Moved) {
        let (query, delay) = (Arc::clone(&self.query), self.delay());
        let Some(timeline) = &query.timeline else { return };
        for (number, partition) in &mut self.partitions {
            let devices: Vec<RowBytes> = match moved {
                Moved::All => partition.lines.keys().cloned().collect(),
                Moved::Touched => entry.lines.iter().filter(|line| line.partition == *number).map(|line| line.device.clone()).collect(),
            };
            let time = partition.time;
            let given_up = timeline.time(PartitionTime::default(), time).watermark(delay);
            for device in devices {
                let mut idle = false;
                partition.change(Some(&device), |line| {
                    let Some(horizon) = timeline.time(line.time, time).watermark(delay) else { return };
                    line.closed = Some(horizon);
                    // A whole result keeps all.
                    if query.is_complete() {
                        return line.seen.evict(horizon);
                    }
                    line.evict(query.groups.as_ref(), horizon, &OpenSessions::default());
                    // Its partition's time says as much about it as its own.
                    idle = line.rows() == 0 && line.time.watermark(delay) <= given_up;
                });
                if idle {
                    partition.forget(&device);
                }
            }
        }
    }

    /// The whole state as one entry, for a journal that starts anew with it.
    pub(crate) fn snapshot(&self) -> Entry {
        let mut entry = self.copied(Entry::add_states);
        entry.decisions = self.partitions.values().flat_map(Partition::decisions).collect();
        entry
    }

    /// Of the state what the results follow from. [`StateCopy::rows`] computes them, elsewhere.
    pub(crate) fn copy(&self) -> StateCopy {
        let partitions = self.partitions.keys().copied().collect();
        StateCopy { query: Arc::clone(&self.query), partitions, state: self.copied(Entry::add_groups) }
    }

    fn copied(&self, add: impl Fn(&mut Entry, i32, LineNumber, &Line)) -> Entry {
        let mut entry = Entry { snapshot: true, base: self.base, ..Entry::default() };
        for (number, partition) in &self.partitions {
            let Some(position) = partition.position else { continue };
            let (time, ledger) = (partition.time, partition.ledger);
            entry.progress.push(Progress { partition: *number, from: position, to: position, time, ledger });
            add(&mut entry, *number, None, &partition.shared);
            for (device, line) in &partition.lines {
                let line_number = u32::try_from(entry.lines.len()).ok();
                entry.lines.push(LineTime { partition: *number, device: device.clone(), time: line.time });
                add(&mut entry, *number, line_number, line);
            }
        }
        let second = self.second.panes.iter();
        entry.second = second
            .map(|(pane, key, state)| GroupState { partition: 0, line: None, pane, key: key.clone(), state: state.clone() })
            .collect();
        entry
    }

    /// Whether an entry goes on where this state stands.
    pub(crate) fn follows(&self, entry: &Entry) -> bool {
        self.follows_after(std::iter::empty(), entry)
    }

    /// Whether it goes on where this state stands with other entries before it, in order, that were not applied yet.
    pub(crate) fn follows_after<'a>(&self, waiting: impl DoubleEndedIterator<Item = &'a Entry> + Clone, entry: &Entry) -> bool {
        entry.progress.iter().all(|progress| {
            let Some(partition) = self.partitions.get(&progress.partition) else { return false };
            let newest = waiting.clone().rev().flat_map(|waiting| &waiting.progress).find(|found| found.partition == progress.partition);
            newest.map(|newest| newest.to).or(partition.position).is_none_or(|position| position == progress.from)
        })
    }
}

fn partition_of(
    partitions: &mut BTreeMap<i32, Partition>,
    number: i32,
    unknown: impl Fn(i32) -> EngineError,
) -> Result<&mut Partition, EngineError> {
    partitions.get_mut(&number).ok_or_else(|| unknown(number))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod tests;
