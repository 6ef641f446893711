//! Readings that were there: their keys, until the watermark has left them behind.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::query::RowBytes;

/// What a key costs beside its bytes, which are kept twice.
const OVERHEAD: usize = 72;

/// The keys of one timeline, each with the time from which on it may be forgotten: the first reading's event time and the delay.
#[derive(Debug, Default)]
pub(crate) struct SeenKeys {
    expiries: HashMap<RowBytes, i64>,
    by_expiry: BTreeMap<i64, Vec<RowBytes>>,
    bytes: u64,
}

impl SeenKeys {
    pub(crate) fn expiry(&self, key: &[u8]) -> Option<i64> {
        self.expiries.get(key).copied()
    }

    pub(crate) fn put(&mut self, key: RowBytes, expiry: i64) {
        self.by_expiry.entry(expiry).or_default().push(key.clone());
        self.bytes += cost(&key);
        let key_cost = cost(&key);
        if self.expiries.insert(key, expiry).is_some() {
            // The older one is passed over when its time comes.
            self.bytes -= key_cost;
        }
    }

    /// Forgets the keys that have expired at `watermark`.
    pub(crate) fn evict(&mut self, watermark: i64) {
        while let Some(first) = self.by_expiry.first_entry()
            && *first.key() <= watermark
        {
            for key in first.remove() {
                if self.expiries.get(&key).is_some_and(|expiry| *expiry <= watermark) {
                    self.expiries.remove(&key);
                    self.bytes -= cost(&key);
                }
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RowBytes, i64)> {
        self.expiries.iter().map(|(key, expiry)| (key, *expiry))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn rows(&self) -> u64 {
        self.expiries.len() as u64
    }
}

pub(crate) fn cost(key: &[u8]) -> u64 {
    (2 * key.len() + OVERHEAD) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_forgotten_at_their_newest_expiry() {
        let mut seen = SeenKeys::default();
        seen.put(RowBytes::from(*b"a"), 10);
        seen.put(RowBytes::from(*b"b"), 20);
        seen.put(RowBytes::from(*b"a"), 15);
        assert_eq!((seen.rows(), seen.bytes()), (2, 2 * cost(b"a")));
        seen.evict(10);
        assert_eq!((seen.expiry(b"a"), seen.expiry(b"b")), (Some(15), Some(20)));
        seen.evict(15);
        assert_eq!((seen.expiry(b"a"), seen.expiry(b"b")), (None, Some(20)));
        seen.evict(20);
        assert_eq!((seen.rows(), seen.bytes()), (0, 0));
    }
}
