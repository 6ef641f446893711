//! The state machine of one consumer group, without I/O and without a clock: `now` is an argument.
//!
//! ```text
//!            first join                 all joined, or time is up
//!  Empty ───────────────▶ Preparing ───────────────────────────────▶ Completing
//!    ▲                       ▲  ▲                                        │
//!    │ last member leaves    │  └──── a member joins, leaves, is silent ─┤
//!    └───────────────────────┤                                           │ the leader's assignment
//!                            └───────────────── Stable ◀─────────────────┘
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

use super::member::{Joined, Member, SyncResult, Synced};

/// Where a group is between two generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    /// Members are asked to join again, until the deadline.
    Preparing {
        until: Instant,
    },
    /// The generation has begun, the leader's assignment is awaited until the deadline.
    Completing {
        until: Instant,
    },
    Stable,
}

impl Phase {
    /// Kafka's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Empty => "Empty",
            Phase::Preparing { .. } => "PreparingRebalance",
            Phase::Completing { .. } => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }
}

/// Members and generation of one group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) phase: Phase,
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    /// In the order of joining: the first becomes the leader.
    pub(crate) members: Vec<Member>,
    /// Instance id -> member id of static members.
    pub(crate) statics: BTreeMap<String, String>,
    /// Ids given out to members that have not used them yet, with their deadline.
    pub(crate) pending: BTreeMap<String, Instant>,
    /// Whether what must survive a restart has changed since it was last kept.
    pub(crate) changed: bool,
}

impl Group {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: Vec::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            changed: false,
        }
    }

    pub(crate) fn member(&mut self, id: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// Checks that a request comes from a present member, in this incarnation.
    pub(crate) fn check_member(&mut self, id: &str, instance: Option<&str>) -> Result<&mut Member, ResponseError> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(current) if current != id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        self.member(id).ok_or(ResponseError::UnknownMemberId)
    }

    pub(crate) fn heartbeat(&mut self, id: &str, instance: Option<&str>, generation: i32, now: Instant) -> Result<(), ResponseError> {
        let (current, phase) = (self.generation, self.phase);
        let member = self.check_member(id, instance)?;
        if generation != current {
            return Err(ResponseError::IllegalGeneration);
        }
        member.alive(now);
        match phase {
            Phase::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            Phase::Empty | Phase::Completing { .. } | Phase::Stable => Ok(()),
        }
    }

    /// Whether a member (or, with an empty id and a negative generation, anybody) may commit offsets now.
    pub(crate) fn check_commit(&mut self, id: &str, instance: Option<&str>, generation: i32, now: Instant) -> Result<(), ResponseError> {
        if generation < 0 && id.is_empty() && self.members.is_empty() {
            return Ok(());
        }
        let (current, phase) = (self.generation, self.phase);
        let member = self.check_member(id, instance)?;
        if generation != current {
            return Err(ResponseError::IllegalGeneration);
        }
        member.alive(now);
        match phase {
            Phase::Completing { .. } => Err(ResponseError::RebalanceInProgress),
            Phase::Empty | Phase::Preparing { .. } | Phase::Stable => Ok(()),
        }
    }

    /// Takes a SyncGroup; the answer may come later, when the leader's has arrived.
    pub(crate) fn sync(
        &mut self,
        id: &str,
        generation: i32,
        assignments: Vec<(String, Bytes)>,
        reply: oneshot::Sender<SyncResult>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let (current, phase, is_leader) = (self.generation, self.phase, self.leader == id);
        let answer = self.synced(id);
        let member = self.member(id).ok_or(ResponseError::UnknownMemberId)?;
        if generation != current {
            return Err(ResponseError::IllegalGeneration);
        }
        member.alive(now);
        match phase {
            Phase::Empty => return Err(ResponseError::UnknownMemberId),
            Phase::Preparing { .. } => return Err(ResponseError::RebalanceInProgress),
            Phase::Stable => drop(reply.send(Ok(answer))),
            Phase::Completing { .. } => {
                member.syncing = Some(reply);
                if is_leader {
                    self.assign(assignments, now);
                }
            }
        }
        Ok(())
    }

    fn synced(&mut self, id: &str) -> Synced {
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        let assignment = self.member(id).map(|member| member.assignment.clone()).unwrap_or_default();
        Synced { protocol_type, protocol, assignment }
    }

    fn assign(&mut self, assignments: Vec<(String, Bytes)>, now: Instant) {
        for member in &mut self.members {
            member.assignment = Bytes::new();
        }
        for (id, assignment) in assignments {
            if let Some(member) = self.member(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
        self.changed = true;
        for at in 0..self.members.len() {
            let answer = self.synced(&self.members[at].id.clone());
            self.members[at].alive(now);
            self.members[at].answer_sync(Ok(answer));
        }
    }

    /// A member says goodbye. Static members name their instance and may leave out the id.
    pub(crate) fn leave(&mut self, id: &str, instance: Option<&str>, now: Instant) -> Result<(), ResponseError> {
        let id = match instance.filter(|_| id.is_empty()) {
            Some(instance) => self.statics.get(instance).cloned().ok_or(ResponseError::UnknownMemberId)?,
            None => id.to_owned(),
        };
        if self.pending.remove(&id).is_some() {
            self.try_complete(now);
            return Ok(());
        }
        self.check_member(&id, instance)?;
        self.remove(&id, now);
        Ok(())
    }

    /// Removes a member and lets the others share its work.
    pub(crate) fn remove(&mut self, id: &str, now: Instant) {
        let Some(at) = self.members.iter().position(|member| member.id == id) else { return };
        let mut gone = self.members.remove(at);
        self.statics.retain(|_, member| member != id);
        gone.answer_join(Err(super::member::JoinRefused { error: ResponseError::UnknownMemberId, member_id: id.to_owned() }));
        gone.answer_sync(Err(ResponseError::UnknownMemberId));
        self.changed = true;
        match self.phase {
            Phase::Preparing { .. } => self.try_complete(now),
            Phase::Empty | Phase::Completing { .. } | Phase::Stable => self.prepare(now, Duration::ZERO),
        }
    }

    /// Begins a rebalance, if none has begun: everybody has to join again. An empty group waits `delay` for more members.
    pub(crate) fn prepare(&mut self, now: Instant, delay: Duration) {
        for member in &mut self.members {
            member.answer_sync(Err(ResponseError::RebalanceInProgress));
        }
        let wait = match self.phase {
            Phase::Empty => delay,
            _ => self.members.iter().map(|member| member.rebalance_timeout).max().unwrap_or_default(),
        };
        let first = matches!(self.phase, Phase::Empty) && !delay.is_zero();
        self.phase = Phase::Preparing { until: now + wait };
        if !first {
            self.try_complete(now);
        }
    }

    /// Begins the generation when everybody has joined.
    pub(crate) fn try_complete(&mut self, now: Instant) {
        let preparing = matches!(self.phase, Phase::Preparing { .. });
        if preparing && self.pending.is_empty() && self.members.iter().all(|member| member.joining.is_some()) {
            self.complete(now);
        }
    }

    /// Begins the next generation with those who have joined; static members keep their place while they are away.
    fn complete(&mut self, now: Instant) {
        let away = |member: &Member| member.joining.is_none() && member.instance_id.is_none();
        self.members.retain(|member| !away(member));
        if !self.members.is_empty() && self.members.iter().all(|member| member.joining.is_none()) {
            // Only absent static members are left: their session decides.
            let wait = self.members.iter().map(|member| member.rebalance_timeout).max().unwrap_or_default();
            self.phase = Phase::Preparing { until: now + wait };
            return;
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        self.changed = true;
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.leader.clear();
            self.protocol.clear();
            return;
        }
        self.protocol = self.elect_protocol();
        if !self.members.iter().any(|member| member.id == self.leader && member.joining.is_some()) {
            let first = self.members.iter().find(|member| member.joining.is_some());
            self.leader = first.map(|member| member.id.clone()).unwrap_or_default();
        }
        let wait = self.members.iter().map(|member| member.rebalance_timeout).max().unwrap_or_default();
        self.phase = Phase::Completing { until: now + wait };
        for at in 0..self.members.len() {
            let answer = self.joined(&self.members[at].id.clone());
            self.members[at].alive(now);
            self.members[at].answer_join(Ok(answer));
        }
    }

    /// The answer to a join of a present member.
    pub(crate) fn joined(&self, id: &str) -> Joined {
        let members = if self.leader == id { self.roll() } else { Vec::new() };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member_id: id.to_owned(),
            skip_assignment: false,
            members,
        }
    }

    pub(crate) fn roll(&self) -> Vec<(String, Option<String>, Bytes)> {
        let entry = |m: &Member| (m.id.clone(), m.instance_id.clone(), m.metadata(&self.protocol));
        self.members.iter().map(entry).collect()
    }

    /// The protocol that all support, and most like best.
    pub(crate) fn elect_protocol(&self) -> String {
        let common = |name: &str| self.members.iter().all(|member| member.supports(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in &self.members {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
        most.map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    /// Whether a member with these protocols can join those who are here.
    pub(crate) fn accepts(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        let fits = |name: &str| self.members.iter().all(|member| member.supports(name));
        self.members.is_empty() || (self.protocol_type == protocol_type && protocols.iter().any(|(name, _)| fits(name)))
    }

    /// The topics that its consumers subscribe to; `None` when the members are no consumers, or their metadata cannot be read.
    pub(crate) fn subscribed(&self) -> Option<std::collections::BTreeSet<String>> {
        if self.protocol_type != "consumer" {
            return self.members.is_empty().then(Default::default);
        }
        let metadata = self.members.iter().flat_map(|member| &member.protocols).map(|(_, metadata)| super::join::topics(metadata));
        metadata.collect::<Option<Vec<_>>>().map(|topics| topics.into_iter().flatten().collect())
    }

    /// Time in which nobody here could hear anybody does not count: what the members have sent meanwhile is still to be read.
    pub(crate) fn stood_still(&mut self, now: Instant, lost: Duration) {
        self.members.iter_mut().for_each(|member| member.alive(now));
        self.pending.values_mut().for_each(|until| *until += lost);
        if let Phase::Preparing { until } | Phase::Completing { until } = &mut self.phase {
            *until += lost;
        }
    }

    /// Lets time pass: silent members go, deadlines end waiting.
    pub(crate) fn tick(&mut self, now: Instant) {
        let pending = self.pending.len();
        self.pending.retain(|_, until| *until > now);
        let expired: Vec<_> = self.members.iter().filter(|m| m.is_expired(now)).map(|m| m.id.clone()).collect();
        for id in expired {
            tracing::info!(group = %self.id, member = %id, "a member has not been heard of within its session timeout");
            self.remove(&id, now);
        }
        match self.phase {
            Phase::Preparing { until } if until <= now => self.complete(now),
            Phase::Preparing { .. } if self.pending.len() < pending => self.try_complete(now),
            Phase::Completing { until } if until <= now => self.drop_unsynced(now),
            _ => {}
        }
    }

    /// The assignment has not come in time: those who have not asked for it are gone.
    fn drop_unsynced(&mut self, now: Instant) {
        let silent: Vec<_> = self.members.iter().filter(|m| m.syncing.is_none()).map(|m| m.id.clone()).collect();
        for id in silent {
            self.remove(&id, now);
        }
        if matches!(self.phase, Phase::Completing { .. }) {
            self.prepare(now, Duration::ZERO);
        }
    }

    /// The next moment at which `tick` has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Preparing { until } | Phase::Completing { until } => Some(until),
            Phase::Empty | Phase::Stable => None,
        };
        let sessions = self.members.iter().filter(|m| m.joining.is_none() && m.syncing.is_none()).map(|m| m.expires);
        sessions.chain(self.pending.values().copied()).chain(phase).min()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::member::{Join, JoinResult};
    use super::*;

    type Answer = oneshot::Receiver<JoinResult>;

    fn request(member: &str, instance: Option<&str>) -> Join {
        Join {
            member_id: member.to_owned(),
            instance_id: instance.map(str::to_owned),
            client_id: "client".to_owned(),
            client_host: "host".to_owned(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(30),
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"m"))],
            needs_known_id: true,
            can_skip_assignment: false,
        }
    }

    fn join(group: &mut Group, join: &Join, now: Instant) -> Answer {
        let (reply, answer) = oneshot::channel();
        group.join(join, reply, now, Duration::ZERO);
        answer
    }

    /// Joins as a new dynamic member does: first to be told an id, then with it.
    fn come(group: &mut Group, now: Instant) -> (String, Answer) {
        let told = join(group, &request("", None), now).try_recv().unwrap().unwrap_err();
        assert_eq!(told.error, ResponseError::MemberIdRequired);
        let answer = join(group, &request(&told.member_id, None), now);
        (told.member_id, answer)
    }

    fn assign(group: &mut Group, leader: &str, now: Instant) {
        let (reply, mut answer) = oneshot::channel();
        let generation = group.generation;
        group.sync(leader, generation, vec![(leader.to_owned(), Bytes::from_static(b"a"))], reply, now).unwrap();
        assert_eq!(answer.try_recv().unwrap().unwrap().assignment, "a");
    }

    #[test]
    fn a_second_member_begins_a_generation_that_waits_for_the_first() {
        let (mut group, now) = (Group::new("g"), Instant::now());
        let (one, mut joined) = come(&mut group, now);
        assert_eq!(joined.try_recv().unwrap().unwrap().leader, one);
        assign(&mut group, &one, now);
        let (two, mut second) = come(&mut group, now);
        assert!(second.try_recv().is_err());
        assert_eq!(group.heartbeat(&one, None, 1, now), Err(ResponseError::RebalanceInProgress));
        let mut first = join(&mut group, &request(&one, None), now);
        let (first, second) = (first.try_recv().unwrap().unwrap(), second.try_recv().unwrap().unwrap());
        assert_eq!((first.generation, first.members.len(), second.members.len()), (2, 2, 0));
        assert_eq!(second.leader, one);
        assert_eq!(group.heartbeat(&two, None, 1, now), Err(ResponseError::IllegalGeneration));
        assert_eq!(group.check_commit(&two, None, 2, now), Err(ResponseError::RebalanceInProgress));
    }

    #[test]
    fn silent_members_go_and_a_slow_one_misses_the_generation() {
        let (mut group, now) = (Group::new("g"), Instant::now());
        let (one, _joined) = come(&mut group, now);
        assign(&mut group, &one, now);
        let (two, mut second) = come(&mut group, now);
        // The first does not join again, though its heartbeats go on.
        let later = now + Duration::from_secs(9);
        assert!(group.heartbeat(&one, None, 1, later).is_err());
        group.tick(now + Duration::from_secs(12));
        assert!(second.try_recv().is_err());
        group.member(&one).unwrap().alive(now + Duration::from_secs(29));
        group.tick(now + Duration::from_secs(31));
        let second = second.try_recv().unwrap().unwrap();
        assert_eq!((second.leader.as_str(), second.members.len()), (two.as_str(), 1));
        assert_eq!(group.heartbeat(&one, None, 2, later), Err(ResponseError::UnknownMemberId));
        assign(&mut group, &two, now + Duration::from_secs(31));
        group.tick(now + Duration::from_secs(60));
        assert_eq!((group.phase, group.members.len()), (Phase::Empty, 0));
        assert_eq!(group.next_deadline(), None);
    }

    #[test]
    fn a_static_member_is_replaced_and_its_old_self_fenced() {
        let (mut group, now) = (Group::new("g"), Instant::now());
        let old = join(&mut group, &request("", Some("i")), now).try_recv().unwrap().unwrap();
        assign(&mut group, &old.member_id, now);
        let new = join(&mut group, &request("", Some("i")), now).try_recv().unwrap().unwrap();
        assert_eq!((new.generation, new.leader.as_str()), (1, old.member_id.as_str()));
        assert_ne!(new.member_id, old.member_id);
        assert_eq!(group.heartbeat(&old.member_id, Some("i"), 1, now), Err(ResponseError::FencedInstanceId));
        let (reply, mut synced) = oneshot::channel();
        group.sync(&new.member_id, 1, Vec::new(), reply, now).unwrap();
        assert_eq!(synced.try_recv().unwrap().unwrap().assignment, "a", "it has what it had");
        group.leave("", Some("i"), now).unwrap();
        assert_eq!(group.phase, Phase::Empty);
    }

    #[test]
    fn a_static_member_that_was_silent_for_too_long_is_unknown_until_another_takes_its_place() {
        let (mut group, now) = (Group::new("g"), Instant::now());
        let old = join(&mut group, &request("", Some("i")), now).try_recv().unwrap().unwrap();
        assign(&mut group, &old.member_id, now);
        let later = now + Duration::from_secs(11);
        group.tick(later);
        assert_eq!(group.heartbeat(&old.member_id, Some("i"), 1, later), Err(ResponseError::UnknownMemberId));
        assert_eq!(group.check_commit(&old.member_id, Some("i"), 1, later), Err(ResponseError::UnknownMemberId));
        let refused = join(&mut group, &request(&old.member_id, Some("i")), later).try_recv().unwrap().unwrap_err();
        assert_eq!(refused.error, ResponseError::UnknownMemberId);
        let _new = join(&mut group, &request("", Some("i")), later);
        assert_eq!(group.heartbeat(&old.member_id, Some("i"), 1, later), Err(ResponseError::FencedInstanceId));
    }

    #[test]
    fn time_that_stood_still_is_nobody_s_silence() {
        let (mut group, now) = (Group::new("g"), Instant::now());
        let (one, _joined) = come(&mut group, now);
        assign(&mut group, &one, now);
        let told = join(&mut group, &request("", None), now).try_recv().unwrap().unwrap_err();
        let lost = Duration::from_secs(60);
        let later = now + lost + Duration::from_secs(5);
        group.stood_still(later, lost);
        group.tick(later);
        assert_eq!(group.heartbeat(&one, None, 1, later), Ok(()));
        // A rebalance goes on where it stood.
        let mut second = join(&mut group, &request(&told.member_id, None), later);
        group.stood_still(later + lost, lost);
        group.tick(later + lost);
        assert!(second.try_recv().is_err(), "the first has its time to join again");
        group.tick(later + lost + Duration::from_secs(31));
        assert_eq!(second.try_recv().unwrap().unwrap().generation, 2);
    }

    #[test]
    fn protocols_must_agree() {
        let (mut group, now) = (Group::new("g"), Instant::now());
        let (_one, _answer) = come(&mut group, now);
        let mut other = request("", None);
        other.protocols = vec![("sticky".to_owned(), Bytes::new())];
        let refused = join(&mut group, &other, now).try_recv().unwrap().unwrap_err();
        assert_eq!(refused.error, ResponseError::InconsistentGroupProtocol);
        other.protocols.clear();
        assert!(join(&mut group, &other, now).try_recv().unwrap().is_err());
    }
}
