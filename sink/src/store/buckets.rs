//! More points than a chart has room for: folded into buckets of equal width.

use rusqlite::Connection;
use serde_json::{Map, Value};

use super::query::point;
use super::{SeriesPoints, StoredPoint};

const RANGE: &str = r#"SELECT time, "end", fields, revision, final FROM point
    WHERE series_id = ?1 AND time >= ?2 AND time < ?3 ORDER BY time"#;
const EXTENT: &str = "SELECT count(*), min(time), max(time) FROM point WHERE series_id = ?1 AND time >= ?2 AND time < ?3";

/// The points of one series in a range, folded when there are more than `max`.
pub(super) fn points(connection: &Connection, id: i64, from_ms: i64, to_ms: i64, max: usize) -> rusqlite::Result<SeriesPoints> {
    let range = (id, from_ms, to_ms);
    let (count, first, last): (i64, Option<i64>, Option<i64>) =
        connection.query_row(EXTENT, range, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut statement = connection.prepare(RANGE)?;
    let rows = statement.query_map(range, point)?;
    let (Some(first), Some(last), true) = (first, last, usize::try_from(count).unwrap_or(0) > max) else {
        return Ok(SeriesPoints { series_id: id, bucket_ms: None, points: rows.collect::<rusqlite::Result<_>>()? });
    };
    let width = width(first, last, max);
    let mut folded = Vec::new();
    let mut open: Option<Bucket> = None;
    for row in rows {
        let row = row?;
        // Aligned to the epoch, not to the range: a bucket stays the same while the range moves on.
        let start = row.time_ms.div_euclid(width).saturating_mul(width);
        match &mut open {
            Some(bucket) if bucket.start == start => bucket.add(&row),
            _ => folded.extend(open.replace(Bucket::new(start, &row)).map(|bucket| bucket.close(width))),
        }
    }
    folded.extend(open.map(|bucket| bucket.close(width)));
    Ok(SeriesPoints { series_id: id, bucket_ms: Some(width), points: folded })
}

/// Width with which `first..=last` takes at most `max` buckets, wherever they are aligned.
fn width(first: i64, last: i64, max: usize) -> i64 {
    let buckets = i64::try_from(max).unwrap_or(i64::MAX).saturating_sub(1).max(1);
    last.saturating_sub(first).div_euclid(buckets).saturating_add(1)
}

/// How a field's values become one; told by its name, as a result has no types.
#[derive(Clone, Copy)]
enum Fold {
    Least,
    Greatest,
    Sum,
    Mean,
}

impl Fold {
    fn of(name: &str) -> Self {
        match name {
            _ if name.starts_with("min") => Self::Least,
            _ if name.starts_with("max") => Self::Greatest,
            "n" => Self::Sum,
            _ if name.starts_with("count") || name.starts_with("sum") => Self::Sum,
            _ => Self::Mean,
        }
    }
}

struct Bucket {
    start: i64,
    end_ms: Option<i64>,
    revision: Option<i64>,
    is_final: bool,
    /// Per field: how, the value so far, how many.
    fields: Vec<(String, Fold, f64, f64)>,
}

impl Bucket {
    fn new(start: i64, row: &StoredPoint) -> Self {
        let mut bucket = Self { start, end_ms: None, revision: None, is_final: true, fields: Vec::with_capacity(row.fields.len()) };
        bucket.add(row);
        bucket
    }

    fn add(&mut self, row: &StoredPoint) {
        self.end_ms = self.end_ms.max(row.end_ms);
        self.revision = self.revision.max(row.revision);
        self.is_final &= row.is_final;
        for (name, value) in &row.fields {
            let Some(value) = value.as_f64() else { continue };
            match self.fields.iter_mut().find(|(known, ..)| known == name) {
                Some((_, fold, total, count)) => {
                    *total = match fold {
                        Fold::Least => total.min(value),
                        Fold::Greatest => total.max(value),
                        Fold::Sum | Fold::Mean => *total + value,
                    };
                    *count += 1.0;
                }
                None => self.fields.push((name.clone(), Fold::of(name), value, 1.0)),
            }
        }
    }

    fn close(self, width: i64) -> StoredPoint {
        let value = |(name, fold, total, count): (String, Fold, f64, f64)| {
            (name, Value::from(if matches!(fold, Fold::Mean) { total / count } else { total }))
        };
        StoredPoint {
            time_ms: self.start,
            end_ms: self.end_ms.or_else(|| self.start.checked_add(width)),
            fields: self.fields.into_iter().map(value).collect::<Map<_, _>>(),
            revision: self.revision,
            is_final: self.is_final,
        }
    }
}
