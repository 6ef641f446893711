//! Durations and sizes as settings write them: always with a unit, so that nobody has to guess.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time such as `500ms`, `30s`, `5 minutes` or `1h 30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(Duration);

impl Span {
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Whole milliseconds, rounded down; event time is counted in these.
    pub fn millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Spark spells these out; the parser knows only their short forms. The longer word of each pair comes first.
        let spelled = text.trim().to_ascii_lowercase();
        let spelled = spelled.replace("milliseconds", "ms").replace("millisecond", "ms");
        let spelled = spelled.replace("microseconds", "us").replace("microsecond", "us");
        humantime::parse_duration(&spelled)
            .map(Self)
            .map_err(|_| format!("'{text}' is not a length of time; write a number with a unit, such as '500ms', '30s' or '5 minutes'"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// A number of bytes such as `64MiB` or `10 GB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(u64);

impl Size {
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib * 1024 * 1024)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || format!("'{text}' is not a size; write a number with a unit, such as '512KiB', '64MiB' or '10GB'");
        // A bare number would parse as bytes; the rule is that sizes carry units.
        if !text.trim_end().ends_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(fault());
        }
        text.trim().parse::<bytesize::ByteSize>().map(|size| Self(size.as_u64())).map_err(|_| fault())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, bytes) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= bytes && self.0.is_multiple_of(bytes) {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}
serde_as_text!(Span);
serde_as_text!(Size);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_both_spellings() {
        for text in ["5s", "5 seconds", "5 SECONDS", "5000ms", "5000 milliseconds"] {
            assert_eq!(text.parse::<Span>().unwrap(), Span::from_secs(5), "{text}");
        }
        assert_eq!("1h 30m".parse::<Span>().unwrap().millis(), 5_400_000);
        assert_eq!(Span::from_millis(1500).to_string(), "1s 500ms");
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        assert!("5".parse::<Span>().unwrap_err().contains("unit"));
        assert!("1024".parse::<Size>().unwrap_err().contains("unit"));
    }

    #[test]
    fn sizes_survive_a_round_trip() {
        for text in ["64MiB", "512KiB", "3GiB", "1000000B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("10MB".parse::<Size>().unwrap().bytes(), 10_000_000);
    }
}
