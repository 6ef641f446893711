//! Points into their rows; the larger revision stays.

use rusqlite::Transaction;

use crate::point::Point;
use crate::writer::WriteOutcome;

// The same rule as `Point::replaces`.
const SQL: &str = r#"INSERT INTO point (series_id, time, "end", fields, revision, final) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (series_id, time) DO UPDATE
    SET "end" = excluded."end", fields = excluded.fields, revision = excluded.revision, final = excluded.final
    WHERE excluded.revision IS NULL OR point.revision IS NULL OR excluded.revision > point.revision
        OR (excluded.revision = point.revision AND (excluded.final OR NOT point.final))"#;

// The same rule, for a row that has left the result.
const DELETE: &str = "DELETE FROM point WHERE series_id = ?1 AND time = ?2 AND (?3 IS NULL OR revision IS NULL OR ?3 >= revision)";

/// Writes `points`, whose series are `ids`.
pub(super) fn upsert(transaction: &Transaction<'_>, points: &[Point], ids: &[i64]) -> rusqlite::Result<WriteOutcome> {
    let mut outcome = WriteOutcome::default();
    let mut statement = transaction.prepare(SQL)?;
    let mut delete = transaction.prepare(DELETE)?;
    // In the order of the table each page is touched once. The sort is stable: rows of one identity keep the order of the log.
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|&at| (ids[at], points[at].time_ms));
    for group in order.chunk_by(|&a, &b| ids[a] == ids[b] && points[a].time_ms == points[b].time_ms) {
        let (winner, stale) = newest(points, group);
        let point = &points[winner];
        if point.deleted {
            delete.execute((ids[winner], point.time_ms, point.revision))?;
            outcome.stale += stale;
            outcome.written += group.len() as u64 - stale;
            continue;
        }
        let changed = statement.execute((ids[winner], point.time_ms, point.end_ms, point.fields_json(), point.revision, point.is_final))?;
        if changed == 0 {
            outcome.stale += group.len() as u64;
        } else {
            outcome.stale += stale;
            outcome.written += group.len() as u64 - stale;
        }
    }
    Ok(outcome)
}

/// The row of a group with one identity that stays, and how many of the group came too late to count. In update mode a window's rows
/// follow each other closely: only the last of a batch needs to reach the table.
fn newest(points: &[Point], group: &[usize]) -> (usize, u64) {
    let (mut winner, mut stale) = (group[0], 0);
    for &next in &group[1..] {
        if points[next].replaces(&points[winner]) {
            winner = next;
        } else {
            stale += 1;
        }
    }
    (winner, stale)
}
