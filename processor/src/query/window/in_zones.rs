//! Windows of a calendar: days that everybody can look up, and the arithmetic against a list of all windows that chrono makes.

use chrono::{DateTime, Days, MappedLocalTime, Months, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _};
use chrono_tz::{TZ_VARIANTS, Tz};
use datafusion_expr::{col, lit};
use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600_000;

fn call(zone: Option<&str>, lengths: &[&str]) -> std::result::Result<WindowSpec, String> {
    let zone = zone.map(|name| Zone::named(name).unwrap());
    let arguments = std::iter::once(col("ts")).chain(lengths.iter().map(|length| lit(*length))).collect();
    WindowSpec::from_call(&ScalarFunction::new_udf(window_function(), arguments), zone).map(|(window, _)| window)
}

fn windows(zone: &str, lengths: &[&str]) -> WindowSpec {
    call(Some(zone), lengths).unwrap()
}

fn millis(text: &str) -> i64 {
    format!("{text}Z").parse::<DateTime<chrono::Utc>>().unwrap().timestamp_millis()
}

/// (zone, lengths, a time, the start and the end of its first window), UTC
const WINDOWS: &[(&str, &[&str], &str, &str, &str)] = &[
    ("Europe/Rome", &["1 day"], "2026-03-29T12:00:00", "2026-03-28T23:00:00", "2026-03-29T22:00:00"),
    ("Europe/Rome", &["1 day"], "2026-10-25T12:00:00", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),
    ("Europe/Rome", &["1 day"], "2026-10-25T23:00:00", "2026-10-25T23:00:00", "2026-10-26T23:00:00"),
    ("America/New_York", &["1 day"], "2026-03-08T12:00:00", "2026-03-08T05:00:00", "2026-03-09T04:00:00"),
    ("America/New_York", &["1 day"], "2026-11-01T12:00:00", "2026-11-01T04:00:00", "2026-11-02T05:00:00"),
    // Half an hour.
    ("Australia/Lord_Howe", &["1 day"], "2026-10-04T00:00:00", "2026-10-03T13:30:00", "2026-10-04T13:00:00"),
    ("Australia/Lord_Howe", &["1 day"], "2026-04-05T00:00:00", "2026-04-04T13:00:00", "2026-04-05T13:30:00"),
    ("Asia/Kathmandu", &["1 day"], "2026-01-01T18:14:59", "2025-12-31T18:15:00", "2026-01-01T18:15:00"),
    // The day before the skipped one, and the one after it.
    ("Pacific/Apia", &["1 day"], "2011-12-30T09:59:59", "2011-12-29T10:00:00", "2011-12-30T10:00:00"),
    ("Pacific/Apia", &["1 day"], "2011-12-30T10:00:00", "2011-12-30T10:00:00", "2011-12-31T10:00:00"),
    ("Pacific/Apia", &["1 week"], "2011-12-30T10:00:00", "2011-12-26T10:00:00", "2012-01-01T10:00:00"),
    // Midnight that did not exist; the day that ends by going back to 23:00.
    ("America/Sao_Paulo", &["1 day"], "2018-11-04T12:00:00", "2018-11-04T03:00:00", "2018-11-05T02:00:00"),
    ("America/Sao_Paulo", &["1 day"], "2018-02-18T02:30:00", "2018-02-17T02:00:00", "2018-02-18T03:00:00"),
    ("Asia/Beirut", &["1 day"], "2026-03-29T12:00:00", "2026-03-28T22:00:00", "2026-03-29T21:00:00"),
    // Weeks begin on Monday; seven days are counted from 1970-01-01, a Thursday.
    ("Europe/Rome", &["1 week"], "2026-03-29T12:00:00", "2026-03-22T23:00:00", "2026-03-29T22:00:00"),
    ("Europe/Rome", &["7 days"], "2026-03-29T12:00:00", "2026-03-25T23:00:00", "2026-04-01T22:00:00"),
    ("UTC", &["2 weeks"], "1970-01-01T00:00:00", "1969-12-29T00:00:00", "1970-01-12T00:00:00"),
    ("UTC", &["1 week", "1 week", "1 day"], "1970-01-01T00:00:00", "1969-12-30T00:00:00", "1970-01-06T00:00:00"),
    ("Europe/Rome", &["1 month"], "2026-03-31T21:59:59", "2026-02-28T23:00:00", "2026-03-31T22:00:00"),
    ("Europe/Rome", &["1 quarter"], "2026-03-31T22:00:00", "2026-03-31T22:00:00", "2026-06-30T22:00:00"),
    ("Europe/Rome", &["3 months", "1 month"], "2026-03-31T12:00:00", "2025-12-31T23:00:00", "2026-03-31T22:00:00"),
    ("UTC", &["1 year"], "1969-12-31T23:59:59", "1969-01-01T00:00:00", "1970-01-01T00:00:00"),
    ("UTC", &["1 year", "1 year", "3 months"], "2026-03-31T00:00:00", "2025-04-01T00:00:00", "2026-04-01T00:00:00"),
    ("UTC", &["1 month", "1 month", "14 days 6 hours"], "2026-03-15T05:00:00", "2026-02-15T06:00:00", "2026-03-15T06:00:00"),
    // Production days, which begin at six on the clock: the night of the change is in the day before.
    ("Europe/Rome", &["1 day", "1 day", "6 hours"], "2026-03-29T03:59:59", "2026-03-28T05:00:00", "2026-03-29T04:00:00"),
    ("Europe/Rome", &["1 day", "1 day", "6 hours"], "2026-10-25T04:00:00", "2026-10-24T04:00:00", "2026-10-25T05:00:00"),
    // Smaller than a day: as without a zone.
    ("Asia/Kathmandu", &["1 hour"], "2026-01-01T18:14:59", "2026-01-01T18:00:00", "2026-01-01T19:00:00"),
    ("Europe/Rome", &["24 hours"], "2026-03-29T12:00:00", "2026-03-29T00:00:00", "2026-03-30T00:00:00"),
];

#[test]
fn windows_begin_and_end_where_the_calendar_says() {
    for (zone, lengths, time, start, end) in WINDOWS {
        let window = windows(zone, lengths);
        let pane = window.pane(millis(time), i64::MIN).unwrap();
        let first = window.windows(pane).next().unwrap();
        assert_eq!((first, window.end(first)), (millis(start), millis(end)), "{time} in {lengths:?}, {zone}");
    }
}

/// Where a step of a calendar begins, by chrono: the earlier of two, or the first local second that exists.
fn boundary(zone: Tz, local: NaiveDateTime) -> i64 {
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(time) => time.timestamp_millis(),
        MappedLocalTime::Ambiguous(first, second) => first.min(second).timestamp_millis(),
        MappedLocalTime::None => boundary_after(zone, local),
    }
}

fn boundary_after(zone: Tz, mut local: NaiveDateTime) -> i64 {
    loop {
        local += TimeDelta::seconds(1);
        if let Some(time) = zone.from_local_datetime(&local).earliest() {
            return time.timestamp_millis();
        }
    }
}

/// A window and what it is made of.
#[derive(Debug, Clone, Copy)]
struct Case {
    zone: Tz,
    months: bool,
    size: i64,
    slide: i64,
    /// Steps before the first window after 1970.
    start: i64,
    hours: i64,
}

impl Case {
    fn spec(&self) -> WindowSpec {
        let unit = if self.months { "months" } else { "days" };
        let offset = match (self.start, self.hours) {
            (0, hours) => format!("{hours} hours"),
            (start, hours) => format!("{start} {unit} {hours} hours"),
        };
        windows(self.zone.name(), &[&format!("{} {unit}", self.size), &format!("{} {unit}", self.slide), &offset])
    }

    /// The instant at which a step begins.
    fn boundary(&self, step: i64) -> i64 {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        let size = step.unsigned_abs();
        let date = match (self.months, step >= 0) {
            (true, true) => epoch + Months::new(size as u32),
            (true, false) => epoch - Months::new(size as u32),
            (false, true) => epoch + Days::new(size),
            (false, false) => epoch - Days::new(size),
        };
        boundary(self.zone, date.and_time(chrono::NaiveTime::MIN) + TimeDelta::hours(self.hours))
    }

    /// The windows over `time`, by looking at all that are near; the flag tells whether one of them was skipped by the clocks.
    fn windows_over(&self, time: i64) -> (Vec<(i64, i64)>, bool) {
        let near = time.div_euclid(if self.months { 30 * DAY + 10 * HOUR + HOUR / 2 } else { DAY }) / self.slide;
        let reach = self.size / self.slide + 3;
        let (mut over, mut skipped) = (Vec::new(), false);
        for step in (near - reach..near + reach).map(|number| self.start + number * self.slide) {
            let (start, end) = (self.boundary(step), self.boundary(step + self.size));
            if start <= time && time < end {
                let empty = start == self.boundary(step + self.slide);
                skipped |= empty;
                if !empty {
                    over.push((start, end));
                }
            }
        }
        (over, skipped)
    }

    fn check(&self, spec: WindowSpec, time: i64) {
        let (over, skipped) = self.windows_over(time);
        let starts: Vec<i64> = over.iter().map(|(start, _)| *start).collect();
        let tag = || format!("{} in {self:?}", DateTime::from_timestamp_millis(time).unwrap());
        if self.size % self.slide == 0 {
            assert!(skipped || starts.len() as i64 == self.size / self.slide, "{starts:?} over {}", tag());
        }
        let pane = spec.pane(time, i64::MIN).unwrap();
        assert!(pane.start <= time, "{}", tag());
        assert_eq!(spec.windows(pane).collect::<Vec<_>>(), starts, "{}", tag());
        assert_eq!(spec.last_window(pane.start), *starts.last().unwrap(), "{}", tag());
        for (start, end) in &over {
            assert_eq!(spec.end(*start), *end, "end of {start}, {}", tag());
        }
        // The rows that came late for some.
        let watermarks = over.iter().flat_map(|(start, end)| [*start, *end - 1, *end, *end + 1]).chain([time, time + 90 * DAY]);
        for watermark in watermarks {
            let open: Vec<i64> = over.iter().filter(|(_, end)| *end > watermark).map(|(start, _)| *start).collect();
            let pane = spec.pane(time, watermark);
            assert_eq!(pane.map_or(Vec::new(), |pane| spec.windows(pane).collect()), open, "watermark {watermark}, {}", tag());
            assert_eq!(PaneFinder::new(spec).pane(time, watermark), pane, "{}", tag());
        }
        // The end of the last window is the start of one when windows follow each other without overlap.
        if self.size == self.slide {
            let next = spec.end(starts[0]);
            assert_eq!(spec.pane(next, i64::MIN).map(|pane| pane.start), Some(next), "{}", tag());
            assert_eq!(spec.pane(next - 1, i64::MIN), Some(pane), "{}", tag());
        }
    }
}

fn days(zone: &str, size: i64, slide: i64, start: i64, hours: i64) -> Case {
    Case { zone: zone.parse().unwrap(), months: false, size, slide, start, hours }
}

#[test]
fn days_around_every_kind_of_change_are_as_listed() {
    let changes = [
        ("Europe/Rome", "2026-03-29T01:00:00"),
        ("Europe/Rome", "2026-10-25T01:00:00"),
        ("America/New_York", "2026-03-08T07:00:00"),
        ("America/New_York", "2026-11-01T06:00:00"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00"),
        ("Asia/Kathmandu", "1985-12-31T18:30:00"),
        ("Pacific/Apia", "2011-12-30T10:00:00"),
        ("Pacific/Kwajalein", "1969-09-30T13:00:00"),
        ("America/Sao_Paulo", "2018-11-04T03:00:00"),
        ("America/Sao_Paulo", "2018-02-18T02:00:00"),
        ("America/St_Johns", "2006-10-29T02:31:00"),
        ("UTC", "1970-01-01T00:00:00"),
    ];
    for (zone, change) in changes {
        for (size, slide, start, hours) in [(1, 1, 0, 0), (1, 1, 0, 6), (2, 2, 1, 0), (7, 1, 0, 0), (5, 2, 1, 2), (3, 2, 0, 23)] {
            let case = days(zone, size, slide, start, hours);
            let spec = case.spec();
            for hour in -60..60 {
                for near in [-1, 0, 17 * 60_000] {
                    case.check(spec, millis(change) + hour * HOUR + near);
                }
            }
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let zone = prop_oneof![
        (0..TZ_VARIANTS.len()).prop_map(|index| TZ_VARIANTS[index]),
        prop::sample::select(vec![
            Tz::Europe__Rome,
            Tz::America__Sao_Paulo,
            Tz::Australia__Lord_Howe,
            Tz::Pacific__Apia,
            Tz::America__Juneau
        ]),
    ];
    (zone, any::<bool>(), 1i64..13, 1i64..13, 0i64..12, 0i64..24).prop_map(|(zone, months, a, b, start, hours)| {
        let (size, slide) = (a.max(b), a.min(b));
        Case { zone, months, size, slide, start: start % slide, hours }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_instant_is_in_its_windows_in_any_zone(case in cases(), time in -4_500_000_000_000i64..4_300_000_000_000) {
        case.check(case.spec(), time);
    }

    #[test]
    fn a_finder_finds_what_a_look_into_the_calendar_finds(case in cases(), start in 0i64..2_000_000_000_000, seed: u64) {
        let spec = case.spec();
        let mut finder = PaneFinder::new(spec);
        let mut state = seed;
        let (mut time, mut watermark) = (start, i64::MIN);
        for _ in 0..100 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            time += (state >> 33) as i64 % (8 * HOUR) - 2 * HOUR;
            prop_assert_eq!(finder.pane(time, watermark), spec.pane(time, watermark));
            watermark = watermark.max(time - 5 * HOUR);
        }
    }

    #[test]
    fn far_times_are_in_windows_too(case in cases(), time in prop_oneof![
        -7_905_600_000_000_000i64..-7_900_000_000_000_000, 7_900_000_000_000_000..7_905_600_000_000_000i64,
    ]) {
        let spec = case.spec();
        let pane = spec.pane(time, i64::MIN).unwrap();
        let windows: Vec<i64> = spec.windows(pane).collect();
        prop_assert!(!windows.is_empty());
        for start in windows {
            prop_assert!(start <= time && time < spec.end(start));
        }
    }
}

#[test]
fn nothing_panics_at_the_end_of_time() {
    for lengths in [&["7 days", "1 day"][..], &["10000 years", "1 year"], &["1 month", "1 month", "27 days 23 hours"]] {
        let window = windows("Europe/Rome", lengths);
        for time in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
            for watermark in [i64::MIN, 0, i64::MAX] {
                if let Some(pane) = window.pane(time, watermark) {
                    window.windows(pane).map(|start| window.end(start)).max();
                    window.last_window(pane.start);
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_a_calendar_is_refused_with_what_to_write() {
    let fault = |zone: Option<&str>, lengths: &[&str]| call(zone, lengths).unwrap_err();
    let rome = Some("Europe/Rome");
    for (zone, lengths, advice) in [
        (None, &["1 month"][..], "time_zone"),
        (None, &["1 year", "1 day"], "time_zone"),
        (None, &["1 day", "1 day", "1 month"], "time_zone"),
        (rome, &["1 day", "6 hours"], "'24 hours' every '6 hours'"),
        (rome, &["1 month", "1 day"], "'7 days' every '1 day'"),
        (rome, &["1 month 1 day"], "mixes"),
        (rome, &["1 day 12 hours"], "mixes"),
        (rome, &["48 hours", "1 day"], "mixes"),
        (rome, &["1.5 days"], "write it in hours"),
        (rome, &["1 day", "1 day", "1 month"], "in days or hours"),
        (rome, &["1 month", "1 month", "28 days"], "less than 28 days"),
        (rome, &["1 hour", "1 hour", "1 month"], "no fixed length"),
        (rome, &["10001 years"], "10,000 years"),
        (rome, &["4000000 days"], "10,000 years"),
        (rome, &["1 day", "2 days"], "no longer than the size"),
        (rome, &["10000 years", "1 month"], "longer slide"),
        (rome, &["0 days"], "at least"),
    ] {
        let fault = fault(zone, lengths);
        assert!(fault.contains(advice), "{lengths:?}: {fault}");
    }
}

#[test]
fn a_window_says_what_it_is() {
    let says = |zone: Option<&str>, lengths: &[&str]| call(zone, lengths).unwrap().to_string();
    assert_eq!(says(None, &["1 day"]), "86400000 ms, every 86400000 ms, starting at 0 ms");
    let text = says(Some("Europe/Rome"), &["7 days", "1 day", "6 hours"]);
    assert!(text.starts_with("7 days, every 1 day, counted from 1970-01-01 06:00:00 in Europe/Rome (time zone rules 20"), "{text}");
    assert!(says(Some("UTC"), &["1 week"]).starts_with("7 days, every 7 days, counted from 1970-01-05 00:00:00 in UTC"));
    assert!(says(Some("UTC"), &["1 year"]).starts_with("12 months, every 12 months, counted from 1970-01-01"));
}
