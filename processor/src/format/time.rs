//! Dates and timestamps as text, in the calendar of ISO 8601: both ways, exact, without allocation.

use std::io::Write;

const DAY_MS: i64 = 86_400_000;

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 {
        return None;
    }
    i32::try_from(date(bytes)?).ok()
}

/// Milliseconds since 1970-01-01T00:00:00Z of RFC 3339, or of the same without a zone, which then is UTC. Digits below the
/// millisecond are cut off, which is towards the past before 1970 as well: they only ever add to the second.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (day, clock) = (bytes.get(..10)?, bytes.get(11..19)?);
    if !matches!(bytes.get(10)?, b'T' | b't' | b' ') || clock.get(2) != Some(&b':') || clock.get(5) != Some(&b':') {
        return None;
    }
    let (hour, minute, second) = (two(clock, 0)?, two(clock, 3)?, two(clock, 6)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(bytes.get(19..)?)?;
    let minutes = hour * 60 + minute - zone_minutes(zone)?;
    let whole = date(day)? * DAY_MS + (minutes * 60 + second) * 1000;
    // A leap second is where UTC has them or it is nonsense; like every POSIX clock we count it to the next day.
    if second == 60 && whole.rem_euclid(DAY_MS) != 0 {
        return None;
    }
    Some(whole + fraction)
}

/// The milliseconds of `.123456`, and what follows.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = bytes.strip_prefix(b".") else { return Some((0, bytes)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = digits.split_at_checked(count)?;
    if digits.is_empty() {
        return None;
    }
    let digit = |at: usize| digits.get(at).map_or(0, |byte| i64::from(byte - b'0'));
    Some((digit(0) * 100 + digit(1) * 10 + digit(2), rest))
}

/// Minutes east of UTC.
fn zone_minutes(zone: &[u8]) -> Option<i64> {
    match zone {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two(zone, 1)?, two(zone, 4)?);
            let east = hours * 60 + minutes;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

/// Days since 1970-01-01 of the ten bytes `YYYY-MM-DD`.
fn date(bytes: &[u8]) -> Option<i64> {
    if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return None;
    }
    let (year, month, day) = (two(bytes, 0)? * 100 + two(bytes, 2)?, two(bytes, 5)?, two(bytes, 8)?);
    let days = days_of(year, month, day);
    // A day that the month does not have comes back as another one.
    ((1..=12).contains(&month) && day_of(days) == (year, month, day)).then_some(days)
}

/// The two digits at `at`.
fn two(bytes: &[u8], at: usize) -> Option<i64> {
    let digit = |at: usize| bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10);
    Some(i64::from(digit(at)? * 10 + digit(at + 1)?))
}

/// Days since 1970-01-01 (after Howard Hinnant, "chrono-compatible low-level date algorithms": the year begins in March, so
/// that the leap day is its last).
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since 1970-01-01; the way back from `days_of`.
fn day_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends `2023-11-14`. Years beyond four digits get a sign, as ISO 8601 and Spark write them.
pub(super) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = day_of(days);
    if (0..10_000).contains(&year) {
        let [a, b] = pair(year / 100);
        let [c, d] = pair(year % 100);
        out.extend_from_slice(&[a, b, c, d]);
    } else if let Err(error) = write!(out, "{year:+05}") {
        unreachable!("a Vec takes every byte: {error}");
    }
    let [m, n] = pair(month);
    let [e, f] = pair(day);
    out.extend_from_slice(&[b'-', m, n, b'-', e, f]);
}

/// Appends `2023-11-14T22:13:20.000Z`: a day since 1970-01-01 and a millisecond of that day.
pub(super) fn write_timestamp(days: i64, millis: i64, out: &mut Vec<u8>) {
    write_date(days, out);
    let [a, b] = pair(millis / 3_600_000);
    let [c, d] = pair(millis / 60_000 % 60);
    let [e, f] = pair(millis / 1000 % 60);
    let [g, h] = pair(millis % 1000 / 10);
    let [_, i] = pair(millis % 10);
    out.extend_from_slice(&[b'T', a, b, b':', c, d, b':', e, f, b'.', g, h, i, b'Z']);
}

/// Two decimal digits of a value below one hundred.
fn pair(value: i64) -> [u8; 2] {
    // Below one hundred: nothing is cut off.
    let value = value as u8;
    [b'0' + value / 10, b'0' + value % 10]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use chrono::{DateTime, NaiveDate, SecondsFormat};
    use proptest::prelude::*;

    use super::*;

    fn written(millis: i64) -> String {
        let mut out = Vec::new();
        write_timestamp(millis.div_euclid(DAY_MS), millis.rem_euclid(DAY_MS), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn timestamps_are_read() {
        for (text, wanted) in [
            ("2023-11-14T22:13:20.123Z", Some(1_700_000_000_123)),
            ("2023-11-14t22:13:20.123z", Some(1_700_000_000_123)),
            ("2023-11-14 22:13:20.1239999", Some(1_700_000_000_123)),
            ("2023-11-14T22:13:20", Some(1_700_000_000_000)),
            ("2023-11-14T22:13:20.1", Some(1_700_000_000_100)),
            ("2023-11-15T00:13:20+02:00", Some(1_700_000_000_000)),
            ("2023-11-14T16:43:20-05:30", Some(1_700_000_000_000)),
            ("1969-12-31T23:59:59.9999Z", Some(-1)),
            ("1969-12-31T23:59:59.0001Z", Some(-1000)),
            ("0000-01-01T00:00:00Z", Some(-62_167_219_200_000)),
            ("9999-12-31T23:59:59.999Z", Some(253_402_300_799_999)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
            ("2016-12-31T22:59:60Z", None),
            ("2023-02-29T00:00:00Z", None),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2023-13-01T00:00:00Z", None),
            ("2023-00-01T00:00:00Z", None),
            ("2023-01-00T00:00:00Z", None),
            ("2023-01-01T24:00:00Z", None),
            ("2023-01-01T00:60:00Z", None),
            ("2023-01-01T00:00:00.", None),
            ("2023-01-01T00:00:00.Z", None),
            ("2023-01-01T00:00:00 Z", None),
            ("2023-01-01T00:00:00+0100", None),
            ("2023-01-01T00:00:00+24:00", None),
            ("2023-01-01T00:00:00Zjunk", None),
            ("2023-01-01T00:00", None),
            ("2023-01-01", None),
            ("yesterday", None),
            ("2023-01-01T00:00:0é", None),
            ("", None),
        ] {
            assert_eq!(parse_timestamp(text), wanted, "{text}");
        }
    }

    #[test]
    fn years_of_more_than_four_digits_carry_a_sign() {
        assert_eq!(written(1_700_000_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(written(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(written(253_402_300_800_000), "+10000-01-01T00:00:00.000Z");
        assert_eq!(written(-62_167_219_200_001), "-0001-12-31T23:59:59.999Z");
        assert_eq!(written(i64::MAX), "+292278994-08-17T07:12:55.807Z");
        assert_eq!(written(i64::MIN), "-292275055-05-16T16:47:04.192Z");
    }

    #[test]
    fn every_day_of_ten_thousand_years_agrees_with_chrono() {
        let mut day = NaiveDate::from_ymd_opt(0, 1, 1).unwrap();
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        let mut out = Vec::new();
        let mut days = (day - epoch).num_days();
        while days <= 2_932_896 {
            out.clear();
            write_date(days, &mut out);
            let text = std::str::from_utf8(&out).unwrap();
            assert_eq!(text, day.to_string());
            assert_eq!(parse_date(text).map(i64::from), Some(days));
            day = day.succ_opt().unwrap();
            days += 1;
        }
    }

    proptest! {
        #[test]
        fn timestamps_agree_with_chrono(millis in -62_167_219_200_000_i64..253_402_300_800_000) {
            let text = DateTime::from_timestamp_millis(millis).unwrap().to_rfc3339_opts(SecondsFormat::Millis, true);
            prop_assert_eq!(&written(millis), &text);
            prop_assert_eq!(parse_timestamp(&text), Some(millis));
        }

        #[test]
        fn any_text_is_read_as_chrono_does_or_refused(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-6][0-9])") {
            let wanted = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_millis());
            prop_assert_eq!(parse_timestamp(&text), wanted);
        }
    }
}
