//! Fetch sessions: what a client reads is kept here, so that it sends, and is sent, only what changes.
//!
//! Number and size of the sessions are bounded. When there is no place for one more, a client fetches without.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::TopicName;

use crate::ids::random_id;

const MAX_SESSIONS: usize = 1000;
/// Partitions of all sessions together.
const MAX_PARTITIONS: usize = 100_000;
/// A session that has been silent for so long may be given up for another.
const IDLE: Duration = Duration::from_secs(120);
/// What a client sends with its first fetch, and with one that wants no session.
const FIRST: i32 = 0;
const NONE: i32 = -1;

/// A partition, by its topic's name or id, whichever the client uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) name: TopicName,
    pub(super) id: u128,
    pub(super) index: i32,
}

/// What a client wants of a partition, and what it was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) offset: i64,
    pub(super) max_bytes: i32,
    pub(super) leader_epoch: i32,
    /// High watermark, last stable offset, first offset.
    pub(super) told: Option<(i64, i64, i64)>,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    wishes: BTreeMap<Key, Wish>,
    /// The last partition that had data: the next fetch begins behind it, so that no partition starves the others.
    after: Option<Key>,
    used: Instant,
}

/// The sessions of a broker.
#[derive(Debug, Default)]
pub(crate) struct FetchSessions {
    sessions: Mutex<HashMap<i32, Session>>,
}

/// What a fetch reads, and how its answer is told.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) wishes: Vec<(Key, Wish)>,
    /// 0: no session.
    pub(super) session: i32,
    /// Only what has changed is told.
    pub(super) incremental: bool,
}

impl FetchSessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out what a fetch is about.
    pub(super) fn begin(
        &self,
        id: i32,
        epoch: i32,
        wishes: Vec<(Key, Wish)>,
        forgotten: Vec<Key>,
        now: Instant,
    ) -> Result<Fetching, ResponseError> {
        let mut sessions = self.lock();
        if matches!(epoch, FIRST | NONE) {
            sessions.remove(&id);
            let session = if epoch == FIRST { open(&mut sessions, &wishes, now) } else { 0 };
            return Ok(Fetching { wishes, session, incremental: false });
        }
        let others: usize = sessions.iter().filter(|(other, _)| **other != id).map(|(_, session)| session.wishes.len()).sum();
        let session = sessions.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if others + session.wishes.len() + wishes.len() > MAX_PARTITIONS {
            sessions.remove(&id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        session.update(wishes, forgotten, now);
        Ok(Fetching { wishes: session.in_turn(), session: id, incremental: true })
    }

    /// Notes what a client is told about its partitions.
    pub(super) fn told(&self, id: i32, told: Vec<(Key, (i64, i64, i64))>, with_data: Option<Key>) {
        if let Some(session) = self.lock().get_mut(&id) {
            for (key, told) in told {
                if let Some(wish) = session.wishes.get_mut(&key) {
                    wish.told = Some(told);
                }
            }
            session.after = with_data.or(session.after.take());
        }
    }
}

/// Opens a session, if there is a place for it; returns its id, or 0.
fn open(sessions: &mut HashMap<i32, Session>, wishes: &[(Key, Wish)], now: Instant) -> i32 {
    let full = |sessions: &HashMap<i32, Session>| {
        let held: usize = sessions.values().map(|session| session.wishes.len()).sum();
        sessions.len() >= MAX_SESSIONS || held + wishes.len() > MAX_PARTITIONS
    };
    if full(sessions) {
        sessions.retain(|_, session| now.duration_since(session.used) < IDLE);
    }
    if full(sessions) || wishes.is_empty() {
        return 0;
    }
    let free = |id: &i32| *id != 0 && !sessions.contains_key(id);
    let id = std::iter::repeat_with(|| (random_id() & 0x7fff_ffff) as i32).find(free).unwrap_or_default();
    sessions.insert(id, Session { epoch: 1, wishes: wishes.iter().cloned().collect(), after: None, used: now });
    id
}

impl Session {
    fn update(&mut self, wishes: Vec<(Key, Wish)>, forgotten: Vec<Key>, now: Instant) {
        self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
        self.used = now;
        for key in forgotten {
            self.wishes.remove(&key);
        }
        for (key, wish) in wishes {
            let told = self.wishes.get(&key).and_then(|known| known.told);
            self.wishes.insert(key, Wish { told, ..wish });
        }
    }

    fn in_turn(&self) -> Vec<(Key, Wish)> {
        let copy = |(key, wish): (&Key, &Wish)| (key.clone(), *wish);
        match &self.after {
            None => self.wishes.iter().map(copy).collect(),
            Some(after) => {
                let behind = self.wishes.range((Bound::Excluded(after), Bound::Unbounded));
                behind.chain(self.wishes.range(..=after)).map(copy).collect()
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn wishes(indexes: std::ops::Range<i32>) -> Vec<(Key, Wish)> {
        let key = |index| Key { name: TopicName::default(), id: 1, index };
        indexes.map(|index| (key(index), Wish { offset: 0, max_bytes: 1, leader_epoch: -1, told: None })).collect()
    }

    #[test]
    fn a_session_is_opened_changed_and_closed() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        let first = sessions.begin(0, FIRST, wishes(0..3), Vec::new(), now).unwrap();
        assert!(first.session != 0 && !first.incremental && first.wishes.len() == 3);
        sessions.told(first.session, vec![(wishes(1..2)[0].0.clone(), (5, 5, 0))], Some(wishes(1..2)[0].0.clone()));
        let next = sessions.begin(first.session, 1, wishes(3..4), vec![wishes(0..1)[0].0.clone()], now).unwrap();
        assert!(next.incremental);
        assert_eq!(next.wishes.iter().map(|(key, _)| key.index).collect::<Vec<_>>(), [2, 3, 1], "the one with data comes last");
        assert_eq!(next.wishes[2].1.told, Some((5, 5, 0)));
        let wrong = sessions.begin(first.session, 1, Vec::new(), Vec::new(), now).unwrap_err();
        assert_eq!(wrong, ResponseError::InvalidFetchSessionEpoch);
        assert_eq!(sessions.begin(first.session, NONE, wishes(0..1), Vec::new(), now).unwrap().session, 0);
        let gone = sessions.begin(first.session, 2, Vec::new(), Vec::new(), now).unwrap_err();
        assert_eq!(gone, ResponseError::FetchSessionIdNotFound);
    }

    #[test]
    fn sessions_are_bounded_and_silent_ones_make_room() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        for _ in 0..MAX_SESSIONS {
            assert_ne!(sessions.begin(0, FIRST, wishes(0..1), Vec::new(), now).unwrap().session, 0);
        }
        assert_eq!(sessions.begin(0, FIRST, wishes(0..1), Vec::new(), now).unwrap().session, 0);
        assert_ne!(sessions.begin(0, FIRST, wishes(0..1), Vec::new(), now + IDLE).unwrap().session, 0);
        assert_eq!(sessions.begin(0, FIRST, wishes(0..MAX_PARTITIONS as i32 + 1), Vec::new(), now).unwrap().session, 0);
    }
}
