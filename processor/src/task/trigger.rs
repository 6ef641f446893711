//! When a step is taken.

use std::time::{Duration, Instant};

use crate::query::file::Trigger;

/// Longest wait for rows without looking whether to stop, and at the clock.
const PATIENCE: Duration = Duration::from_millis(200);

/// The pace of one worker. `now_ms` is the wall clock, for ticks at multiples of the interval as Spark has them.
#[derive(Debug)]
pub(crate) struct Pace {
    trigger: Trigger,
    due: Option<Instant>,
    /// Of `continuous`: when the steps so far must be in the journal.
    commit: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(trigger: Trigger) -> Self {
        Self { trigger, due: None, commit: None }
    }

    /// When the current step must be taken; `None`: as soon as there are rows.
    pub(crate) fn due(&mut self, now: Instant, now_ms: i64) -> Option<Instant> {
        let Trigger::ProcessingTime(interval) = self.trigger else { return None };
        let due = self.due.get_or_insert_with(|| {
            let interval = interval.millis().max(1);
            let left = interval - now_ms.rem_euclid(interval);
            now + Duration::from_millis(left.unsigned_abs())
        });
        Some(*due)
    }

    /// How long a reader may wait for a record.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        let due = self.due.into_iter().chain(self.commit).min();
        due.map_or(PATIENCE, |due| due.saturating_duration_since(now).min(PATIENCE))
    }

    /// Whether rows that are there may wait for the tick.
    pub(crate) fn waits(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now < due)
    }

    /// Whether steps that have not been committed must be now; `open`: whether there are any.
    pub(crate) fn commits(&mut self, now: Instant, open: bool) -> bool {
        let Trigger::Continuous(interval) = self.trigger else { return false };
        if !open {
            self.commit = None;
            return false;
        }
        let due = *self.commit.get_or_insert(now + interval.duration());
        if now >= due {
            self.commit = None;
        }
        now >= due
    }

    pub(crate) fn stepped(&mut self, now: Instant) {
        if self.due.is_some_and(|due| now >= due) {
            self.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use common::units::Span;

    use super::*;

    #[test]
    fn ticks_are_at_multiples_of_the_interval() {
        let mut pace = Pace::new(Trigger::ProcessingTime(Span::from_secs(1)));
        let now = Instant::now();
        assert_eq!(pace.due(now, 1_700_000_000_300), Some(now + Duration::from_millis(700)));
        assert!(pace.waits(now));
        let tick = now + Duration::from_millis(700);
        assert!(!pace.waits(tick));
        pace.stepped(tick);
        assert_eq!(pace.due(tick, 1_700_000_001_000), Some(tick + Duration::from_secs(1)));
    }

    #[test]
    fn commits_follow_the_first_open_step_by_the_interval() {
        let mut pace = Pace::new(Trigger::Continuous(Span::from_secs(1)));
        let now = Instant::now();
        assert_eq!(pace.due(now, 5), None);
        assert!(!pace.commits(now, false));
        assert!(!pace.commits(now, true));
        let later = now + Duration::from_millis(950);
        assert!(!pace.commits(later, true));
        assert_eq!(pace.patience(later), Duration::from_millis(50));
        assert!(pace.commits(now + Duration::from_secs(1), true));
        assert!(!pace.commits(now + Duration::from_secs(1), true), "a new interval");
        assert!(!Pace::new(Trigger::AsSoonAsPossible).commits(now, true));
    }

    #[test]
    fn without_an_interval_nothing_waits() {
        let mut pace = Pace::new(Trigger::AsSoonAsPossible);
        assert_eq!(pace.due(Instant::now(), 5), None);
        assert!(!pace.waits(Instant::now()));
    }
}
