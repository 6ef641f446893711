//! What was written lately, of which revision and with which fields: what InfluxDB itself cannot be asked for at every write.

use hashbrown::HashMap;

use crate::point::Point;

/// Points remembered at least; twice as many at most, some 40 bytes each.
const REMEMBERED: usize = 200_000;

/// The last bit.
const SHARED: usize = 63;

#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    revision: Option<i64>,
    /// A bit for each field that the point has, see [`Recent::bits`].
    fields: u64,
}

/// Two generations: when the young one is full it becomes the old one, and what was the old one is forgotten.
#[derive(Debug)]
pub(super) struct Recent {
    young: HashMap<u64, Held>,
    old: HashMap<u64, Held>,
    /// Names of fields by the place of their bit; all further ones share the last one.
    names: Vec<String>,
    capacity: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), names: Vec::new(), capacity: REMEMBERED }
    }
}

/// A point by its series' hash and its time.
fn key(series: u64, point: &Point) -> u64 {
    series ^ point.time_ms.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Held {
    /// Whether it is of a larger revision than `point`.
    pub(super) fn is_newer_than(self, point: &Point) -> bool {
        point.revision.zip(self.revision).is_some_and(|(new, held)| new < held)
    }
}

impl Recent {
    /// What is remembered of a point, whose series has the hash `series`.
    pub(super) fn held(&self, series: u64, point: &Point) -> Option<Held> {
        let key = key(series, point);
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    /// Whether the point in the database has a field that this row has no value for.
    pub(super) fn loses_a_field(&self, held: Option<Held>, point: &Point) -> bool {
        let bit = |name: &str| self.place(name).map_or(0, |place| 1_u64 << place);
        let nulls = point.nulls.iter().fold(0, |bits, name| bits | bit(name));
        nulls != 0 && held.is_some_and(|held| held.fields & nulls != 0)
    }

    pub(super) fn wrote(&mut self, series: u64, point: &Point) {
        let held = Held { revision: point.revision, fields: self.bits(point) };
        if self.young.len() >= self.capacity {
            // Both keep their tables: one that grows again from nothing is moved at each doubling.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key(series, point), held);
    }

    fn place(&self, name: &str) -> Option<usize> {
        let own = self.names.iter().position(|known| known == name);
        own.or((self.names.len() == SHARED).then_some(SHARED))
    }

    fn bits(&mut self, point: &Point) -> u64 {
        let mut bits = 0;
        for (name, _) in &point.fields {
            let place = self.place(name).unwrap_or_else(|| {
                self.names.push(name.to_string());
                self.names.len() - 1
            });
            bits |= 1 << place;
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::tests::point;

    #[test]
    fn a_smaller_revision_is_stale_as_long_as_the_larger_is_remembered() {
        let mut recent = Recent { capacity: 2, ..Recent::default() };
        let is_stale = |recent: &Recent, time, revision| {
            let point = point("a", time, 1.0, revision);
            recent.held(point.series_hash(), &point).is_some_and(|held| held.is_newer_than(&point))
        };
        wrote(&mut recent, &point("a", 0, 1.0, Some(5)));
        assert!(is_stale(&recent, 0, Some(4)));
        assert!(!is_stale(&recent, 0, Some(5)) && !is_stale(&recent, 1, Some(4)));
        assert!(!is_stale(&recent, 0, None));
        for time in 1..5 {
            wrote(&mut recent, &point("a", time, 1.0, Some(5)));
        }
        assert!(!is_stale(&recent, 0, Some(4)), "forgotten");
        assert!(is_stale(&recent, 4, Some(4)));
    }

    fn wrote(recent: &mut Recent, point: &Point) {
        recent.wrote(point.series_hash(), point);
    }

    #[test]
    fn a_null_where_a_value_was_is_noticed() {
        let mut recent = Recent::default();
        let null = |name: &str| Point { nulls: vec![name.into()], ..point("a", 0, 1.0, None) };
        let loses = |recent: &Recent, name: &str| {
            let point = null(name);
            recent.loses_a_field(recent.held(point.series_hash(), &point), &point)
        };
        assert!(!loses(&recent, "avg"));
        wrote(&mut recent, &point("a", 0, 1.0, None));
        assert!(loses(&recent, "avg") && !loses(&recent, "max"));
        let gone = Point { fields: vec![], deleted: true, ..point("a", 0, 1.0, None) };
        wrote(&mut recent, &gone);
        assert!(!loses(&recent, "avg"));
    }
}
