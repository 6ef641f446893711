//! What became of the rows of one window and key.

use std::collections::{HashMap, HashSet};

use arrow::array::{RecordBatch, UInt32Array};
use datafusion_common::Result;

use super::halves::in_halves;
use super::judge::{Lateness, judge};
use super::{Engine, Input};
use crate::format::encode::key_text;
use crate::query::{RowBytes, Step};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Used,
    /// Late for this window; it may count in a later one.
    Late,
    /// Its time and its key could be read, and something else of it could not be used.
    Dead,
    Filtered,
}

/// A row that belongs to the window and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Traced {
    /// The record's index in its input.
    pub(crate) index: u32,
    pub(crate) time: i64,
    pub(crate) outcome: Outcome,
    pub(crate) key: RowBytes,
}

impl Engine {
    /// The rows of `input` whose key is `key`, as result rows are keyed, and whose time is in the window that starts at `start`. Of a
    /// session nobody knows the end yet: all rows from its start on. `input` goes on where the engine stands, and is not taken.
    ///
    /// # Errors
    /// When the rows cannot be judged at all.
    pub(crate) fn trace(&self, input: &Input, start: i64, key: &[u8]) -> Result<Vec<Traced>> {
        let (Some(grouping), Some(partition)) = (&self.query.groups, self.partitions.get(&input.partition)) else {
            return Ok(Vec::new());
        };
        let (rows, _) = in_halves(input.decoded.batch.num_rows(), |first, length| self.rows_of(input, (first, length), key));
        let rows: HashMap<u32, RowBytes> = rows.into_iter().flatten().collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let judged = judge(&self.query, partition, input, Lateness::Counts)?;
        let late: HashSet<u32> = judged.late.iter().map(|row| row.index).collect();
        let dead: HashSet<u32> = judged.dead.iter().map(|row| row.index).collect();
        let since = |place: usize| judged.used.panes.get(place).map_or(i64::MIN, |pane| pane.since);
        let used: HashMap<u32, i64> = judged.used.rows.values().iter().enumerate().map(|(place, row)| (*row, since(place))).collect();
        let end = grouping.panes().map(|window| window.end(start));
        let in_window = |time: i64| grouping.window.is_none() || (time >= start && end.is_none_or(|end| time < end));
        let trace = |(row, key): (u32, RowBytes)| {
            let (time, index) = (judged.clock.times[row as usize], input.decoded.rows[row as usize]);
            let outcome = match used.get(&row) {
                Some(since) if *since <= start || grouping.window.is_none() => Outcome::Used,
                Some(_) => Outcome::Late,
                None if late.contains(&index) => Outcome::Late,
                None if dead.contains(&index) => Outcome::Dead,
                None => Outcome::Filtered,
            };
            in_window(time).then_some(Traced { index, time, outcome, key })
        };
        let mut traced: Vec<Traced> = rows.into_iter().filter_map(trace).collect();
        traced.sort_unstable_by_key(|row| row.index);
        Ok(traced)
    }

    /// Decoded rows with this key, whether or not they match WHERE.
    fn rows_of(&self, input: &Input, (first, length): (usize, usize), key: &[u8]) -> Result<Vec<(u32, RowBytes)>> {
        let Some(grouping) = &self.query.groups else { return Ok(Vec::new()) };
        let number = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
        let mut batch: RecordBatch = input.decoded.batch.slice(first, length);
        let mut rows = UInt32Array::from_iter_values(number(first)..number(first + length));
        for step in self.query.before.iter().filter(|step| !matches!(step, Step::Filter(_))) {
            (batch, rows) = Step::apply_all(std::slice::from_ref(step), batch, rows)?;
        }
        let columns = grouping.key_columns(&batch)?;
        let bytes = grouping.group_keys.rows(&columns)?;
        let mut found = Vec::new();
        let mut text = Vec::new();
        for place in 0..batch.num_rows() {
            text.clear();
            key_text(&columns, place, &mut text);
            if text == key {
                found.push((rows.value(place), bytes.row(place).into()));
            }
        }
        Ok(found)
    }
}
