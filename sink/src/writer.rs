//! The seam to the databases.

use std::fmt;
use std::time::Duration;

use crate::point::Point;

/// What a write did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Points the database now holds, or that a later one of the same write has replaced.
    pub written: u64,
    /// Points that were left out because the database holds a larger revision.
    pub stale: u64,
}

/// A point that the database will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its place in the slice that was written.
    pub index: usize,
    /// One word for counting, such as `wrong_type`.
    pub reason: &'static str,
    /// The database's own words.
    pub detail: String,
}

/// Why nothing was written, and with it what to do next. Every text is one clear sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It may pass: the same points again, `after` this time or when the sink thinks fit.
    #[error("{detail}")]
    Retry { detail: String, after: Option<Duration> },
    /// These points never: the others again without them.
    #[error("the database refuses {} points, the first because: {}", .0.len(), .0.first().map_or("", |first| first.detail.as_str()))]
    Rejected(Vec<Rejection>),
    /// Nothing helps but a person. The position in the log is kept.
    #[error("{0}")]
    Fatal(String),
}

/// A database that takes points. The sink calls it from one thread.
pub trait Writer: Send + fmt::Debug {
    /// The database's name for consumer groups and logs, such as `sqlite`.
    fn name(&self) -> &'static str;

    /// Writes all `points`, in their order, or none. Has returned `Ok` only when they survive a power cut.
    ///
    /// # Errors
    /// [`WriteError`] says whether trying again can help.
    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError>;

    /// A moment for housekeeping such as retention; must be short. Called between batches, at least once a second.
    ///
    /// # Errors
    /// As for [`Writer::write`]; the sink tries again at its next turn.
    fn upkeep(&mut self) -> Result<(), WriteError> {
        Ok(())
    }
}
