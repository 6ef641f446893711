//! Of a batch only the newest row of each identity has to reach a database that overwrites.

use std::borrow::Borrow;

use hashbrown::HashMap;

use crate::point::Point;

#[derive(Debug, Default)]
pub(crate) struct Newest {
    /// Places of the rows that stay. No two of them have one identity.
    pub(crate) places: Vec<usize>,
    /// [`Point::series_hash`] of each of them.
    pub(crate) hashes: Vec<u64>,
    /// Rows that came after one of a larger revision.
    pub(crate) stale: u64,
}

impl Newest {
    pub(crate) fn of<P: Borrow<Point>>(points: &[P]) -> Self {
        let (places, hashes) = (Vec::with_capacity(points.len()), Vec::with_capacity(points.len()));
        let mut newest = Self { places, hashes, stale: 0 };
        let mut held: HashMap<(u64, i64), usize> = HashMap::with_capacity(points.len());
        for (at, point) in points.iter().map(P::borrow).enumerate() {
            let key = (point.series_hash(), point.time_ms);
            match held.get(&key).copied() {
                Some(slot) if points[newest.places[slot]].borrow().same_identity(point) => {
                    if point.replaces(points[newest.places[slot]].borrow()) {
                        newest.places[slot] = at;
                    } else {
                        newest.stale += 1;
                    }
                }
                _ => {
                    held.insert(key, newest.places.len());
                    newest.places.push(at);
                    newest.hashes.push(key.0);
                }
            }
        }
        newest
    }

    /// Rows that the database now holds, or that a later one of the same batch has replaced.
    pub(crate) fn written(&self, points: &[Point]) -> u64 {
        points.len() as u64 - self.stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::tests::point;

    #[test]
    fn the_largest_revision_of_each_identity_stays() {
        let points = [
            point("a", 0, 1.0, Some(1)),
            point("b", 0, 1.0, Some(5)),
            point("a", 0, 2.0, Some(3)),
            point("b", 0, 2.0, Some(4)),
            point("a", 1, 1.0, None),
        ];
        let newest = Newest::of(&points);
        assert_eq!((newest.places.as_slice(), newest.stale, newest.written(&points)), ([2, 1, 4].as_slice(), 1, 4));
    }
}
