//! All transactional ids of this broker: takes the requests to the one they name, keeps what must survive, ends what takes too long.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::sync::Mutex as AsyncMutex;

use super::markers;
use super::state::{KeptTransaction, Status};
use crate::broker::Shared;
use crate::clock::now_millis;
use crate::group::offsets::Offsets;
use crate::store::{Record, Store};

/// Kafka's `transaction.max.timeout.ms`.
pub(crate) const MAX_TIMEOUT_MS: i32 = 15 * 60 * 1000;
/// Kafka's `transactional.id.expiration.ms`.
const EXPIRATION_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// How often time is looked at.
const TICK: Duration = Duration::from_millis(500);

/// A transactional id; `None` until its first producer has been kept. The lock is held while something about it is written, so that
/// a batch can never slip in behind the marker that ends its transaction.
type Slot = Arc<AsyncMutex<Option<KeptTransaction>>>;

/// The coordinator of all transactions.
#[derive(Debug)]
pub(crate) struct Transactions {
    slots: Mutex<HashMap<String, Slot>>,
    /// (group, transactional id) -> offsets that are neither committed nor given up.
    pending: Mutex<BTreeMap<(String, String), Offsets>>,
    store: Arc<Store>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Transactions {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let kept = store.image().transactions.clone();
        let pending = kept.values().filter(|t| matches!(t.status, Status::Ongoing | Status::PrepareCommit | Status::PrepareAbort));
        let pending = pending.flat_map(|t| t.offsets.iter().map(|(group, o)| ((group.clone(), t.id.clone()), o.clone())));
        let pending = Mutex::new(pending.collect());
        let slots = kept.into_iter().map(|(id, kept)| (id, Arc::new(AsyncMutex::new(Some(kept))))).collect();
        Self { slots: Mutex::new(slots), pending, store }
    }

    fn slot(&self, id: &str) -> Result<Slot, ResponseError> {
        lock(&self.slots).get(id).cloned().ok_or(ResponseError::InvalidProducerIdMapping)
    }

    fn slots(&self) -> Vec<(String, Slot)> {
        let mut all: Vec<_> = lock(&self.slots).iter().map(|(id, slot)| (id.clone(), slot.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Writes down how a transaction stands.
    async fn keep(&self, kept: &KeptTransaction) -> Result<(), ResponseError> {
        let done = self.store.keep(Record::Transaction(kept.clone())).await;
        done.ok().and_then(Result::ok).ok_or(ResponseError::CoordinatorNotAvailable)
    }

    /// Changes a transaction, if what comes of it can be kept.
    async fn change(
        &self,
        kept: &mut Option<KeptTransaction>,
        change: impl FnOnce(&mut KeptTransaction) -> Result<(), ResponseError>,
    ) -> Result<(), ResponseError> {
        let mut fresh = kept.clone().ok_or(ResponseError::InvalidProducerIdMapping)?;
        change(&mut fresh)?;
        if kept.as_ref() != Some(&fresh) {
            self.keep(&fresh).await?;
            *kept = Some(fresh);
        }
        Ok(())
    }

    /// A producer takes over a transactional id: what its predecessor left open is aborted. `given`: producer id and epoch of a
    /// producer that wants to go on.
    pub(crate) async fn init(
        &self,
        broker: &Arc<Shared>,
        id: &str,
        timeout_ms: i32,
        given: Option<(i64, i16)>,
    ) -> Result<(i64, i16), ResponseError> {
        if id.is_empty() {
            return Err(ResponseError::InvalidRequest);
        }
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        let slot = lock(&self.slots).entry(id.to_owned()).or_default().clone();
        let mut kept = slot.lock().await;
        if let (Some(kept), Some((producer_id, epoch))) = (kept.as_ref(), given) {
            let fenced = kept.producer_id != producer_id || (kept.epoch != epoch && kept.last_epoch != epoch);
            if fenced {
                return Err(ResponseError::ProducerFenced);
            }
            if kept.epoch != epoch && kept.status == Status::Empty {
                // The answer to its first try was lost.
                return Ok((kept.producer_id, kept.epoch));
            }
        }
        if kept.as_ref().is_some_and(|kept| kept.status == Status::Ongoing) {
            self.abort_fenced(&mut kept).await?;
        }
        self.complete(broker, &mut kept).await?;
        let worn_out = kept.as_ref().is_none_or(KeptTransaction::is_worn_out);
        let fresh_id = if worn_out { Some(new_producer_id(broker).await?) } else { None };
        let (timeout, now) = (i64::from(timeout_ms), now_millis());
        let fresh = match (kept.clone(), fresh_id) {
            (None, fresh_id) => KeptTransaction::new(id, fresh_id.unwrap_or_default(), timeout, now),
            (Some(mut fresh), fresh_id) => {
                fresh.renew(fresh_id, timeout, now);
                fresh
            }
        };
        self.keep(&fresh).await?;
        let answer = (fresh.producer_id, fresh.epoch);
        *kept = Some(fresh);
        Ok(answer)
    }

    async fn abort_fenced(&self, kept: &mut Option<KeptTransaction>) -> Result<(), ResponseError> {
        let now = now_millis();
        self.change(kept, |kept| {
            kept.fence(now);
            Ok(())
        })
        .await
    }

    /// Adds partitions that exist.
    pub(crate) async fn add_partitions(&self, id: &str, producer: (i64, i16), partitions: Vec<(String, i32)>) -> Result<(), ResponseError> {
        let slot = self.slot(id)?;
        let mut kept = slot.lock().await;
        self.change(&mut kept, |kept| {
            kept.check(producer.0, producer.1)?;
            let before = kept.clone();
            kept.begin(now_millis())?;
            kept.partitions.extend(partitions);
            // Nothing new need not be written.
            if before.status == Status::Ongoing && before.partitions == kept.partitions {
                *kept = before;
            }
            Ok(())
        })
        .await
    }

    /// Adds a group whose offsets will be part of the transaction.
    pub(crate) async fn add_group(&self, id: &str, producer: (i64, i16), group: &str) -> Result<(), ResponseError> {
        let slot = self.slot(id)?;
        let mut kept = slot.lock().await;
        self.change(&mut kept, |kept| {
            kept.check(producer.0, producer.1)?;
            kept.begin(now_millis())?;
            kept.groups.insert(group.to_owned());
            Ok(())
        })
        .await
    }

    /// Adds offsets that count when the transaction is committed.
    pub(crate) async fn add_offsets(&self, id: &str, producer: (i64, i16), group: &str, offsets: Offsets) -> Result<(), ResponseError> {
        let slot = self.slot(id)?;
        let mut kept = slot.lock().await;
        self.change(&mut kept, |kept| {
            kept.check(producer.0, producer.1)?;
            if kept.status != Status::Ongoing || !kept.groups.contains(group) {
                return Err(ResponseError::InvalidTxnState);
            }
            let pending = kept.offsets.entry(group.to_owned()).or_default();
            for (topic, partitions) in offsets {
                pending.entry(topic).or_default().extend(partitions);
            }
            Ok(())
        })
        .await?;
        if let Some(offsets) = kept.as_ref().and_then(|kept| kept.offsets.get(group)) {
            lock(&self.pending).insert((group.to_owned(), id.to_owned()), offsets.clone());
        }
        Ok(())
    }

    /// Whether a transaction is about to change what a group has committed for a partition.
    pub(crate) fn is_pending(&self, group: &str, topic: &str, partition: i32) -> bool {
        let pending = lock(&self.pending);
        let of_group = pending.range((group.to_owned(), String::new())..).take_while(|((name, _), _)| name == group);
        of_group.into_iter().any(|(_, offsets)| offsets.get(topic).is_some_and(|partitions| partitions.contains_key(&partition)))
    }

    /// A group that is deleted takes along what open transactions would commit for it. Whether there was any of it.
    pub(crate) async fn forget_group(&self, group: &str) -> Result<bool, ResponseError> {
        let open: Vec<_> = lock(&self.pending).keys().filter(|(name, _)| name == group).map(|(_, id)| id.clone()).collect();
        let mut forgotten = false;
        for id in open {
            let Ok(slot) = self.slot(&id) else { continue };
            let mut kept = slot.lock().await;
            // An end that is decided takes its course.
            if kept.as_ref().is_none_or(|kept| kept.status != Status::Ongoing || !kept.offsets.contains_key(group)) {
                continue;
            }
            self.change(&mut kept, |kept| {
                kept.offsets.remove(group);
                Ok(())
            })
            .await?;
            lock(&self.pending).remove(&(group.to_owned(), id));
            forgotten = true;
        }
        Ok(forgotten)
    }

    /// Does `append` while the transaction is open and has the partition; nothing can end it meanwhile. Blocks.
    pub(crate) fn within<T>(
        &self,
        id: &str,
        producer: (i64, i16),
        partition: (&str, i32),
        append: impl FnOnce() -> T,
    ) -> Result<T, ResponseError> {
        let slot = self.slot(id)?;
        let kept = slot.blocking_lock();
        let transaction = kept.as_ref().ok_or(ResponseError::InvalidProducerIdMapping)?;
        transaction.check(producer.0, producer.1)?;
        let has = transaction.partitions.iter().any(|(topic, index)| (topic.as_str(), *index) == partition);
        if transaction.status != Status::Ongoing || !has {
            return Err(ResponseError::InvalidTxnState);
        }
        Ok(append())
    }

    /// Ends the transaction. When this returns, its end is decided for good; what stays to be written then is written later.
    pub(crate) async fn end(&self, broker: &Arc<Shared>, id: &str, producer: (i64, i16), commit: bool) -> Result<(), ResponseError> {
        let slot = self.slot(id)?;
        let mut kept = slot.lock().await;
        self.change(&mut kept, |kept| {
            kept.check(producer.0, producer.1)?;
            kept.decide(commit, now_millis()).map(drop)
        })
        .await?;
        if let Err(error) = self.complete(broker, &mut kept).await {
            tracing::warn!(transactional_id = id, commit, %error, "the end of a transaction is decided but not yet written; it is tried again");
        }
        Ok(())
    }

    /// Writes the markers of a transaction whose end is decided, and then that it is over.
    async fn complete(&self, broker: &Arc<Shared>, kept: &mut Option<KeptTransaction>) -> Result<(), ResponseError> {
        let Some((transaction, commit)) = kept.as_ref().and_then(|t| Some((t.clone(), t.status.prepared()?))) else { return Ok(()) };
        let producer = (transaction.producer_id, transaction.epoch);
        let partitions = transaction.partitions.iter().cloned().collect();
        markers::write(broker, partitions, producer, commit).await.map_err(|fault| {
            tracing::warn!(transactional_id = %transaction.id, %fault, "a transaction cannot be ended yet");
            ResponseError::CoordinatorNotAvailable
        })?;
        let mut done = transaction.clone();
        done.complete(now_millis());
        self.keep(&done).await?;
        // What is kept has committed the offsets; here they are of no more use.
        done.offsets.clear();
        *kept = Some(done);
        for group in transaction.offsets.keys() {
            lock(&self.pending).remove(&(group.clone(), transaction.id.clone()));
            if commit {
                broker.groups.noticed(group);
            }
        }
        Ok(())
    }

    /// Ends what takes too long, finishes what was decided, forgets what is old; until the future is dropped.
    pub(crate) async fn run(&self, broker: &Arc<Shared>) {
        loop {
            for (id, slot) in self.slots() {
                // Whoever holds it is at work on it.
                let Ok(mut kept) = slot.try_lock() else { continue };
                self.look_at(broker, &id, &mut kept).await;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    async fn look_at(&self, broker: &Arc<Shared>, id: &str, kept: &mut Option<KeptTransaction>) {
        let now = now_millis();
        if kept.as_ref().is_some_and(|kept| kept.is_overdue(now)) {
            tracing::info!(transactional_id = id, "a transaction has taken longer than its timeout and is aborted");
            if self.abort_fenced(kept).await.is_err() {
                return;
            }
        }
        // Faults have been logged, and the next look tries again.
        self.complete(broker, kept).await.ok();
        let over = |kept: &KeptTransaction| matches!(kept.status, Status::Empty | Status::CompleteCommit | Status::CompleteAbort);
        let old = |kept: &KeptTransaction| over(kept) && kept.updated < now.saturating_sub(EXPIRATION_MS);
        if kept.as_ref().is_some_and(old) {
            drop(self.store.keep(Record::TransactionRemoved { id: id.to_owned() }));
            lock(&self.slots).remove(id);
        }
    }

    /// Compares what is open in the log with what is known here: a crash may have come between the two. Before
    /// anybody connects.
    pub(crate) async fn recover(&self, broker: &Arc<Shared>) {
        let mut open: HashMap<i64, Vec<(String, i32, i16)>> = HashMap::new();
        for topic in broker.topics.all() {
            for (index, partition) in topic.partitions.iter().enumerate() {
                for (producer_id, epoch) in partition.open_transactions() {
                    open.entry(producer_id).or_default().push((topic.name.clone(), index as i32, epoch));
                }
            }
        }
        for (_, slot) in self.slots() {
            let mut kept = slot.lock().await;
            let Some(kept) = kept.as_mut() else { continue };
            let ended = matches!(kept.status, Status::Empty | Status::CompleteCommit | Status::CompleteAbort);
            if !ended && let Some(found) = open.remove(&kept.producer_id) {
                kept.partitions.extend(found.into_iter().map(|(topic, index, _)| (topic, index)));
            }
        }
        for (producer_id, found) in open {
            for (topic, index, epoch) in found {
                tracing::warn!(%topic, partition = index, producer_id, "a transaction that nobody knows is aborted");
                if let Err(fault) = markers::write(broker, vec![(topic, index)], (producer_id, epoch), false).await {
                    tracing::error!(%fault, "it stays open until the next start");
                }
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.slots).len()
    }

    /// All transactional ids as they stand.
    pub(crate) async fn list(&self) -> Vec<KeptTransaction> {
        let mut all = Vec::new();
        for (_, slot) in self.slots() {
            all.extend(slot.lock().await.clone());
        }
        all
    }

    /// One transactional id as it stands.
    pub(crate) async fn describe(&self, id: &str) -> Option<KeptTransaction> {
        let slot = lock(&self.slots).get(id).cloned()?;
        let kept = slot.lock().await;
        kept.clone()
    }
}

async fn new_producer_id(broker: &Arc<Shared>) -> Result<i64, ResponseError> {
    let dir = broker.dir.clone();
    match tokio::task::spawn_blocking(move || dir.next_producer_id()).await {
        Ok(Ok(id)) => Ok(id),
        Ok(Err(fault)) => {
            tracing::error!(%fault, "no producer id can be given out");
            Err(ResponseError::CoordinatorNotAvailable)
        }
        Err(_) => Err(ResponseError::CoordinatorNotAvailable),
    }
}
