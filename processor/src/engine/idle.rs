//! Closing windows by the wall clock, when nothing else will.
//!
//! An idle partition (read to its end, and quiet) would hold the newest windows open for ever. Its watermark is then moved to the end of
//! the newest window that the wall clock has left behind: no further, so that readings of later windows are welcome, however old they
//! are. The decision is an entry of the journal at the partition's offset: a restart finds it there and does not decide anew.

use super::{Decision, Engine, Entry, Partition, PartitionTime, Progress};

impl Engine {
    /// The entry that closes what idle partitions hold open at `now` (milliseconds); `None` when there is nothing to close.
    ///
    /// `idle` names the idle partitions and the offset that each has been read to. Where others merge the groups, they wait for the window that
    /// ends at `wanted`.
    pub(crate) fn close_idle_for(&self, now: i64, idle: &[(i32, i64)], wanted: Option<i64>) -> Option<Entry> {
        let passed = now.saturating_sub(self.delay());
        let mut entry = match self.query.timeline {
            Some(_) => self.close_devices(passed, idle),
            None => self.close_partitions(passed, idle, wanted),
        };
        let decision =
            |progress: &Progress| Some(Decision { partition: progress.partition, offset: progress.to, floor: progress.time.floor? });
        entry.decisions = entry.progress.iter().filter_map(decision).collect();
        (!entry.progress.is_empty()).then_some(entry)
    }

    /// Where nobody else merges.
    #[cfg(test)]
    pub(crate) fn close_idle(&self, now: i64, idle: &[(i32, i64)]) -> Option<Entry> {
        self.close_idle_for(now, idle, None)
    }

    fn close_partitions(&self, passed: i64, idle: &[(i32, i64)], wanted: Option<i64>) -> Entry {
        let mut entry = Entry::default();
        let Some(grouping) = self.query.groups.as_ref().filter(|_| !self.query.is_complete()) else { return entry };
        let horizon = self.horizon();
        let over = self.query.second.as_ref().map(|second| &second.grouping);
        let ends = self.partitions.values().flat_map(|partition| partition.shared.open_ends(grouping));
        let ends = ends.chain(over.into_iter().flat_map(|over| self.second.open_ends(over))).chain(wanted);
        let Some(target) = ends.filter(|end| horizon.is_none_or(|horizon| horizon < *end) && *end <= passed).max() else { return entry };

        let moved = |(number, time): (&i32, PartitionTime)| match idle.iter().find(|(partition, _)| partition == number) {
            Some(_) => time.watermark(self.delay()).max(Some(target)),
            None => time.watermark(self.delay()),
        };
        // With another partition that is behind and busy, nothing would close: then there is nothing to decide.
        let after = self.partitions.iter().map(|(number, partition)| moved((number, partition.time))).min().flatten();
        if after <= horizon {
            return entry;
        }
        for (number, offset) in idle {
            if let Some(partition) = self.partitions.get(number)
                && partition.time.watermark(self.delay()) < Some(target)
            {
                entry.progress.push(decision(*number, *offset, partition, target));
            }
        }
        entry
    }

    /// Each device has its own time, but the wall clock is the same for all devices of a partition.
    fn close_devices(&self, passed: i64, idle: &[(i32, i64)]) -> Entry {
        let mut entry = Entry::default();
        let Some(grouping) = self.query.groups.as_ref().filter(|_| !self.query.is_complete()) else { return entry };
        for (number, offset) in idle {
            let Some(partition) = self.partitions.get(number) else { continue };
            let open = |line: &super::Line| {
                let closed = line.closed;
                line.open_ends(grouping).filter(move |end| closed.is_none_or(|closed| closed < *end) && *end <= passed).max()
            };
            let target = partition.lines.values().filter_map(open).max();
            if let Some(target) = target {
                entry.progress.push(decision(*number, *offset, partition, target));
            }
        }
        entry
    }
}

/// The partition's time moves to `target`; nothing else changes.
fn decision(number: i32, offset: i64, partition: &Partition, target: i64) -> Progress {
    let position = partition.position.unwrap_or(offset);
    // Of a partition whose devices have times of their own, an older window may be closed after a newer one: its time stays.
    let time = PartitionTime { floor: partition.time.floor.max(Some(target)), ..partition.time };
    Progress { partition: number, from: position, to: position, time, ledger: partition.ledger }
}
