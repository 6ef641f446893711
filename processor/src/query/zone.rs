//! Time zones: what the clocks of a place show at an instant, and when they come to show a local time.
//!
//! Local times are written as the milliseconds since 1970-01-01 00:00 on the wall. A zone is read once into a table of its changes; all
//! look-ups are integer arithmetic on it, so no time is out of range.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, FixedOffset, Offset as _, TimeZone as _};
use chrono_tz::{TZ_VARIANTS, Tz};

/// The edition of the IANA database that is built in.
pub(crate) const RULES: &str = chrono_tz::IANA_TZDB_VERSION;

/// Where changes are looked for, seconds since 1970: the years 1800 to 2200. The database's own table lies within.
const SEARCHED: std::ops::Range<i64> = -5_364_662_400..7_258_118_400;

/// No zone of the database changes twice within a week.
const STEP: i64 = 2 * 86_400;

/// The years 1970 to 2037, milliseconds: what all editions of the database write out change by change.
const COMPARED: std::ops::Range<i64> = 0..2_145_916_800_000;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    name: String,
    /// In order of time; the first is from the beginning of time.
    changes: Vec<Change>,
}

/// From `at` on, clocks are `offset` ahead of UTC; milliseconds.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    at: i64,
    offset: i64,
    /// The latest local time that clocks had shown before.
    shown: i64,
}

impl Zone {
    /// The zone with a name of the IANA database, or with a fixed offset such as `+05:30`.
    ///
    /// # Errors
    /// One sentence, when there is none; it names the zone that was probably meant.
    pub(crate) fn named(name: &str) -> Result<&'static Self, String> {
        // One table for each zone lives as long as the process: windows are copied about and only point to it.
        static ZONES: Mutex<BTreeMap<String, &'static Zone>> = Mutex::new(BTreeMap::new());
        let mut zones = ZONES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(zone) = zones.get(name) {
            return Ok(zone);
        }
        let offsets = match (name.parse::<Tz>(), name.parse::<FixedOffset>()) {
            (Ok(zone), _) => offsets(zone),
            (_, Ok(fixed)) => vec![(i64::MIN, i64::from(fixed.local_minus_utc()))],
            _ => return Err(unknown(name)),
        };
        let zone: &'static Self = Box::leak(Box::new(Self { name: name.to_owned(), changes: table(&offsets) }));
        zones.insert(name.to_owned(), zone);
        Ok(zone)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Name and changes: equal for two programs that cut today's time in the same places.
    pub(crate) fn fingerprint(&self) -> String {
        let compared = self.changes.iter().filter(|change| COMPARED.contains(&change.at));
        std::iter::once(self.name.clone())
            .chain(compared.map(|change| format!("{}:{}", change.at, change.offset)))
            .collect::<Vec<_>>()
            .join(",")
    }

    /// What clocks show at `time`.
    pub(crate) fn local(&self, time: i64) -> i64 {
        time.saturating_add(self.at(time).offset)
    }

    /// The latest local time that clocks have shown up to `time`. It never goes back: while clocks repeat an hour, it stands.
    ///
    /// ```text
    /// clocks put back   local     01:58 01:59 01:00 ... 01:59 02:00
    ///                   furthest  01:58 01:59 01:59 ... 01:59 02:00
    /// ```
    pub(crate) fn furthest(&self, time: i64) -> i64 {
        let change = self.at(time);
        time.saturating_add(change.offset).max(change.shown)
    }

    /// The first instant at which clocks show `local` or later: the earlier of two, and the end of a gap.
    pub(crate) fn first(&self, local: i64) -> i64 {
        let change = &self.changes[self.before(local)];
        local.saturating_sub(change.offset).max(change.at)
    }

    /// The instant at which clocks show `local`: the earlier of two; in a gap, with the offset from before it, as Java and Spark have it.
    pub(crate) fn utc(&self, local: i64) -> i64 {
        let found = self.before(local);
        let time = local.saturating_sub(self.changes[found].offset);
        if time >= self.changes[found].at || found == 0 { time } else { local.saturating_sub(self.changes[found - 1].offset) }
    }

    fn at(&self, time: i64) -> &Change {
        &self.changes[self.changes.partition_point(|change| change.at <= time).saturating_sub(1)]
    }

    /// The change in whose time `local` is first reached.
    fn before(&self, local: i64) -> usize {
        self.changes.partition_point(|change| change.shown < local).saturating_sub(1)
    }
}

/// From when on which offset holds; seconds.
fn offsets(zone: Tz) -> Vec<(i64, i64)> {
    let offset = |seconds: i64| {
        let utc = DateTime::from_timestamp(seconds, 0).unwrap_or_default().naive_utc();
        i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
    };
    let mut last = offset(SEARCHED.start);
    let mut found = vec![(i64::MIN, last)];
    for end in SEARCHED.step_by(STEP as usize).skip(1) {
        let next = offset(end);
        if next == last {
            continue;
        }
        let (mut old, mut new) = (end - STEP, end);
        while new - old > 1 {
            let middle = old + (new - old) / 2;
            *(if offset(middle) == last { &mut old } else { &mut new }) = middle;
        }
        found.push((new, next));
        last = next;
    }
    found
}

fn table(offsets: &[(i64, i64)]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::with_capacity(offsets.len());
    for (at, offset) in offsets {
        let (at, offset) = (at.saturating_mul(1000), offset * 1000);
        let shown = changes.last().map_or(i64::MIN, |before| before.shown.max(at - 1 + before.offset));
        changes.push(Change { at, offset, shown });
    }
    changes
}

fn unknown(name: &str) -> String {
    let alike = TZ_VARIANTS.iter().map(|zone| zone.name()).find(|known| {
        let city = known.rsplit('/').next().unwrap_or(known);
        known.eq_ignore_ascii_case(name) || city.eq_ignore_ascii_case(name.trim())
    });
    match alike {
        Some(alike) => format!("there is no time zone '{name}'; did you mean '{alike}'?"),
        None => format!("there is no time zone '{name}'; write a name of the IANA database, such as 'Europe/Rome' or 'UTC'"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn zone(name: &str) -> &'static Zone {
        Zone::named(name).unwrap()
    }

    fn millis(text: &str) -> i64 {
        format!("{text}Z").parse::<DateTime<chrono::Utc>>().unwrap().timestamp_millis()
    }

    /// (zone, local time, the first instant that shows it or later, the instant as in Java)
    const TIMES: &[(&str, &str, &str, &str)] = &[
        ("UTC", "2026-03-29T00:00:00", "2026-03-29T00:00:00", "2026-03-29T00:00:00"),
        ("+05:30", "2026-03-29T00:00:00", "2026-03-28T18:30:00", "2026-03-28T18:30:00"),
        ("Europe/Rome", "2026-03-29T00:00:00", "2026-03-28T23:00:00", "2026-03-28T23:00:00"),
        ("Europe/Rome", "2026-03-29T01:59:59", "2026-03-29T00:59:59", "2026-03-29T00:59:59"),
        // 02:00 to 03:00 does not exist.
        ("Europe/Rome", "2026-03-29T02:00:00", "2026-03-29T01:00:00", "2026-03-29T01:00:00"),
        ("Europe/Rome", "2026-03-29T02:30:00", "2026-03-29T01:00:00", "2026-03-29T01:30:00"),
        ("Europe/Rome", "2026-03-29T03:00:00", "2026-03-29T01:00:00", "2026-03-29T01:00:00"),
        ("Europe/Rome", "2026-03-30T00:00:00", "2026-03-29T22:00:00", "2026-03-29T22:00:00"),
        // 02:00 to 03:00 exists twice.
        ("Europe/Rome", "2026-10-25T02:30:00", "2026-10-25T00:30:00", "2026-10-25T00:30:00"),
        ("Europe/Rome", "2026-10-25T03:00:00", "2026-10-25T02:00:00", "2026-10-25T02:00:00"),
        // Clocks were put back at midnight, and forward at midnight.
        ("America/Sao_Paulo", "2018-02-18T00:00:00", "2018-02-18T03:00:00", "2018-02-18T03:00:00"),
        ("America/Sao_Paulo", "2018-02-17T23:30:00", "2018-02-18T01:30:00", "2018-02-18T01:30:00"),
        ("America/Sao_Paulo", "2018-11-04T00:00:00", "2018-11-04T03:00:00", "2018-11-04T03:00:00"),
        ("Asia/Beirut", "2026-03-29T00:00:00", "2026-03-28T22:00:00", "2026-03-28T22:00:00"),
        // At 00:01 clocks went back to 23:01: midnight came twice.
        ("America/St_Johns", "2006-10-29T00:00:00", "2006-10-29T02:30:00", "2006-10-29T02:30:00"),
        ("America/St_Johns", "2006-10-28T23:30:00", "2006-10-29T02:00:00", "2006-10-29T02:00:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:15:00", "2026-10-03T15:30:00", "2026-10-03T15:45:00"),
        ("Asia/Kathmandu", "2026-01-01T00:00:00", "2025-12-31T18:15:00", "2025-12-31T18:15:00"),
        // The whole of the 30th did not exist.
        ("Pacific/Apia", "2011-12-30T00:00:00", "2011-12-30T10:00:00", "2011-12-30T10:00:00"),
        ("Pacific/Apia", "2011-12-30T12:00:00", "2011-12-30T10:00:00", "2011-12-30T22:00:00"),
        ("Pacific/Apia", "2011-12-31T00:00:00", "2011-12-30T10:00:00", "2011-12-30T10:00:00"),
        // Local mean time, with seconds.
        ("Europe/Rome", "1800-01-01T00:00:00", "1799-12-31T23:10:04", "1799-12-31T23:10:04"),
    ];

    #[test]
    fn local_times_come_at_their_instants() {
        for (name, local, first, utc) in TIMES {
            assert_eq!(zone(name).first(millis(local)), millis(first), "{local} in {name}");
            assert_eq!(zone(name).utc(millis(local)), millis(utc), "{local} in {name}, as in Java");
        }
    }

    /// Around every change of some zones: the table against chrono-tz, and `first` and `furthest` against their definitions.
    #[test]
    fn the_table_says_what_the_database_says() {
        for name in
            ["Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Juneau", "Asia/Gaza", "Africa/Casablanca"]
        {
            let (zone, known): (_, Tz) = (zone(name), name.parse().unwrap());
            assert!(zone.changes.len() > 8, "{name}");
            for change in &zone.changes[1..] {
                let mut furthest = zone.furthest(change.at - 30 * 3_600_000);
                for time in (change.at - 30 * 3_600_000..change.at + 30 * 3_600_000).step_by(900_000) {
                    let utc = DateTime::from_timestamp_millis(time).unwrap();
                    assert_eq!(zone.local(time), utc.with_timezone(&known).naive_local().and_utc().timestamp_millis(), "{name} at {utc}");
                    furthest = furthest.max(zone.local(time));
                    // Between the quarters of an hour clocks may have shown up to a quarter more.
                    assert!((furthest..furthest + 900_000).contains(&zone.furthest(time)), "{name} at {utc}");
                    let reached = zone.furthest(time);
                    let first = zone.first(reached);
                    assert!(first <= time && zone.furthest(first) >= reached && zone.furthest(first - 1) < reached, "{name} at {utc}");
                    assert_eq!(zone.local(zone.utc(zone.local(time))), zone.local(time), "{name} at {utc}");
                }
            }
        }
    }

    #[test]
    fn every_change_of_the_database_is_found() {
        for known in TZ_VARIANTS.iter().step_by(7) {
            let zone = zone(known.name());
            for time in (SEARCHED.start..SEARCHED.end).step_by(11 * 3_600 + 1) {
                let utc = DateTime::from_timestamp(time, 0).unwrap().naive_utc();
                let offset = i64::from(known.offset_from_utc_datetime(&utc).fix().local_minus_utc());
                assert_eq!(zone.local(time * 1000), (time + offset) * 1000, "{known} at {utc}");
            }
        }
    }

    #[test]
    fn no_time_is_too_far() {
        for name in ["Europe/Rome", "Pacific/Apia", "-12:00"] {
            for time in [i64::MIN, i64::MIN + 1, -1 << 53, 1 << 53, i64::MAX - 1, i64::MAX] {
                let zone = zone(name);
                zone.local(time);
                zone.utc(time);
                zone.first(zone.furthest(time));
            }
        }
    }

    #[test]
    fn an_unknown_zone_is_told_with_the_known_one() {
        let fault = |name: &str| Zone::named(name).unwrap_err();
        assert!(fault("europe/rome").contains("did you mean 'Europe/Rome'?"), "{}", fault("europe/rome"));
        assert!(fault("Rome").contains("'Europe/Rome'"));
        assert!(fault("Atlantis").contains("IANA"));
        assert!(fault("").contains("IANA"));
    }

    #[test]
    fn zones_have_fingerprints_of_their_own() {
        let print = |name: &str| zone(name).fingerprint();
        assert_ne!(print("Europe/Rome"), print("Europe/Berlin"));
        assert_eq!(print("UTC"), "UTC");
        assert!(print("Europe/Rome").contains(",1774746000000:7200000"), "{}", print("Europe/Rome"));
    }
}
