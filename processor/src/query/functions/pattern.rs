//! Java's date patterns, as far as they are common in Spark SQL: `yyyy-MM-dd HH:mm:ss.SSS` and their like, in UTC.

use std::fmt::Write;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};

/// Spark's pattern where none is given.
pub(super) const DEFAULT: &str = "yyyy-MM-dd HH:mm:ss";

/// A pattern, read once and used for many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A pattern letter and how often it stands there.
    Field(char, usize),
}

impl Pattern {
    /// Reads a pattern, or says in a sentence what is not known of it.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(first) = rest.next() {
            match first {
                '\'' => pieces.push(quoted(&mut rest, pattern)?),
                '[' | ']' | '{' | '}' | '#' => return Err(format!("'{first}' in the date pattern '{pattern}' is not known here")),
                letter if letter.is_ascii_alphabetic() => {
                    let mut count = 1;
                    while rest.next_if_eq(&letter).is_some() {
                        count += 1;
                    }
                    pieces.push(field(letter, count, pattern)?);
                }
                other => pieces.push(Piece::Text(other.to_string())),
            }
        }
        Ok(Self(pieces))
    }

    /// The time as text; `None` where the calendar ends.
    pub(super) fn format(&self, millis: i64) -> Option<String> {
        let time = DateTime::from_timestamp_millis(millis)?;
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(letter, count) => write_field(&mut out, &time, *letter, *count).ok()?,
            }
        }
        Some(out)
    }

    /// Milliseconds of a text of this pattern; `None` when the text is not of it.
    pub(super) fn parse(&self, text: &str) -> Option<i64> {
        let mut read = Read { rest: text, ..Read::default() };
        for piece in &self.0 {
            match piece {
                Piece::Text(expected) => read.rest = read.rest.strip_prefix(expected.as_str())?,
                Piece::Field(letter, count) => read.field(*letter, *count)?,
            }
        }
        if read.rest.is_empty() { read.millis() } else { None }
    }

    /// Whether texts of this pattern can be read, not only written.
    pub(super) fn can_parse(&self) -> bool {
        self.0.iter().all(|piece| match piece {
            Piece::Text(_) => true,
            Piece::Field('M', count) => *count <= 2,
            Piece::Field(letter, _) => "ydHmsSX".contains(*letter),
        })
    }
}

/// Text between quotes; two quotes in a row are one of the text's own.
fn quoted(rest: &mut std::iter::Peekable<std::str::Chars>, pattern: &str) -> Result<Piece, String> {
    let mut text = String::new();
    if rest.next_if_eq(&'\'').is_some() {
        return Ok(Piece::Text("'".to_owned()));
    }
    while let Some(next) = rest.next() {
        if next != '\'' {
            text.push(next);
        } else if rest.next_if_eq(&'\'').is_some() {
            text.push('\'');
        } else {
            return Ok(Piece::Text(text));
        }
    }
    Err(format!("the date pattern '{pattern}' has a quote that does not end"))
}

fn field(letter: char, count: usize, pattern: &str) -> Result<Piece, String> {
    let longest = match letter {
        'y' | 'M' | 'E' | 'Q' => 4,
        'D' | 'X' | 'x' | 'Z' | 'z' => 3,
        'd' | 'H' | 'h' | 'K' | 'k' | 'm' | 's' => 2,
        'S' => 9,
        'a' => 1,
        _ => 0,
    };
    if count <= longest && (letter, count) != ('y', 3) && (letter, count) != ('Q', 4) {
        return Ok(Piece::Field(letter, count));
    }
    Err(format!(
        "'{}' in the date pattern '{pattern}' is not known here: use of y, M, d, D, Q, E, H, h, K, k, m, s, S, a, X, x, Z, z, \
         and put text between single quotes",
        letter.to_string().repeat(count)
    ))
}

fn write_field(out: &mut String, time: &DateTime<Utc>, letter: char, count: usize) -> std::fmt::Result {
    let quarter = time.month0() / 3 + 1;
    match (letter, count) {
        ('y', 2) => write!(out, "{:02}", time.year().rem_euclid(100)),
        ('y', _) => write!(out, "{:0count$}", time.year()),
        ('M', 3) => write!(out, "{}", time.format("%b")),
        ('M', 4) => write!(out, "{}", time.format("%B")),
        ('M', _) => write!(out, "{:0count$}", time.month()),
        ('Q', 3) => write!(out, "Q{quarter}"),
        ('Q', _) => write!(out, "{quarter:0count$}"),
        ('d', _) => write!(out, "{:0count$}", time.day()),
        ('D', _) => write!(out, "{:0count$}", time.ordinal()),
        ('E', 4) => write!(out, "{}", time.format("%A")),
        ('E', _) => write!(out, "{}", time.format("%a")),
        ('a', _) => write!(out, "{}", if time.hour() < 12 { "AM" } else { "PM" }),
        ('S', _) => out.write_str(&format!("{:09}", time.nanosecond())[..count]),
        ('X' | 'x' | 'Z' | 'z', _) => out.write_str(zone(letter, count)),
        _ => write!(out, "{:0count$}", clock(time, letter)),
    }
}

fn clock(time: &DateTime<Utc>, letter: char) -> u32 {
    match letter {
        'H' => time.hour(),
        'h' => time.hour12().1,
        'K' => time.hour() % 12,
        'k' => (time.hour() + 23) % 24 + 1,
        'm' => time.minute(),
        _ => time.second(),
    }
}

/// How UTC is written.
fn zone(letter: char, count: usize) -> &'static str {
    match (letter, count) {
        ('X', _) => "Z",
        ('z', _) => "UTC",
        ('x', 1) => "+00",
        ('x', 3) => "+00:00",
        _ => "+0000",
    }
}

/// What has been read of a text so far.
struct Read<'a> {
    rest: &'a str,
    year: i32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    milli: u32,
    offset_minutes: i64,
}

impl Default for Read<'_> {
    fn default() -> Self {
        Self { rest: "", year: 1970, month: 1, day: 1, hour: 0, minute: 0, second: 0, milli: 0, offset_minutes: 0 }
    }
}

impl Read<'_> {
    fn field(&mut self, letter: char, count: usize) -> Option<()> {
        match (letter, count) {
            ('y', 2) => self.year = 2000 + i32::try_from(self.digits(2, 2)?).ok()?,
            ('y', _) => self.year = i32::try_from(self.digits(count, 4)?).ok()?,
            ('M', _) => self.month = self.digits(count, 2)?,
            ('d', _) => self.day = self.digits(count, 2)?,
            ('H', _) => self.hour = self.digits(count, 2)?,
            ('m', _) => self.minute = self.digits(count, 2)?,
            ('s', _) => self.second = self.digits(count, 2)?,
            ('S', _) => self.fraction(count)?,
            ('X', _) => self.zone()?,
            _ => return None,
        }
        Some(())
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        digits.parse().ok()
    }

    fn fraction(&mut self, count: usize) -> Option<()> {
        let digits = self.digits(count, count)?;
        let nanos = u64::from(digits) * 10_u64.pow(9 - u32::try_from(count).ok()?);
        self.milli = u32::try_from(nanos / 1_000_000).ok()?;
        Some(())
    }

    fn zone(&mut self) -> Option<()> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Some(());
        }
        let sign = if self.rest.starts_with('-') { -1 } else { 1 };
        self.rest = self.rest.strip_prefix(['+', '-'])?;
        let hours = self.digits(2, 2)?;
        self.rest = self.rest.strip_prefix(':').unwrap_or(self.rest);
        let minutes = if self.rest.starts_with(|next: char| next.is_ascii_digit()) { self.digits(2, 2)? } else { 0 };
        self.offset_minutes = sign * (i64::from(hours) * 60 + i64::from(minutes));
        Some(())
    }

    fn millis(&self) -> Option<i64> {
        let date = NaiveDate::from_ymd_opt(self.year, self.month, self.day)?;
        let time = date.and_hms_milli_opt(self.hour, self.minute, self.second, self.milli)?;
        Some(time.and_utc().timestamp_millis() - self.offset_minutes * 60_000)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn format(pattern: &str, millis: i64) -> String {
        Pattern::new(pattern).unwrap().format(millis).unwrap()
    }

    /// 2023-11-14T22:13:20.123Z, a Tuesday.
    const TIME: i64 = 1_700_000_000_123;

    #[test]
    fn formats_the_common_patterns() {
        assert_eq!(format(DEFAULT, TIME), "2023-11-14 22:13:20");
        assert_eq!(format("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", TIME), "2023-11-14T22:13:20.123Z");
        assert_eq!(format("E, d MMM yy h:mm a", TIME), "Tue, 14 Nov 23 10:13 PM");
        assert_eq!(format("EEEE MMMM D 'o''clock' ''", TIME), "Tuesday November 318 o'clock '");
        assert_eq!(format("QQQ Q kk K SSSSSS xxx z", TIME), "Q4 4 22 10 123000 +00:00 UTC");
        assert_eq!(format("kk hh", 0), "24 12");
    }

    #[test]
    fn times_before_the_epoch_floor() {
        assert_eq!(format("yyyy-MM-dd HH:mm:ss.SSS", -1), "1969-12-31 23:59:59.999");
    }

    #[test]
    fn unknown_letters_are_refused_with_a_sentence() {
        assert!(Pattern::new("YYYY-MM-dd").unwrap_err().contains("'YYYY' in the date pattern"));
        assert!(Pattern::new("yyy").is_err());
        assert!(Pattern::new("yyyy'T").unwrap_err().contains("quote"));
        assert!(Pattern::new("[HH]").is_err());
    }

    #[test]
    fn parses_what_it_formats() {
        for pattern in ["yyyy-MM-dd HH:mm:ss.SSS", "dd/MM/yyyy'T'HH.mm.ss,SSSX", "yyyyMMddHHmmssSSS"] {
            let pattern = Pattern::new(pattern).unwrap();
            assert!(pattern.can_parse());
            for millis in [TIME, 0, -1, -86_400_001] {
                assert_eq!(pattern.parse(&pattern.format(millis).unwrap()), Some(millis));
            }
        }
        let zoned = Pattern::new("yyyy-MM-dd HH:mmXXX").unwrap();
        assert_eq!(zoned.parse("1970-01-01 02:00+01:30"), Some(30 * 60_000));
        assert_eq!(zoned.parse("1970-02-30 02:00Z"), None);
        assert_eq!(zoned.parse("1970-01-01 02:00Z tail"), None);
        assert!(!Pattern::new("MMM yyyy").unwrap().can_parse());
    }
}
