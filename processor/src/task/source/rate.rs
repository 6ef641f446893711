//! Rows that are made here: `value` counts from 0, and `timestamp` is when the row was due. Both follow from the row's number and the
//! moment of the first start, which is kept beside the state; so a restart makes the same rows again, and those of the time in between.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};

use super::super::checkpoint::Checkpoint;
use super::super::error::TaskError;
use super::super::records::Records;
use super::super::status::now_ms;
use super::local::{Feed, Pulled};
use crate::engine::Input;
use crate::format::decode::{Decoded, Decoder};
use crate::query::StreamQuery;

/// The file that holds the moment of the first start.
const START: &str = "rate-start";
/// Rows that are made at a time.
const PULL: i64 = 1000;

#[derive(Debug)]
pub(super) struct Rate {
    pace: Pace,
    /// Epoch milliseconds.
    start: i64,
    next: i64,
}

/// How many rows there are by when.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rows_per_second: i64,
    /// Seconds until that is reached.
    ramp_up: i64,
}

impl Pace {
    /// Rows before the end of so many seconds: with 10 a second and a ramp of 4 seconds 0, 2, 6, 12, 20, 30, 40.
    fn rows_by(self, seconds: i64) -> i64 {
        let step = self.rows_per_second / (self.ramp_up + 1);
        let ramp = seconds.min(self.ramp_up);
        let of_ramp = step * ramp * (ramp + 1) / 2;
        of_ramp + (seconds - ramp) * self.rows_per_second
    }

    /// When a row is due, milliseconds after the start: the rows of a second lie evenly in it.
    fn due(self, row: i64) -> i64 {
        let (mut low, mut high) = (0, self.ramp_up + row / self.rows_per_second + 2);
        // The second whose end has more rows than come before this one.
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.rows_by(middle) <= row { low = middle } else { high = middle }
        }
        let (first, end) = (self.rows_by(low), self.rows_by(low + 1));
        low * 1000 + (row - first) * 1000 / (end - first).max(1)
    }
}

impl Rate {
    pub(super) fn open(query: &StreamQuery, checkpoint: &Checkpoint, position: Option<i64>) -> Result<Self, TaskError> {
        let source = &query.file.source;
        let pace = Pace {
            rows_per_second: i64::from(source.rows_per_second.unwrap_or(1)),
            ramp_up: source.ramp_up_time.map_or(0, |time| time.millis() / 1000),
        };
        let start = match checkpoint.read_text(START)? {
            Some(text) => text.trim().parse().map_err(|_| checkpoint.damaged(START, "it holds no time in milliseconds"))?,
            None => {
                let now = now_ms();
                checkpoint.write(START, now.to_string().as_bytes())?;
                now
            }
        };
        Ok(Self { pace, start, next: position.unwrap_or(0) })
    }

    fn due(&self, row: i64) -> i64 {
        self.start + self.pace.due(row)
    }
}

impl Feed for Rate {
    fn pull(&mut self, records: &mut Records, most: usize, patience: Duration) -> Result<Pulled, TaskError> {
        let wait = u64::try_from(self.due(self.next) - now_ms()).unwrap_or(0);
        if wait > 0 {
            // The next row is made by the clock: nothing else could wake this thread earlier.
            std::thread::sleep(patience.min(Duration::from_millis(wait)));
        }
        let (first, now) = (self.next, now_ms());
        let most = i64::try_from(most).unwrap_or(PULL).min(PULL);
        while self.next < first + most {
            let due = self.due(self.next);
            if due > now {
                break;
            }
            records.push(self.next, due, None, None);
            self.next += 1;
        }
        Ok(if self.next > first { Pulled::Some } else { Pulled::Nothing })
    }

    fn is_at_end(&mut self) -> bool {
        self.due(self.next) > now_ms()
    }

    fn decode(&self, records: &Records, decoder: &mut Decoder) -> Result<Input, TaskError> {
        let all = || (0..records.len()).map(|index| records.get(index));
        let times = TimestampMillisecondArray::from_iter_values(all().map(|record| record.timestamp)).with_timezone("+00:00");
        let columns: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(Int64Array::from_iter_values(all().map(|record| record.offset)))];
        let batch = RecordBatch::try_new(Arc::clone(decoder.schema()), columns);
        let batch = batch.map_err(|error| TaskError::Fatal(format!("generated rows do not fit their schema: {error}")))?;
        let rows = (0..u32::try_from(records.len()).unwrap_or(u32::MAX)).collect();
        Ok(records.input(Decoded { batch, rows, dead: Vec::new() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_rises_in_even_steps() {
        let pace = Pace { rows_per_second: 10, ramp_up: 4 };
        assert_eq!((0..7).map(|second| pace.rows_by(second)).collect::<Vec<_>>(), [0, 2, 6, 12, 20, 30, 40]);
        assert_eq!([0, 1, 2, 5, 6, 20, 29].map(|row| pace.due(row)), [0, 500, 1000, 1750, 2000, 4000, 4900]);
    }

    #[test]
    fn without_a_ramp_rows_are_evenly_spread() {
        let pace = Pace { rows_per_second: 4, ramp_up: 0 };
        assert_eq!((0..6).map(|row| pace.due(row)).collect::<Vec<_>>(), [0, 250, 500, 750, 1000, 1250]);
        assert_eq!(Pace { rows_per_second: 1, ramp_up: 0 }.due(3), 3000);
        // So slow a ramp begins with seconds without a row.
        let slow = Pace { rows_per_second: 2, ramp_up: 4 };
        assert_eq!([0, 1, 2].map(|row| slow.due(row)), [4000, 4500, 5000]);
    }
}
