//! One result row: the rows behind it, and the row computed once more from the log, under the rules that it was computed by.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use common::{Settings, topics};
use serde::Serialize;
use serde_json::value::RawValue;

use super::change::{Journals, journals};
use super::error::{ProcessorError, TaskError};
use super::history::History;
use super::owner::Owner;
use super::replay::{Held, Identity, decode, newest_rows, window_rows};
use super::scan::{fault, partitions};
use crate::engine::recount::Recount;
use crate::engine::trace::{Outcome, Traced};
use crate::engine::{Decision, Engine, Entry, MOST_DECISIONS, Output, PartitionTime, Progress};
use crate::format::encode::{JsonRows, key_text};
use crate::query::{Change, Scope, StreamQuery};

/// What is behind a result row.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    pub(crate) query: String,
    /// Epoch milliseconds; absent without a window, and of a session that is not there.
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
    pub(crate) key: String,
    /// By input partition, those that have rows of the window and key. Absent for an aggregate over an aggregate.
    pub(crate) partitions: Option<BTreeMap<i32, Behind>>,
    /// What the engine gives over the log.
    pub(crate) recomputed: Option<Row>,
    /// The same with all late rows, when the result is a correction.
    pub(crate) corrected: Option<Box<RawValue>>,
    /// What the result topic holds.
    pub(crate) result: Option<ResultRow>,
    pub(crate) equal: bool,
    /// Why they may differ.
    pub(crate) reasons: Vec<String>,
}

/// The rows of one input partition.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Behind {
    /// Of the rows that were used.
    pub(crate) first_offset: Option<i64>,
    pub(crate) last_offset: Option<i64>,
    pub(crate) used: u64,
    pub(crate) late: u64,
    pub(crate) dead: u64,
    pub(crate) filtered: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    #[serde(rename = "final")]
    pub(crate) is_final: bool,
    pub(crate) value: Box<RawValue>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ResultRow {
    pub(crate) topic: String,
    pub(crate) revision: i64,
    #[serde(rename = "final")]
    pub(crate) is_final: bool,
    pub(crate) restated: bool,
    pub(crate) value: Option<Box<RawValue>>,
}

pub(crate) struct Explain<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) query: Arc<StreamQuery>,
    /// Start of the window; 0 without one.
    pub(crate) start: i64,
    /// As the record's key has it.
    pub(crate) key: Vec<u8>,
    pub(crate) owner: &'a Owner,
}

/// A row of the window and key, wherever it ended.
struct Place {
    partition: i32,
    offset: i64,
    row: Traced,
}

/// What the engine gave over the log.
#[derive(Default)]
struct Computed {
    places: Vec<Place>,
    /// The newest row, its window's end, and whether it is final.
    row: Option<(Vec<u8>, i64, bool)>,
    /// Partitions whose log does not begin at 0, with where it begins.
    cut: Vec<(i32, i64)>,
}

impl Explain<'_> {
    /// Computes the row and compares it.
    ///
    /// # Errors
    /// When the query's rows have no window and key to ask for, or the log cannot be read.
    pub(crate) fn run(&self) -> Result<Explanation, ProcessorError> {
        let name = &self.query.file.name;
        let journals = journals(self.settings, &self.query, self.owner)?;
        if journals.written().next().is_none() {
            let topic = topics::journal(name);
            return Err(ProcessorError::Task(format!("query '{name}' has not committed anything yet (topic {topic} is empty)")));
        }
        let computed = self.compute(&journals)?;
        let window_end = self.query.top().and_then(|top| top.panes()).map(|window| window.end(self.start));
        let end = window_end.or(computed.row.as_ref().map(|(_, end, _)| *end).filter(|end| *end != 0));
        let held = self.held(end)?;
        let corrected = match &held {
            Some(held) if held.is_restated => self.corrected(&computed, &journals)?,
            _ => None,
        };
        let expected = corrected.as_ref().or(computed.row.as_ref().map(|(value, _, _)| value));
        let equal = match (&held, expected) {
            (Some(held), Some(expected)) => held.value.as_ref() == Some(expected),
            _ => false,
        };
        let mut reasons = Vec::new();
        if !equal {
            reasons = self.reasons(&journals, &computed, held.as_ref());
        }
        let is_windowed = self.query.top().is_some_and(|top| top.window.is_some());
        Ok(Explanation {
            query: name.clone(),
            start: is_windowed.then_some(self.start),
            end: end.filter(|_| is_windowed),
            key: String::from_utf8_lossy(&self.key).into_owned(),
            partitions: self.query.second.is_none().then(|| behind(&computed.places, end)),
            recomputed: computed.row.map(|(value, _, is_final)| Row { is_final, value: raw(value) }),
            corrected: corrected.map(raw),
            result: held.map(|held| ResultRow {
                topic: self.query.file.output_topic(),
                revision: held.revision,
                is_final: held.is_final,
                restated: held.is_restated,
                value: held.value.map(raw),
            }),
            equal,
            reasons,
        })
    }

    /// The newest row of the window and key in the result topic. A session is known by its start: of several the newest.
    fn held(&self, end: Option<i64>) -> Result<Option<Held>, ProcessorError> {
        let wanted = |identity: &Identity| match identity {
            Identity::Window((start, stop), key) => *start == self.start && end.is_none_or(|end| end == *stop) && *key == self.key,
            Identity::Record(_) => false,
        };
        let found = newest_rows(self.settings, &self.query, self.owner, wanted)?;
        Ok(found.into_values().max_by_key(|held| held.revision))
    }

    /// Runs the engine over the log, up to where the query has committed.
    fn compute(&self, journals: &Journals) -> Result<Computed, ProcessorError> {
        let input: Vec<i32> = partitions(self.settings, &self.query.file.source.topic)?;
        let shards: Vec<Vec<i32>> = match self.query.scope {
            Scope::Partition => input.into_iter().map(|partition| vec![partition]).collect(),
            Scope::Topic => vec![input],
        };
        let mut computed = Computed::default();
        for shard in shards {
            self.compute_shard(&shard, journals, &mut computed).map_err(fault)?;
        }
        Ok(computed)
    }

    fn compute_shard(&self, shard: &[i32], journals: &Journals, computed: &mut Computed) -> Result<(), TaskError> {
        let mut engine = Engine::new(Arc::clone(&self.query), shard.iter().copied());
        let mut decoder = self.query.decoder();
        let mut logs = Vec::new();
        for progress in journals.progress().filter(|progress| shard.contains(&progress.partition)) {
            let history = History::open(self.settings, &self.query, progress.partition, progress.to, self.owner)?;
            if history.first() > 0 {
                computed.cut.push((progress.partition, history.first()));
            }
            logs.push((progress.partition, history, journals.decisions(progress.partition).collect::<VecDeque<Decision>>()));
        }
        // In turns, so that no partition's windows wait for long for those of another.
        while !logs.is_empty() {
            let mut open = Vec::with_capacity(logs.len());
            for (partition, mut history, mut decisions) in logs {
                let stop = decisions.front().map_or(i64::MAX, |decision| decision.offset);
                if let Some(records) = history.next(stop, self.owner)? {
                    let input = decode(&self.query, records, &mut decoder)?;
                    let traced = engine.trace(&input, self.start, &self.key).map_err(|cause| self.broken(&cause))?;
                    let place = |row: Traced| Place { partition, offset: records.get(row.index as usize).offset, row };
                    computed.places.extend(traced.into_iter().map(place));
                    let prepared = engine.prepare(vec![input])?;
                    self.keep(&engine.apply(&prepared.entry)?, computed)?;
                } else if let Some(decision) = decisions.pop_front() {
                    self.keep(&engine.apply(&decided(&engine, decision))?, computed)?;
                } else {
                    continue;
                }
                open.push((partition, history, decisions));
            }
            logs = open;
        }
        Ok(())
    }

    fn broken(&self, cause: &datafusion_common::DataFusionError) -> TaskError {
        TaskError::Fatal(format!("query '{}' cannot be computed: {}", self.query.file.name, cause.strip_backtrace()))
    }

    /// Keeps the row when it is among those of a step.
    fn keep(&self, output: &Output, computed: &mut Computed) -> Result<(), TaskError> {
        let is_key = |columns, row| {
            let mut text = Vec::new();
            key_text(columns, row, &mut text);
            text == self.key
        };
        let starts = |windows: &[(i64, i64)], row: usize| windows.get(row).is_none_or(|window| window.0 == self.start);
        if (0..output.gone.count).any(|row| starts(&output.gone.windows, row) && is_key(&output.gone.keys, row)) {
            computed.row = None;
        }
        let Some(row) = (0..output.rows.num_rows()).find(|row| starts(&output.windows, *row) && is_key(&output.keys, *row)) else {
            return Ok(());
        };
        let mut value = Vec::new();
        JsonRows::new(&output.rows).map_err(TaskError::Fatal)?.write_row(row, &mut value);
        computed.row = Some((value, output.windows.get(row).map_or(0, |window| window.1), output.finals[row]));
        Ok(())
    }

    /// The row with all of its late rows.
    fn corrected(&self, computed: &Computed, journals: &Journals) -> Result<Option<Vec<u8>>, ProcessorError> {
        let Some(key) = computed.places.first().map(|place| place.row.key.clone()) else { return Ok(None) };
        let mut recount = Recount::new(Arc::clone(&self.query), [(self.start, key)], Default::default());
        let mut decoder = self.query.decoder();
        for progress in journals.progress() {
            let opened = History::open(self.settings, &self.query, progress.partition, progress.to, self.owner);
            let mut history = opened.map_err(fault)?;
            while let Some(records) = history.next(i64::MAX, self.owner).map_err(fault)? {
                let input = decode(&self.query, records, &mut decoder).map_err(fault)?;
                recount.feed(&input, |index| records.get(index as usize).offset).map_err(|cause| fault(self.broken(&cause)))?;
            }
        }
        let recounted = recount.finish().map_err(|cause| fault(self.broken(&cause)))?;
        Ok(window_rows(&recounted).map_err(fault)?.pop().map(|row| row.value))
    }

    fn reasons(&self, journals: &Journals, computed: &Computed, held: Option<&Held>) -> Vec<String> {
        let mut reasons = Vec::new();
        let topic = self.query.file.output_topic();
        match (held, &computed.row) {
            (None, None) => reasons.push("no row that was used belongs to this window and key, or HAVING leaves it out".to_owned()),
            (None, Some(_)) => {
                reasons.push(format!("topic {topic} holds no such row: its retention deleted it, or it was not written yet"))
            }
            (Some(_), None) => reasons.push("the log no longer gives such a row".to_owned()),
            (Some(held), Some((_, _, true))) if !held.is_final => {
                reasons.push("the window has closed, and the result topic does not hold its final row yet".to_owned());
            }
            (Some(_), Some(_)) => {}
        }
        for (partition, first) in &computed.cut {
            reasons.push(format!("the log of partition {partition} begins at offset {first}: retention deleted what was before"));
        }
        for progress in journals.progress() {
            let kept = journals.decisions(progress.partition).count();
            if kept == MOST_DECISIONS || (kept == 0 && progress.time.floor.is_some()) {
                let partition = progress.partition;
                reasons.push(format!("the wall clock closed windows of partition {partition} and not all of its decisions are kept"));
            }
        }
        let changes = journals.written().filter_map(|peeked| peeked.description.as_ref()).flat_map(|before| {
            let (state, output) = before.changes(&self.query.description);
            state.into_iter().chain(output)
        });
        let mut changes: Vec<Change> = changes.filter(|change| !change.what.ends_with("trigger")).collect();
        changes.dedup();
        reasons.extend(changes.iter().map(|change| format!("the query file has changed: {change}")));
        if reasons.is_empty() {
            reasons.push("an earlier form of the query wrote the row, or somebody else did".to_owned());
        }
        reasons
    }
}

/// The entry that takes a decision again.
fn decided(engine: &Engine, decision: Decision) -> Entry {
    let partition = engine.partitions().get(&decision.partition);
    let (time, ledger) = partition.map(|partition| (partition.time, partition.ledger)).unwrap_or_default();
    let position = partition.and_then(|partition| partition.position).unwrap_or(decision.offset);
    let time = PartitionTime { floor: Some(decision.floor), ..time };
    let progress = Progress { partition: decision.partition, from: position, to: position, time, ledger };
    Entry { progress: vec![progress], decisions: vec![decision], ..Entry::default() }
}

fn behind(places: &[Place], end: Option<i64>) -> BTreeMap<i32, Behind> {
    let mut all: BTreeMap<i32, Behind> = BTreeMap::new();
    for place in places.iter().filter(|place| end.is_none_or(|end| place.row.time < end)) {
        let behind = all.entry(place.partition).or_default();
        match place.row.outcome {
            Outcome::Used => {
                behind.used += 1;
                behind.first_offset.get_or_insert(place.offset);
                behind.last_offset = Some(place.offset);
            }
            Outcome::Late => behind.late += 1,
            Outcome::Dead => behind.dead += 1,
            Outcome::Filtered => behind.filtered += 1,
        }
    }
    all
}

/// Result rows are JSON already.
fn raw(value: Vec<u8>) -> Box<RawValue> {
    let text = String::from_utf8_lossy(&value).into_owned();
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
