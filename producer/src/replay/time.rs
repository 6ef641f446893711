//! Event times as files write them.

use chrono::NaiveDate;

/// Milliseconds since 1970 from epoch milliseconds (`1700000000123`, `-5`), RFC 3339 (`2013-07-04T00:00:00.5+02:00`), or the same
/// without a zone (`2013-07-04 00:00:00[.fff]`), which is taken as UTC. Finer fractions are cut to the millisecond before.
pub(crate) fn parse(text: &str) -> Option<i64> {
    match text.parse() {
        Ok(millis) => Some(millis),
        Err(_) => civil(text.as_bytes()),
    }
}

/// `YYYY-MM-DD?hh:mm:ss`, an optional fraction, an optional zone. By hand: this runs once a row.
fn civil(text: &[u8]) -> Option<i64> {
    let (stamp, rest) = text.split_at_checked(19)?;
    let punctuated =
        stamp[4] == b'-' && stamp[7] == b'-' && matches!(stamp[10], b' ' | b'T' | b't') && stamp[13] == b':' && stamp[16] == b':';
    if !punctuated {
        return None;
    }
    let year = i32::try_from(number(&stamp[0..4])?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number(&stamp[5..7])?, number(&stamp[8..10])?)?;
    let (hour, minute, second) = (number(&stamp[11..13])?, number(&stamp[14..16])?, number(&stamp[17..19])?);
    // RFC 3339 allows a leap second; it becomes the first moment of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, rest) = fraction(rest)?;
    let days = i64::from(date.to_epoch_days());
    let seconds = days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second) - zone(rest)?;
    Some(seconds * 1000 + fraction)
}

/// Milliseconds of `.fff...` and what follows.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.' | b',', digits)) = text.split_first() else { return Some((0, text)) };
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let millis = (0..3).fold(0, |millis, place| millis * 10 + if place < length { i64::from(digits[place] - b'0') } else { 0 });
    Some((millis, &digits[length..]))
}

/// Seconds east of UTC: nothing or `Z` for UTC, `+hh:mm`, `-hhmm`.
fn zone(text: &[u8]) -> Option<i64> {
    let (hours, minutes) = match text {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+' | b'-', hours @ .., b':', m1, m2] if hours.len() == 2 => (hours, [*m1, *m2]),
        [b'+' | b'-', h1, h2, m1, m2] => (&[*h1, *h2][..], [*m1, *m2]),
        _ => return None,
    };
    let (hours, minutes) = (number(hours)?, number(&minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
    Some(if text[0] == b'-' { -seconds } else { seconds })
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_gives_the_same_moment() {
        let moment = 1_700_000_000_123;
        for text in [
            "1700000000123",
            "+1700000000123",
            "2023-11-14T22:13:20.123Z",
            "2023-11-14t22:13:20.123z",
            "2023-11-14T23:13:20.123+01:00",
            "2023-11-14T18:43:20.123-0330",
            "2023-11-14 22:13:20.123",
            "2023-11-14 22:13:20.123999",
            "2023-11-14T22:13:20,123",
        ] {
            assert_eq!(parse(text), Some(moment), "{text}");
        }
        assert_eq!(parse("2013-07-04 00:00:00"), Some(1_372_896_000_000));
        assert_eq!(parse("2013-07-04 00:00:00.5"), Some(1_372_896_000_500));
    }

    #[test]
    fn times_before_1970_work() {
        assert_eq!(parse("-5"), Some(-5));
        assert_eq!(parse("1969-12-31 23:59:59.999"), Some(-1));
        assert_eq!(parse("1969-12-31 23:59:59.9999"), Some(-1));
        assert_eq!(parse("1600-02-29T00:00:00Z"), Some(-11_670_998_400_000));
    }

    #[test]
    fn the_calendar_is_chronos() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T12:34:56.789-11:30", "9999-12-31T23:59:59.999Z", "0000-01-01T00:00:00+05:45"] {
            assert_eq!(parse(text), chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis()), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "12.5",
            "99999999999999999999",
            "2013-07-04",
            "2013-07-04 00:00",
            "2013-02-29 00:00:00",
            "2013-13-01 00:00:00",
            "2013-07-04 24:00:00",
            "2013-07-04 00:60:00",
            "2013-07-04 00:00:61",
            "2013-07-04 00:00:00.",
            "2013-07-04 00:00:00 UTC",
            "2013-07-04T00:00:00+1",
            "2013-07-04T00:00:00+24:00",
            "2013-07-04_00:00:00",
            "2013-07-04T00:00:0ä",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
