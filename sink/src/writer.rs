//! The seam to the databases.

use std::fmt;
use std::time::Duration;

use crate::ahead::{Draft, Prepare};
use crate::point::Point;

/// What a write did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Points the database now holds, or that a later one of the same write has replaced.
    pub written: u64,
    /// Points that were left out because the database holds a larger revision.
    pub stale: u64,
    /// What this kind of database cannot hold, by one word for counting, such as `not_final`; the documentation of the writer says why.
    pub left_out: Vec<(&'static str, u64)>,
}

impl WriteOutcome {
    pub(crate) fn leave_out(&mut self, reason: &'static str, count: u64) {
        if count > 0 {
            self.left_out.push((reason, count));
        }
    }
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

/// How the sentence of a [`WriteError::Retry`] ends when there is nothing else to be done.
pub(crate) const KEEPS_TRYING: &str = "; the sink keeps trying";

/// Why nothing was written, and with it what to do next. Every text is one clear sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It may pass: the same points again, `after` this time or when the sink thinks fit.
    #[error("{detail}")]
    Retry { detail: String, after: Option<Duration> },
    /// These points never: the others again without them.
    #[error("the database refuses {} points, the first because: {}", .0.len(), .0.first().map_or("", |first| first.detail.as_str()))]
    Rejected(Vec<Rejection>),
    /// Some of these points never, and the database does not say which: the sink tries smaller pieces until it knows. Others of them may
    /// have been written.
    #[error("{detail}")]
    Refused { reason: &'static str, detail: String },
    /// The database has lost rows that it had confirmed: all since the last commit are read again.
    #[error("{0}")]
    Lost(String),
    /// Nothing helps but a person. The position in the log is kept.
    #[error("{0}")]
    Fatal(String),
}

/// A database that takes points. The sink calls it from one thread.
pub trait Writer: Send + fmt::Debug {
    /// The database's name for consumer groups and logs, such as `sqlite`.
    fn name(&self) -> &'static str;

    /// Writes all `points`, in their order. After an error any of them may be written, and the same come again: a point that is written twice
    /// must stay one. Has returned `Ok` only when the database has confirmed that it keeps them.
    ///
    /// # Errors
    /// [`WriteError`] says whether trying again can help.
    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError>;

    /// What makes the bytes of a write before its turn; `None` for a database that is not written by bytes.
    fn preparer(&self) -> Option<Box<dyn Prepare>> {
        None
    }

    /// As [`Writer::write`], with what its preparer has made of the same points.
    ///
    /// # Errors
    /// As [`Writer::write`].
    fn write_prepared(&mut self, points: &[Point], _prepared: &Draft) -> Result<WriteOutcome, WriteError> {
        self.write(points)
    }

    /// How long the database may lose a confirmed write when its process dies. The offsets of such rows are committed only after that.
    fn settles_after(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the database still has what was written [`Writer::settles_after`] ago and since.
    ///
    /// # Errors
    /// [`WriteError::Lost`] when it may not have it; any other: ask again later.
    fn check_settled(&mut self) -> Result<(), WriteError> {
        Ok(())
    }

    /// A moment for housekeeping such as retention; must be short. Called between batches, at least once a second.
    ///
    /// # Errors
    /// As for [`Writer::write`]; the sink tries again at its next turn.
    fn upkeep(&mut self) -> Result<(), WriteError> {
        Ok(())
    }
}
