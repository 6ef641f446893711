//! The questions, in SQL.

use rusqlite::{Connection, Row};
use serde_json::Map;

use super::{Measurement, Series, SeriesPoints, StoredPoint};

pub(super) fn measurements(connection: &Connection) -> rusqlite::Result<Vec<Measurement>> {
    let sql = "SELECT measurement, count(*), max((SELECT max(time) FROM point WHERE series_id = series.id))
        FROM series GROUP BY measurement ORDER BY measurement";
    let read = |row: &Row<'_>| Ok(Measurement { name: row.get(0)?, series: row.get(1)?, newest_ms: row.get(2)? });
    connection.prepare(sql)?.query_map([], read)?.collect()
}

pub(super) fn series(
    connection: &Connection,
    measurement: Option<&str>,
    filter: Option<&str>,
    limit: usize,
) -> rusqlite::Result<Vec<Series>> {
    // The filter looks at the values of the tags, not at their names or at JSON's own signs.
    let sql = "SELECT id, measurement, tags, newest FROM
          (SELECT id, measurement, tags, (SELECT max(time) FROM point WHERE series_id = series.id) AS newest FROM series
           WHERE (?1 IS NULL OR measurement = ?1)
             AND (?2 IS NULL OR EXISTS (SELECT 1 FROM json_each(series.tags) WHERE instr(lower(value), lower(?2)) > 0)))
        WHERE newest IS NOT NULL ORDER BY measurement, tags LIMIT ?3";
    let read = |row: &Row<'_>| {
        let tags: String = row.get(2)?;
        Ok(Series { id: row.get(0)?, measurement: row.get(1)?, tags: json(&tags), newest_ms: row.get(3)? })
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection.prepare(sql)?.query_map((measurement, filter, limit), read)?.collect()
}

pub(super) fn recent(connection: &Connection, series: &[i64], count: usize) -> rusqlite::Result<Vec<SeriesPoints>> {
    let sql = r#"SELECT time, "end", fields, revision, final FROM point WHERE series_id = ?1 ORDER BY time DESC LIMIT ?2"#;
    let mut statement = connection.prepare(sql)?;
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let mut all = Vec::with_capacity(series.len());
    for id in series {
        let mut points: Vec<StoredPoint> = statement.query_map((id, count), point)?.collect::<rusqlite::Result<_>>()?;
        points.reverse();
        all.push(SeriesPoints { series_id: *id, bucket_ms: None, points });
    }
    Ok(all)
}

/// A row of `time, end, fields, revision, final`.
pub(super) fn point(row: &Row<'_>) -> rusqlite::Result<StoredPoint> {
    let fields = json::<Map<_, _>>(row.get_ref(2)?.as_str()?);
    Ok(StoredPoint { time_ms: row.get(0)?, end_ms: row.get(1)?, fields, revision: row.get(3)?, is_final: row.get(4)? })
}

/// Our own writer wrote it; if a hand did since, an empty object is better than no page.
fn json<T: serde::de::DeserializeOwned + Default>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_default()
}
