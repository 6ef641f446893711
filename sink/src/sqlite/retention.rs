//! Old points go, a bounded number at a time.

use rusqlite::{Connection, TransactionBehavior};

/// Age is counted back from the newest point of the measurement, not from the clock: a replay of last year's data keeps its points. But never from
/// a point of the future: one clock that is wrong would delete what all others have measured.
const NEWEST: &str = "SELECT measurement, max((SELECT max(time) FROM point WHERE series_id = series.id)) FROM series GROUP BY measurement";
const DELETE: &str = "DELETE FROM point WHERE series_id = ?1 AND time IN
    (SELECT time FROM point WHERE series_id = ?1 AND time < ?2 ORDER BY time LIMIT ?3)";

/// Deletes up to `limit` points older than `age_ms` and returns their number. `now_ms` is the clock's time.
pub(super) fn apply(connection: &mut Connection, (age_ms, now_ms): (i64, i64), limit: usize) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut deleted = 0;
    {
        let newest: Vec<(String, Option<i64>)> =
            transaction.prepare(NEWEST)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let mut delete = transaction.prepare(DELETE)?;
        let mut series_of = transaction.prepare("SELECT id FROM series WHERE measurement = ?1")?;
        for (measurement, newest) in newest {
            let Some(before) = newest.and_then(|newest| newest.min(now_ms).checked_sub(age_ms)) else { continue };
            let ids: Vec<i64> = series_of.query_map([&measurement], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            for id in ids {
                let left = i64::try_from(limit - deleted).unwrap_or(i64::MAX);
                deleted += delete.execute((id, before, left))?;
                if deleted >= limit {
                    break;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(deleted)
}
