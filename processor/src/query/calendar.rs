//! The grids on which windows are laid: milliseconds, local days, local months.
//!
//! A window has its size in steps of its grid, and its panes too. [`Grid::step`] gives the step that an instant lies in, and
//! [`Grid::start`] the instant at which a step begins; the arithmetic of windows is the same on all grids.

use std::fmt;
use std::ops::Range;

use chrono::DateTime;

use super::zone::{RULES, Zone};

pub(crate) const DAY: i64 = 86_400_000;

/// Days of a year before its first of the month, without a leap day.
const DAYS_BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// What [`first_day`] counts from its year 0 to 1970.
const TO_1970: i64 = 719_527;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grid {
    /// A step is a millisecond, and its number is the time itself.
    Exact,
    /// A step is a local day, counted from 1970-01-01.
    Days(Local),
    /// A step is a local month, counted from January 1970.
    Months(Local),
}

/// Where local days begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) zone: &'static Zone,
    /// How long after local midnight, on the clock, a day or a month begins; milliseconds.
    pub(crate) shift: i64,
}

impl Grid {
    /// The step that holds `time`. Of steps that begin at the same instant (clocks skipped a day), it is the last.
    pub(crate) fn step(self, time: i64) -> i64 {
        let day = |local: Local| local.zone.furthest(time).saturating_sub(local.shift).div_euclid(DAY);
        match self {
            Self::Exact => time,
            Self::Days(local) => day(local),
            Self::Months(local) => month_of(day(local)),
        }
    }

    /// The instant at which a step begins: the first at which clocks show the step's beginning, or later where they skip it.
    pub(crate) fn start(self, step: i64) -> i64 {
        let start = |local: Local, day: i64| local.zone.first(day.saturating_mul(DAY).saturating_add(local.shift));
        match self {
            Self::Exact => step,
            Self::Days(local) => start(local, step),
            Self::Months(local) => start(local, first_day(step)),
        }
    }

    /// All instants of the step that holds `time`.
    pub(crate) fn around(self, time: i64) -> Range<i64> {
        let step = self.step(time);
        self.start(step)..self.start(step.saturating_add(1))
    }

    /// A length of so many steps, and the local time at which a step begins; for messages.
    pub(crate) fn describe(self, size: i64, slide: i64, start: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (local, unit, day) = match self {
            Self::Exact => return write!(f, "{size} ms, every {slide} ms, starting at {start} ms"),
            Self::Days(local) => (local, "day", start),
            Self::Months(local) => (local, "month", first_day(start)),
        };
        let count = |number: i64| format!("{number} {unit}{}", if number == 1 { "" } else { "s" });
        let first = DateTime::from_timestamp_millis(day.saturating_mul(DAY).saturating_add(local.shift)).unwrap_or_default();
        let (size, slide, zone) = (count(size), count(slide), local.zone.name());
        write!(f, "{size}, every {slide}, counted from {} in {zone} (time zone rules {RULES})", first.format("%Y-%m-%d %H:%M:%S%.f"))
    }
}

/// Days from 1970-01-01 to the first of a month, which is counted from January 1970.
fn first_day(month: i64) -> i64 {
    let (year, month) = (1970 + month.div_euclid(12), month.rem_euclid(12));
    let leaps = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Only a leap year has one leap day more than the year before.
    let leap = if month > 1 { leaps(year) } else { leaps(year - 1) };
    365 * year + leap + DAYS_BEFORE[month as usize] - TO_1970
}

/// The month, counted from January 1970, of a day, counted from 1970-01-01.
fn month_of(day: i64) -> i64 {
    // 400 years have 146,097 days; the mean month puts the guess one month off at most.
    let mut month = day.saturating_mul(4_800).div_euclid(146_097);
    while first_day(month) > day {
        month -= 1;
    }
    while first_day(month + 1) <= day {
        month += 1;
    }
    month
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use chrono::{Datelike as _, Days, NaiveDate};

    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        let mut date = NaiveDate::from_ymd_opt(-1, 12, 25).unwrap();
        let last = NaiveDate::from_ymd_opt(2410, 1, 1).unwrap();
        while date < last {
            let day = date.signed_duration_since(epoch).num_days();
            let month = i64::from(date.year() - 1970) * 12 + i64::from(date.month0());
            assert_eq!(month_of(day), month, "{date}");
            assert_eq!(first_day(month), day - i64::from(date.day0()), "{date}");
            date = date + Days::new(1);
        }
    }

    #[test]
    fn far_days_have_months_too() {
        for day in [i64::MIN / DAY, -91_500_000, 91_500_000, i64::MAX / DAY] {
            let month = month_of(day);
            assert!(first_day(month) <= day && day < first_day(month + 1), "{day}");
        }
    }
}
