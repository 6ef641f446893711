//! JoinGroup: who may join, under which id, and whether that begins a rebalance.

use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

use super::member::{Join, JoinRefused, JoinResult, Joined, Member};
use super::state::{Group, Phase};
use crate::ids::random_id;

impl Group {
    /// Takes a JoinGroup; the answer may come later, when the others have joined.
    pub(crate) fn join(&mut self, join: &Join, reply: oneshot::Sender<JoinResult>, now: Instant, delay: Duration) {
        let mut reply = Some(reply);
        if let Err(error) = self.try_join(join, &mut reply, now, delay)
            && let Some(reply) = reply
        {
            let given = matches!(error, Refusal::MemberIdRequired(_));
            let (error, member_id) = match error {
                Refusal::MemberIdRequired(id) => (ResponseError::MemberIdRequired, id),
                Refusal::Other(error) => (error, join.member_id.clone()),
            };
            tracing::debug!(group = %self.id, ?error, given, "a join is answered at once");
            drop(reply.send(Err(JoinRefused { error, member_id })));
        }
    }

    fn try_join(&mut self, join: &Join, reply: &mut Reply, now: Instant, delay: Duration) -> Result<(), Refusal> {
        if !self.accepts_apart_from(join) {
            return Err(ResponseError::InconsistentGroupProtocol.into());
        }
        if join.member_id.is_empty() {
            return self.join_unknown(join, reply, now, delay);
        }
        if let Some(instance) = &join.instance_id {
            match self.statics.get(instance) {
                None => return Err(ResponseError::UnknownMemberId.into()),
                Some(current) if *current != join.member_id => return Err(ResponseError::FencedInstanceId.into()),
                Some(_) => {}
            }
        }
        if self.pending.remove(&join.member_id).is_some() {
            self.add(join.member_id.clone(), join, reply, now, delay);
            return Ok(());
        }
        self.rejoin(join, reply, now)
    }

    /// Whether the protocols suit the other members; a member may replace its own.
    fn accepts_apart_from(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        let own = |m: &Member| m.id == join.member_id || (m.instance_id.is_some() && m.instance_id == join.instance_id);
        if self.members.iter().all(own) {
            return true;
        }
        self.accepts(&join.protocol_type, &join.protocols)
    }

    /// A member without an id: a new one, or a static one that comes back.
    fn join_unknown(&mut self, join: &Join, reply: &mut Reply, now: Instant, delay: Duration) -> Result<(), Refusal> {
        let name = join.instance_id.as_deref().unwrap_or(&join.client_id);
        let id = format!("{name}-{:032x}", random_id());
        match &join.instance_id {
            Some(instance) => match self.statics.get(instance).cloned() {
                Some(old) => self.replace_static(&old, id, join, reply, now),
                None => self.add(id, join, reply, now, delay),
            },
            None if join.needs_known_id => {
                self.pending.insert(id.clone(), now + join.session_timeout);
                return Err(Refusal::MemberIdRequired(id));
            }
            None => self.add(id, join, reply, now, delay),
        }
        Ok(())
    }

    fn add(&mut self, id: String, join: &Join, reply: &mut Reply, now: Instant, delay: Duration) {
        let mut member = Member::new(id.clone(), join, now);
        member.joining = reply.take();
        if let Some(instance) = &join.instance_id {
            self.statics.insert(instance.clone(), id);
        }
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        self.members.push(member);
        match self.phase {
            Phase::Preparing { .. } if delay.is_zero() || self.generation > 0 => self.try_complete(now),
            Phase::Preparing { .. } => {}
            Phase::Empty | Phase::Completing { .. } | Phase::Stable => self.prepare(now, delay),
        }
    }

    /// A present member joins again: it has heard of a rebalance, lost an answer, or changed its mind.
    fn rejoin(&mut self, join: &Join, reply: &mut Reply, now: Instant) -> Result<(), Refusal> {
        let is_leader = self.leader == join.member_id;
        let phase = self.phase;
        let member = self.member(&join.member_id).ok_or(ResponseError::UnknownMemberId)?;
        let same = member.protocols == join.protocols;
        member.update(join, now);
        let stands = match phase {
            Phase::Stable => same && !is_leader,
            Phase::Completing { .. } => same,
            Phase::Empty | Phase::Preparing { .. } => false,
        };
        if stands {
            let answer = self.joined(&join.member_id);
            send(reply, answer);
            return Ok(());
        }
        if let Some(member) = self.member(&join.member_id) {
            // An older open join of the same member has been given up by its client.
            drop(member.joining.take());
            member.joining = reply.take();
        }
        match phase {
            Phase::Preparing { .. } => self.try_complete(now),
            Phase::Empty | Phase::Completing { .. } | Phase::Stable => self.prepare(now, Duration::ZERO),
        }
        Ok(())
    }

    /// A static member has restarted: it takes its place under a new id, without a rebalance where that is possible.
    fn replace_static(&mut self, old: &str, id: String, join: &Join, reply: &mut Reply, now: Instant) {
        let was_leader = self.leader == old;
        let (protocol, phase) = (self.protocol.clone(), self.phase);
        let Some(member) = self.member(old) else { return };
        let fenced = JoinRefused { error: ResponseError::FencedInstanceId, member_id: old.to_owned() };
        member.answer_join(Err(fenced));
        member.answer_sync(Err(ResponseError::FencedInstanceId));
        let before = member.metadata(&protocol);
        member.id.clone_from(&id);
        member.update(join, now);
        let unchanged = subscription(&before) == subscription(&member.metadata(&protocol));
        if let Some(instance) = &join.instance_id {
            self.statics.insert(instance.clone(), id.clone());
        }
        if was_leader {
            self.leader.clone_from(&id);
        }
        self.changed = true;
        if phase == Phase::Stable && unchanged && self.elect_protocol() == protocol {
            let mut answer = self.joined(&id);
            if was_leader && join.can_skip_assignment {
                answer.skip_assignment = true;
            } else {
                // Named as the leader, it would assign anew, and nobody would hear of it: it is told its old id instead.
                answer.members.clear();
                if was_leader {
                    old.clone_into(&mut answer.leader);
                }
            }
            send(reply, answer);
            return;
        }
        if let Some(member) = self.member(&id) {
            member.joining = reply.take();
        }
        match phase {
            Phase::Preparing { .. } => self.try_complete(now),
            Phase::Empty | Phase::Completing { .. } | Phase::Stable => self.prepare(now, Duration::ZERO),
        }
    }
}

type Reply = Option<oneshot::Sender<JoinResult>>;

enum Refusal {
    MemberIdRequired(String),
    Other(ResponseError),
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Self {
        Self::Other(error)
    }
}

fn send(reply: &mut Reply, answer: Joined) {
    if let Some(reply) = reply.take() {
        // A client that has gone will be missed by its heartbeats.
        drop(reply.send(Ok(answer)));
    }
}

/// The topics that a consumer's metadata names; `None` when it cannot be read.
pub(crate) fn topics(metadata: &[u8]) -> Option<Vec<String>> {
    let count = i32::from_be_bytes(metadata.get(2..6)?.try_into().ok()?);
    let mut rest = metadata.get(6..)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk()?;
        let name = after.get(..usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        topics.push(String::from_utf8(name.to_vec()).ok()?);
        rest = &after[name.len()..];
    }
    Some(topics)
}

/// The topics in a consumer's metadata (version, then an array of strings): what a restart must not have changed. What
/// follows, such as the partitions it owned, may differ. Other metadata counts as a whole.
fn subscription(metadata: &[u8]) -> &[u8] {
    let end = (|| {
        let count = i32::from_be_bytes(metadata.get(2..6)?.try_into().ok()?);
        let mut at = 6;
        for _ in 0..count {
            let length = i16::from_be_bytes(metadata.get(at..at + 2)?.try_into().ok()?);
            at += 2 + usize::try_from(length).ok()?;
        }
        Some(at)
    })();
    end.and_then(|end| metadata.get(2..end)).unwrap_or(metadata)
}
