//! The streaming engine: pure. It knows no Kafka, no tokio and no clock.
//!
//! ```text
//!            prepare                       apply
//! Input ───────────────▶ Entry + lanes ───────────────▶ state', Output
//! (decoded rows)         (what the journal keeps)       (result rows)
//! ```
//! `prepare` decides about every row and folds the used ones onto the old state; it changes nothing. `apply` puts the entry into the
//! state and gives the result rows, which are a function of the entry and the state. Recovery applies the journal's entries with the
//! same `apply`, so there is one path for life and for recovery.

pub(crate) mod codec;
mod entry;
mod fold_rows;
mod idle;
mod judge;
mod ledger;
mod output;
mod state;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion_common::DataFusionError;

pub(crate) use entry::{Entry, GroupState, Progress};
pub(crate) use judge::{Input, Refused};
pub(crate) use ledger::Ledger;
use output::Horizons;
pub(crate) use output::Output;
use state::PartitionState;
pub(crate) use time::PartitionTime;

use crate::query::StreamQuery;

/// The state of one shard: the partitions whose groups live together.
#[derive(Debug)]
pub(crate) struct Engine {
    query: Arc<StreamQuery>,
    partitions: BTreeMap<i32, Partition>,
}

/// One input partition: how far it has been read, its time, its counts, its groups.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    /// The next offset to read; `None` before the first entry.
    pub(crate) position: Option<i64>,
    pub(crate) time: PartitionTime,
    pub(crate) ledger: Ledger,
    pub(crate) state: PartitionState,
}

/// What [`Engine::prepare`] found: the entry to journal, and the rows for the lanes.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) entry: Entry,
    /// By input, in the order of the inputs.
    pub(crate) late: Vec<Vec<Refused>>,
    pub(crate) dead: Vec<Vec<Refused>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("query '{query}' cannot go on: {cause}")]
    Query { query: String, cause: DataFusionError },
    #[error(
        "the state of query '{query}' would grow to {found} bytes, beyond processor.max_state of {limit}; \
         use coarser groups, a shorter watermark delay, or raise the limit"
    )]
    StateFull { query: String, found: u64, limit: u64 },
    #[error("the journal of query '{query}' does not fit this processor: {cause}")]
    Journal { query: String, cause: String },
}

impl Engine {
    pub(crate) fn new(query: Arc<StreamQuery>, partitions: impl IntoIterator<Item = i32>) -> Self {
        Self { query, partitions: partitions.into_iter().map(|partition| (partition, Partition::default())).collect() }
    }

    pub(crate) fn partitions(&self) -> &BTreeMap<i32, Partition> {
        &self.partitions
    }

    pub(crate) fn state_bytes(&self) -> u64 {
        self.partitions.values().map(|partition| partition.state.bytes()).sum()
    }

    /// What the state would take with `entry` in it, before anything is evicted.
    pub(crate) fn bytes_with(&self, entry: &Entry) -> u64 {
        let grown: i64 = entry
            .groups
            .iter()
            .filter_map(|group| Some(self.partitions.get(&group.partition)?.state.growth(group.pane, &group.key, &group.state)))
            .sum();
        self.state_bytes().saturating_add_signed(grown)
    }

    pub(crate) fn state_rows(&self) -> u64 {
        self.partitions.values().map(|partition| partition.state.rows()).sum()
    }

    /// The time up to which every window is final: the smallest watermark of the shard's partitions, once all have one.
    fn horizon(&self) -> Option<i64> {
        let delay = self.delay();
        self.partitions.values().map(|partition| partition.time.watermark(delay)).min().flatten()
    }

    fn delay(&self) -> i64 {
        self.query.file.source.watermark.millis()
    }

    /// A larger revision replaces a smaller one: the offsets that the state has seen, summed over the shard's partitions.
    pub(crate) fn revision(&self) -> i64 {
        self.partitions.values().filter_map(|partition| partition.position).sum()
    }

    fn fault(&self, cause: impl Into<DataFusionError>) -> EngineError {
        EngineError::Query { query: self.query.file.name.clone(), cause: cause.into() }
    }

    /// Decides about every row of `inputs` and folds the used ones. Changes nothing.
    ///
    /// # Errors
    /// When an aggregate fails over the rows; the state is as before.
    pub(crate) fn prepare(&self, inputs: Vec<Input>) -> Result<Prepared, EngineError> {
        let mut prepared = Prepared { entry: Entry::default(), late: Vec::new(), dead: Vec::new() };
        for input in inputs {
            let Some(partition) = self.partitions.get(&input.partition) else { continue };
            let judged = judge::judge(&self.query, &partition.time, &input).map_err(|cause| self.fault(cause))?;
            let groups = fold_rows::fold_rows(&self.query, &partition.state, &judged.used).map_err(|cause| self.fault(cause))?;
            prepared.entry.progress.push(Progress {
                partition: input.partition,
                from: partition.position.unwrap_or(input.from),
                to: input.to,
                time: judged.time,
                ledger: partition.ledger + judged.counts,
            });
            prepared.entry.groups.extend(groups.into_iter().map(|(pane, key, state)| GroupState {
                partition: input.partition,
                pane,
                key,
                state,
            }));
            prepared.late.push(judged.late);
            prepared.dead.push(judged.dead);
        }
        Ok(prepared)
    }

    /// Puts an entry into the state and gives its result rows: the groups that it touched, and those whose window it closed.
    ///
    /// # Errors
    /// When a result cannot be computed; the engine must then be thrown away and restored.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Output, EngineError> {
        let before = self.horizon();
        self.absorb(entry)?;
        let span = Horizons { before, after: self.horizon() };
        let output = output::results(&self.query, &self.partitions, entry, span).map_err(|cause| self.fault(cause))?;
        self.evict();
        Ok(output)
    }

    /// As [`Engine::apply`] without the results, for entries whose results were delivered before.
    pub(crate) fn absorb_quietly(&mut self, entry: &Entry) -> Result<(), EngineError> {
        self.absorb(entry)?;
        self.evict();
        Ok(())
    }

    fn absorb(&mut self, entry: &Entry) -> Result<(), EngineError> {
        let query = &self.query.file.name;
        let unknown = |partition: i32| EngineError::Journal {
            query: query.clone(),
            cause: format!("it names partition {partition} of the input, which this shard does not have"),
        };
        if entry.snapshot {
            self.partitions.values_mut().for_each(|partition| partition.state = PartitionState::default());
        }
        for progress in &entry.progress {
            let partition = self.partitions.get_mut(&progress.partition).ok_or_else(|| unknown(progress.partition))?;
            partition.position = Some(progress.to);
            partition.time = progress.time;
            partition.ledger = progress.ledger;
        }
        for group in &entry.groups {
            let partition = self.partitions.get_mut(&group.partition).ok_or_else(|| unknown(group.partition))?;
            partition.state.put(group.pane, group.key.clone(), group.state.clone());
        }
        Ok(())
    }

    /// Gives up the panes that no row can reach any more.
    fn evict(&mut self) {
        let (Some(window), Some(horizon)) = (self.query.window, self.horizon()) else { return };
        for partition in self.partitions.values_mut() {
            partition.state.evict(|pane| window.end(window.last_window(pane)) <= horizon);
        }
    }

    /// The whole state as one entry, for a journal that starts anew with it.
    pub(crate) fn snapshot(&self) -> Entry {
        let mut entry = Entry { snapshot: true, ..Entry::default() };
        for (number, partition) in &self.partitions {
            let Some(position) = partition.position else { continue };
            let (time, ledger) = (partition.time, partition.ledger);
            entry.progress.push(Progress { partition: *number, from: position, to: position, time, ledger });
            entry.groups.extend(partition.state.iter().map(|(pane, key, state)| GroupState {
                partition: *number,
                pane,
                key: key.clone(),
                state: state.clone(),
            }));
        }
        entry
    }

    /// Whether an entry goes on where this state stands.
    pub(crate) fn follows(&self, entry: &Entry) -> bool {
        entry.progress.iter().all(|progress| {
            self.partitions
                .get(&progress.partition)
                .is_some_and(|partition| partition.position.is_none_or(|position| position == progress.from))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
