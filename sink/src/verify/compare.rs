//! Both sides next to each other.

use std::collections::HashMap;

use serde_json::Value;

use super::expected::{Expected, Identity};
use super::{Held, Reader, Report, Span};
use crate::point::{FieldValue, Point};
use crate::victoriametrics;
use crate::writer::WriteError;

/// What each kind of database holds of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    Sqlite,
    Influxdb,
    Victoriametrics,
}

/// VictoriaMetrics keeps some 12 decimal digits.
const VICTORIA_PRECISION: f64 = 1e-11;

impl Rules {
    /// Whether the database holds anything of a row.
    fn holds(self, point: &Point) -> bool {
        let has = |test: fn(&FieldValue) -> bool| point.fields.iter().any(|(_, value)| test(value) && !is_not_finite(value));
        match self {
            Self::Sqlite => true,
            Self::Influxdb => has(|_| true),
            Self::Victoriametrics => victoriametrics::left_out(point).is_none() && has(victoriametrics::is_sample),
        }
    }

    fn holds_field(self, value: &FieldValue) -> bool {
        self == Self::Sqlite || (self == Self::Influxdb || victoriametrics::is_sample(value)) && !is_not_finite(value)
    }

    fn same(self, expected: &FieldValue, held: &Value) -> bool {
        match (expected, held) {
            (FieldValue::Text(expected), Value::String(held)) => expected == held,
            (FieldValue::Bool(expected), Value::Bool(held)) => expected == held,
            (FieldValue::Bool(expected), Value::Number(held)) => {
                self == Self::Victoriametrics && held.as_f64() == Some(f64::from(u8::from(*expected)))
            }
            (FieldValue::Int(expected), Value::Number(held)) if held.is_i64() => held.as_i64() == Some(*expected),
            (FieldValue::UInt(expected), Value::Number(held)) if held.is_u64() => held.as_u64() == Some(*expected),
            (FieldValue::Int(expected), Value::Number(held)) => self.near(*expected as f64, held.as_f64()),
            (FieldValue::UInt(expected), Value::Number(held)) => self.near(*expected as f64, held.as_f64()),
            (FieldValue::Float(expected), Value::Number(held)) => self.near(*expected, held.as_f64()),
            _ => false,
        }
    }

    fn near(self, expected: f64, held: Option<f64>) -> bool {
        let Some(held) = held else { return false };
        expected == held || self == Self::Victoriametrics && (expected - held).abs() <= VICTORIA_PRECISION * expected.abs()
    }
}

fn is_not_finite(value: &FieldValue) -> bool {
    matches!(value, FieldValue::Text(text) if crate::guard::is_not_finite(text))
}

pub(super) fn compare(reader: &mut dyn Reader, expected: Expected, rules: Rules, span: Span, limit: usize) -> Result<Report, WriteError> {
    let Expected { output, mut points, pending, measurements } = expected;
    let mut report = Report { output, pending: pending.len() as u64, ..Report::default() };
    let say = |report: &mut Report, sentence: String| {
        if report.differences.len() < limit {
            report.differences.push(sentence);
        }
    };
    points.retain(|identity, point| {
        let holds = rules.holds(point) || point.deleted;
        report.left_out += u64::from(!holds && !pending.contains(identity));
        !pending.contains(identity) && holds
    });
    for measurement in measurements {
        let mut held: HashMap<Identity, Held> = HashMap::new();
        for point in reader.read(&measurement, span)? {
            let tags = point.tags.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.clone(), value.clone()));
            held.insert((measurement.clone(), tags.collect(), point.time_ms), point);
        }
        let ours: Vec<Identity> = points.keys().filter(|(name, ..)| *name == measurement).cloned().collect();
        for identity in ours {
            let Some(point) = points.remove(&identity) else { continue };
            match held.remove(&identity) {
                None if point.deleted => {}
                None => {
                    report.missing += 1;
                    say(&mut report, format!("missing: {} is not in the database", show(&identity)));
                }
                Some(_) if point.deleted => {
                    report.extra += 1;
                    say(&mut report, format!("only in the database: {} has left the result", show(&identity)));
                }
                Some(held) => match difference(&point, &held, rules) {
                    None => report.equal += 1,
                    Some(what) => {
                        report.different += 1;
                        say(&mut report, format!("different: {}: {what}", show(&identity)));
                    }
                },
            }
        }
        for identity in held.into_keys().filter(|identity| !pending.contains(identity)) {
            report.extra += 1;
            say(&mut report, format!("only in the database: {} is not in the log", show(&identity)));
        }
    }
    Ok(report)
}

fn difference(point: &Point, held: &Held, rules: Rules) -> Option<String> {
    for (name, value) in point.fields.iter().filter(|(_, value)| rules.holds_field(value)) {
        match held.fields.get(name.as_str()) {
            None => return Some(format!("field '{name}' is missing, the log has {value:?}")),
            Some(found) if !rules.same(value, found) => return Some(format!("field '{name}' is {found}, the log has {value:?}")),
            Some(_) => {}
        }
    }
    let known = |name: &str| point.fields.iter().any(|(known, value)| known == name && rules.holds_field(value));
    let extra = held.fields.keys().find(|name| !known(name))?;
    Some(format!("field '{extra}' is {}, the log has none", held.fields[extra]))
}

fn show((measurement, tags, time_ms): &Identity) -> String {
    let time = chrono::DateTime::from_timestamp_millis(*time_ms).map_or_else(|| format!("{time_ms} ms"), |time| time.to_rfc3339());
    format!("{measurement} {tags:?} at {time}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::expected::identity;
    use super::*;
    use crate::point::tests::point;

    struct Fixed(Vec<Held>);

    impl Reader for Fixed {
        fn read(&mut self, _measurement: &str, _span: Span) -> Result<Vec<Held>, WriteError> {
            Ok(self.0.clone())
        }
    }

    fn held(sensor: &str, time_ms: i64, avg: f64) -> Held {
        let point = point(sensor, time_ms, avg, None);
        let fields = [("avg".to_owned(), Value::from(avg))].into();
        Held {
            measurement: "m".into(),
            tags: point.tags.into_iter().map(|(name, value)| (name.into_string(), value.into_string())).collect(),
            time_ms,
            fields,
        }
    }

    fn report(points: Vec<Point>, pending: &[Point], held: Vec<Held>, rules: Rules) -> Report {
        let expected = Expected {
            output: "o".into(),
            points: points.into_iter().map(|point| (identity(&point), point)).collect(),
            pending: pending.iter().map(identity).collect(),
            measurements: BTreeSet::from(["m".to_owned()]),
        };
        compare(&mut Fixed(held), expected, rules, Span::default(), 10).unwrap()
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let gone = Point { deleted: true, ..point("gone", 0, 0.0, None) };
        let points = vec![point("a", 0, 1.0, None), point("b", 0, 2.0, None), point("c", 0, 3.0, None), gone];
        let there = vec![held("a", 0, 1.0), held("b", 0, 9.0), held("gone", 0, 1.0), held("x", 0, 1.0), held("late", 5, 1.0)];
        let report = report(points, &[point("late", 5, 2.0, None)], there, Rules::Influxdb);
        assert_eq!((report.equal, report.different, report.missing, report.extra, report.pending), (1, 1, 1, 2, 1), "{report}");
        assert!(report.differences.iter().any(|line| line.contains("field 'avg' is 9.0, the log has Float(2.0)")), "{report}");
        assert!(report.differences.iter().any(|line| line.contains("\"c\"") && line.contains("1970-01-01")), "{report}");
    }

    #[test]
    fn a_field_that_an_older_row_left_behind_is_a_difference() {
        let mut there = held("a", 0, 1.0);
        there.fields.insert("max".into(), 7.into());
        let report = report(vec![point("a", 0, 1.0, None)], &[], vec![there], Rules::Sqlite);
        assert!(report.different == 1 && report.differences[0].contains("'max'"), "{report}");
    }

    #[test]
    fn rows_that_victoriametrics_does_not_hold_are_not_missed() {
        let open = point("open", 0, 1.0, Some(1));
        let closed = Point { is_final: true, ..point("closed", 0, 1.0, Some(1)) };
        let report = report(vec![open, closed], &[], vec![held("closed", 0, 1.0 + 1e-14)], Rules::Victoriametrics);
        assert_eq!((report.equal, report.left_out, report.is_equal()), (1, 1, true), "{report}");
    }
}
