//! All groups of this broker: takes the requests to the group they name, keeps what must survive, lets time pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::{Notify, oneshot};

use super::member::{Join, JoinRefused, JoinResult, Member, SyncResult};
use super::offsets::{Committed, Offsets};
use super::state::{Group, Phase};
use crate::store::{KeptGroup, KeptMember, Record, Store};

/// Bounds of a member's session timeout, as generous as Kafka's (6 s is its lower bound, which makes tests slow).
pub(crate) const SESSION: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(1800);

/// Heartbeats come often; looking so much after one is soon enough for a deadline that moved closer.
const HEARTBEATS: Duration = Duration::from_millis(20);
/// Members are looked at at least so often, so that a standstill is noticed also when it ends just before a session does.
const LOOK: Duration = Duration::from_secs(1);
/// A look that comes so much later than it was due was held up, and so were the heartbeats.
const STANDSTILL: Duration = Duration::from_millis(500);

/// Kafka's name of the state of a group that does not exist.
pub(crate) const DEAD: &str = "Dead";

/// A SyncGroup request.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// A group as ListGroups and DescribeGroups show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Described {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

#[derive(Debug, Clone)]
pub(crate) struct DescribedMember {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

/// The coordinator of all groups.
#[derive(Debug)]
pub(crate) struct Coordinator {
    groups: Mutex<HashMap<String, Group>>,
    store: Arc<Store>,
    /// Tells the ticker that a deadline may have come closer.
    wake: Arc<Notify>,
    initial_delay: Duration,
}

impl Coordinator {
    pub(crate) fn new(store: Arc<Store>, initial_delay: Duration) -> Self {
        let now = Instant::now();
        let kept: Vec<_> = store.image().groups.iter().map(|(id, kept)| (id.clone(), kept.members.clone())).collect();
        let restore = |(id, members): (String, Option<KeptGroup>)| (id.clone(), restored(&id, members, now));
        let groups = kept.into_iter().map(restore).collect();
        Self { groups: Mutex::new(groups), store, wake: Arc::default(), initial_delay }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with a group and keeps what has changed.
    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Group, Instant) -> T) -> Result<T, ResponseError> {
        if id.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        let mut groups = self.lock();
        let group = groups.get_mut(id).ok_or(ResponseError::UnknownMemberId)?;
        let done = act(group, Instant::now());
        self.keep(group);
        self.wake.notify_one();
        Ok(done)
    }

    /// Writes the group down when it has come to rest. Nobody waits for that: should it be lost, the members join again.
    fn keep(&self, group: &mut Group) {
        if group.changed && matches!(group.phase, Phase::Stable | Phase::Empty) {
            group.changed = false;
            drop(self.store.keep(Record::Members(kept(group))));
        }
    }

    pub(crate) async fn join(&self, group: &str, join: Join) -> JoinResult {
        let refused = |error| JoinRefused { error, member_id: join.member_id.clone() };
        if group.is_empty() {
            return Err(refused(ResponseError::InvalidGroupId));
        }
        if !SESSION.contains(&join.session_timeout) {
            return Err(refused(ResponseError::InvalidSessionTimeout));
        }
        let (reply, answer) = oneshot::channel();
        {
            let mut groups = self.lock();
            if !join.member_id.is_empty() && !groups.contains_key(group) {
                return Err(refused(ResponseError::UnknownMemberId));
            }
            groups.entry(group.to_owned()).or_insert_with(|| Group::new(group));
        }
        let joined = self.with(group, |group, now| group.join(&join, reply, now, self.initial_delay));
        joined.map_err(refused)?;
        answer.await.unwrap_or_else(|_| Err(refused(ResponseError::UnknownMemberId)))
    }

    pub(crate) async fn sync(&self, group: &str, sync: Sync) -> SyncResult {
        let (reply, answer) = oneshot::channel();
        self.with(group, |group, now| {
            group.check_member(&sync.member_id, sync.instance_id.as_deref())?;
            let differs = |given: &Option<String>, own: &str| given.as_deref().is_some_and(|given| given != own);
            if differs(&sync.protocol_type, &group.protocol_type) || differs(&sync.protocol, &group.protocol) {
                return Err(ResponseError::InconsistentGroupProtocol);
            }
            group.sync(&sync.member_id, sync.generation, sync.assignments, reply, now)
        })??;
        answer.await.unwrap_or(Err(ResponseError::UnknownMemberId))
    }

    pub(crate) fn heartbeat(&self, group: &str, member: &str, instance: Option<&str>, generation: i32) -> Result<(), ResponseError> {
        self.with(group, |group, now| group.heartbeat(member, instance, generation, now))?
    }

    pub(crate) fn leave(&self, group: &str, member: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        self.with(group, |group, now| group.leave(member, instance, now))?
    }

    /// Checks that a member may commit; groups that only keep offsets have no members.
    pub(crate) fn check_commit(&self, group: &str, member: &str, instance: Option<&str>, generation: i32) -> Result<(), ResponseError> {
        if group.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        if !self.lock().contains_key(group) {
            // Without a group, the generation is what does not exist; plain offsets need none.
            let plain = generation < 0 && member.is_empty();
            return if plain { Ok(()) } else { Err(ResponseError::IllegalGeneration) };
        }
        self.with(group, |group, now| group.check_commit(member, instance, generation, now))?
    }

    /// Keeps offsets; returns when they are durable.
    pub(crate) async fn commit(&self, group: &str, offsets: Offsets) -> Result<(), ResponseError> {
        let kept = self.store.keep(Record::Offsets { group: group.to_owned(), offsets });
        match kept.await {
            Ok(Ok(())) => {
                self.lock().entry(group.to_owned()).or_insert_with(|| Group::new(group));
                Ok(())
            }
            // Retriable, for consumers; Kafka says the same when its offsets topic cannot be written.
            _ => Err(ResponseError::CoordinatorNotAvailable),
        }
    }

    pub(crate) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<Committed> {
        self.store.image().committed(group, topic, partition).cloned()
    }

    pub(crate) fn all_committed(&self, group: &str) -> Offsets {
        self.store.image().groups.get(group).map(|kept| kept.offsets.clone()).unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn list(&self) -> Vec<Described> {
        let mut all: Vec<_> = self.lock().values().map(described).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// A group; one that does not exist is described as dead.
    pub(crate) fn describe(&self, id: &str) -> Described {
        let dead = || Described { id: id.to_owned(), state: DEAD, ..Described::default() };
        self.lock().get(id).map_or_else(dead, described)
    }

    /// Deletes a group without members, with its offsets.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), ResponseError> {
        let kept = {
            let mut groups = self.lock();
            let group = groups.get(id).ok_or(ResponseError::GroupIdNotFound)?;
            if !group.members.is_empty() || !group.pending.is_empty() {
                return Err(ResponseError::NonEmptyGroup);
            }
            groups.remove(id);
            self.store.keep(Record::Removed { group: id.to_owned() })
        };
        kept.await.ok().and_then(Result::ok).ok_or(ResponseError::CoordinatorNotAvailable)
    }

    /// Forgets what a group has committed for some partitions, those that no member subscribes to; returns the others.
    pub(crate) async fn delete_offsets(&self, id: &str, partitions: Vec<(String, i32)>) -> Result<Vec<(String, i32)>, ResponseError> {
        let (gone, held, kept) = {
            let groups = self.lock();
            let group = groups.get(id).ok_or(ResponseError::GroupIdNotFound)?;
            let subscribed = group.subscribed();
            let is_held = |(topic, _): &(String, i32)| match &subscribed {
                Some(topics) => topics.contains(topic),
                // Members of which we cannot tell what they read.
                None => !group.members.is_empty(),
            };
            let (held, gone): (Vec<_>, Vec<_>) = partitions.into_iter().partition(is_held);
            let kept = self.store.keep(Record::Forgotten { group: id.to_owned(), partitions: gone.clone() });
            (gone, held, kept)
        };
        if gone.is_empty() {
            return Ok(held);
        }
        kept.await.ok().and_then(Result::ok).map(|()| held).ok_or(ResponseError::CoordinatorNotAvailable)
    }

    /// A committed transaction has brought offsets to a group that may be new.
    pub(crate) fn noticed(&self, group: &str) {
        self.lock().entry(group.to_owned()).or_insert_with(|| Group::new(group));
    }

    /// A deleted topic takes its offsets along; one that comes back begins anew.
    pub(crate) fn forget_topic(&self, topic: &str) {
        drop(self.store.keep(Record::TopicRemoved { topic: topic.to_owned() }));
    }

    /// Lets time pass for all groups, until the future is dropped.
    pub(crate) async fn run(&self) {
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            let next = self.tick(now, now.saturating_duration_since(due));
            // With nothing to wait for there is nobody either whom a standstill could harm.
            let Some(next) = next else {
                self.wake.notified().await;
                due = Instant::now() + HEARTBEATS;
                tokio::time::sleep_until(due.into()).await;
                continue;
            };
            due = next.min(now + LOOK);
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.wake.notified() => {
                    due = due.min(Instant::now() + HEARTBEATS);
                    tokio::time::sleep_until(due.into()).await;
                }
            }
        }
    }

    /// `late`: how much later than it was due this look comes.
    fn tick(&self, now: Instant, late: Duration) -> Option<Instant> {
        let mut groups = self.lock();
        if late > STANDSTILL && groups.values().any(|group| !group.members.is_empty()) {
            tracing::warn!(
                late_ms = late.as_millis(),
                "this process or the machine stood still; the members of all groups have a whole session to be heard of again"
            );
        }
        for group in groups.values_mut() {
            if late > STANDSTILL {
                group.stood_still(now, late);
            }
            group.tick(now);
            self.keep(group);
        }
        // Those who asked for an id and never came leave nothing behind.
        groups.retain(|id, group| {
            let used = group.generation > 0 || !group.members.is_empty() || !group.pending.is_empty();
            used || self.store.image().groups.contains_key(id)
        });
        groups.values().filter_map(Group::next_deadline).min()
    }
}

fn described(group: &Group) -> Described {
    let member = |m: &Member| DescribedMember {
        id: m.id.clone(),
        instance_id: m.instance_id.clone(),
        client_id: m.client_id.clone(),
        client_host: m.client_host.clone(),
        metadata: m.metadata(&group.protocol),
        assignment: m.assignment.clone(),
    };
    Described {
        id: group.id.clone(),
        state: group.phase.name(),
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        members: group.members.iter().map(member).collect(),
    }
}

fn kept(group: &Group) -> KeptGroup {
    let member = |m: &Member| KeptMember {
        id: m.id.clone(),
        instance_id: m.instance_id.clone(),
        client_id: m.client_id.clone(),
        client_host: m.client_host.clone(),
        session_timeout_ms: m.session_timeout.as_millis() as u64,
        rebalance_timeout_ms: m.rebalance_timeout.as_millis() as u64,
        protocols: m.protocols.iter().map(|(name, metadata)| (name.clone(), metadata.to_vec())).collect(),
        assignment: m.assignment.to_vec(),
    };
    KeptGroup {
        group: group.id.clone(),
        generation: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        leader: group.leader.clone(),
        stable: group.phase == Phase::Stable,
        members: group.members.iter().map(member).collect(),
    }
}

/// A group after a restart: its members have a whole session to be heard of again.
fn restored(id: &str, kept: Option<KeptGroup>, now: Instant) -> Group {
    let mut group = Group::new(id);
    let Some(kept) = kept else { return group };
    group.generation = kept.generation;
    group.protocol_type = kept.protocol_type;
    if !kept.stable || kept.members.is_empty() {
        return group;
    }
    group.protocol = kept.protocol;
    group.leader = kept.leader;
    group.phase = Phase::Stable;
    for member in kept.members {
        if let Some(instance) = &member.instance_id {
            group.statics.insert(instance.clone(), member.id.clone());
        }
        let session_timeout = Duration::from_millis(member.session_timeout_ms);
        group.members.push(Member {
            id: member.id,
            instance_id: member.instance_id,
            client_id: member.client_id,
            client_host: member.client_host,
            session_timeout,
            rebalance_timeout: Duration::from_millis(member.rebalance_timeout_ms),
            protocols: member.protocols.into_iter().map(|(name, metadata)| (name, metadata.into())).collect(),
            assignment: member.assignment.into(),
            joining: None,
            syncing: None,
            expires: now + session_timeout,
        });
    }
    group
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::log::disk::Disk;

    #[tokio::test]
    async fn a_standstill_of_the_process_costs_nobody_its_session() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("groups.log"), Disk::default(), false).unwrap());
        let coordinator = Arc::new(Coordinator::new(store, Duration::ZERO));
        let running = tokio::spawn({
            let coordinator = coordinator.clone();
            async move { coordinator.run().await }
        });
        // Longer than a busy machine takes for what comes between two looks.
        let session = Duration::from_secs(5);
        let join = Join {
            member_id: String::new(),
            instance_id: Some("one".to_owned()),
            client_id: "client".to_owned(),
            client_host: "host".to_owned(),
            session_timeout: session,
            rebalance_timeout: session,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"m"))],
            needs_known_id: true,
            can_skip_assignment: false,
        };
        let joined = coordinator.join("g", join).await.unwrap();
        let (id, generation) = (joined.member_id, joined.generation);
        let assignments = vec![(id.clone(), Bytes::from_static(b"a"))];
        let sync = Sync {
            member_id: id.clone(),
            instance_id: Some("one".to_owned()),
            generation,
            protocol_type: None,
            protocol: None,
            assignments,
        };
        coordinator.sync("g", sync).await.unwrap();
        let beat = || coordinator.heartbeat("g", &id, Some("one"), generation);
        // The ticker has seen the member, and waits for its session to end.
        tokio::time::sleep(3 * HEARTBEATS).await;
        // This thread is all there is: while it sleeps, nothing here goes on.
        std::thread::sleep(session + STANDSTILL + Duration::from_millis(200));
        tokio::time::sleep(3 * HEARTBEATS).await;
        assert_eq!(beat(), Ok(()), "the ticker was there before the heartbeat");
        // Whoever is silent while time passes goes.
        tokio::time::timeout(10 * session, async {
            while coordinator.describe("g").members.len() == 1 {
                tokio::time::sleep(HEARTBEATS).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(beat(), Err(ResponseError::UnknownMemberId));
        running.abort();
    }
}
