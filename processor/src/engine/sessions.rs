//! Sessions: for each group key, the stretches of time in which it spoke, and their states.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use crate::query::RowBytes;

/// What a session costs beside its bytes.
const OVERHEAD: usize = 64;

/// A stretch of one key's rows, none further from the next than the gap. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Session {
    /// Time of the first row.
    pub(crate) start: i64,
    /// Time of the last row, and the gap.
    pub(crate) end: i64,
    /// From where on it can meet sessions of other partitions: its start, but after everything that had closed when its first row came.
    /// What had closed never changes any more, so nothing that comes later may touch it.
    pub(crate) from: i64,
}

impl Session {
    /// Spark's rule: sessions that touch are one.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.from <= other.end && other.from <= self.end
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end), from: self.from.min(other.from) }
    }
}

/// A session and the state of its aggregates.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) session: Session,
    pub(crate) state: RowBytes,
}

/// Sessions that are still open though a part of them has ended, by key.
pub(crate) type OpenSessions = HashMap<RowBytes, Vec<Session>>;

/// Sessions with those that meet made one.
pub(crate) fn unions(mut sessions: Vec<Session>) -> Vec<Session> {
    sessions.sort_unstable_by_key(|session| (session.from, session.end));
    let mut all: Vec<Session> = Vec::with_capacity(sessions.len());
    for session in sessions {
        match all.last_mut() {
            Some(last) if last.meets(&session) => *last = last.union(&session),
            _ => all.push(session),
        }
    }
    all
}

/// The sessions of several timelines that are open at `horizon`, for the keys that have ended parts in any of them.
pub(crate) fn open_over(lines: &[&Sessions], horizon: i64) -> OpenSessions {
    if lines.len() < 2 {
        return OpenSessions::default();
    }
    let keys: HashSet<&RowBytes> = lines.iter().flat_map(|line| line.closing(horizon)).collect();
    let open = |key: &RowBytes| {
        let parts = lines.iter().flat_map(|line| line.get(key)).map(|held| held.session).collect();
        unions(parts).into_iter().filter(|whole| whole.end > horizon).collect::<Vec<_>>()
    };
    keys.into_iter().map(|key| (key.clone(), open(key))).filter(|(_, open)| !open.is_empty()).collect()
}

/// The sessions of one timeline.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_key: HashMap<RowBytes, Vec<Held>>,
    /// Keys by a coarse end of their sessions, so that closing looks only at those that may close.
    ends: BTreeMap<i64, HashSet<RowBytes>>,
    bytes: u64,
    rows: u64,
}

/// Ends are gathered by this many milliseconds.
const BUCKET: i64 = 1_000;

impl Sessions {
    /// The sessions of a key, by start.
    pub(crate) fn get(&self, key: &[u8]) -> &[Held] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// By how many bytes [`Sessions::replace`] would change the state.
    pub(crate) fn growth(&self, key: &[u8], sessions: &[&[u8]]) -> i64 {
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let new: usize = sessions.iter().map(|state| key.len() + state.len() + OVERHEAD).sum();
        let old: usize = self.get(key).iter().map(|held| key.len() + held.state.len() + OVERHEAD).sum();
        signed(new) - signed(old)
    }

    /// Puts the sessions of a key in place of those that it had.
    pub(crate) fn replace(&mut self, key: RowBytes, sessions: Vec<Held>) {
        let ends: Vec<i64> = self.get(&key).iter().map(|held| held.session.end.div_euclid(BUCKET)).collect();
        for bucket in ends {
            if let Some(keys) = self.ends.get_mut(&bucket) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.ends.remove(&bucket);
                }
            }
        }
        for held in &sessions {
            self.ends.entry(held.session.end.div_euclid(BUCKET)).or_default().insert(key.clone());
            self.bytes += cost(&key, &held.state);
            self.rows += 1;
        }
        let key_len = key.len();
        for old in self.by_key.insert(key, sessions).unwrap_or_default() {
            self.bytes -= (key_len + old.state.len() + OVERHEAD) as u64;
            self.rows -= 1;
        }
    }

    /// Keys that may have a session whose end is at or before `horizon`.
    pub(crate) fn closing(&self, horizon: i64) -> impl Iterator<Item = &RowBytes> {
        self.ends.range(..=horizon.div_euclid(BUCKET)).flat_map(|(_, keys)| keys)
    }

    /// Drops the sessions that end at or before `horizon`, but for those that `part_of_open` one of another partition.
    pub(crate) fn evict(&mut self, horizon: i64, part_of_open: impl Fn(&RowBytes, &Session) -> bool) {
        let buckets: Vec<i64> = self.ends.range(..=horizon.div_euclid(BUCKET)).map(|(bucket, _)| *bucket).collect();
        let stays = |key: &RowBytes, session: &Session| session.end > horizon || part_of_open(key, session);
        for bucket in buckets {
            let keys = self.ends.remove(&bucket).unwrap_or_default();
            let left: HashSet<RowBytes> = keys.into_iter().filter(|key| self.evict_key(key, stays, bucket)).collect();
            if !left.is_empty() {
                self.ends.insert(bucket, left);
            }
        }
    }

    /// Gives whether the key must stay in the bucket: one of its sessions ends there and stays.
    fn evict_key(&mut self, key: &RowBytes, stays: impl Fn(&RowBytes, &Session) -> bool, bucket: i64) -> bool {
        let Some(sessions) = self.by_key.get_mut(key) else { return false };
        let (mut freed, mut dropped) = (0, 0);
        sessions.retain(|held| {
            let stays = stays(key, &held.session);
            if !stays {
                freed += cost(key, &held.state);
                dropped += 1;
            }
            stays
        });
        let waits = sessions.iter().any(|held| held.session.end.div_euclid(BUCKET) == bucket);
        if sessions.is_empty() {
            self.by_key.remove(key);
        }
        self.bytes -= freed;
        self.rows -= dropped;
        waits
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RowBytes, &[Held])> {
        self.by_key.iter().map(|(key, sessions)| (key, sessions.as_slice()))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }
}

/// What a session takes.
pub(crate) fn cost(key: &[u8], state: &[u8]) -> u64 {
    (key.len() + state.len() + OVERHEAD) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(start: i64, end: i64) -> Held {
        Held { session: Session { start, end, from: start }, state: RowBytes::from(*b"12") }
    }

    #[test]
    fn sessions_of_different_partitions_that_touch_are_one() {
        let session = |start, end, from| Session { start, end, from };
        // The last one's first row is older than the end of the first session, but came when that had closed.
        let all = unions(vec![session(50, 90, 50), session(0, 20, 0), session(10, 30, 10), session(30, 40, 30), session(15, 49, 41)]);
        assert_eq!(all, [session(0, 40, 0), session(15, 49, 41), session(50, 90, 50)]);
    }

    #[test]
    fn closed_sessions_go_and_open_ones_stay() {
        let mut sessions = Sessions::default();
        let key = RowBytes::from(*b"k");
        sessions.replace(key.clone(), vec![held(0, 500), held(600, 900), held(5_000, 9_000)]);
        sessions.replace(key.clone(), vec![held(0, 500), held(600, 950), held(5_000, 9_000)]);
        assert_eq!((sessions.rows(), sessions.bytes()), (3, 3 * (1 + 2 + OVERHEAD) as u64));
        sessions.evict(500, |_, _| false);
        assert_eq!(sessions.get(b"k").len(), 2);
        sessions.evict(949, |_, _| false);
        assert_eq!(sessions.get(b"k").len(), 2);
        sessions.evict(950, |_, session| session.start == 600);
        assert_eq!(sessions.get(b"k").len(), 2);
        sessions.evict(950, |_, _| false);
        assert_eq!(sessions.get(b"k"), [held(5_000, 9_000)]);
        assert_eq!(sessions.closing(8_000).count(), 0);
        assert_eq!(sessions.closing(9_000).count(), 1);
        sessions.evict(20_000, |_, _| false);
        assert_eq!((sessions.rows(), sessions.bytes(), sessions.iter().count()), (0, 0, 0));
    }
}
