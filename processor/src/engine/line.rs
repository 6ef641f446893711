//! What belongs to one timeline: a time, and the states that this time closes.
//!
//! Usually an input partition is one timeline. With `watermark_by` each value of a column (each device) has its own.

use super::panes::PaneStates;
use super::seen::SeenKeys;
use super::sessions::{OpenSessions, Sessions};
use super::time::PartitionTime;
use crate::query::{Grouping, RowBytes, Timeline};

/// What a device's timeline costs beside its states.
const OVERHEAD: u64 = 256;

#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Of a device; a partition that is one timeline keeps its time itself.
    pub(crate) time: PartitionTime,
    pub(crate) panes: PaneStates,
    pub(crate) sessions: Sessions,
    pub(crate) seen: SeenKeys,
    /// Up to where this device's windows have been given as final.
    pub(crate) closed: Option<i64>,
}

impl Line {
    pub(crate) fn rows(&self) -> u64 {
        self.panes.rows() + self.sessions.rows() + self.seen.rows()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.panes.bytes() + self.sessions.bytes() + self.seen.bytes()
    }

    /// Bytes of a device's timeline as a whole.
    pub(crate) fn device_bytes(device: &RowBytes, line: &Self) -> u64 {
        OVERHEAD + device.len() as u64 + line.bytes()
    }

    /// The ends of the windows that have states, from the first to the last.
    pub(crate) fn open_ends(&self, grouping: &Grouping) -> impl Iterator<Item = i64> {
        let panes = grouping.panes().into_iter().flat_map(|window| {
            self.panes.panes(i64::MIN..i64::MAX).flat_map(move |(pane, _)| window.windows(pane).map(move |start| window.end(start)))
        });
        let sessions = self.sessions.iter().flat_map(|(_, sessions)| sessions.iter().map(|held| held.session.end));
        panes.chain(sessions)
    }

    /// Gives up what nothing can reach once everything up to `horizon` is final. `open` holds the sessions that are open where this
    /// timeline's are parts of them.
    pub(crate) fn evict(&mut self, grouping: Option<&Grouping>, horizon: i64, open: &OpenSessions) {
        if let Some(window) = grouping.and_then(Grouping::panes) {
            self.panes.evict(|pane| window.end(window.last_window(pane)) <= horizon);
        }
        self.sessions.evict(horizon, |key, part| open.get(key).is_some_and(|open| open.iter().any(|whole| whole.meets(part))));
        self.seen.evict(horizon);
    }
}

impl Timeline {
    /// The event time that a device is taken to have reached at least, given the largest of its partition: so far behind, devices are
    /// given up. It moves in steps, so that not every reading asks about every device.
    pub(crate) fn given_up(&self, partition: PartitionTime) -> Option<i64> {
        let step = (self.max_silence / 8).max(1);
        partition.max_event_time.map(|max| (max - max.rem_euclid(step)).saturating_sub(self.max_silence))
    }

    /// A device's time, seen with its partition's.
    pub(crate) fn time(&self, device: PartitionTime, partition: PartitionTime) -> PartitionTime {
        PartitionTime { max_event_time: device.max_event_time.max(self.given_up(partition)), ..device }
    }
}
