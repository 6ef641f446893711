//! The reader's side: the newest state that is whole.

use super::super::error::TaskError;
use super::super::owner::Owner;
use super::super::points::Point;
use super::journal::{ENTRY, SNAPSHOT, name};
use super::{Checkpoint, open_frame};
use crate::engine::codec::{self, CodecError};
use crate::engine::{Engine, Entry};
use crate::query::StreamQuery;

/// What a restore leaves to its owner.
#[derive(Debug)]
pub(crate) struct RestoredVersion {
    /// The newest entry, *not* applied: its results may not have been delivered.
    pub(crate) newest: Option<Entry>,
    /// Its number, or that of the snapshot; -1 when there is nothing.
    pub(crate) last: i64,
    /// Entries since the snapshot that the state was read from, and their bytes.
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// No version was ever written.
    pub(crate) fresh: bool,
}

/// Reads the newest snapshot that is whole, and the entries behind it up to the first that is not. What cannot be used is said, put aside
/// under another name, and computed again from the input.
///
/// # Errors
/// When nothing of what is there can be used, or another query wrote it.
pub(crate) fn restore(
    checkpoint: &Checkpoint,
    query: &StreamQuery,
    engine: &mut Engine,
    owner: &Owner,
) -> Result<RestoredVersion, TaskError> {
    let snapshots = checkpoint.numbers("versions", ".snapshot")?;
    let entries = checkpoint.numbers("versions", ".entry")?;
    let mut restored = RestoredVersion { newest: None, last: -1, entries: 0, bytes: 0, fresh: snapshots.is_empty() && entries.is_empty() };
    for number in snapshots.iter().rev() {
        match read(checkpoint, query, SNAPSHOT, *number)? {
            Ok((entry, _)) => {
                engine.absorb_quietly(&entry)?;
                restored.last = *number;
                break;
            }
            Err(cause) => pass_over(checkpoint, SNAPSHOT, *number, &cause)?,
        }
    }
    if restored.last < 0 && entries.first().is_some_and(|first| *first > 0) {
        return Err(checkpoint.damaged("versions", "no snapshot is whole, and the first entries are gone"));
    }
    let mut fault = None;
    let base = restored.last;
    for number in entries.into_iter().filter(|number| *number > base) {
        if owner.stop.is_set() {
            return Err(TaskError::Stopped);
        }
        owner.beat();
        let read = match &fault {
            Some(_) => Err("an entry before it is missing".to_owned()),
            None if number != restored.last + 1 => Err(format!("the entry before it, {}, is missing", restored.last + 1)),
            None => read(checkpoint, query, ENTRY, number)?,
        };
        match read {
            Ok((entry, bytes)) => {
                if let Some(before) = restored.newest.take() {
                    engine.absorb_quietly(&before)?;
                }
                if engine.follows(&entry) {
                    (restored.newest, restored.last) = (Some(entry), number);
                    restored.entries += 1;
                    restored.bytes += bytes;
                    owner.at(Point::MidRestore);
                    continue;
                }
                fault = Some(number);
                pass_over(checkpoint, ENTRY, number, "it does not go on where the entry before it ended")?;
            }
            Err(cause) => {
                fault = Some(number);
                pass_over(checkpoint, ENTRY, number, &cause)?;
            }
        }
    }
    Ok(restored)
}

/// An entry and how many bytes it has; or why it is damaged.
fn read(checkpoint: &Checkpoint, query: &StreamQuery, kind: u8, number: i64) -> Result<Result<(Entry, u64), String>, TaskError> {
    let name = name(kind, number);
    let file = checkpoint.io(&name, std::fs::read(checkpoint.file(&name)))?;
    let bytes = match open_frame(kind, number, &file) {
        Ok(bytes) => bytes,
        Err(cause) => return Ok(Err(cause)),
    };
    match codec::decode(query, bytes) {
        Ok(entry) => Ok(Ok((entry, bytes.len() as u64))),
        Err(CodecError::Damaged(cause)) => Ok(Err(cause)),
        Err(error) => Err(checkpoint.damaged(&name, &error.to_string())),
    }
}

fn pass_over(checkpoint: &Checkpoint, kind: u8, number: i64, cause: &str) -> Result<(), TaskError> {
    let name = name(kind, number);
    let aside = format!("{name}.damaged");
    tracing::warn!(
        "the file {} of the checkpoint is passed over: {cause}; what it held is computed again from the version before it, and the file is \
         kept as {aside}",
        checkpoint.file(&name).display()
    );
    checkpoint.io(&name, std::fs::rename(checkpoint.file(&name), checkpoint.file(&aside)))
}
