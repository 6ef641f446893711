//! Entries of other shards, each of which has read one input partition: the engine that merges them takes them for its own steps.
//!
//! Such an entry has all that a step has: how far its partition was read, the partition's time, and the whole new states of the groups that
//! it touched. So what is known of a partition is replaced by what is newer, and the results are those of a shard that has read the
//! partitions itself. Entries may come more than once, because their journals are read from the beginning after a restart.

use super::{Engine, Entry};

/// What an engine makes of an entry of one input partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// It goes on where the partition stands.
    Next,
    /// The state has it already.
    Seen,
    /// Something is missing before it.
    Gap,
}

impl Engine {
    pub(crate) fn takes(&self, entry: &Entry) -> Takes {
        let takes = entry.progress.iter().map(|progress| {
            let Some(partition) = self.partitions.get(&progress.partition) else { return Takes::Gap };
            match partition.position {
                Some(position) if progress.to < position => Takes::Seen,
                // A decision of the wall clock reads nothing, and moves the time.
                Some(position) if progress.to == position => {
                    let decides = progress.from == progress.to && !entry.snapshot && progress.time.floor > partition.time.floor;
                    if decides { Takes::Next } else { Takes::Seen }
                }
                Some(position) if progress.from != position => Takes::Gap,
                // What lies before a snapshot may have been given up since.
                Some(_) | None if entry.snapshot => Takes::Gap,
                Some(_) | None => Takes::Next,
            }
        });
        // An entry that tells of no partition changes nothing.
        takes.reduce(|one, other| if one == other { one } else { Takes::Gap }).unwrap_or(Takes::Seen)
    }

    /// The end of the newest open window that the wall clock has left behind at `now` (milliseconds): for it the result waits, and a partition
    /// that is idle should, too. Whoever reads the partitions cannot know it, when the window has groups in other partitions only.
    pub(crate) fn waits_for(&self, now: i64) -> Option<i64> {
        let passed = now.saturating_sub(self.delay());
        let grouping = self.query.groups.as_ref().filter(|_| !self.query.is_complete())?;
        let horizon = self.horizon();
        let ends = self.partitions.values().flat_map(|partition| partition.shared.open_ends(grouping));
        ends.filter(|end| horizon.is_none_or(|horizon| horizon < *end) && *end <= passed).max()
    }
}
