//! The clients with which a shard writes, made before it is known which shards there are.
//!
//! A producer that promises order needs an id from the log. Librdkafka asks for it when an answer of the log comes while it has a connection, or
//! else every half second; and the connection that the client begins with is gone by the time of its first answer. So the clients are made
//! early, and sent to the log once more while the processor has other things to do: topics, a look into the journal, the group.

use std::sync::{Arc, Mutex, PoisonError};

use common::Settings;

use super::deliver::Deliverer;
use super::error::TaskError;
use super::journal::Writer;
use super::membership::Workers;
use crate::query::StreamQuery;

/// Most shards whose clients are made in advance; the others of a wide topic make theirs when they start.
const MOST: u32 = 4;

/// Of one shard whose journal is a topic.
pub(crate) struct Clients {
    pub(crate) deliverer: Deliverer,
    pub(crate) writer: Writer,
}

impl Clients {
    fn create(settings: &Settings, query: &StreamQuery) -> Result<Self, TaskError> {
        Ok(Self { deliverer: Deliverer::new(settings, query)?, writer: Writer::create(settings)? })
    }

    fn connect(&self, topic: &str) {
        self.writer.connect(topic);
        self.deliverer.connect(topic);
    }
}

/// Clients that nobody has taken yet.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<Clients>>);

impl Spare {
    /// Makes clients for the shards that this process will have if nobody shares them.
    pub(crate) fn prepare(settings: &Settings, query: &StreamQuery) -> Arc<Self> {
        let spare = Self::default();
        if query.file.has_journal_topic() {
            let made = (0..Workers::shards(query, settings.topics.partitions).min(MOST)).map_while(|_| {
                // Whoever needs them tries again, and says so.
                Clients::create(settings, query).inspect_err(|error| tracing::debug!(%error, "no clients in advance")).ok()
            });
            spare.kept().extend(made);
        }
        Arc::new(spare)
    }

    /// Has each client connect to the log, for which it would wait until it has something to send. Waits for nothing. `topic` must be there.
    pub(crate) fn connect(&self, topic: &str) {
        self.kept().iter().for_each(|clients| clients.connect(topic));
    }

    /// Clients that are there, or new ones.
    pub(crate) fn take(&self, settings: &Settings, query: &StreamQuery) -> Result<Clients, TaskError> {
        let kept = self.kept().pop();
        kept.map_or_else(|| Clients::create(settings, query), Ok)
    }

    /// Gives up those that nobody wants.
    pub(crate) fn close(&self) {
        let left = std::mem::take(&mut *self.kept());
        drop(left);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Clients>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
