//! A look into a journal partition that somebody else may own: nothing is written, and no state is read.

use std::collections::BTreeMap;
use std::time::Duration;

use common::Settings;
use rdkafka::Message as _;

use super::super::error::TaskError;
use super::super::owner::Owner;
use super::super::scan::PartitionReader;
use super::pieces::Pieces;
use crate::engine::{Decision, Progress, codec};
use crate::query::{Description, StreamQuery};

/// What the newest entries of a journal partition say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peeked {
    /// By input partition.
    pub(crate) progress: BTreeMap<i32, Progress>,
    /// Those that are kept, in order.
    pub(crate) decisions: Vec<Decision>,
    pub(crate) base: i64,
    /// What wrote it; journals of earlier releases do not say.
    pub(crate) description: Option<Description>,
    /// Whether its state is one of the query's.
    pub(crate) fits: bool,
}

/// Looks into a journal partition; `None` when it holds no entry.
pub(crate) fn peek(
    settings: &Settings,
    query: &StreamQuery,
    (topic, partition): (&str, i32),
    owner: &Owner,
) -> Result<Option<Peeked>, TaskError> {
    loop {
        match read(query, PartitionReader::open(settings, topic, partition, owner)?, owner) {
            // Its owner has written a snapshot and deleted what lay before it: the journal begins there now.
            Err(TaskError::Retry(cause)) => tracing::debug!(query = query.file.name, cause, "looking once more"),
            peeked => return peeked,
        }
    }
}

fn read(query: &StreamQuery, mut reader: PartitionReader, owner: &Owner) -> Result<Option<Peeked>, TaskError> {
    let mut pieces = Pieces::new(&query.file.name, reader.place().to_owned(), reader.first());
    let mut peeked: Option<Peeked> = None;
    while let Some(message) = reader.next(Duration::from_millis(100), owner)? {
        let Some(bytes) = pieces.record(message.offset(), message.payload().unwrap_or_default())? else { continue };
        let told = codec::told(query, &bytes).map_err(|error| pieces.damaged(message.offset(), &error.to_string()))?;
        let known = peeked.get_or_insert_with(|| Peeked { fits: true, ..Peeked::default() });
        if told.snapshot {
            *known = Peeked { fits: true, base: told.base, description: known.description.take(), ..Peeked::default() };
        }
        known.fits &= told.fits;
        known.progress.extend(told.progress.into_iter().map(|progress| (progress.partition, progress)));
        known.decisions.extend(told.decisions);
        known.description = told.query.or(known.description.take());
    }
    Ok(peeked)
}
