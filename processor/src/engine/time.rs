//! The time of one input partition.

use serde::{Deserialize, Serialize};

/// What a partition's watermark follows from, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionTime {
    /// The largest event time seen in the partition's prefix.
    pub(crate) max_event_time: Option<i64>,
    /// Where the wall clock has moved the watermark while the partition was idle. It is part of the journal, so that a restart repeats it.
    #[serde(default)]
    pub(crate) floor: Option<i64>,
}

impl PartitionTime {
    /// The largest event time less the delay, or the floor when that is later; `None` before the first row.
    pub(crate) fn watermark(self, delay: i64) -> Option<i64> {
        self.max_event_time.map(|time| time.saturating_sub(delay)).max(self.floor)
    }

    pub(crate) fn observe(&mut self, time: i64) {
        self.max_event_time = Some(self.max_event_time.map_or(time, |max| max.max(time)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_never_goes_back() {
        let mut time = PartitionTime::default();
        assert_eq!(time.watermark(5), None);
        time.observe(100);
        time.observe(90);
        assert_eq!(time.watermark(5), Some(95));
        time.floor = Some(97);
        time.observe(101);
        assert_eq!(time.watermark(5), Some(97));
        time.observe(110);
        assert_eq!(time.watermark(5), Some(105));
    }
}
