//! Times and tables for people.

use chrono::{DateTime, NaiveDateTime};

/// RFC 3339 in UTC.
pub(super) fn time(millis: i64) -> String {
    let time = DateTime::from_timestamp_millis(millis);
    time.map_or_else(|| format!("{millis} ms"), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// Epoch milliseconds, RFC 3339, or a date and a time in UTC.
pub(super) fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(millis) = text.parse::<i64>() {
        return Ok(millis);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_millis());
    }
    let plain = |form: &str| NaiveDateTime::parse_from_str(text, form).ok();
    let found = plain("%Y-%m-%d %H:%M:%S%.f").or_else(|| plain("%Y-%m-%dT%H:%M:%S%.f"));
    found
        .map(|time| time.and_utc().timestamp_millis())
        .ok_or_else(|| format!("'{text}' is no time; write epoch milliseconds, 2023-11-14T22:13:20Z, or '2023-11-14 22:13:20' in UTC"))
}

/// Columns as wide as their widest cell; numbers stand at the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([head[column].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cell = |(column, cell): (usize, &&str)| {
            let is_number = !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit());
            let width = widths[column];
            if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        };
        cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let head = line(head.to_vec());
    head + &rows.iter().map(|row| line(row.iter().map(String::as_str).collect())).collect::<String>()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_all_their_forms() {
        for text in ["1700000000123", "2023-11-14T22:13:20.123Z", "2023-11-14 22:13:20.123", "2023-11-14T23:13:20.123+01:00"] {
            assert_eq!(parse_time(text), Ok(1_700_000_000_123), "{text}");
        }
        assert_eq!(parse_time("1969-12-31T23:59:59Z"), Ok(-1000));
        assert!(parse_time("noon").unwrap_err().contains("epoch milliseconds"));
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["late".to_owned(), "7".to_owned()], vec!["d".to_owned(), "12".to_owned()]];
        assert_eq!(table(&["lane", "count"], &rows), "lane  count\nlate      7\nd        12\n");
    }
}
