//! The log of positions: where each shard stood at which offset. A line of JSON for each entry, synced before it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::super::checkpoint::{Checkpoint, MOST_ENTRIES};
use super::super::super::error::TaskError;
use super::merge::Place;

const NAME: &str = "kinesis.jsonl";
const FORMAT: u32 = 1;

/// So many lines are kept at least: more than there are entries from the older of the two snapshots on. The file has twice as many at most.
const KEPT: usize = 4 * MOST_ENTRIES as usize;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    format: u32,
    /// When the first run began, epoch milliseconds.
    pub(super) began: i64,
    /// The shards that were there then: those begin where the query says, later ones with their first record.
    pub(super) first: Vec<String>,
    #[serde(flatten)]
    line: Line,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    /// The offset behind the last record that was given.
    at: i64,
    /// The shards that have moved since the line before.
    shards: BTreeMap<String, Place>,
}

#[derive(Debug)]
pub(super) struct Positions {
    checkpoint: Arc<Checkpoint>,
    pub(super) base: Base,
    lines: Vec<Line>,
    file: File,
}

impl Positions {
    /// Reads the log as far as the state that stands at `position` knows of it; `begin` makes the first line of a new one.
    pub(super) fn open(checkpoint: &Arc<Checkpoint>, position: i64, begin: impl FnOnce() -> (i64, Vec<String>)) -> Result<Self, TaskError> {
        let damaged = |cause: &str| checkpoint.damaged(&format!("source/{NAME}"), cause);
        let (base, lines) = match checkpoint.read_text(NAME)? {
            None if position > 0 => return Err(damaged("it is not there")),
            None => {
                let (began, first) = begin();
                (Base { format: FORMAT, began, first, line: Line::default() }, Vec::new())
            }
            Some(text) => read(&text, position).map_err(|cause| damaged(&cause))?,
        };
        let file = write(checkpoint, &base, &lines)?;
        Ok(Self { checkpoint: Arc::clone(checkpoint), base, lines, file })
    }

    /// Where each shard stands.
    pub(super) fn places(&self) -> BTreeMap<String, Place> {
        let mut places = self.base.line.shards.clone();
        self.lines.iter().for_each(|line| places.extend(line.shards.clone()));
        places
    }

    /// Where shards stand at the offset `at`, on the disk.
    pub(super) fn append(&mut self, at: i64, shards: BTreeMap<String, Place>) -> Result<(), TaskError> {
        if shards.is_empty() {
            return Ok(());
        }
        let line = Line { at, shards };
        let text = as_text(&line)?;
        self.lines.push(line);
        if self.lines.len() > 2 * KEPT {
            self.base.line = fold(&self.base.line, self.lines.drain(..KEPT));
            self.file = write(&self.checkpoint, &self.base, &self.lines)?;
            return Ok(());
        }
        self.checkpoint.io(NAME, self.file.write_all(text.as_bytes()))?;
        if self.checkpoint.is_durable() { self.checkpoint.io(NAME, self.file.sync_data()) } else { Ok(()) }
    }
}

fn as_text(line: &impl Serialize) -> Result<String, TaskError> {
    let text = serde_json::to_string(line).map_err(|error| TaskError::Fatal(format!("positions of shards cannot be written: {error}")))?;
    Ok(text + "\n")
}

fn fold(base: &Line, lines: impl Iterator<Item = Line>) -> Line {
    lines.fold(base.clone(), |mut base, line| {
        base.at = line.at;
        base.shards.extend(line.shards);
        base
    })
}

/// Writes the file anew, as a whole, and opens it for more lines.
fn write(checkpoint: &Checkpoint, base: &Base, lines: &[Line]) -> Result<File, TaskError> {
    let mut text = as_text(base)?;
    for line in lines {
        text += &as_text(line)?;
    }
    checkpoint.write(NAME, text.as_bytes())?;
    checkpoint.io(NAME, OpenOptions::new().append(true).open(checkpoint.file(&format!("source/{NAME}"))))
}

/// The lines up to `position`. What lies behind it is in no entry.
fn read(text: &str, position: i64) -> Result<(Base, Vec<Line>), String> {
    // The last line may be the one that a crash cut off. It was not synced, so no entry rests on it.
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let mut texts = whole.lines();
    let first = texts.next().ok_or("it is empty")?;
    let base: Base = serde_json::from_str(first).map_err(|error| error.to_string())?;
    if base.format != FORMAT {
        return Err(format!("its format is {}, and this program reads {FORMAT}", base.format));
    }
    let mut lines = Vec::new();
    for text in texts {
        let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if line.at <= position {
            lines.push(line);
        }
    }
    let end = lines.last().map_or(base.line.at, |line| line.at);
    if end == position { Ok((base, lines)) } else { Err(format!("it has no line for the offset {position}")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::super::checkpoint::CheckpointDir;
    use super::*;

    fn place(record: i64) -> Place {
        Place { record: Some(record.to_string()), time: record, ..Place::default() }
    }

    fn begin() -> (i64, Vec<String>) {
        (7, vec!["a".into()])
    }

    #[test]
    fn a_log_survives_its_reopening_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let dir = CheckpointDir::at(folder.path());
        {
            let checkpoint = Arc::new(dir.open().unwrap());
            let mut positions = Positions::open(&checkpoint, 0, begin).unwrap();
            positions.append(5, [("a".to_owned(), place(1))].into()).unwrap();
            positions.append(9, [("a".to_owned(), Place { ended: true, ..place(2) }), ("b".to_owned(), place(3))].into()).unwrap();
            positions.append(9, BTreeMap::new()).unwrap();
            positions.append(12, [("b".to_owned(), Place { rows: 4, ..place(4) })].into()).unwrap();
            positions.file.write_all(br#"{"at":15,"sha"#).unwrap();
        }
        // An entry that was lost, and the one before it: the input is read again from there.
        for (position, b) in [(12, Some(4)), (9, Some(0)), (5, None)] {
            let checkpoint = Arc::new(dir.open().unwrap());
            let positions = Positions::open(&checkpoint, position, || unreachable!()).unwrap();
            let places = positions.places();
            assert_eq!((positions.base.began, places["a"].ended), (7, position > 5));
            assert_eq!(places.get("b").map(|place| place.rows), b, "{position}");
        }
        let checkpoint = Arc::new(dir.open().unwrap());
        let fault = Positions::open(&checkpoint, 9, || unreachable!()).unwrap_err().to_string();
        assert!(fault.contains("no line for the offset 9"), "{fault}");
    }

    #[test]
    fn a_long_log_is_cut_and_keeps_what_entries_rest_on() {
        // As for a run without a checkpoint: it is not synced.
        let dir = CheckpointDir::temporary("positions");
        let checkpoint = Arc::new(dir.open().unwrap());
        let mut positions = Positions::open(&checkpoint, 0, begin).unwrap();
        let (all, kept) = (2 * KEPT + 10, i64::try_from(KEPT).unwrap());
        for at in 1..=i64::try_from(all).unwrap() {
            positions.append(at, [("a".to_owned(), place(at))].into()).unwrap();
        }
        let text = checkpoint.read_text(NAME).unwrap().unwrap();
        assert!(text.lines().count() < 2 * KEPT);
        let (base, lines) = read(&text, kept + 11).unwrap();
        assert_eq!((base.line.at, base.line.shards["a"].clone()), (kept, place(kept)));
        assert_eq!(lines.len(), 11);
    }
}
