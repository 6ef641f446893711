//! An entry as bytes: one Arrow IPC stream whose schema metadata holds the header and whose one batch holds the groups.
//!
//! Keys and states are written as typed columns, not as row bytes: Arrow may change its row format between releases, and a journal
//! outlives a release.

mod tables;

use std::collections::HashMap;
use std::io::Cursor;

use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::{Decision, Entry, Ledger, PartitionTime, Progress};
use crate::query::{Description, StreamQuery};

/// Version of the entry format.
const VERSION: u32 = 1;
const HEADER: &str = "tidemark";

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    /// Of the query, in hexadecimal: JSON numbers lose the last bits of 64.
    fingerprint: String,
    snapshot: bool,
    progress: Vec<HeaderProgress>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    decisions: Vec<Decision>,
    #[serde(default, skip_serializing_if = "is_zero")]
    base: i64,
    /// What wrote this: in snapshots, and in the first entry of an owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<Description>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// What an entry says of itself, whatever query wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) snapshot: bool,
    pub(crate) progress: Vec<Progress>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) base: i64,
    pub(crate) query: Option<Description>,
    /// Whether an entry of this query's state.
    pub(crate) fits: bool,
}

#[derive(Serialize, Deserialize)]
struct HeaderProgress {
    partition: i32,
    from: i64,
    to: i64,
    time: PartitionTime,
    ledger: Ledger,
}

/// An entry that cannot be read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error(
        "it has format version {found}, and this program reads version {VERSION}; use the release that wrote it, or start the query under another name"
    )]
    Version { found: u32 },
    #[error(
        "it was written by another SQL, schema, watermark, time zone or lookup table (fingerprint {found}, now {expected}); put the old query \
         file back, begin anew from the log with --rebuild, or give the changed query another name"
    )]
    Fingerprint { found: String, expected: String },
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl From<ArrowError> for CodecError {
    fn from(error: ArrowError) -> Self {
        Self::Damaged(error.to_string())
    }
}

fn fingerprint(query: &StreamQuery) -> String {
    format!("{:016x}", query.fingerprint)
}

/// Whether entries with this fingerprint are of this query's state. Earlier releases took the whole SQL into it.
fn fits(query: &StreamQuery, found: &str) -> bool {
    found == fingerprint(query) || found == format!("{:016x}", query.whole_fingerprint)
}

/// As [`encode_with`], with the description in snapshots only.
#[cfg(test)]
pub(crate) fn encode(query: &StreamQuery, entry: &Entry) -> Result<Vec<u8>, CodecError> {
    encode_with(query, entry, entry.snapshot)
}

/// The header and the groups; then a table for each other kind of state that the query has. `described`: with the description of the query,
/// which snapshots always have.
pub(crate) fn encode_with(query: &StreamQuery, entry: &Entry, described: bool) -> Result<Vec<u8>, CodecError> {
    let header = Header {
        version: VERSION,
        fingerprint: fingerprint(query),
        snapshot: entry.snapshot,
        progress: entry.progress.iter().map(HeaderProgress::from).collect(),
        decisions: entry.decisions.clone(),
        base: entry.base,
        query: (described || entry.snapshot).then(|| query.described()),
    };
    let header = serde_json::to_string(&header).map_err(|error| CodecError::Damaged(error.to_string()))?;
    let mut bytes = Vec::new();
    tables::groups(query.groups.as_ref(), query.timeline.is_some(), &entry.groups)?
        .with_metadata(HashMap::from([(HEADER.to_owned(), header)]))
        .write(&mut bytes)?;
    if let Some(timeline) = &query.timeline {
        tables::lines(timeline, &entry.lines)?.write(&mut bytes)?;
    }
    if let Some(grouping) = query.groups.as_ref().filter(|grouping| grouping.session_gap().is_some()) {
        tables::sessions(grouping, &entry.sessions)?.write(&mut bytes)?;
    }
    if let Some(dedup) = &query.dedup {
        tables::seen(dedup, &entry.seen)?.write(&mut bytes)?;
    }
    if let Some(second) = &query.second {
        tables::groups(Some(&second.grouping), false, &entry.second)?.write(&mut bytes)?;
    }
    Ok(bytes)
}

fn header(first: &tables::Table) -> Result<Header, CodecError> {
    let header = first.metadata().get(HEADER).ok_or_else(|| CodecError::Damaged("it has no header".into()))?;
    let header: Header = serde_json::from_str(header).map_err(|error| CodecError::Damaged(error.to_string()))?;
    if header.version != VERSION {
        return Err(CodecError::Version { found: header.version });
    }
    Ok(header)
}

/// Reads what an entry says of itself, and none of its states.
pub(crate) fn told(query: &StreamQuery, bytes: &[u8]) -> Result<Told, CodecError> {
    let header = header(&tables::Table::read(&mut Cursor::new(bytes))?)?;
    Ok(Told {
        snapshot: header.snapshot,
        progress: header.progress.into_iter().map(Progress::from).collect(),
        decisions: header.decisions,
        base: header.base,
        query: header.query,
        fits: fits(query, &header.fingerprint),
    })
}

pub(crate) fn decode(query: &StreamQuery, bytes: &[u8]) -> Result<Entry, CodecError> {
    let mut bytes = Cursor::new(bytes);
    let first = tables::Table::read(&mut bytes)?;
    let header = header(&first)?;
    if !fits(query, &header.fingerprint) {
        return Err(CodecError::Fingerprint { found: header.fingerprint, expected: fingerprint(query) });
    }
    let mut entry = Entry {
        snapshot: header.snapshot,
        progress: header.progress.into_iter().map(Progress::from).collect(),
        decisions: header.decisions,
        base: header.base,
        groups: tables::read_groups(query.groups.as_ref(), query.timeline.is_some(), &first)?,
        ..Entry::default()
    };
    if let Some(timeline) = &query.timeline {
        entry.lines = tables::read_lines(timeline, &tables::Table::read(&mut bytes)?)?;
    }
    if let Some(grouping) = query.groups.as_ref().filter(|grouping| grouping.session_gap().is_some()) {
        entry.sessions = tables::read_sessions(grouping, &tables::Table::read(&mut bytes)?)?;
    }
    if let Some(dedup) = &query.dedup {
        entry.seen = tables::read_seen(dedup, &tables::Table::read(&mut bytes)?)?;
    }
    if let Some(second) = &query.second {
        entry.second = tables::read_groups(Some(&second.grouping), false, &tables::Table::read(&mut bytes)?)?;
    }
    Ok(entry)
}

impl From<&Progress> for HeaderProgress {
    fn from(progress: &Progress) -> Self {
        let Progress { partition, from, to, time, ledger } = *progress;
        Self { partition, from, to, time, ledger }
    }
}

impl From<HeaderProgress> for Progress {
    fn from(progress: HeaderProgress) -> Self {
        let HeaderProgress { partition, from, to, time, ledger } = progress;
        Self { partition, from, to, time, ledger }
    }
}
