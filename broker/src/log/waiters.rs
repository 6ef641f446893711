//! Who waits for a partition's durable end to move: produces for their acknowledgement, fetches for data.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

/// A batch could not be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log's storage has failed")]
pub(crate) struct StorageFault;

/// Resolves when a batch is durable, or cannot become so.
pub(crate) type Ack = oneshot::Receiver<Result<(), StorageFault>>;

#[derive(Debug)]
struct Waiting {
    until: i64,
    reply: oneshot::Sender<Result<(), StorageFault>>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}

/// The waiting produces and fetches of one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    produces: BinaryHeap<Reverse<Waiting>>,
    fetches: Vec<Arc<Notify>>,
}

impl Waiters {
    pub(crate) fn wait_until(&mut self, until: i64) -> Ack {
        let (reply, ack) = oneshot::channel();
        self.produces.push(Reverse(Waiting { until, reply }));
        ack
    }

    pub(crate) fn watch(&mut self, fetch: &Arc<Notify>) {
        // Fetches that have gone leave their notify behind with nobody else holding it.
        self.fetches.retain(|other| Arc::strong_count(other) > 1 && !Arc::ptr_eq(other, fetch));
        self.fetches.push(fetch.clone());
    }

    /// Answers everybody who waits for an offset up to `durable`.
    pub(crate) fn advance(&mut self, durable: i64) {
        while self.produces.peek().is_some_and(|Reverse(waiting)| waiting.until <= durable) {
            if let Some(Reverse(waiting)) = self.produces.pop() {
                // The client may have gone; its batch is durable all the same.
                waiting.reply.send(Ok(())).ok();
            }
        }
        for fetch in self.fetches.drain(..) {
            fetch.notify_one();
        }
    }

    /// Answers all waiting produces with a storage fault.
    pub(crate) fn fail(&mut self) {
        for Reverse(waiting) in self.produces.drain() {
            waiting.reply.send(Err(StorageFault)).ok();
        }
    }
}
