//! When each reading is due, and which event time it has.

use std::time::Duration;

use common::settings;

/// Readings per second at `rate = 0` without a `count`: more than one thread can make, so it is no brake, and event time stays behind
/// the wall clock.
const FULL_SPEED: f64 = 2_000_000.0;

#[derive(Debug, Clone)]
pub(super) struct Timeline {
    /// Readings per second of event time.
    rate: f64,
    /// Whether a reading waits until its event time.
    paced: bool,
    /// Milliseconds by which reading 0 lies before the start.
    pub(super) span: i64,
    /// Event time of reading 0, milliseconds since 1970.
    pub(super) origin: i64,
}

impl Timeline {
    pub(super) fn new(settings: &settings::Simulator) -> Self {
        let (rate, paced, span) = match settings.count {
            _ if settings.rate > 0.0 => (settings.rate, true, 0),
            None => (FULL_SPEED, true, 0),
            Some(count) => {
                let rate = f64::from(settings.sensors.max(1));
                (rate, false, millis(count, rate))
            }
        };
        Self { rate, paced, span, origin: 0 }
    }

    pub(super) fn start(&mut self, now: i64) {
        self.origin = now.saturating_sub(self.span);
    }

    /// Event time of a reading relative to reading 0, in milliseconds.
    pub(super) fn offset_ms(&self, index: u64) -> i64 {
        millis(index, self.rate)
    }

    /// How many readings are due by `elapsed` after the start.
    pub(super) fn due(&self, elapsed: Duration) -> u64 {
        if self.paced { ((elapsed.as_secs_f64() * self.rate) as u64).saturating_add(1) } else { u64::MAX }
    }

    /// When a reading is due after the start.
    pub(super) fn due_at(&self, index: u64) -> Duration {
        // A rate near 0 may put the next reading beyond what a `Duration` holds: for us that is never.
        Duration::try_from_secs_f64(index as f64 / self.rate).unwrap_or(Duration::MAX)
    }
}

/// `index / rate` in whole milliseconds, rounded down; exact enough for centuries.
fn millis(index: u64, rate: f64) -> i64 {
    (index as f64 * 1000.0 / rate) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(rate: f64, count: Option<u64>) -> Timeline {
        let mut timeline = Timeline::new(&settings::Simulator { sensors: 10, rate, count, ..Default::default() });
        timeline.start(1_000_000);
        timeline
    }

    #[test]
    fn a_reading_is_due_at_its_event_time() {
        let timeline = timeline(4.0, None);
        assert_eq!(timeline.due(Duration::ZERO), 1);
        assert_eq!(timeline.due(Duration::from_millis(249)), 1);
        assert_eq!(timeline.due(Duration::from_millis(250)), 2);
        assert_eq!(timeline.due_at(4), Duration::from_secs(1));
        assert_eq!((timeline.origin, timeline.offset_ms(3)), (1_000_000, 750));
    }

    #[test]
    fn a_counted_run_at_full_speed_lies_in_the_past() {
        let timeline = timeline(0.0, Some(100));
        assert_eq!(timeline.due(Duration::ZERO), u64::MAX);
        assert_eq!(timeline.origin, 1_000_000 - 10_000);
        assert!(timeline.origin + timeline.offset_ms(99) < 1_000_000);
    }

    #[test]
    fn an_endless_run_at_full_speed_stays_behind_the_clock() {
        let timeline = timeline(0.0, None);
        let due = timeline.due(Duration::from_secs(3));
        assert!(timeline.offset_ms(due - 1) <= 3_000);
    }

    #[test]
    fn a_tiny_rate_does_not_overflow() {
        assert_eq!(timeline(f64::MIN_POSITIVE, None).due_at(1), Duration::MAX);
    }
}
