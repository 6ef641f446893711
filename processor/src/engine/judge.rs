//! The decision about every row: dead, filtered, late or used. Each row has exactly one of them.
//!
//! The decision depends on the row and on the rows before it in its partition, never on batches: the watermark is that of the row's own
//! prefix.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, filter, filter_record_batch};
use arrow::datatypes::TimestampMillisecondType;
use datafusion_common::Result;

use super::{Ledger, PartitionTime};
use crate::format::decode::Decoded;
use crate::query::{Arguments, Pane, PaneFinder, Step, StreamQuery};

/// Largest distance of an event time from 1970, milliseconds: window arithmetic and calendars are exact well beyond it.
const MAX_TIME: u64 = 250_000 * 366 * 86_400_000;

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

/// The rows that are folded, in log order.
pub(crate) struct Used {
    pub(crate) panes: Vec<Pane>,
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) arguments: Arguments,
}

pub(crate) struct Judged {
    /// The partition's time after the input.
    pub(crate) time: PartitionTime,
    /// What the input adds to the ledger.
    pub(crate) counts: Ledger,
    pub(crate) late: Vec<Refused>,
    pub(crate) dead: Vec<Refused>,
    pub(crate) used: Used,
}

/// Decides about every row of `input`, given the partition's time before it.
pub(crate) fn judge(query: &StreamQuery, before: &PartitionTime, input: &Input) -> Result<Judged> {
    let decoded = &input.decoded;
    let mut dead: Vec<Refused> =
        decoded.dead.iter().map(|row| Refused { index: row.index, reason: row.reason, detail: row.detail.clone() }).collect();
    let clock = Clock::read(query, before, input, &mut dead);

    let rows = UInt32Array::from_iter_values(0..u32::try_from(decoded.batch.num_rows()).unwrap_or(u32::MAX));
    let (batch, rows) = keep(&decoded.batch, &rows, &clock.alive)?;
    let timely = batch.num_rows();
    let (evaluated, broken) = evaluate_all(query, &clock, &batch, &rows)?;
    dead.extend(broken.iter().map(|(row, detail)| Refused {
        index: decoded.rows[*row as usize],
        reason: DeadReason::EXPRESSION,
        detail: detail.clone(),
    }));
    let Evaluated { used, late_rows, matched } = evaluated;
    let late = late_rows.iter().map(|row| clock.late(query, *row, decoded.rows[*row as usize])).collect::<Vec<_>>();
    let counts = Ledger {
        read: input.received.len() as u64,
        used: used.panes.len() as u64,
        late: late.len() as u64,
        dead: dead.len() as u64,
        filtered: (timely - broken.len() - matched) as u64,
    };
    dead.sort_by_key(|row| row.index);
    Ok(Judged { time: clock.after, counts, late, dead, used })
}

/// Event times of the decoded rows, and the watermark that each one met.
struct Clock {
    times: Vec<i64>,
    /// The watermark of the rows before; `i64::MIN` when there was none.
    watermarks: Vec<i64>,
    /// Rows with a usable event time.
    alive: BooleanArray,
    after: PartitionTime,
}

impl Clock {
    fn read(query: &StreamQuery, before: &PartitionTime, input: &Input, dead: &mut Vec<Refused>) -> Self {
        let source = &query.file.source;
        let (delay, max_future) = (source.watermark.millis(), source.max_future.millis());
        let column = input.decoded.batch.column(query.event_time).as_primitive::<TimestampMillisecondType>();
        let rows = column.len();
        let mut clock = Self {
            times: Vec::with_capacity(rows),
            watermarks: Vec::with_capacity(rows),
            alive: BooleanArray::from(Vec::<bool>::new()),
            after: *before,
        };
        let mut alive = Vec::with_capacity(rows);
        for (row, index) in input.decoded.rows.iter().enumerate() {
            let time = column.value(row);
            let received = input.received[*index as usize];
            let fault = if !column.is_null(row) && time.unsigned_abs() > MAX_TIME {
                Some((DeadReason::OUT_OF_RANGE, "the event time is more than 250,000 years from 1970; check its unit".to_owned()))
            } else if column.is_null(row) {
                Some((DeadReason::NO_EVENT_TIME, format!("the event-time column '{}' is missing or null", source.event_time)))
            } else if received >= 0 && time > received.saturating_add(max_future) {
                let ahead = common::units::Span::from_millis(time.saturating_sub(received).unsigned_abs());
                Some((DeadReason::FUTURE, format!("the event time is {ahead} ahead of the time of receipt; check the device's clock")))
            } else {
                None
            };
            clock.times.push(time);
            clock.watermarks.push(clock.after.watermark(delay).unwrap_or(i64::MIN));
            alive.push(fault.is_none());
            match fault {
                Some((reason, detail)) => dead.push(Refused { index: *index, reason, detail }),
                None => clock.after.observe(time),
            }
        }
        clock.alive = BooleanArray::from(alive);
        clock
    }

    /// Where the row's state is kept; `None` when every window of the row had ended when the row came.
    fn pane(&self, finder: Option<&mut PaneFinder>, row: usize) -> Option<Pane> {
        finder.map_or(Some(Pane::default()), |finder| finder.pane(self.times[row], self.watermarks[row]))
    }

    fn late(&self, query: &StreamQuery, row: u32, index: u32) -> Refused {
        let behind = self.watermarks[row as usize].saturating_sub(self.times[row as usize]).unsigned_abs();
        let behind = common::units::Span::from_millis(behind);
        let delay = query.file.source.watermark;
        Refused {
            index,
            reason: DeadReason::LATE,
            detail: format!("the event time is {behind} behind the watermark and its window has closed (delay {delay})"),
        }
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
    let matched = batch.num_rows();
    let mut finder = query.window.map(PaneFinder::new);
    let panes: Vec<Option<Pane>> = rows.values().iter().map(|row| clock.pane(finder.as_mut(), *row as usize)).collect();
    let late_rows: Vec<u32> = rows.values().iter().zip(&panes).filter(|(_, pane)| pane.is_none()).map(|(row, _)| *row).collect();
    let batch = if late_rows.is_empty() {
        batch
    } else {
        filter_record_batch(&batch, &BooleanArray::from_iter(panes.iter().map(|pane| Some(pane.is_some()))))?
    };
    let used = Used {
        panes: panes.into_iter().flatten().collect(),
        keys: query.key_columns(&batch)?,
        arguments: query.aggregates.arguments(&batch)?,
    };
    Ok(Evaluated { used, late_rows, matched })
}

fn keep(batch: &RecordBatch, rows: &UInt32Array, mask: &BooleanArray) -> Result<(RecordBatch, UInt32Array)> {
    if mask.true_count() == batch.num_rows() {
        return Ok((batch.clone(), rows.clone()));
    }
    Ok((filter_record_batch(batch, mask)?, filter(rows, mask)?.as_primitive().clone()))
}

/// Evaluates `batch`; where that fails, in halves, down to the single rows that fail, which come back with their errors.
///
/// What succeeded is put together and not evaluated again: AND and OR look at other rows to decide whether to evaluate their right side, so
/// rows that are fine apart may fail together.
fn evaluate_all(query: &StreamQuery, clock: &Clock, batch: &RecordBatch, rows: &UInt32Array) -> Result<(Evaluated, Vec<(u32, String)>)> {
    let mut parts = Vec::new();
    let mut broken = Vec::new();
    let mut open = vec![(0, batch.num_rows())];
    while let Some((start, len)) = open.pop() {
        match evaluate(query, clock, &batch.slice(start, len), &rows.slice(start, len)) {
            Ok(part) => parts.push(part),
            Err(fault) if len <= 1 => broken.push((rows.value(start), fault.strip_backtrace())),
            Err(_) => {
                // The later half lies deeper on the stack: parts come in the order of the rows.
                open.push((start + len / 2, len - len / 2));
                open.push((start, len / 2));
            }
        }
    }
    if parts.is_empty() {
        parts.push(evaluate(query, clock, &batch.slice(0, 0), &rows.slice(0, 0))?);
    }
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
        let (mut panes, mut late_rows, mut arguments, mut matched) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for part in parts {
            panes.extend(part.used.panes);
            late_rows.extend(part.late_rows);
            arguments.push(part.used.arguments);
            matched += part.matched;
        }
        Ok(Self { used: Used { panes, keys, arguments: Arguments::concat(&arguments)? }, late_rows, matched })
    }
}
