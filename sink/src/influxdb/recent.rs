//! What was written lately, of which revision and with which fields: what InfluxDB itself cannot be asked for at every write.

use std::collections::HashMap;

use crate::point::Point;

/// Points remembered at least; twice as many at most, some 40 bytes each.
const REMEMBERED: usize = 200_000;

/// The last bit.
const SHARED: usize = 63;

#[derive(Debug, Clone, Copy)]
struct Held {
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

fn key(point: &Point) -> u64 {
    point.series_hash() ^ point.time_ms.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Recent {
    fn held(&self, point: &Point) -> Option<Held> {
        let key = key(point);
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    /// Whether a larger revision of the point was written.
    pub(super) fn is_stale(&self, point: &Point) -> bool {
        let held = self.held(point).and_then(|held| held.revision);
        point.revision.zip(held).is_some_and(|(new, held)| new < held)
    }

    /// Whether the point in the database has a field that this row has no value for.
    pub(super) fn loses_a_field(&self, point: &Point) -> bool {
        let bit = |name: &str| self.place(name).map_or(0, |place| 1_u64 << place);
        let nulls = point.nulls.iter().fold(0, |bits, name| bits | bit(name));
        nulls != 0 && self.held(point).is_some_and(|held| held.fields & nulls != 0)
    }

    pub(super) fn wrote(&mut self, point: &Point) {
        let held = Held { revision: point.revision, fields: self.bits(point) };
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key(point), held);
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
        recent.wrote(&point("a", 0, 1.0, Some(5)));
        assert!(recent.is_stale(&point("a", 0, 1.0, Some(4))));
        assert!(!recent.is_stale(&point("a", 0, 1.0, Some(5))) && !recent.is_stale(&point("a", 1, 1.0, Some(4))));
        assert!(!recent.is_stale(&point("a", 0, 1.0, None)));
        for time in 1..5 {
            recent.wrote(&point("a", time, 1.0, Some(5)));
        }
        assert!(!recent.is_stale(&point("a", 0, 1.0, Some(4))), "forgotten");
        assert!(recent.is_stale(&point("a", 4, 1.0, Some(4))));
    }

    #[test]
    fn a_null_where_a_value_was_is_noticed() {
        let mut recent = Recent::default();
        let null = |name: &str| Point { nulls: vec![name.into()], ..point("a", 0, 1.0, None) };
        assert!(!recent.loses_a_field(&null("avg")));
        recent.wrote(&point("a", 0, 1.0, None));
        assert!(recent.loses_a_field(&null("avg")) && !recent.loses_a_field(&null("max")));
        let gone = Point { fields: vec![], deleted: true, ..point("a", 0, 1.0, None) };
        recent.wrote(&gone);
        assert!(!recent.loses_a_field(&null("avg")));
    }
}
