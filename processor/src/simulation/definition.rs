//! What must become of every row, by the definition: a loop over the log that knows no batches, no panes and no states.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveTime, TimeZone as _};
use chrono_tz::Tz;

use super::query::{Mode, Query, Window};
use super::world::{Delivery, MAX_FUTURE, Reading};
use crate::engine::Progress;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Dead,
    Filtered,
    Late,
    Used,
}

/// The values of the grouping columns, as texts.
pub(super) type Key = Vec<Option<String>>;

/// A partition and the place of a row in its log.
type Place = (i32, usize);

/// A window of a group, and the rows that it counts, by partition and then in the order of the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) start: i64,
    pub(super) end: i64,
    /// Where a session may meet those of other partitions.
    from: i64,
    pub(super) rows: Vec<(i32, usize)>,
    /// Whether its window has closed.
    pub(super) is_final: bool,
}

#[derive(Debug, Default)]
pub(super) struct Defined {
    pub(super) outcomes: BTreeMap<(i32, usize), Outcome>,
    pub(super) cells: Vec<Cell>,
}

/// One timeline.
#[derive(Debug, Default)]
struct Line {
    newest: Option<i64>,
    floor: Option<i64>,
    /// Window (start, end) and key, to its rows.
    cells: BTreeMap<(i64, i64, Key), Vec<usize>>,
    sessions: BTreeMap<Key, Vec<Cell>>,
    seen: BTreeMap<Key, i64>,
}

#[derive(Debug, Default)]
struct Partition {
    newest: Option<i64>,
    lines: BTreeMap<Option<String>, Line>,
}

/// The outcomes and cells of one shard. `decisions` are those of the wall clock.
pub(super) fn define(query: &Query, logs: &BTreeMap<i32, Vec<&Delivery>>, decisions: &[Progress]) -> Defined {
    let mut defined = Defined::default();
    let mut partitions: BTreeMap<i32, Partition> = BTreeMap::new();
    for (number, log) in logs {
        let partition = partitions.entry(*number).or_default();
        let decided = |offset: usize| {
            decisions.iter().filter(move |decision| decision.partition == *number && usize::try_from(decision.to).unwrap() == offset)
        };
        for (offset, delivery) in log.iter().enumerate() {
            decided(offset).for_each(|decision| partition.decide(query, decision.time.floor.unwrap()));
            defined.outcomes.insert((*number, offset), partition.judge(query, delivery, offset));
        }
        decided(log.len()).for_each(|decision| partition.decide(query, decision.time.floor.unwrap()));
    }
    defined.cells = cells(query, &partitions);
    defined
}

impl Partition {
    /// The watermark of a timeline; `None` before its first row.
    fn watermark(&self, query: &Query, line: &Line) -> Option<i64> {
        // Devices are given up in steps of an eighth of the silence.
        let given_up = query.silence.and_then(|silence| self.newest.map(|newest| newest - newest.rem_euclid(silence / 8) - silence));
        line.newest.max(given_up).map(|newest| newest - query.delay).max(line.floor)
    }

    fn decide(&mut self, query: &Query, floor: i64) {
        if query.silence.is_none() {
            let line = self.lines.entry(None).or_default();
            line.floor = line.floor.max(Some(floor));
            return;
        }
        for line in self.lines.values_mut() {
            let ends = line.cells.keys().map(|(_, end, _)| *end).chain(line.sessions.values().flatten().map(|session| session.end));
            line.floor = line.floor.max(ends.filter(|end| *end <= floor).max());
        }
    }

    fn judge(&mut self, query: &Query, delivery: &Delivery, offset: usize) -> Outcome {
        let Some(reading) = &delivery.reading else { return Outcome::Dead };
        let Some(ts) = reading.ts.filter(|ts| is_usable(*ts, delivery.received)) else { return Outcome::Dead };
        let name = query.silence.map(|_| reading.sensor.clone().unwrap_or_else(|| "null".to_owned()));
        let mut line = self.lines.remove(&name).unwrap_or_default();
        let watermark = self.watermark(query, &line).unwrap_or(i64::MIN);
        // A clock that is ahead moves no time past that of the receipt.
        let known = if delivery.received < 0 { ts } else { ts.min(delivery.received) };
        line.newest = line.newest.max(Some(known));
        self.newest = self.newest.max(Some(known));
        let outcome = line.put(query, reading, ts, watermark, offset, delivery.partition);
        self.lines.insert(name, line);
        outcome
    }
}

fn is_usable(ts: i64, received: i64) -> bool {
    ts.unsigned_abs() <= 250_000 * 366 * 86_400_000 && (received < 0 || ts <= received + MAX_FUTURE)
}

impl Line {
    fn put(&mut self, query: &Query, reading: &Reading, ts: i64, watermark: i64, offset: usize, partition: i32) -> Outcome {
        if !query.dedup.is_empty() {
            let key: Key = query.dedup.iter().map(|column| value(reading, column)).collect();
            if ts <= watermark {
                return Outcome::Late;
            }
            if self.seen.get(&key).is_some_and(|expiry| *expiry > watermark) {
                return Outcome::Filtered;
            }
            self.seen.insert(key, ts + query.delay);
        }
        if query.condition.is_some_and(|condition| !condition.1(reading)) {
            return Outcome::Filtered;
        }
        let watermark = if query.mode == Mode::Complete { i64::MIN } else { watermark };
        let key: Key = query.keys.iter().map(|column| value(reading, column)).collect();
        if let Window::Session(gap) = query.window {
            return self.join(key, ts, gap, watermark, (partition, offset));
        }
        let open: Vec<(i64, i64)> = windows(query.window, ts).into_iter().filter(|(_, end)| *end > watermark).collect();
        for (start, end) in &open {
            self.cells.entry((*start, *end, key.clone())).or_default().push(offset);
        }
        if open.is_empty() { Outcome::Late } else { Outcome::Used }
    }

    fn join(&mut self, key: Key, ts: i64, gap: i64, watermark: i64, row: (i32, usize)) -> Outcome {
        if ts + gap <= watermark {
            return Outcome::Late;
        }
        let own = self.sessions.entry(key).or_default();
        let (open, mut rest): (Vec<Cell>, Vec<Cell>) = own.drain(..).partition(|session| session.end > watermark);
        let new = Cell { start: ts, end: ts + gap, from: ts.max(watermark.saturating_add(1)), rows: vec![row], is_final: false };
        rest.extend(joined([vec![new], open].concat()));
        *own = rest;
        Outcome::Used
    }
}

/// Joins sessions that touch, until none do.
fn joined(mut all: Vec<Cell>) -> Vec<Cell> {
    loop {
        let pairs = (0..all.len()).flat_map(|a| (0..a).map(move |b| (b, a)));
        let Some((b, a)) = pairs.into_iter().find(|(b, a)| all[*b].from <= all[*a].end && all[*a].from <= all[*b].end) else { return all };
        let second = all.remove(a);
        let first = &mut all[b];
        (first.start, first.end, first.from) = (first.start.min(second.start), first.end.max(second.end), first.from.min(second.from));
        first.rows.extend(second.rows);
        first.rows.sort_unstable();
    }
}

/// All windows that a time lies in.
fn windows(window: Window, ts: i64) -> Vec<(i64, i64)> {
    match window {
        Window::None => vec![(0, i64::MAX)],
        Window::Panes(size, slide, start) => {
            let newest = ts - (ts - start).rem_euclid(slide);
            let starts = (0..).map(|back| newest - back * slide).take_while(|start| start + size > ts);
            starts.map(|start| (start, start + size)).collect()
        }
        Window::Days(zone, days) => {
            let zone: Tz = zone.parse().unwrap();
            let date = zone.timestamp_millis_opt(ts).unwrap().date_naive();
            let midnight =
                |date: chrono::NaiveDate| zone.from_local_datetime(&date.and_time(NaiveTime::MIN)).earliest().unwrap().timestamp_millis();
            let back = |back: i64| date - Days::new(back.unsigned_abs());
            (0..days).map(|first| (midnight(back(first)), midnight(back(first) + Days::new(days.unsigned_abs())))).collect()
        }
        Window::Session(_) | Window::Calendar(..) => Vec::new(),
    }
}

pub(super) fn value(reading: &Reading, column: &str) -> Option<String> {
    match column {
        "sensor_id" => reading.sensor.clone(),
        "kind" => reading.kind.clone(),
        "seq" => reading.seq.map(|seq| seq.to_string()),
        "seq % 2" => reading.seq.map(|seq| (seq % 2).to_string()),
        "ts" => reading.ts.map(|ts| ts.to_string()),
        other => panic!("there is no column {other}"),
    }
}

fn cells(query: &Query, partitions: &BTreeMap<i32, Partition>) -> Vec<Cell> {
    let closes = query.closes();
    let mut cells = Vec::new();
    if query.silence.is_some() {
        for (number, partition) in partitions {
            for line in partition.lines.values() {
                cells.extend(cells_of(&[(*number, line)], partition.watermark(query, line).filter(|_| closes)));
            }
        }
        return cells;
    }
    let nobody = Line::default();
    let line = |partition: &'_ Partition| partition.lines.get(&None).and_then(|line| partition.watermark(query, line));
    let horizon = partitions.values().map(line).min().flatten().filter(|_| closes);
    let lines: Vec<(i32, &Line)> =
        partitions.iter().map(|(number, partition)| (*number, partition.lines.get(&None).unwrap_or(&nobody))).collect();
    cells_of(&lines, horizon)
}

/// The cells of timelines that are merged for results.
fn cells_of(lines: &[(i32, &Line)], horizon: Option<i64>) -> Vec<Cell> {
    let is_final = |end: i64| horizon.is_some_and(|horizon| end <= horizon);
    let mut merged: BTreeMap<&(i64, i64, Key), Vec<Place>> = BTreeMap::new();
    let mut sessions: BTreeMap<&Key, Vec<Cell>> = BTreeMap::new();
    for (number, line) in lines {
        for (cell, rows) in &line.cells {
            merged.entry(cell).or_default().extend(rows.iter().map(|row| (*number, *row)));
        }
        for (key, own) in &line.sessions {
            sessions.entry(key).or_default().extend(own.iter().cloned());
        }
    }
    let panes =
        merged.into_iter().map(|((start, end, _), rows)| Cell { start: *start, end: *end, from: *start, rows, is_final: is_final(*end) });
    let sessions = sessions.into_values().flat_map(joined).map(|session| Cell { is_final: is_final(session.end), ..session });
    panes.chain(sessions).collect()
}

/// The sensors' rows that are late.
pub(super) fn late(defined: &Defined) -> BTreeSet<(i32, usize)> {
    defined.outcomes.iter().filter(|(_, outcome)| **outcome == Outcome::Late).map(|(row, _)| *row).collect()
}
