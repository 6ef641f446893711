//! The current rows of a running query, for somebody who asks.
//!
//! A worker owns its engine, so it is asked and answers at its next turn: with a copy of the state, which is all that it does for it. The
//! rows are computed by whoever asked. Nothing is copied while nobody asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;

use super::status::QueryStatus;
use crate::engine::{Engine, StateCopy};
use crate::query::StreamQuery;

/// The questions to the workers of one query.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Whether there are any: all that a turn without them costs.
    any: AtomicBool,
    waiting: Mutex<Vec<Question>>,
}

#[derive(Debug)]
struct Question {
    shard: i32,
    /// Larger states are not copied.
    most: u64,
    answer: SyncSender<Result<StateCopy, TooLarge>>,
}

/// Bytes of a state that was not copied.
#[derive(Debug)]
struct TooLarge(u64);

impl Asked {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Question>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, shard: i32, most: u64) -> Receiver<Result<StateCopy, TooLarge>> {
        let (answer, answered) = sync_channel(1);
        let mut waiting = self.waiting();
        waiting.push(Question { shard, most, answer });
        self.any.store(true, Ordering::Release);
        answered
    }

    /// Answers what a shard was asked. Several questions at once get a copy each.
    pub(super) fn answer(&self, shard: i32, engine: &Engine) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mine: Vec<Question> = {
            let mut waiting = self.waiting();
            let (mine, others) = std::mem::take(&mut *waiting).into_iter().partition(|question| question.shard == shard);
            *waiting = others;
            self.any.store(!waiting.is_empty(), Ordering::Release);
            mine
        };
        for Question { most, answer, .. } in mine {
            let bytes = engine.state_bytes();
            let copy = if bytes > most { Err(TooLarge(bytes)) } else { Ok(engine.copy()) };
            // Whoever asked may have given up.
            if answer.try_send(copy).is_err() {
                tracing::debug!(shard, "nobody waits for the copy of the state any more");
            }
        }
    }

    /// Questions whose shard is gone have no answer.
    pub(super) fn forget(&self, shard: i32) {
        self.waiting().retain(|question| question.shard != shard);
    }
}

/// The queries of this process.
#[derive(Debug, Default)]
pub(crate) struct RunningQueries(Mutex<BTreeMap<String, Arc<QueryStatus>>>);

/// Why the rows of a query cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRows {
    #[error("the query '{0}' does not run any more")]
    Ended(String),
    #[error("the query '{query}' did not say its current rows in time (journal partition {shard}); `why` tells what it waits for")]
    Late { query: String, shard: i32 },
    #[error("the state of the query '{query}' has {found} bytes, more than may be copied for a question (sql.max_memory, {most} bytes)")]
    TooLarge { query: String, found: u64, most: u64 },
    #[error("{0}")]
    Engine(String),
}

impl RunningQueries {
    pub(crate) fn shared() -> &'static Self {
        static RUNNING: RunningQueries = RunningQueries(Mutex::new(BTreeMap::new()));
        &RUNNING
    }

    fn queries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<QueryStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows queries until what is returned is dropped.
    pub(super) fn show(&'static self, statuses: &[Arc<QueryStatus>]) -> Shown {
        let names = statuses.iter().map(|status| status.query().file.name.clone()).collect();
        self.queries().extend(statuses.iter().map(|status| (status.query().file.name.clone(), Arc::clone(status))));
        Shown { running: self, names }
    }

    /// Those whose results are rows of their state.
    pub(crate) fn grouped(&self) -> Vec<Arc<StreamQuery>> {
        self.queries().values().map(|status| Arc::clone(status.query())).filter(|query| query.groups.is_some()).collect()
    }

    /// The current rows of a query by `until`: those of the partitions that this processor owns.
    pub(crate) fn rows(&self, name: &str, until: Instant, most: u64) -> Result<Vec<RecordBatch>, NoRows> {
        let Some(status) = self.queries().get(name).cloned() else { return Err(NoRows::Ended(name.to_owned())) };
        // All at once, so that the copies are of about the same time.
        let asked: Vec<_> = status.owned_shards().into_iter().map(|shard| (shard, status.asked().ask(shard, most))).collect();
        let mut batches = Vec::with_capacity(asked.len());
        for (shard, answered) in asked {
            let copy = match answered.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Ok(copy)) => copy,
                Ok(Err(TooLarge(found))) => return Err(NoRows::TooLarge { query: name.to_owned(), found, most }),
                Err(_) => return Err(NoRows::Late { query: name.to_owned(), shard }),
            };
            batches.push(copy.rows().map_err(|error| NoRows::Engine(error.to_string()))?);
        }
        Ok(batches)
    }
}

/// Queries that can be asked while this lives.
#[derive(Debug)]
pub(super) struct Shown {
    running: &'static RunningQueries,
    names: Vec<String>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        let mut queries = self.running.queries();
        self.names.iter().for_each(|name| drop(queries.remove(name)));
    }
}
