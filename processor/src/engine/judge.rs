//! The decision about every row: dead, filtered, late or used. Each row has exactly one of them.
//!
//! The decision depends on the row and on the rows before it in its partition, never on batches: the watermark is that of the row's own
//! prefix.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, concat_batches, filter, filter_record_batch};
use datafusion_common::Result;
use hashbrown::HashMap;

use super::clock::Clock;
use super::entry::{LineKey, LineNumber};
use super::halves::in_halves;
use super::{Ledger, Partition, PartitionTime};
use crate::format::decode::Decoded;
use crate::query::{Arguments, Pane, PaneFinder, RowBytes, Step, StreamQuery, normalize};

/// The records of one partition, decoded.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) partition: i32,
    /// First offset; used only when the partition has no position yet.
    pub(crate) from: i64,
    /// One past the last offset.
    pub(crate) to: i64,
    /// Time of receipt of each record, milliseconds; negative when unknown.
    pub(crate) received: Vec<i64>,
    pub(crate) decoded: Decoded,
}

/// A row for a lane: the record's index in its input, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    pub(crate) index: u32,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

/// Reasons that the engine adds to those of the decoder.
pub(crate) struct DeadReason;

impl DeadReason {
    pub(crate) const NO_EVENT_TIME: &'static str = "no_event_time";
    pub(crate) const OUT_OF_RANGE: &'static str = "out_of_range";
    pub(crate) const FUTURE: &'static str = "future";
    pub(crate) const EXPRESSION: &'static str = "expression";
    pub(crate) const LATE: &'static str = "late";
}

/// The rows that are folded, in log order; without a grouping, the rows that are results.
pub(crate) struct Used {
    /// Rows of the decoded batch.
    pub(crate) rows: UInt32Array,
    /// Empty when the groups have no panes.
    pub(crate) panes: Vec<Pane>,
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) arguments: Arguments,
    /// The columns of a query without a grouping; else without rows.
    pub(crate) results: RecordBatch,
}

pub(crate) struct Judged {
    /// The partition's time after the input.
    pub(crate) time: PartitionTime,
    /// What the input adds to the ledger.
    pub(crate) counts: Ledger,
    pub(crate) late: Vec<Refused>,
    pub(crate) dead: Vec<Refused>,
    pub(crate) used: Used,
    /// Time and, when devices have their own, timeline of each decoded row.
    pub(crate) clock: Clock,
    /// Readings that were new: timeline, key, expiry.
    pub(crate) seen: Vec<(LineNumber, RowBytes, i64)>,
}

/// Whether a row can be late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lateness {
    Counts,
    /// Every row is in time, as when windows that have closed are computed once more.
    Waived,
}

/// Decides about every row of `input`, given the partition's state before it.
pub(crate) fn judge(query: &StreamQuery, partition: &Partition, input: &Input, lateness: Lateness) -> Result<Judged> {
    let decoded = &input.decoded;
    let mut dead: Vec<Refused> =
        decoded.dead.iter().map(|row| Refused { index: row.index, reason: row.reason, detail: row.detail.clone() }).collect();
    let clock = Clock::read(query, partition, input, lateness, &mut dead)?;

    let rows = UInt32Array::from_iter_values(0..u32::try_from(decoded.batch.num_rows()).unwrap_or(u32::MAX));
    let (batch, rows) = keep(&decoded.batch, &rows, &clock.alive)?;
    let timely = batch.num_rows();
    let Fresh { rows, batch, stale, repeated, seen } = Fresh::of(query, partition, &clock, batch, rows)?;
    let (evaluated, broken) = evaluate_all(query, &clock, &batch, &rows)?;
    dead.extend(broken.iter().map(|(row, detail)| Refused {
        index: decoded.rows[*row as usize],
        reason: DeadReason::EXPRESSION,
        detail: detail.clone(),
    }));
    let Evaluated { used, mut late_rows, matched } = evaluated;
    // A row that was made into several is one row, and they share its event time.
    late_rows.dedup();
    let mut late = stale.iter().chain(&late_rows).map(|row| clock.late(query, *row, decoded.rows[*row as usize])).collect::<Vec<_>>();
    late.sort_by_key(|row| row.index);
    let counts = Ledger {
        read: input.received.len() as u64,
        used: of_input(&used.rows) as u64,
        late: late.len() as u64,
        dead: dead.len() as u64,
        filtered: (timely - stale.len() - broken.len() - matched) as u64,
        duplicates: repeated,
    };
    dead.sort_by_key(|row| row.index);
    Ok(Judged { time: clock.after, counts, late, dead, used, clock, seen })
}

/// The rows that are not readings which were there before.
struct Fresh {
    rows: UInt32Array,
    batch: RecordBatch,
    /// Rows too old to tell.
    stale: Vec<u32>,
    repeated: u64,
    seen: Vec<(LineNumber, RowBytes, i64)>,
}

impl Fresh {
    /// A reading is known for as long as the watermark has not passed its event time and the delay. A row behind the watermark is late, as
    /// in Spark: nobody could say whether it was there before.
    fn of(query: &StreamQuery, partition: &Partition, clock: &Clock, batch: RecordBatch, rows: UInt32Array) -> Result<Self> {
        let mut fresh = Self { rows, batch, stale: Vec::new(), repeated: 0, seen: Vec::new() };
        let Some(dedup) = &query.dedup else { return Ok(fresh) };
        let delay = query.file.source.watermark.millis();
        let columns: Vec<ArrayRef> = dedup.columns.iter().map(|column| normalize(Arc::clone(fresh.batch.column(*column)))).collect();
        let keys = dedup.rows.rows(&columns)?;
        let mut new: HashMap<(LineNumber, RowBytes), i64> = HashMap::new();
        let mut kept = Vec::with_capacity(fresh.rows.len());
        for (place, row) in fresh.rows.values().iter().enumerate() {
            let (time, watermark) = (clock.times[*row as usize], clock.watermarks[*row as usize]);
            let line = clock.line(*row);
            let key = keys.row(place);
            let known = new.get(&LineKey(line, key)).copied().or_else(|| clock.line_state(partition, line)?.seen.expiry(key));
            let outcome = if time <= watermark {
                if clock.lateness == Lateness::Counts {
                    fresh.stale.push(*row);
                }
                clock.lateness == Lateness::Waived
            } else if known.is_some_and(|expiry| expiry > watermark) {
                fresh.repeated += 1;
                false
            } else {
                new.insert((line, key.into()), time.saturating_add(delay));
                true
            };
            kept.push(outcome);
        }
        (fresh.batch, fresh.rows) = keep(&fresh.batch, &fresh.rows, &BooleanArray::from(kept))?;
        fresh.seen = new.into_iter().map(|((line, key), expiry)| (line, key, expiry)).collect();
        // The journal's bytes do not depend on a hash.
        fresh.seen.sort_unstable();
        Ok(fresh)
    }
}

struct Evaluated {
    used: Used,
    /// Rows of the decoded batch.
    late_rows: Vec<u32>,
    /// Rows that matched WHERE: used and late ones.
    matched: usize,
}

/// WHERE, lateness, keys and arguments for the rows of `batch`, which are the rows `rows` of the decoded batch.
fn evaluate(query: &StreamQuery, clock: &Clock, batch: &RecordBatch, rows: &UInt32Array) -> Result<Evaluated> {
    let (batch, rows) = Step::apply_all(&query.before, batch.clone(), rows.clone())?;
    let matched = of_input(&rows);
    let Some(grouping) = &query.groups else {
        let used = Used { rows, panes: Vec::new(), keys: Vec::new(), arguments: Arguments::none(), results: batch };
        return Ok(Evaluated { used, late_rows: Vec::new(), matched });
    };
    let mut finder = grouping.panes().copied().map(PaneFinder::new);
    let panes: Vec<Option<Pane>> = rows.values().iter().map(|row| clock.pane(query, grouping, finder.as_mut(), *row as usize)).collect();
    let late_rows: Vec<u32> = rows.values().iter().zip(&panes).filter(|(_, pane)| pane.is_none()).map(|(row, _)| *row).collect();
    let (batch, rows) = if late_rows.is_empty() {
        (batch, rows)
    } else {
        keep(&batch, &rows, &BooleanArray::from_iter(panes.iter().map(|pane| Some(pane.is_some()))))?
    };
    let used = Used {
        rows,
        panes: panes.into_iter().flatten().collect(),
        keys: grouping.key_columns(&batch)?,
        arguments: grouping.aggregates.arguments(&batch)?,
        results: batch.slice(0, 0),
    };
    Ok(Evaluated { used, late_rows, matched })
}

/// How many rows of the input the rows are; those of one stand together.
fn of_input(rows: &UInt32Array) -> usize {
    rows.values().chunk_by(|one, next| one == next).count()
}

fn keep(batch: &RecordBatch, rows: &UInt32Array, mask: &BooleanArray) -> Result<(RecordBatch, UInt32Array)> {
    if mask.true_count() == batch.num_rows() {
        return Ok((batch.clone(), rows.clone()));
    }
    Ok((filter_record_batch(batch, mask)?, filter(rows, mask)?.as_primitive().clone()))
}

/// Evaluates `batch`; rows that fail come back with their errors.
fn evaluate_all(query: &StreamQuery, clock: &Clock, batch: &RecordBatch, rows: &UInt32Array) -> Result<(Evaluated, Vec<(u32, String)>)> {
    let evaluate = |start, len| evaluate(query, clock, &batch.slice(start, len), &rows.slice(start, len));
    let (mut parts, broken) = in_halves(batch.num_rows(), evaluate);
    if parts.is_empty() {
        parts.push(evaluate(0, 0)?);
    }
    let broken = broken.into_iter().map(|(place, fault)| (rows.value(place), fault)).collect();
    Ok((Evaluated::concat(parts)?, broken))
}

impl Evaluated {
    fn concat(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let keys = (0..parts[0].used.keys.len())
            .map(|column| {
                let columns: Vec<&dyn Array> = parts.iter().map(|part| part.used.keys[column].as_ref()).collect();
                Ok(concat(&columns)?)
            })
            .collect::<Result<_>>()?;
        let results = concat_batches(&parts[0].used.results.schema(), parts.iter().map(|part| &part.used.results))?;
        let rows = parts.iter().flat_map(|part| part.used.rows.values().iter().copied()).collect::<Vec<u32>>().into();
        let (mut panes, mut late_rows, mut arguments, mut matched) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for part in parts {
            panes.extend(part.used.panes);
            late_rows.extend(part.late_rows);
            arguments.push(part.used.arguments);
            matched += part.matched;
        }
        Ok(Self { used: Used { rows, panes, keys, arguments: Arguments::concat(&arguments)?, results }, late_rows, matched })
    }
}
