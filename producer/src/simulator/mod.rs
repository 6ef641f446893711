//! A seeded fleet of sensors: the same seed and settings give the same sensors, values, numbers and event times relative to the start.
//!
//! Event time never runs ahead of the wall clock unless a bad clock asks for it:
//!
//! | `rate` | `count` | event time of reading *i* |
//! |---|---|---|
//! | above 0 | any | start + *i* / rate, the moment at which it is due |
//! | 0 | set | as if each sensor sent one reading a second, the whole run lying in the past and ending at the start |
//! | 0 | unset | start + *i* / 2,000,000 s: a pace that is also the limit of "as fast as it goes" |

mod faults;
mod fleet;
mod timeline;
mod wave;

use std::time::Duration;

use common::reading::Reading;
use common::settings;

use self::faults::{Faults, Timing};
use self::fleet::Sensor;
use self::timeline::Timeline;
use crate::source::{BATCH, Delivery, Next, Source, SourceError, Tally};

/// Readings leave together that are due within this time: each turn costs a batch, a write and a sync of the log, and nobody sees the wait.
/// Their event times are those at which they were due.
const SLICE: Duration = Duration::from_millis(250);
/// At a high rate a slice is shorter, so that it holds no more readings than one turn gives; sleeping for less than this costs more turns
/// than it gives precision.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// The simulator as a [`Source`].
#[derive(Debug)]
pub struct Simulator {
    settings: settings::Simulator,
    fleet: Vec<Sensor>,
    faults: Faults,
    timeline: Timeline,
    tally: Tally,
}

impl Simulator {
    pub fn new(settings: &settings::Simulator) -> Self {
        Self {
            fleet: fleet::build(settings),
            faults: Faults::new(settings),
            timeline: Timeline::new(settings),
            tally: Tally::default(),
            settings: settings.clone(),
        }
    }

    fn slice(&self) -> Duration {
        self.timeline.due_at(BATCH as u64).clamp(SHORTEST_WAIT, SLICE)
    }

    fn emit(&mut self, index: u64, out: &mut Vec<Delivery>) {
        // The sensors take turns, so each sends at a regular interval, and the fleet's rate is spread evenly.
        let turn = usize::try_from(index % self.fleet.len() as u64).unwrap_or(0);
        let sensor = &mut self.fleet[turn];
        let mut offset = self.timeline.offset_ms(index);
        match self.faults.timing() {
            Timing::Prompt => {}
            Timing::OutOfOrder(by) => {
                offset -= by;
                self.tally.out_of_order += 1;
            }
            Timing::Late(by) => {
                offset -= by;
                self.tally.late += 1;
            }
        }
        sensor.seq += 1;
        self.tally.readings += 1;
        self.tally.bad_clock += u64::from(!sensor.clock.is_right());
        let reading = Reading {
            sensor_id: sensor.id.clone(),
            ts: sensor.clock.read(&self.timeline, offset),
            value: sensor.value(offset),
            kind: Some(sensor.kind.name.into()),
            seq: Some(sensor.seq),
            ..Reading::default()
        };
        if self.faults.twice() {
            self.tally.duplicates += 1;
            out.push(Delivery::reading(reading.clone()));
        }
        out.push(Delivery::reading(reading));
    }
}

impl Source for Simulator {
    fn describe(&self) -> String {
        let settings::Simulator { sensors, rate, seed, count, .. } = &self.settings;
        let pace = if *rate > 0.0 { format!("{rate} readings/s") } else { "as fast as it goes".to_owned() };
        let count = count.map_or_else(String::new, |count| format!(", {count} readings"));
        format!("simulator of {sensors} sensors, {pace}, seed {seed}{count}")
    }

    fn start(&mut self, now: i64) {
        self.timeline.start(now);
    }

    fn next(&mut self, elapsed: Duration, out: &mut Vec<Delivery>) -> Result<Next, SourceError> {
        let count = self.settings.count.unwrap_or(u64::MAX);
        let first = self.tally.readings;
        let due = self.timeline.due(elapsed);
        let end = due.min(count).min(first.saturating_add(BATCH as u64));
        for index in first..end {
            self.emit(index, out);
        }
        Ok(match self.tally.readings {
            sent if sent >= count => Next::End,
            sent if sent >= due => Next::Wait(self.timeline.due_at(sent).saturating_sub(elapsed).max(self.slice())),
            _ => Next::More,
        })
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests;
