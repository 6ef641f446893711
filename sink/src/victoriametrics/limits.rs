//! What VictoriaMetrics drops without an answer: labels that are too long or too many, times outside of its retention.

use std::time::Duration;

use chrono::Utc;

use crate::point::Point;
use crate::writer::Rejection;

const HOUR_MS: i64 = 3_600_000;

/// The values of its flags.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limits {
    label_value: usize,
    label_name: usize,
    /// The metric's name is one of them.
    labels: usize,
    /// ms back from now; `None`: unknown.
    retention_ms: Option<i64>,
    future_ms: i64,
    pub(super) deduplicates: bool,
    /// How long samples may be in memory only.
    pub(super) flush: Duration,
    /// When its process began, as it says so itself.
    pub(super) started: Option<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            label_value: 4096,
            label_name: 256,
            labels: 40,
            retention_ms: None,
            future_ms: 48 * HOUR_MS,
            deduplicates: false,
            flush: Duration::from_secs(5),
            started: None,
        }
    }
}

impl Limits {
    /// From the page `/metrics`, which lists the flags: `flag{name="retentionPeriod", value="1y", is_set="true"} 1`.
    pub(super) fn read(page: &str) -> Self {
        let flag = |name: &str| {
            let start = format!("flag{{name=\"{name}\", value=\"");
            page.lines().find_map(|line| line.strip_prefix(&start)?.split('"').next())
        };
        let number = |name: &str| flag(name).and_then(|text| text.parse::<usize>().ok());
        let defaults = Self::default();
        Self {
            label_value: number("maxLabelValueLen").unwrap_or(defaults.label_value),
            label_name: number("maxLabelNameLen").unwrap_or(defaults.label_name),
            labels: number("maxLabelsPerTimeseries").unwrap_or(defaults.labels),
            retention_ms: flag("retentionPeriod").and_then(span_ms),
            future_ms: flag("futureRetention").and_then(span_ms).unwrap_or(defaults.future_ms),
            flush: flag("inmemoryDataFlushInterval")
                .and_then(span_ms)
                .and_then(|span| u64::try_from(span).ok())
                .map_or(defaults.flush, Duration::from_millis),
            started: page.lines().find_map(|line| line.strip_prefix("process_start_time_seconds ")).map(str::to_owned),
            deduplicates: flag("dedup.minScrapeInterval").and_then(span_ms).is_some_and(|span| span > 0),
        }
    }

    /// Why VictoriaMetrics would drop the point.
    pub(super) fn fault(&self, at: usize, point: &Point) -> Option<Rejection> {
        let reject = |reason, detail| Some(Rejection { index: at, reason, detail });
        let now = Utc::now().timestamp_millis();
        if point.time_ms < 0 || self.retention_ms.is_some_and(|retention| point.time_ms < now.saturating_sub(retention)) {
            return reject("too_old", "the row's time is before what VictoriaMetrics keeps (-retentionPeriod)".into());
        }
        if point.time_ms > now.saturating_add(self.future_ms) {
            return reject(
                "too_new",
                "the row's time is further ahead than VictoriaMetrics takes (-futureRetention, 2 days by default)".into(),
            );
        }
        let longest = point.fields.iter().map(|(name, _)| point.measurement.len() + 1 + name.len()).max().unwrap_or(0);
        if let Some((name, value)) = point.tags.iter().find(|(_, value)| value.len() > self.label_value) {
            let detail =
                format!("tag '{name}' has {} bytes, and VictoriaMetrics takes {} (-maxLabelValueLen)", value.len(), self.label_value);
            return reject("too_long", detail);
        }
        if longest > self.label_value || point.tags.iter().any(|(name, _)| name.len() > self.label_name) {
            return reject("too_long", "a name is longer than VictoriaMetrics takes (-maxLabelNameLen, -maxLabelValueLen)".into());
        }
        if point.tags.len() + 1 > self.labels {
            let detail = format!("{} tags are more than VictoriaMetrics takes (-maxLabelsPerTimeseries={})", point.tags.len(), self.labels);
            return reject("too_many_tags", detail);
        }
        None
    }
}

/// `1ms`, `2d`, `100y`; a bare number is months of 31 days.
fn span_ms(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => HOUR_MS,
        "d" => 24 * HOUR_MS,
        "w" => 7 * 24 * HOUR_MS,
        "y" => 365 * 24 * HOUR_MS,
        "" => 31 * 24 * HOUR_MS,
        // Such as `1h30m`; no limit of its own is better than a wrong one.
        _ => return None,
    };
    Some((number * unit as f64) as i64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::point::tests::point;

    const PAGE: &str = "vm_x 1\nflag{name=\"dedup.minScrapeInterval\", value=\"1ms\", is_set=\"true\"} 1
flag{name=\"maxLabelValueLen\", value=\"8\", is_set=\"false\"} 1\nflag{name=\"retentionPeriod\", value=\"1\", is_set=\"false\"} 1\n";

    #[test]
    fn limits_come_from_the_flags() {
        let limits = Limits::read(PAGE);
        assert_eq!((limits.label_value, limits.labels, limits.deduplicates), (8, 40, true));
        assert_eq!(limits.retention_ms, Some(31 * 24 * HOUR_MS));
        assert!(!Limits::read("").deduplicates && Limits::read("").retention_ms.is_none());
        assert_eq!(["100y", "0s", "1.5h", "1h30m"].map(span_ms), [Some(3_153_600_000_000), Some(0), Some(5_400_000), None]);
    }

    #[test]
    fn what_would_vanish_is_refused() {
        let limits = Limits::read(PAGE);
        let now = Utc::now().timestamp_millis();
        let reason = |point: &Point| limits.fault(0, point).map(|one| one.reason);
        assert_eq!(reason(&point("s", now, 1.0, None)), None);
        assert_eq!(reason(&point("s", now - 32 * 24 * HOUR_MS, 1.0, None)), Some("too_old"));
        assert_eq!(reason(&point("s", now + 49 * HOUR_MS, 1.0, None)), Some("too_new"));
        assert_eq!(reason(&point("123456789", now, 1.0, None)), Some("too_long"));
        let many = Point { tags: (0..40).map(|i| (format!("t{i}").into(), "x".into())).collect(), ..point("s", now, 1.0, None) };
        assert_eq!(reason(&many), Some("too_many_tags"));
        let named = Point { fields: vec![("a long name".into(), crate::point::FieldValue::Int(1))], ..point("s", now, 1.0, None) };
        assert_eq!(reason(&named), Some("too_long"));
    }
}
