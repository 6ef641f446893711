//! Times by their declared unit: nobody guesses whether 1700000000 is seconds.

use common::settings::TimeUnit;
use serde_json::Value;

use super::Fault;

/// Years 0 to 9999 in milliseconds: what lies outside is a wrong unit, not a time.
const RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// Whole milliseconds; finer parts are cut towards the past.
pub(crate) fn millis(number: i128, unit: TimeUnit) -> Result<i64, Fault> {
    let millis = match unit {
        TimeUnit::Seconds => number.checked_mul(1_000),
        TimeUnit::Millis => Some(number),
        TimeUnit::Micros => Some(number.div_euclid(1_000)),
        TimeUnit::Nanos => Some(number.div_euclid(1_000_000)),
    };
    let millis = millis.and_then(|millis| i64::try_from(millis).ok()).filter(|millis| RANGE.contains(millis));
    millis.ok_or_else(|| {
        Fault::new("no_event_time", format!("{number} {} lies beyond the year 9999; check the declared time unit", name(unit)))
    })
}

/// The same for a number with a fraction, such as 1700000000.123 seconds.
pub(crate) fn fractional(number: f64, unit: TimeUnit) -> Result<i64, Fault> {
    let per_milli = match unit {
        TimeUnit::Seconds => 1e-3,
        TimeUnit::Millis => 1.0,
        TimeUnit::Micros => 1e3,
        TimeUnit::Nanos => 1e6,
    };
    // Rounded, because 1700000000.123 s is a hair less than that as a float.
    let millis = (number / per_milli).round();
    if !millis.is_finite() || !RANGE.contains(&(millis as i64)) {
        return Err(Fault::new(
            "no_event_time",
            format!("{number} {} is no time between the years 0 and 9999; check the declared time unit", name(unit)),
        ));
    }
    Ok(millis as i64)
}

/// A time in JSON: a number in `unit`, the same as text, or RFC 3339. `None` for `null`.
pub(crate) fn from_json(value: &Value, unit: TimeUnit) -> Result<Option<i64>, Fault> {
    let fault = || Fault::new("no_event_time", format!("{value} is no time; write a number in {} or RFC 3339", name(unit)));
    match value {
        Value::Null => Ok(None),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => millis(whole.into(), unit).map(Some),
            (_, Some(whole), _) => millis(whole.into(), unit).map(Some),
            (_, _, Some(number)) => fractional(number, unit).map(Some),
            _ => Err(fault()),
        },
        Value::String(text) => match text.parse::<i128>() {
            Ok(number) => millis(number, unit).map(Some),
            Err(_) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => fractional(number, unit).map(Some),
                _ => crate::replay::civil_time(text).map(Some).ok_or_else(fault),
            },
        },
        _ => Err(fault()),
    }
}

fn name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Seconds => "seconds",
        TimeUnit::Millis => "milliseconds",
        TimeUnit::Micros => "microseconds",
        TimeUnit::Nanos => "nanoseconds",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_moment_in_every_unit() {
        for (value, unit) in [
            (json!(1_700_000_000.123), TimeUnit::Seconds),
            (json!(1_700_000_000_123_i64), TimeUnit::Millis),
            (json!("1700000000123"), TimeUnit::Millis),
            (json!("1700000000.123"), TimeUnit::Seconds),
            (json!(1_700_000_000_123_999_i64), TimeUnit::Micros),
            (json!(1_700_000_000_123_999_999_i64), TimeUnit::Nanos),
            (json!("2023-11-14T23:13:20.123+01:00"), TimeUnit::Nanos),
        ] {
            assert_eq!(from_json(&value, unit).unwrap(), Some(1_700_000_000_123), "{value} {unit:?}");
        }
        assert_eq!(from_json(&json!(-1), TimeUnit::Nanos).unwrap(), Some(-1));
        assert_eq!(from_json(&Value::Null, TimeUnit::Nanos).unwrap(), None);
    }

    #[test]
    fn a_wrong_unit_is_no_time() {
        for (value, unit) in [
            (json!(1_700_000_000_123_i64), TimeUnit::Seconds),
            (json!(u64::MAX), TimeUnit::Millis),
            (json!(1e300), TimeUnit::Nanos),
            (json!("yesterday"), TimeUnit::Millis),
            (json!("nan"), TimeUnit::Millis),
            (json!(true), TimeUnit::Millis),
            (json!([1]), TimeUnit::Millis),
        ] {
            assert_eq!(from_json(&value, unit).unwrap_err().reason, "no_event_time", "{value} {unit:?}");
        }
    }
}
