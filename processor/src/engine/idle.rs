//! Closing windows by the wall clock, when nothing else will.
//!
//! An idle partition (read to its end, and quiet) would hold the newest windows open for ever. Its watermark is then moved to the end of
//! the newest window that the wall clock has left behind: no further, so that readings of later windows are welcome, however old they
//! are. The decision is an entry of the journal at the partition's offset: a restart finds it there and does not decide anew.

use super::{Engine, Entry, PartitionTime, Progress};

impl Engine {
    /// The entry that closes what idle partitions hold open at `now` (milliseconds); `None` when there is nothing to close.
    ///
    /// `idle` names the idle partitions and the offset that each has been read to.
    pub(crate) fn close_idle(&self, now: i64, idle: &[(i32, i64)]) -> Option<Entry> {
        let window = self.query.window?;
        let horizon = self.horizon().unwrap_or(i64::MIN);
        let passed = now.saturating_sub(self.delay());
        let open = self.partitions.values().flat_map(|partition| partition.state.panes(i64::MIN..i64::MAX));
        let ends = open.flat_map(|(pane, _)| window.windows(pane)).map(|start| window.end(start));
        let target = ends.filter(|end| horizon < *end && *end <= passed).max()?;

        let moved = |(number, time): (&i32, PartitionTime)| match idle.iter().find(|(partition, _)| partition == number) {
            Some(_) => time.watermark(self.delay()).max(Some(target)),
            None => time.watermark(self.delay()),
        };
        // With another partition that is behind and busy, nothing would close: then there is nothing to decide.
        let after = self.partitions.iter().map(|(number, partition)| moved((number, partition.time))).min()??;
        if after <= horizon {
            return None;
        }
        let mut entry = Entry::default();
        for (number, offset) in idle {
            let partition = self.partitions.get(number)?;
            if partition.time.watermark(self.delay()) < Some(target) {
                let position = partition.position.unwrap_or(*offset);
                let time = PartitionTime { floor: Some(target), ..partition.time };
                entry.progress.push(Progress { partition: *number, from: position, to: position, time, ledger: partition.ledger });
            }
        }
        (!entry.progress.is_empty()).then_some(entry)
    }
}
