//! The event times of a partition's rows, and the watermark that each one met.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::TimestampMillisecondType;
use datafusion_common::Result;
use hashbrown::HashMap;

use super::entry::LineNumber;
use super::judge::{DeadReason, Input, Lateness, Refused};
use super::line::Line;
use super::{Partition, PartitionTime};
use crate::query::{Grouping, Pane, PaneFinder, RowBytes, StreamQuery, Timeline, normalize};

/// Largest distance of an event time from 1970, milliseconds: window arithmetic and calendars are exact well beyond it.
pub(crate) const MAX_TIME: u64 = 250_000 * 366 * 86_400_000;

/// Event times of the decoded rows, and the watermark that each one met.
pub(crate) struct Clock {
    pub(crate) times: Vec<i64>,
    /// The watermark of the rows before; `i64::MIN` when there was none.
    pub(crate) watermarks: Vec<i64>,
    /// Rows with a usable event time.
    pub(crate) alive: BooleanArray,
    pub(crate) after: PartitionTime,
    /// When each device has its own time.
    pub(crate) devices: Option<Devices>,
    pub(crate) lateness: Lateness,
}

/// The devices of some rows.
#[derive(Default)]
pub(crate) struct Devices {
    /// Of each decoded row; of no meaning for rows without a usable time.
    numbers: Vec<u32>,
    by_key: HashMap<RowBytes, u32>,
    /// In order of first appearance: the device and its time, which at the end is that after the rows.
    pub(crate) lines: Vec<(RowBytes, PartitionTime)>,
}

impl Devices {
    /// The device's number; its time before the rows is that of its timeline.
    fn number(&mut self, key: &[u8], partition: &Partition) -> usize {
        let number = match self.by_key.get(key) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.lines.len()).unwrap_or(u32::MAX);
                self.by_key.insert(key.into(), number);
                self.lines.push((key.into(), partition.lines.get(key).map_or_else(PartitionTime::default, |line| line.time)));
                number
            }
        };
        self.numbers.push(number);
        number as usize
    }
}

impl Clock {
    pub(crate) fn read(
        query: &StreamQuery,
        partition: &Partition,
        input: &Input,
        lateness: Lateness,
        dead: &mut Vec<Refused>,
    ) -> Result<Self> {
        let delay = query.file.source.watermark.millis();
        let batch = &input.decoded.batch;
        let column = batch.column(query.event_time).as_primitive::<TimestampMillisecondType>();
        let rows = column.len();
        let keys = query.timeline.as_ref().map(|timeline| timeline.rows.rows(&[normalize(Arc::clone(batch.column(timeline.column)))]));
        let keys = keys.transpose()?;
        let mut clock = Self {
            times: Vec::with_capacity(rows),
            watermarks: Vec::with_capacity(rows),
            alive: BooleanArray::from(Vec::<bool>::new()),
            after: partition.time,
            devices: query.timeline.as_ref().map(|_| Devices::default()),
            lateness,
        };
        let mut alive = Vec::with_capacity(rows);
        for (row, index) in input.decoded.rows.iter().enumerate() {
            let (time, received) = ((!column.is_null(row)).then(|| column.value(row)), input.received[*index as usize]);
            let fault = fault(query, time, received);
            let time = time.unwrap_or_default();
            clock.times.push(time);
            alive.push(fault.is_none());
            if let Some((reason, detail)) = fault {
                dead.push(Refused { index: *index, reason, detail });
                clock.pass();
                continue;
            }
            // Nobody has measured what is still to come: a clock that is ahead moves no watermark past the time of receipt.
            let known = if received < 0 { time } else { time.min(received) };
            match (&query.timeline, &keys) {
                (Some(timeline), Some(keys)) => clock.observe_device(timeline, keys.row(row), known, partition, delay),
                _ => clock.observe(known, delay),
            }
        }
        clock.alive = BooleanArray::from(alive);
        Ok(clock)
    }

    /// A row that moves nothing.
    fn pass(&mut self) {
        self.watermarks.push(i64::MIN);
        if let Some(devices) = &mut self.devices {
            devices.numbers.push(0);
        }
    }

    fn observe(&mut self, time: i64, delay: i64) {
        self.watermarks.push(self.after.watermark(delay).unwrap_or(i64::MIN));
        self.after.observe(time);
    }

    fn observe_device(&mut self, timeline: &Timeline, key: &[u8], time: i64, partition: &Partition, delay: i64) {
        let Some(devices) = &mut self.devices else { return };
        let number = devices.number(key, partition);
        let own = &mut devices.lines[number].1;
        self.watermarks.push(timeline.time(*own, self.after).watermark(delay).unwrap_or(i64::MIN));
        own.observe(time);
        self.after.observe(time);
    }

    /// The timeline of a decoded row.
    pub(crate) fn line(&self, row: u32) -> LineNumber {
        self.devices.as_ref().map(|devices| devices.numbers[row as usize])
    }

    /// The states of a timeline before the rows.
    pub(crate) fn line_state<'a>(&self, partition: &'a Partition, line: LineNumber) -> Option<&'a Line> {
        match (line, &self.devices) {
            (Some(number), Some(devices)) => partition.lines.get(&devices.lines[number as usize].0),
            _ => Some(&partition.shared),
        }
    }

    /// What closes windows: nothing does in complete mode.
    pub(crate) fn window_watermark(&self, query: &StreamQuery, row: usize) -> i64 {
        if query.is_complete() || self.lateness == Lateness::Waived { i64::MIN } else { self.watermarks[row] }
    }

    /// Where the row's state is kept; `None` when every window of the row had ended when the row came.
    pub(crate) fn pane(&self, query: &StreamQuery, grouping: &Grouping, finder: Option<&mut PaneFinder>, row: usize) -> Option<Pane> {
        let (time, watermark) = (self.times[row], self.window_watermark(query, row));
        match (finder, grouping.session_gap()) {
            (Some(finder), _) => finder.pane(time, watermark),
            (None, Some(gap)) => (time.saturating_add(gap) > watermark).then(Pane::default),
            (None, None) => Some(Pane::default()),
        }
    }

    pub(crate) fn late(&self, query: &StreamQuery, row: u32, index: u32) -> Refused {
        let behind = self.watermarks[row as usize].saturating_sub(self.times[row as usize]).unsigned_abs();
        let behind = common::units::Span::from_millis(behind);
        let delay = query.file.source.watermark;
        let why = match query.dedup {
            Some(_) => "nobody can say whether it was there before",
            None => "its window has closed",
        };
        Refused {
            index,
            reason: DeadReason::LATE,
            detail: format!("the event time is {behind} behind the watermark and {why} (delay {delay})"),
        }
    }
}

/// Why a row's event time cannot be used.
fn fault(query: &StreamQuery, time: Option<i64>, received: i64) -> Option<(&'static str, String)> {
    let source = &query.file.source;
    let Some(time) = time else {
        return Some((DeadReason::NO_EVENT_TIME, format!("the event-time column '{}' is missing or null", source.event_time)));
    };
    if time.unsigned_abs() > MAX_TIME {
        return Some((DeadReason::OUT_OF_RANGE, "the event time is more than 250,000 years from 1970; check its unit".to_owned()));
    }
    if received >= 0 && time > received.saturating_add(source.max_future.millis()) {
        let ahead = common::units::Span::from_millis(time.saturating_sub(received).unsigned_abs());
        return Some((DeadReason::FUTURE, format!("the event time is {ahead} ahead of the time of receipt; check the device's clock")));
    }
    None
}
