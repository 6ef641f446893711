//! Results on their way: sent, and lost when their owner dies before they arrive.

use std::collections::VecDeque;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::query::Query;
use super::sink::{Sent, Sink};

/// What an owner has sent, in order, each with the number of its entry.
#[derive(Debug, Default)]
pub(super) struct Way {
    entries: u64,
    sent: VecDeque<(u64, Sent)>,
}

impl Way {
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// The results of the newest entry leave.
    pub(super) fn send(&mut self, messages: Vec<Sent>) {
        self.sent.extend(messages.into_iter().map(|message| (self.entries, message)));
    }

    /// An entry waits until the results of all entries but the newest have arrived.
    pub(super) fn before_entry(&mut self, query: &Query, sink: &mut Sink) {
        let older = self.sent.partition_point(|(entry, _)| *entry < self.entries);
        self.arrive(older, query, sink);
        self.entries += 1;
    }

    pub(super) fn all_arrive(&mut self, query: &Query, sink: &mut Sink) {
        self.arrive(self.sent.len(), query, sink);
    }

    /// The first of them, as many as it happens.
    pub(super) fn some_arrive(&mut self, query: &Query, sink: &mut Sink, random: &mut ChaCha8Rng) {
        let some = if random.random_bool(0.5) { self.sent.len() } else { random.random_range(0..=self.sent.len()) };
        self.arrive(some, query, sink);
    }

    fn arrive(&mut self, count: usize, query: &Query, sink: &mut Sink) {
        self.sent.drain(..count).for_each(|(_, message)| sink.take(query, &message));
    }
}
