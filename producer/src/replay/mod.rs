//! Real data from CSV files, merged by event time.
//!
//! The merge is stable and streaming: only the next row of each file is in memory, and the order inside a file is kept as it is, so a
//! row that was out of order when it was recorded is out of order again.
//!
//! `--speed N` sends a row when N times the real time since the first row has passed; `max` does not wait.

mod fields;
mod file;
mod header;
mod speed;
mod time;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use common::reading::{Name, Reading};
use common::settings;

use self::file::{CsvFile, Row};
pub use self::speed::Speed;
pub(crate) use self::time::parse as civil_time;
use crate::source::{BATCH, Delivery, Next, Progress, Source, SourceError, Tally};

/// Sleeping for less costs more turns than it gives precision.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A folder full of files makes no readable line.
const NAMED: usize = 5;

/// The replay as a [`Source`].
#[derive(Debug)]
pub struct Replay {
    files: Vec<CsvFile>,
    /// Files whose next row has to be read.
    hungry: Vec<usize>,
    /// The next row of each file that is not hungry, by event time; the earlier file first among equals.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    rows: Vec<Option<Reading>>,
    /// The last number of each sensor without numbers of its own.
    seqs: HashMap<Name, i64>,
    speed: Speed,
    /// Event time of the first row: the zero of the replay.
    first: Option<i64>,
    sent: u64,
}

impl Replay {
    /// Opens all files and reads their headers, so that a mistake shows before anything is sent.
    ///
    /// # Errors
    /// A file that cannot be opened, one without a usable header, or a speed that is none.
    pub fn open(settings: &settings::Replay) -> Result<Self, SourceError> {
        let speed = settings.speed.parse().map_err(SourceError::Speed)?;
        let files = settings.files.iter().map(PathBuf::as_path).map(CsvFile::open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            hungry: (0..files.len()).rev().collect(),
            heads: BinaryHeap::with_capacity(files.len()),
            rows: files.iter().map(|_| None).collect(),
            seqs: HashMap::new(),
            speed,
            first: None,
            sent: 0,
            files,
        })
    }

    /// Reads until every file has a head or has ended. Returns whether that is done: lines that cannot be read may fill `out` before.
    fn feed(&mut self, out: &mut Vec<Delivery>) -> Result<bool, SourceError> {
        while let Some(&index) = self.hungry.last() {
            match self.files[index].next_row()? {
                Row::Reading(reading) => {
                    self.heads.push(Reverse((reading.ts, index)));
                    self.rows[index] = Some(reading);
                    self.hungry.pop();
                }
                Row::Dead(row) => {
                    out.push(Delivery::dead(row));
                    if out.len() >= BATCH {
                        return Ok(false);
                    }
                }
                Row::End => {
                    self.hungry.pop();
                }
            }
        }
        Ok(true)
    }

    /// How long until the head with this event time is due.
    fn wait_for(&mut self, ts: i64, elapsed: Duration) -> Option<Duration> {
        let first = *self.first.get_or_insert(ts);
        self.speed.due_at(ts.saturating_sub(first)).checked_sub(elapsed).filter(|wait| !wait.is_zero())
    }

    fn number(&mut self, reading: &mut Reading) {
        if reading.seq.is_some() {
            return;
        }
        let seq = match self.seqs.get_mut(&reading.sensor_id) {
            Some(seq) => seq,
            None => self.seqs.entry(reading.sensor_id.clone()).or_insert(0),
        };
        *seq += 1;
        reading.seq = Some(*seq);
    }
}

impl Source for Replay {
    fn describe(&self) -> String {
        let names: Vec<&str> = self.files.iter().take(NAMED).map(CsvFile::name).collect();
        let more =
            self.files.len().checked_sub(NAMED).filter(|more| *more > 0).map_or_else(String::new, |more| format!(" and {more} more"));
        format!("replay of {}{more} {}", names.join(", "), self.speed)
    }

    fn next(&mut self, elapsed: Duration, out: &mut Vec<Delivery>) -> Result<Next, SourceError> {
        while out.len() < BATCH {
            if !self.feed(out)? {
                return Ok(Next::More);
            }
            let Some(&Reverse((ts, index))) = self.heads.peek() else { return Ok(Next::End) };
            if let Some(wait) = self.wait_for(ts, elapsed) {
                return Ok(Next::Wait(wait.max(SHORTEST_WAIT)));
            }
            self.heads.pop();
            self.hungry.push(index);
            if let Some(mut reading) = self.rows[index].take() {
                self.number(&mut reading);
                self.sent += 1;
                out.push(Delivery::reading(reading));
            }
        }
        Ok(Next::More)
    }

    fn tally(&self) -> Tally {
        Tally { readings: self.sent, ..Tally::default() }
    }

    fn progress(&self) -> Option<Progress> {
        let sum = |bytes: fn(&CsvFile) -> u64| self.files.iter().map(bytes).sum();
        Some(Progress { done: sum(CsvFile::bytes_read), total: sum(CsvFile::bytes) })
    }
}

#[cfg(test)]
mod tests;
