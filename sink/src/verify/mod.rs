//! `sink verify`: what a database holds against what the log says, point by point.
//!
//! The log is read from its beginning to where it ends now, as the sink reads it; of each identity the newest row counts, without those that
//! are in the dead lane. Identities with rows that the sink has not committed yet are not compared.

mod compare;
mod expected;
mod log;

use std::collections::BTreeMap;
use std::fmt;

use common::Settings;
use common::settings::{Database, Output};
use serde_json::Value;

use crate::influxdb::InfluxReader;
use crate::sqlite::read::SqliteReader;
use crate::victoriametrics::VictoriaReader;
use crate::writer::{KEEPS_TRYING, WriteError};
use compare::Rules;
use expected::Expected;

/// A range of times: `from_ms <= time < to_ms`, milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from_ms: i64,
    pub to_ms: i64,
}

/// What InfluxDB's nanoseconds reach.
const EVER: Span = Span { from_ms: -9_223_372_036_000, to_ms: 9_223_372_036_000 };

impl Default for Span {
    fn default() -> Self {
        EVER
    }
}

impl Span {
    /// Within what databases take for a time.
    fn clamped(self) -> Self {
        Self { from_ms: self.from_ms.max(EVER.from_ms), to_ms: self.to_ms.min(EVER.to_ms) }
    }

    fn has(self, time_ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&time_ms)
    }
}

/// A point as a database holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) measurement: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) time_ms: i64,
    pub(crate) fields: BTreeMap<String, Value>,
}

/// The read side of a database.
pub(crate) trait Reader {
    /// All points of a measurement in a range.
    ///
    /// # Errors
    /// A sentence; nothing is tried again.
    fn read(&mut self, measurement: &str, span: Span) -> Result<Vec<Held>, WriteError>;
}

/// What a comparison found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub output: String,
    /// Points that are the same on both sides.
    pub equal: u64,
    pub missing: u64,
    pub different: u64,
    /// Only in the database.
    pub extra: u64,
    /// Not compared: the sink has rows of them still before it.
    pub pending: u64,
    /// Not compared: this kind of database does not hold them, see the documentation of its writer.
    pub left_out: u64,
    /// The first differences, a sentence each.
    pub differences: Vec<String>,
}

impl Report {
    pub fn is_equal(&self) -> bool {
        self.missing + self.different + self.extra == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        let more = (self.missing + self.different + self.extra).saturating_sub(self.differences.len() as u64);
        if more > 0 {
            writeln!(f, "and {more} more")?;
        }
        let Self { output, equal, missing, different, extra, pending, left_out, .. } = self;
        write!(
            f,
            "{output}: {equal} equal, {missing} missing, {different} different, {extra} only in the database, {pending} not written yet, {left_out} that it does not hold"
        )
    }
}

/// Why a comparison cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Read(WriteError),
    /// Nobody tries again here, as the sink does.
    #[error("{0}; start it and verify again")]
    Away(String),
    #[error(transparent)]
    Unreachable(#[from] common::kafka::LogError),
    #[error("the log cannot be read: {0}; check --bootstrap-servers and the rights of this client")]
    Log(rdkafka::error::KafkaError),
    #[error("the log does not answer any more after {0}; try again when it does")]
    Silent(String),
    #[error("no output is called '{0}'; those of the settings are: {1}")]
    Unknown(String, String),
    #[error("the output '{0}' is of the kind {1}, which cannot be read back; verify works on sqlite, influxdb and victoriametrics")]
    Unreadable(String, &'static str),
    #[error("the topic pattern '{0}' is not understood by verify; name the topics with --topic")]
    Pattern(String),
}

impl From<WriteError> for VerifyError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Retry { detail, .. } => Self::Away(detail.strip_suffix(KEEPS_TRYING).unwrap_or(&detail).to_owned()),
            error => Self::Read(error),
        }
    }
}

/// Not as the source, which would be said a second time.
impl From<rdkafka::error::KafkaError> for VerifyError {
    fn from(error: rdkafka::error::KafkaError) -> Self {
        Self::Log(error)
    }
}

/// Compares the output called `name` (unset: the first) with the log over `span`. Keeps up to `limit` differences as sentences.
///
/// # Errors
/// When either side cannot be read.
pub fn verify(settings: &Settings, name: Option<&str>, span: Span, limit: usize) -> Result<Report, VerifyError> {
    let outputs = settings.sink.all_outputs();
    let found = outputs.iter().find(|output| name.is_none_or(|name| output.name() == name));
    let Some(output) = found else {
        let names: Vec<&str> = outputs.iter().map(Output::name).collect();
        return Err(VerifyError::Unknown(name.unwrap_or_default().to_owned(), names.join(", ")));
    };
    let span = span.clamped();
    let (mut reader, rules) = reader(output)?;
    let expected = Expected::read(settings, output, span)?;
    Ok(compare::compare(reader.as_mut(), expected, rules, span, limit)?)
}

fn reader(output: &Output) -> Result<(Box<dyn Reader>, Rules), VerifyError> {
    Ok(match output.to {
        Database::Sqlite => (Box::new(SqliteReader::new(&output.sqlite)), Rules::Sqlite),
        Database::Influxdb => (Box::new(InfluxReader::open(&output.influxdb)?), Rules::Influxdb),
        Database::Victoriametrics => (Box::new(VictoriaReader::open(&output.victoriametrics)?), Rules::Victoriametrics),
        Database::Parquet | Database::Delta | Database::Console | Database::Http => {
            return Err(VerifyError::Unreadable(output.name().to_owned(), output.to.name()));
        }
    })
}
