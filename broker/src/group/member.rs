//! A member of a consumer group, and what it waits for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

/// The answer to a JoinGroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    pub(crate) skip_assignment: bool,
    /// For the leader: (member id, instance id, metadata) of everybody.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

/// The answer to a SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) assignment: Bytes,
}

/// A refused join names the member id that the client should use from now on, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub(crate) error: ResponseError,
    pub(crate) member_id: String,
}

pub(crate) type JoinResult = Result<Joined, JoinRefused>;
pub(crate) type SyncResult = Result<Synced, ResponseError>;

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// From version 4 on a new member is first told its id, so that a lost answer leaves no ghost behind.
    pub(crate) needs_known_id: bool,
    /// From version 9 on a rejoining static leader can be told that the assignment stands.
    pub(crate) can_skip_assignment: bool,
}

/// A member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    /// Open JoinGroup: the member takes part in the coming generation.
    pub(crate) joining: Option<oneshot::Sender<JoinResult>>,
    /// Open SyncGroup: the member waits for the leader's assignment.
    pub(crate) syncing: Option<oneshot::Sender<SyncResult>>,
    pub(crate) expires: Instant,
}

impl Member {
    pub(crate) fn new(id: String, join: &Join, now: Instant) -> Self {
        Self {
            id,
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            expires: now + join.session_timeout,
        }
    }

    pub(crate) fn update(&mut self, join: &Join, now: Instant) {
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.session_timeout = join.session_timeout;
        self.rebalance_timeout = join.rebalance_timeout;
        self.protocols.clone_from(&join.protocols);
        self.alive(now);
    }

    /// The member has been heard of.
    pub(crate) fn alive(&mut self, now: Instant) {
        self.expires = now + self.session_timeout;
    }

    /// A member whose request is open here cannot send heartbeats, and is alive.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.joining.is_none() && self.syncing.is_none() && self.expires <= now
    }

    pub(crate) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(crate) fn answer_join(&mut self, answer: JoinResult) {
        if let Some(reply) = self.joining.take() {
            // A client that has gone will be missed by its heartbeats.
            drop(reply.send(answer));
        }
    }

    pub(crate) fn answer_sync(&mut self, answer: SyncResult) {
        if let Some(reply) = self.syncing.take() {
            drop(reply.send(answer));
        }
    }
}
