//! Series and their numbers: looked up once, then remembered.

use std::collections::HashMap;

use rusqlite::Transaction;

use crate::point::{Point, Text};

/// Series remembered at most; beyond it the memory starts anew rather than grow without end.
const REMEMBERED: usize = 500_000;

// The update changes nothing; without it a known series would return no row.
const SQL: &str = "INSERT INTO series (measurement, tags) VALUES (?1, ?2)
    ON CONFLICT (measurement, tags) DO UPDATE SET measurement = excluded.measurement RETURNING id";

#[derive(Debug)]
struct Known {
    measurement: Text,
    tags: Vec<(Text, Text)>,
    id: i64,
}

/// Numbers by measurement and tags. Those of a transaction count only once it has committed.
#[derive(Debug, Default)]
pub(super) struct SeriesIds {
    /// By their hash; hardly ever do two share one.
    known: HashMap<u64, Vec<Known>>,
    /// Given out in the transaction that is open.
    fresh: Vec<u64>,
}

impl SeriesIds {
    /// The number of each point's series, in the points' order.
    pub(super) fn resolve(&mut self, transaction: &Transaction<'_>, points: &[Point]) -> rusqlite::Result<Vec<i64>> {
        let mut insert = transaction.prepare(SQL)?;
        let mut ids = Vec::with_capacity(points.len());
        for point in points {
            let hash = point.series_hash();
            let known = self.known.entry(hash).or_default();
            let found = known.iter().find(|known| known.tags == point.tags && known.measurement == point.measurement);
            let id = match found {
                Some(known) => known.id,
                None => {
                    let id = insert.query_row((point.measurement.as_str(), point.tags_json()), |row| row.get(0))?;
                    known.push(Known { measurement: point.measurement.clone(), tags: point.tags.clone(), id });
                    self.fresh.push(hash);
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
        for hash in self.fresh.drain(..) {
            self.known.remove(&hash);
        }
    }
}
