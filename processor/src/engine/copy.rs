//! A copy of the state, so that somebody can look at the current result while the engine goes on.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{Engine, EngineError, Entry, Moved, output};
use crate::query::StreamQuery;

/// What the current result of a shard follows from.
#[derive(Debug)]
pub(crate) struct StateCopy {
    pub(super) query: Arc<StreamQuery>,
    pub(super) partitions: Vec<i32>,
    pub(super) state: Entry,
}

impl StateCopy {
    /// The current rows: of windows those that are open, in complete mode the whole result.
    ///
    /// # Errors
    /// As [`Engine::apply`].
    pub(crate) fn rows(self) -> Result<RecordBatch, EngineError> {
        let mut engine = Engine::new(Arc::clone(&self.query), self.partitions);
        engine.absorb(&self.state)?;
        drop(self.state);
        engine.current()
    }
}

impl Engine {
    fn current(&self) -> Result<RecordBatch, EngineError> {
        let nothing = Entry::default();
        let Some((grouping, books)) = self.shown_books(&nothing, Moved::All) else {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.query.output)));
        };
        output::current(self, grouping, &books).map_err(|cause| self.fault(cause))
    }
}
