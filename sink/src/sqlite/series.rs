//! Series and their numbers: looked up once, then remembered.

use std::collections::HashMap;

use rusqlite::Transaction;

use crate::point::Point;

/// Series remembered at most; beyond it the memory starts anew rather than grow without end.
const REMEMBERED: usize = 500_000;

// The update changes nothing; without it a known series would return no row.
const SQL: &str = "INSERT INTO series (measurement, tags) VALUES (?1, ?2)
    ON CONFLICT (measurement, tags) DO UPDATE SET measurement = excluded.measurement RETURNING id";

/// Numbers by measurement and tags. Those of a transaction count only once it has committed.
#[derive(Debug, Default)]
pub(super) struct SeriesIds {
    known: HashMap<String, i64>,
    /// Given out in the transaction that is open.
    fresh: Vec<String>,
}

impl SeriesIds {
    /// The number of each point's series, in the points' order.
    pub(super) fn resolve(&mut self, transaction: &Transaction<'_>, points: &[Point]) -> rusqlite::Result<Vec<i64>> {
        let mut insert = transaction.prepare(SQL)?;
        let mut ids = Vec::with_capacity(points.len());
        let mut key = String::new();
        for point in points {
            let tags = point.tags_json();
            key.clear();
            // JSON text has no raw NUL, so the first one ends it and the key is unambiguous.
            key.push_str(&tags);
            key.push('\0');
            key.push_str(&point.measurement);
            let id = match self.known.get(&key) {
                Some(id) => *id,
                None => {
                    let id = insert.query_row((&point.measurement, &tags), |row| row.get(0))?;
                    self.known.insert(key.clone(), id);
                    self.fresh.push(key.clone());
                    id
                }
            };
            ids.push(id);
        }
        Ok(ids)
    }

    pub(super) fn committed(&mut self) {
        self.fresh.clear();
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
    }

    pub(super) fn rolled_back(&mut self) {
        for key in self.fresh.drain(..) {
            self.known.remove(&key);
        }
    }
}
