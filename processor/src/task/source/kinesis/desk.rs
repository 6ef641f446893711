//! Where the readers of the shards put what they have read, and the worker takes it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::merge::{Brought, Merge, Place, Row, Shard};

pub(super) struct Desk {
    inner: Mutex<Inner>,
    came: Condvar,
    /// Rows were taken: there is room.
    taken: watch::Sender<()>,
    /// Shards have ended or begun, or a list is wanted.
    pub(super) moved: Notify,
}

struct Inner {
    merge: Merge,
    /// Why shards, or the list of them, cannot be read.
    troubles: BTreeMap<String, String>,
    /// A shard was not found.
    relist: bool,
}

impl Desk {
    pub(super) fn new(merge: Merge) -> Self {
        let inner = Mutex::new(Inner { merge, troubles: BTreeMap::new(), relist: false });
        Self { inner, came: Condvar::new(), taken: watch::Sender::new(()), moved: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `most` rows, in order. Waits for the first one up to `patience`.
    pub(super) fn take(&self, most: usize, patience: Duration) -> Vec<Row> {
        let waited = self.came.wait_timeout_while(self.inner(), patience, |inner| !inner.merge.has_next());
        let (mut inner, _timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        let rows = inner.merge.take(most);
        drop(inner);
        if !rows.is_empty() {
            self.taken.send_replace(());
            // A shard may have been given to its end, and its children begin.
            self.moved.notify_one();
        }
        rows
    }

    pub(super) fn take_changed(&self) -> BTreeMap<String, Place> {
        self.inner().merge.take_changed()
    }

    /// The moment at which a question begins.
    pub(super) fn ask(&self) -> u64 {
        self.inner().merge.tick()
    }

    pub(super) fn push(&self, id: &str, asked: u64, brought: Brought) {
        let closed = brought.closed;
        self.inner().merge.push(id, asked, brought);
        self.came.notify_one();
        if closed {
            self.moved.notify_one();
        }
    }

    /// A new list of shards. Gives those that were read and are gone.
    pub(super) fn listed(&self, shards: Vec<Shard>) -> Vec<String> {
        let mut inner = self.inner();
        inner.relist = false;
        let gone = inner.merge.listed(shards);
        drop(inner);
        self.came.notify_one();
        gone
    }

    pub(super) fn relist(&self) {
        self.inner().relist = true;
        self.moved.notify_one();
    }

    pub(super) fn wants_list(&self) -> bool {
        let inner = self.inner();
        inner.relist || inner.merge.wants_list()
    }

    pub(super) fn open(&self) -> Vec<Shard> {
        self.inner().merge.open().cloned().collect()
    }

    pub(super) fn read_to(&self, id: &str) -> Option<Place> {
        self.inner().merge.read_to(id).cloned()
    }

    /// Returns when there is room for more of a shard.
    pub(super) async fn wait_room(&self, id: &str) {
        let mut taken = self.taken.subscribe();
        while !self.inner().merge.has_room(id) {
            // The sender lives as long as `self`.
            if taken.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether everything that was there at `moment` is given, and everything can be read.
    pub(super) fn is_empty_since(&self, moment: u64) -> bool {
        let inner = self.inner();
        inner.troubles.is_empty() && inner.merge.is_empty_since(moment)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.inner().merge.is_spent()
    }

    pub(super) fn is_away(&self) -> bool {
        !self.inner().troubles.is_empty()
    }

    /// `what` cannot be read; returns whether that is news.
    pub(super) fn trouble(&self, what: &str, cause: &str) -> bool {
        let mut inner = self.inner();
        // All shards of a stream have the same trouble, mostly.
        let news = !inner.troubles.values().any(|known| known == cause);
        inner.troubles.insert(what.to_owned(), cause.to_owned());
        news
    }

    /// `what` is read again; returns whether that was the last trouble.
    pub(super) fn is_well(&self, what: &str) -> bool {
        let mut inner = self.inner();
        inner.troubles.remove(what).is_some() && inner.troubles.is_empty()
    }
}
