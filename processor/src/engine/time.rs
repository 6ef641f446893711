//! The time of one input partition.

use serde::{Deserialize, Serialize};

/// The largest event time seen in a partition's prefix, milliseconds; the watermark is that less the delay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionTime {
    pub(crate) max_event_time: Option<i64>,
}

impl PartitionTime {
    /// `None` before the first row.
    pub(crate) fn watermark(self, delay: i64) -> Option<i64> {
        self.max_event_time.map(|time| time.saturating_sub(delay))
    }

    pub(crate) fn observe(&mut self, time: i64) {
        self.max_event_time = Some(self.max_event_time.map_or(time, |max| max.max(time)));
    }
}
