//! Readings that come out of order, late or twice, in the shares that the settings want.

use common::settings;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::fleet::{random, stream};

/// How punctual a reading is. The delays are milliseconds between measuring and sending: the event time lies that far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timing {
    Prompt,
    OutOfOrder(i64),
    Late(i64),
}

#[derive(Debug)]
pub(super) struct Faults {
    late: f64,
    late_by: i64,
    out_of_order: f64,
    out_of_order_by: i64,
    duplicates: f64,
    timing: ChaCha8Rng,
    twice: ChaCha8Rng,
}

impl Faults {
    pub(super) fn new(settings: &settings::Simulator) -> Self {
        Self {
            late: settings.late,
            late_by: settings.late_by.millis(),
            out_of_order: settings.out_of_order,
            out_of_order_by: settings.out_of_order_by.millis(),
            duplicates: settings.duplicates,
            timing: random(settings.seed, stream::TIMING),
            twice: random(settings.seed, stream::DUPLICATES),
        }
    }

    pub(super) fn timing(&mut self) -> Timing {
        if self.late + self.out_of_order <= 0.0 {
            return Timing::Prompt;
        }
        // One draw decides, so the shares are shares of all readings and exclude each other.
        let draw: f64 = self.timing.random();
        if draw < self.late {
            Timing::Late(self.late_by)
        } else if draw < self.late + self.out_of_order && self.out_of_order_by > 0 {
            Timing::OutOfOrder(self.timing.random_range(1..=self.out_of_order_by))
        } else {
            Timing::Prompt
        }
    }

    pub(super) fn twice(&mut self) -> bool {
        self.duplicates > 0.0 && self.twice.random::<f64>() < self.duplicates
    }
}
