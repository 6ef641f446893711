//! Windows that have closed, computed once more from the log: with every row that belongs to them, late or not.
//!
//! It is the engine without its state and its lateness: rows of chosen windows and keys are folded in log order, all others only move the
//! time, which duplicates are judged by.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter, filter_record_batch};
use datafusion_common::Result;

use super::cells::{Book, Cell};
use super::clock::Clock;
use super::fold_rows::fold_rows;
use super::judge::{Judged, Lateness, Used, judge};
use super::output::{Evaluated, evaluate};
use super::{Input, Partition, PlainRows, Refused};
use crate::query::{Grouping, RowBytes, StreamQuery, normalize};

/// A window of a key: the window's start, zero without a window, and the key's bytes in this process.
pub(crate) type Target = (i64, RowBytes);

/// What belongs to some rows by themselves, whatever came before them.
pub(crate) struct Placed {
    /// The rows that can be used: the record's index in its input, and its windows. None for a query without a grouping.
    pub(crate) rows: Vec<(u32, Vec<Target>)>,
    /// The rows that still cannot be used.
    pub(crate) dead: Vec<Refused>,
    /// Rows that do not match WHERE, or are there twice.
    pub(crate) filtered: u64,
}

/// Finds the windows of each row of `input`, as if no window had closed.
///
/// # Errors
/// When an expression fails over the rows as a whole.
pub(crate) fn place(query: &StreamQuery, input: &Input) -> Result<Placed> {
    let Judged { counts, dead, used, .. } = judge(query, &Partition::default(), input, Lateness::Waived)?;
    let index = |row: &u32| input.decoded.rows[*row as usize];
    let rows = match &query.groups {
        None => used.rows.values().iter().map(|row| (index(row), Vec::new())).collect(),
        Some(grouping) => {
            let targets = targets(grouping, &used)?;
            used.rows.values().iter().zip(targets).map(|(row, targets)| (index(row), targets)).collect()
        }
    };
    Ok(Placed { rows, dead, filtered: counts.filtered })
}

/// The windows of each used row.
fn targets(grouping: &Grouping, used: &Used) -> Result<Vec<Vec<Target>>> {
    let keys = grouping.group_keys.rows(&used.keys)?;
    let row = |row: usize| -> Vec<Target> {
        let key = || RowBytes::from(keys.row(row));
        match grouping.panes() {
            Some(window) => window.windows(used.panes[row]).map(|start| (start, key())).collect(),
            None => vec![(0, key())],
        }
    };
    Ok((0..used.rows.len()).map(row).collect())
}

/// One row of each chosen window that still has one.
pub(crate) struct Recounted {
    pub(crate) rows: RecordBatch,
    /// The grouping columns other than the window.
    pub(crate) keys: Vec<ArrayRef>,
    /// Start and end of each row's window; empty for a query without a window.
    pub(crate) windows: Vec<(i64, i64)>,
    /// The chosen windows that have no row: HAVING leaves them out.
    pub(crate) without: usize,
    pub(crate) failed: Vec<String>,
}

/// Rows that cannot be read with the query as it is, and could be before.
pub(crate) struct NewDead {
    pub(crate) count: u64,
    /// Where the first one is, and what is wrong with it.
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) detail: String,
}

pub(crate) struct Recount {
    query: Arc<StreamQuery>,
    /// By key, the starts of its windows.
    targets: HashMap<RowBytes, HashSet<i64>>,
    /// Of a query without a grouping: the records that are chosen.
    records: HashSet<(i32, i64)>,
    partitions: BTreeMap<i32, Partition>,
    /// Of a changed query: the rows that were dead under the old one.
    known_dead: Option<HashSet<(i32, i64)>>,
    new_dead: Option<NewDead>,
    /// Event times of the readings that were folded, by partition and the columns that name a reading.
    folded: HashMap<(i32, RowBytes), i64>,
}

impl Recount {
    pub(crate) fn new(query: Arc<StreamQuery>, targets: impl IntoIterator<Item = Target>, records: HashSet<(i32, i64)>) -> Self {
        let mut by_key: HashMap<RowBytes, HashSet<i64>> = HashMap::new();
        for (start, key) in targets {
            by_key.entry(key).or_default().insert(start);
        }
        Self { query, targets: by_key, records, partitions: BTreeMap::new(), known_dead: None, new_dead: None, folded: HashMap::new() }
    }

    /// Looks for dead rows, by partition and offset, other than `known`.
    pub(crate) fn watch_dead(&mut self, known: HashSet<(i32, i64)>) {
        self.known_dead = Some(known);
    }

    /// The dead rows that [`Recount::watch_dead`] did not know.
    pub(crate) fn new_dead(&self) -> Option<&NewDead> {
        self.new_dead.as_ref()
    }

    /// Takes the next records of a partition, in log order. Gives the results of a query without a grouping. `offset` gives that of the
    /// record with an index.
    ///
    /// # Errors
    /// When an aggregate fails over the rows.
    pub(crate) fn feed(&mut self, input: &Input, offset: impl Fn(u32) -> i64) -> Result<Option<PlainRows>> {
        let query = Arc::clone(&self.query);
        let number = input.partition;
        let partition = self.partitions.entry(number).or_default();
        let judged = judge(&query, partition, input, Lateness::Waived)?;
        if let Some(known) = &self.known_dead {
            for row in judged.dead.iter().filter(|row| !known.contains(&(number, offset(row.index)))) {
                let first = || NewDead { count: 0, partition: number, offset: offset(row.index), detail: row.detail.clone() };
                self.new_dead.get_or_insert_with(first).count += 1;
            }
        }
        let Some(grouping) = &query.groups else {
            let chosen = |row: &u32| self.records.contains(&(number, offset(input.decoded.rows[*row as usize])));
            let mask = judged.used.rows.values().iter().map(chosen).collect();
            let mask = self.fresh(&query, input, &judged, mask)?;
            let rows = filter_record_batch(&judged.used.results, &mask)?;
            let source = |row: &u32| (input.decoded.rows[*row as usize], judged.clock.times[*row as usize]);
            let sources =
                filter(&judged.used.rows, &mask)?.as_primitive::<arrow::datatypes::UInt32Type>().values().iter().map(source).collect();
            self.pass(&query, number, judged);
            return Ok(Some(PlainRows { rows, sources }));
        };
        let mask = self.chosen(grouping, &judged.used)?;
        let mask = self.fresh(&query, input, &judged, mask)?;
        if mask.true_count() > 0 {
            let used = take(&judged.used, &mask)?;
            let partition = self.partitions.entry(number).or_default();
            let panes = &partition.shared.panes;
            let folded = fold_rows(grouping, &used, |_, pane, key| panes.get_pair(pane, key))?;
            for group in folded {
                partition.shared.panes.put(group.pane, group.key, group.state);
            }
        }
        self.pass(&query, number, judged);
        Ok(None)
    }

    /// Which used rows belong to a chosen window.
    fn chosen(&self, grouping: &Grouping, used: &Used) -> Result<BooleanArray> {
        let keys = grouping.group_keys.rows(&used.keys)?;
        let chosen = |row: usize| {
            let Some(starts) = self.targets.get(keys.row(row)) else { return false };
            match grouping.panes() {
                Some(window) => window.windows(used.panes[row]).any(|start| starts.contains(&start)),
                None => true,
            }
        };
        Ok((0..used.rows.len()).map(|row| Some(chosen(row))).collect())
    }

    /// Takes out the late rows that are readings which were there already. Of rows in time the watermark has decided; of a late one, a
    /// reading of the same name whose event time is no further away than the delay.
    fn fresh(&mut self, query: &StreamQuery, input: &Input, judged: &Judged, mask: BooleanArray) -> Result<BooleanArray> {
        let Some(dedup) = &query.dedup else { return Ok(mask) };
        let delay = query.file.source.watermark.millis();
        let columns: Vec<ArrayRef> =
            dedup.columns.iter().map(|column| normalize(Arc::clone(input.decoded.batch.column(*column)))).collect();
        let keys = dedup.rows.rows(&columns)?;
        let mut fresh = Vec::with_capacity(mask.len());
        for (row, chosen) in judged.used.rows.values().iter().zip(mask.values()) {
            let (time, watermark) = (judged.clock.times[*row as usize], judged.clock.watermarks[*row as usize]);
            let name = (input.partition, RowBytes::from(keys.row(*row as usize)));
            let is_repeated =
                time <= watermark && self.folded.get(&name).is_some_and(|before| before.abs_diff(time) <= delay.unsigned_abs());
            if chosen && !is_repeated {
                self.folded.insert(name, time);
            }
            fresh.push(chosen && !is_repeated);
        }
        Ok(BooleanArray::from(fresh))
    }

    /// What the rows leave for those after them: times, and the readings that were there.
    fn pass(&mut self, query: &StreamQuery, number: i32, judged: Judged) {
        let delay = query.file.source.watermark.millis();
        let partition = self.partitions.entry(number).or_default();
        partition.time = judged.time;
        let devices = judged.clock.devices.map(|devices| devices.lines).unwrap_or_default();
        for (device, time) in &devices {
            partition.change(Some(device), |line| line.time = *time);
        }
        for (line, key, expiry) in judged.seen {
            let device = line.and_then(|number| devices.get(number as usize)).map(|(device, _)| device);
            partition.change(device, |line| line.seen.put(key, expiry));
        }
        let watermark = partition.time.watermark(delay).unwrap_or(i64::MIN);
        partition.shared.seen.evict(watermark);
        for (device, time) in &devices {
            let watermark = query
                .timeline
                .as_ref()
                .map_or(watermark, |timeline| timeline.time(*time, partition.time).watermark(delay).unwrap_or(i64::MIN));
            partition.change(Some(device), |line| line.seen.evict(watermark));
        }
    }

    /// The rows of the chosen windows.
    ///
    /// # Errors
    /// When the results cannot be computed at all; what fails for one window is told in [`Recounted::failed`].
    pub(crate) fn finish(self) -> Result<Recounted> {
        let query = Arc::clone(&self.query);
        let Some(grouping) = &query.groups else {
            return Ok(Recounted {
                rows: RecordBatch::new_empty(Arc::clone(&query.output)),
                keys: Vec::new(),
                windows: Vec::new(),
                without: 0,
                failed: Vec::new(),
            });
        };
        let book = Book { lines: self.partitions.values().map(|partition| &partition.shared).collect(), before: None, after: None };
        let mut cells = Vec::new();
        for (key, starts) in &self.targets {
            let has_rows = |start: i64| book.lines.iter().any(|line| holds(grouping, &line.panes, start, key));
            cells.extend(starts.iter().filter(|start| has_rows(**start)).map(|start| {
                let end = grouping.panes().map_or(0, |window| window.end(*start));
                Cell { end, start: *start, key, book: 0 }
            }));
        }
        cells.sort_unstable();
        let Evaluated { rows, kept, failed } = evaluate(grouping, &[book], &cells, &query.after)?;
        let shown: Vec<&Cell<'_>> = kept.values().iter().map(|place: &u32| &cells[*place as usize]).collect();
        Ok(Recounted {
            keys: grouping.group_keys.columns(shown.iter().map(|cell| &**cell.key))?,
            windows: if grouping.window.is_some() { shown.iter().map(|cell| (cell.start, cell.end)).collect() } else { Vec::new() },
            without: cells.len() - shown.len() - failed.len(),
            rows,
            failed,
        })
    }
}

/// Whether a window of a key has rows.
fn holds(grouping: &Grouping, panes: &super::panes::PaneStates, start: i64, key: &[u8]) -> bool {
    let range = match grouping.panes() {
        Some(window) => start..window.end(start),
        None => 0..1,
    };
    panes.panes(range).any(|(_, groups)| groups.contains_key(key))
}

/// Some of the used rows.
fn take(used: &Used, mask: &BooleanArray) -> Result<Used> {
    let places: UInt32Array = (0..u32::try_from(mask.len()).unwrap_or(u32::MAX)).filter(|place| mask.value(*place as usize)).collect();
    Ok(Used {
        rows: filter(&used.rows, mask)?.as_primitive().clone(),
        panes: if used.panes.is_empty() { Vec::new() } else { places.values().iter().map(|place| used.panes[*place as usize]).collect() },
        keys: used.keys.iter().map(|column| Ok(filter(column, mask)?)).collect::<Result<_>>()?,
        arguments: used.arguments.take(&places)?,
        results: used.results.slice(0, 0),
    })
}

/// The event time of the first row that can be used.
///
/// # Errors
/// When a column cannot be read.
pub(crate) fn first_time(query: &StreamQuery, input: &Input) -> Result<Option<i64>> {
    let clock = Clock::read(query, &Partition::default(), input, Lateness::Waived, &mut Vec::new())?;
    Ok((0..clock.times.len()).find(|row| clock.alive.value(*row)).map(|row| clock.times[row]))
}
