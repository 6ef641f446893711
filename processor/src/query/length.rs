//! Lengths of time as a window call writes them: `10 seconds`, `1 day`, `3 months`, `INTERVAL 1 week`.

use std::str::FromStr;

use common::units::Span;

use super::calendar::DAY;

/// A length in its own units: how long a day or a month is depends on where it lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Length {
    text: String,
    /// Months, quarters and years.
    pub(crate) months: i64,
    /// Days and weeks.
    pub(crate) days: i64,
    /// Whether weeks are the only unit.
    pub(crate) weeks: bool,
    /// What is written in hours and smaller units, milliseconds; fractions of days too.
    pub(crate) exact: i64,
    /// Whether there is a day or a week that is not whole.
    pub(crate) fraction: bool,
}

impl Length {
    /// Without a calendar: each day has 24 hours.
    ///
    /// # Errors
    /// For months and years, which have no fixed length.
    pub(crate) fn fixed(&self) -> Result<i64, String> {
        if self.months != 0 {
            return Err(format!(
                "window(): '{}' has no fixed length; set time_zone = \"UTC\", or a zone such as \"Europe/Rome\", in [query] for windows of the \
                 calendar",
                self.text
            ));
        }
        Ok(self.days.saturating_mul(DAY).saturating_add(self.exact))
    }

    /// Whether units of the calendar are in it.
    pub(crate) fn is_calendar(&self) -> bool {
        self.months != 0 || self.days != 0
    }
}

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A calendar unit: (months, days) of one.
fn calendar_unit(word: &str) -> Option<(i64, i64)> {
    match word {
        "day" | "days" | "d" => Some((0, 1)),
        "week" | "weeks" | "wk" | "wks" | "w" => Some((0, 7)),
        "month" | "months" => Some((1, 0)),
        "quarter" | "quarters" => Some((3, 0)),
        "year" | "years" | "yr" | "yrs" | "y" => Some((12, 0)),
        _ => None,
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.trim();
        // Spark also takes `INTERVAL 10 SECONDS` inside the text.
        let bare = bare.strip_prefix("INTERVAL ").or_else(|| bare.strip_prefix("interval ")).unwrap_or(bare).trim();
        let (mut length, mut exact) = (Self { text: bare.to_owned(), ..Self::default() }, String::new());
        let mut only_weeks = true;
        let mut rest = bare;
        while !rest.is_empty() {
            let word_at = rest.find(char::is_alphabetic).unwrap_or(rest.len());
            let word_len = rest[word_at..].find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len() - word_at);
            let (part, after) = rest.split_at(word_at + word_len);
            let (number, word) = part.split_at(word_at);
            match (calendar_unit(&word.to_ascii_lowercase()), number.trim().parse::<u32>()) {
                (Some((months, days)), Ok(count)) => {
                    length.months += months * i64::from(count);
                    length.days += days * i64::from(count);
                    only_weeks &= days == 7;
                }
                (Some((1.., _)), Err(_)) => {
                    return Err(format!("window(): '{}' is no whole number of months or years, or too many", part.trim()));
                }
                (unit, _) => {
                    length.fraction |= unit.is_some();
                    exact.push_str(part);
                    only_weeks = false;
                }
            }
            rest = after;
        }
        if !exact.trim().is_empty() || (length.months == 0 && length.days == 0) {
            let text = if exact.trim().is_empty() { bare } else { exact.trim() };
            let span: Result<Span, _> = text.parse();
            // What is wrong is told of the whole text.
            length.exact = span.map_err(|fault| format!("window(): {}", bare.parse::<Span>().err().unwrap_or(fault)))?.millis();
        }
        length.weeks = only_weeks && length.days > 0;
        Ok(length)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> (i64, i64, i64) {
        let length: Length = text.parse().unwrap();
        (length.months, length.days, length.exact)
    }

    #[test]
    fn units_stay_apart() {
        for (text, parts) in [
            ("10 seconds", (0, 0, 10_000)),
            ("1 day", (0, 1, 0)),
            ("1 DAY", (0, 1, 0)),
            ("2 weeks", (0, 14, 0)),
            ("INTERVAL 3 MONTHS", (3, 0, 0)),
            ("1 quarter", (3, 0, 0)),
            ("1 year 6 months", (18, 0, 0)),
            ("1d 6h 30m", (0, 1, 23_400_000)),
            ("24 hours", (0, 0, 86_400_000)),
            ("1500 ms", (0, 0, 1500)),
            // A month is written out: `m` are minutes.
            ("1M", (0, 0, 60_000)),
        ] {
            assert_eq!(read(text), parts, "{text}");
        }
        let weeks = |text: &str| text.parse::<Length>().unwrap().weeks;
        assert!(weeks("1 week") && !weeks("7 days") && !weeks("1 week 1 day") && !weeks("1 hour"));
    }

    #[test]
    fn without_a_calendar_a_day_has_24_hours_and_months_are_refused() {
        let fixed = |text: &str| text.parse::<Length>().unwrap().fixed();
        for text in ["1 day", "1 week 2 days", "1d 1h", "0.5 days", "250 milliseconds", "5000000000 days"] {
            assert_eq!(fixed(text), Ok(text.parse::<Span>().unwrap().millis()), "{text}");
        }
        for text in ["1 month", "1 year", "1 quarter", "1 month 1 day"] {
            let fault = fixed(text).unwrap_err();
            assert!(fault.contains("time_zone") && fault.contains(text), "{fault}");
        }
    }

    #[test]
    fn what_is_no_length_is_told_whole() {
        for text in ["", "day", "1 day 12", "-1 day", "1 fortnight", "12"] {
            let fault = text.parse::<Length>().unwrap_err();
            assert!(fault.contains(&format!("'{text}' is not a length of time")), "{fault}");
        }
        assert!("1.5 months".parse::<Length>().unwrap_err().contains("whole"));
        assert!("1.5 days".parse::<Length>().unwrap().fraction);
    }
}
