//! How fast a replay goes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// `max`, or a number that real time is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    Max,
    Times(f64),
}

impl Speed {
    /// When a row `offset_ms` of event time after the first is due after the start.
    pub(super) fn due_at(self, offset_ms: i64) -> Duration {
        match self {
            Self::Max => Duration::ZERO,
            // A row from before the first one is due at once; one beyond what a `Duration` holds, never.
            Self::Times(times) => Duration::try_from_secs_f64((offset_ms.max(0) as f64) / 1000.0 / times).unwrap_or(Duration::MAX),
        }
    }
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        match text.trim_end_matches(['x', 'X']).parse::<f64>() {
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Self::Times(times)),
            _ => Err(format!("'{text}' is not a speed; write 'max' or a number above 0 such as '1' or '60' (times real time)")),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("as fast as it goes"),
            Self::Times(times) => write!(f, "at {times} times real time"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_max_and_numbers() {
        for (text, speed) in [("max", Speed::Max), (" MAX ", Speed::Max), ("60", Speed::Times(60.0)), ("0.5x", Speed::Times(0.5))] {
            assert_eq!(text.parse::<Speed>().unwrap(), speed, "{text}");
        }
        for text in ["", "0", "-1", "fast", "nan", "inf", "x"] {
            assert!(text.parse::<Speed>().unwrap_err().contains("'max'"), "{text}");
        }
    }

    #[test]
    fn due_is_event_time_divided_by_speed() {
        assert_eq!(Speed::Times(60.0).due_at(120_000), Duration::from_secs(2));
        assert_eq!(Speed::Times(60.0).due_at(-5), Duration::ZERO);
        assert_eq!(Speed::Times(1e-300).due_at(i64::MAX), Duration::MAX);
        assert_eq!(Speed::Max.due_at(i64::MAX), Duration::ZERO);
    }
}
