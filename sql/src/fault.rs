//! Why a question has no answer.

use std::time::Duration;

/// A sentence, and whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The statement is not one that can be answered.
    #[error("{0}")]
    Statement(String),
    #[error("the answer was not there after {} s (sql.max_time); ask for less: a WHERE, fewer tables, a LIMIT", .0.as_secs_f64())]
    Time(Duration),
    #[error("the question needs more memory than {} MiB (sql.max_memory); ask for less: a WHERE, fewer columns, a LIMIT", .0 >> 20)]
    Memory(u64),
    #[error("other questions are being answered; ask again in a moment")]
    Busy,
    /// The rows of a table cannot be had now.
    #[error("{0}")]
    Away(String),
}

impl Fault {
    /// The status code of HTTP for it.
    pub(crate) const fn code(&self) -> u16 {
        match self {
            Self::Statement(_) => 400,
            Self::Time(_) => 408,
            Self::Memory(_) | Self::Busy | Self::Away(_) => 503,
        }
    }
}
