//! One commit: everything that changes together, so that it can never disagree.

use hashbrown::Equivalent;
use serde::{Deserialize, Serialize};

use super::line::Line;
use super::sessions::Session;
use super::{Ledger, PartitionTime, panes, seen, sessions};
use crate::query::{Pane, RowBytes};

/// What one step did: how far each input partition was read, and the new states of the groups that it touched. Evictions are not in it:
/// they follow from the times; nor is the state of an aggregate over an aggregate, which follows from what closes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Entry {
    /// The groups are the whole state, and what came before does not matter.
    pub(crate) snapshot: bool,
    pub(crate) progress: Vec<Progress>,
    /// The devices whose time moved, when each device has its own.
    pub(crate) lines: Vec<LineTime>,
    pub(crate) groups: Vec<GroupState>,
    /// All sessions of each key that was touched, one key's after the other.
    pub(crate) sessions: Vec<SessionState>,
    pub(crate) seen: Vec<SeenKey>,
    /// Of a snapshot: the groups of the aggregate over the aggregate, under partition 0.
    pub(crate) second: Vec<GroupState>,
    /// The decisions of the wall clock that this entry takes; of a snapshot, all that are kept.
    pub(crate) decisions: Vec<Decision>,
    /// Of a snapshot: what every revision is above the offsets, so that a state that was begun anew outranks the one before it.
    pub(crate) base: i64,
}

/// The wall clock moved a partition's watermark to `floor` when the partition was read up to `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decision {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) floor: i64,
}

/// One input partition's share of a commit; all values are those *after* the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Progress {
    pub(crate) partition: i32,
    /// First offset of the step.
    pub(crate) from: i64,
    /// One past its last offset.
    pub(crate) to: i64,
    pub(crate) time: PartitionTime,
    pub(crate) ledger: Ledger,
}

/// The time of one device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LineTime {
    pub(crate) partition: i32,
    pub(crate) device: RowBytes,
    pub(crate) time: PartitionTime,
}

/// A place among [`Entry::lines`]; `None` when partitions are timelines.
pub(crate) type LineNumber = Option<u32>;

/// A timeline and a key, to look for among those of a step.
#[derive(Hash)]
pub(crate) struct LineKey<'a>(pub(crate) LineNumber, pub(crate) &'a [u8]);

impl Equivalent<(LineNumber, RowBytes)> for LineKey<'_> {
    fn equivalent(&self, other: &(LineNumber, RowBytes)) -> bool {
        self.0 == other.0 && *self.1 == *other.1
    }
}

/// The new state of one group in one pane of one input partition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupState {
    pub(crate) partition: i32,
    pub(crate) line: LineNumber,
    /// All zeros for a query without a window.
    pub(crate) pane: Pane,
    pub(crate) key: RowBytes,
    pub(crate) state: RowBytes,
}

/// One session of a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SessionState {
    pub(crate) partition: i32,
    pub(crate) line: LineNumber,
    pub(crate) key: RowBytes,
    pub(crate) session: Session,
    pub(crate) state: RowBytes,
}

/// A reading that was there, by the columns that name it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SeenKey {
    pub(crate) partition: i32,
    pub(crate) line: LineNumber,
    pub(crate) key: RowBytes,
    /// Event time from which on it may be forgotten.
    pub(crate) expiry: i64,
}

impl SessionState {
    pub(crate) fn is_of_same_key(&self, other: &Self) -> bool {
        (self.partition, self.line, &self.key) == (other.partition, other.line, &other.key)
    }
}

impl Entry {
    /// What its states take, were they all new.
    pub(crate) fn bytes(&self) -> u64 {
        let groups = self.groups.iter().map(|group| panes::cost(&group.key, &group.state));
        let sessions = self.sessions.iter().map(|session| sessions::cost(&session.key, &session.state));
        groups.chain(sessions).chain(self.seen.iter().map(|seen| seen::cost(&seen.key))).sum()
    }

    /// Adds all that a timeline holds.
    pub(crate) fn add_states(&mut self, partition: i32, line: LineNumber, states: &Line) {
        self.add_groups(partition, line, states);
        self.seen.extend(states.seen.iter().map(|(key, expiry)| SeenKey { partition, line, key: key.clone(), expiry }));
    }

    /// Adds what the results of a timeline follow from.
    pub(crate) fn add_groups(&mut self, partition: i32, line: LineNumber, states: &Line) {
        self.groups.extend(states.panes.iter().map(|(pane, key, state)| GroupState {
            partition,
            line,
            pane,
            key: key.clone(),
            state: state.clone(),
        }));
        for (key, sessions) in states.sessions.iter() {
            self.sessions.extend(sessions.iter().map(|held| SessionState {
                partition,
                line,
                key: key.clone(),
                session: held.session,
                state: held.state.clone(),
            }));
        }
    }
}
