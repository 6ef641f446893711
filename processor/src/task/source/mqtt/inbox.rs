//! What came from the broker and is in no step yet, between the task that reads the connection and the worker.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::mqtt::link::Client;
use tokio::sync::Notify;

/// Most bytes that wait here. What comes beyond it is left to the broker.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// What a message weighs beside its bytes.
const WEIGHT: usize = 128;
/// Messages, and about how many bytes, that are given at a time.
const PULL: usize = 1000;
const PULL_BYTES: usize = 1024 * 1024;

/// A message, and when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) received: i64,
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    /// `None`: quality of service 0, nothing to acknowledge.
    pub(super) receipt: Option<Receipt>,
}

impl Arrived {
    fn weight(&self) -> usize {
        self.topic.len() + self.payload.len() + WEIGHT
    }
}

/// The number of a message, and the connection that it is true of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) generation: u64,
    pub(super) id: u16,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    inner: Mutex<Inner>,
    came: Condvar,
    /// Nothing waits here, or everything of the connection is acknowledged.
    pub(super) emptied: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    messages: VecDeque<Arrived>,
    bytes: usize,
    /// Counts the connections.
    generation: u64,
    /// Of the current connection.
    client: Option<Client>,
    /// Whether its topics are subscribed.
    connected: bool,
    /// Messages that it brought and that are not acknowledged.
    unacknowledged: usize,
}

impl Inner {
    fn is_settled(&self) -> bool {
        self.messages.is_empty() && self.unacknowledged == 0
    }
}

impl Inbox {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection begins; nothing of an older one is acknowledged any more.
    pub(super) fn begin(&self, client: Client) -> u64 {
        let mut inner = self.inner();
        inner.generation += 1;
        (inner.client, inner.connected, inner.unacknowledged) = (Some(client), false, 0);
        inner.generation
    }

    /// The broker has kept the session: what no step has yet comes again.
    pub(super) fn comes_again(&self) {
        let mut inner = self.inner();
        inner.messages.retain(|message| message.receipt.is_none());
        inner.bytes = inner.messages.iter().map(Arrived::weight).sum();
    }

    pub(super) fn subscribed(&self) {
        self.inner().connected = true;
    }

    /// The connection is over.
    pub(super) fn end(&self) {
        let mut inner = self.inner();
        (inner.client, inner.connected, inner.unacknowledged) = (None, false, 0);
    }

    /// Takes a message of the current connection; not when too many bytes wait. One that is larger than all room is taken alone.
    pub(super) fn push(&self, message: Arrived) -> bool {
        let mut inner = self.inner();
        if !inner.messages.is_empty() && inner.bytes + message.weight() > MOST_BYTES {
            return false;
        }
        inner.bytes += message.weight();
        inner.unacknowledged += usize::from(message.receipt.is_some());
        inner.messages.push_back(message);
        drop(inner);
        self.came.notify_one();
        true
    }

    /// Up to `most` messages, in order. Waits for the first one up to `patience`.
    pub(super) fn take(&self, most: usize, patience: Duration) -> Vec<Arrived> {
        let waited = self.came.wait_timeout_while(self.inner(), patience, |inner| inner.messages.is_empty());
        let (mut inner, _timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < most.min(PULL)
            && bytes < PULL_BYTES
            && let Some(message) = inner.messages.pop_front()
        {
            bytes += message.weight();
            taken.push(message);
        }
        inner.bytes -= bytes;
        if inner.is_settled() {
            self.emptied.notify_one();
        }
        taken
    }

    /// Acknowledges a message, if its connection is still there; `false`: the connection has no room for it now.
    pub(super) fn acknowledge(&self, receipt: Receipt) -> bool {
        let mut inner = self.inner();
        let Some(client) = inner.client.as_ref().filter(|_| inner.generation == receipt.generation) else { return true };
        if !client.ack(receipt.id) {
            return false;
        }
        inner.unacknowledged = inner.unacknowledged.saturating_sub(1);
        if inner.is_settled() {
            self.emptied.notify_one();
        }
        true
    }

    /// Whether nothing waits here and nothing of the connection lacks its acknowledgement.
    pub(super) fn is_settled(&self) -> bool {
        self.inner().is_settled()
    }

    /// Whether nothing waits here or, as far as that can be known, at the broker.
    pub(super) fn is_drained(&self) -> bool {
        let inner = self.inner();
        inner.connected && inner.messages.is_empty()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.inner().connected
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::mqtt::link::{Link, Plan};
    use common::settings::MqttConnection;

    use super::*;

    /// A connection that is never made: its queue takes acknowledgements for as long as the link lives.
    fn connection() -> (Link, Client) {
        let connection = MqttConnection { url: Some("mqtt://127.0.0.1:1".into()), ..MqttConnection::default() };
        let plan = Plan {
            connection: &connection,
            client_id: "test",
            receive_maximum: 10,
            send_maximum: 1,
            session_seconds: 1,
            clean: false,
            will: None,
        };
        Link::open(&plan).unwrap()
    }

    fn message(generation: u64, id: u16, bytes: usize) -> Arrived {
        let receipt = (id > 0).then_some(Receipt { generation, id });
        Arrived { received: 0, topic: Bytes::from_static(b"t"), payload: Bytes::from(vec![0; bytes]), receipt }
    }

    fn ids(messages: &[Arrived]) -> Vec<u16> {
        messages.iter().map(|message| message.receipt.map_or(0, |receipt| receipt.id)).collect()
    }

    #[test]
    fn an_acknowledgement_of_an_old_connection_answers_no_new_message() {
        let inbox = Inbox::default();
        let (_first, client) = connection();
        let old = inbox.begin(client);
        assert!(inbox.push(message(old, 7, 1)));
        assert_eq!(ids(&inbox.take(10, Duration::ZERO)), [7]);
        let (_second, client) = connection();
        let new = inbox.begin(client);
        assert!(new > old && inbox.push(message(new, 7, 1)));
        assert_eq!(ids(&inbox.take(10, Duration::ZERO)), [7]);
        // The step of the old connection is counted: nothing is said to the new one.
        assert!(inbox.acknowledge(Receipt { generation: old, id: 7 }));
        assert!(!inbox.is_settled());
        assert!(inbox.acknowledge(Receipt { generation: new, id: 7 }));
        assert!(inbox.is_settled());
    }

    #[test]
    fn an_acknowledgement_that_finds_no_connection_is_forgotten_with_it() {
        let inbox = Inbox::default();
        let (link, client) = connection();
        let generation = inbox.begin(client);
        assert!(inbox.push(message(generation, 1, 1)));
        inbox.take(10, Duration::ZERO);
        drop(link);
        assert!(!inbox.acknowledge(Receipt { generation, id: 1 }), "the queue is gone, and nobody has said yet that the connection is");
        inbox.end();
        assert!(inbox.acknowledge(Receipt { generation, id: 1 }));
    }

    #[test]
    fn what_no_step_has_is_not_taken_twice() {
        let inbox = Inbox::default();
        let (_first, client) = connection();
        let generation = inbox.begin(client);
        for id in [1, 0, 2] {
            assert!(inbox.push(message(generation, id, 1)));
        }
        let (_second, client) = connection();
        inbox.begin(client);
        inbox.comes_again();
        // A message of quality of service 0 does not come again.
        assert_eq!(ids(&inbox.take(10, Duration::ZERO)), [0]);
    }

    #[test]
    fn what_waits_is_bounded_and_a_large_message_is_taken_alone() {
        let inbox = Inbox::default();
        let (_link, client) = connection();
        let generation = inbox.begin(client);
        assert!(inbox.push(message(generation, 1, MOST_BYTES + 1)));
        assert!(!inbox.push(message(generation, 2, 1)));
        assert_eq!(ids(&inbox.take(10, Duration::ZERO)), [1]);
        assert!(inbox.push(message(generation, 2, MOST_BYTES / 2)));
        assert!(!inbox.push(message(generation, 3, MOST_BYTES / 2)));
        assert_eq!(ids(&inbox.take(10, Duration::ZERO)), [2]);
        assert!(inbox.take(10, Duration::ZERO).is_empty());
    }
}
