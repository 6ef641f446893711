//! The log of the files: which were met, in which order, and at which offset each ended. A line of JSON an event.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::super::checkpoint::Checkpoint;
use super::super::super::error::TaskError;
use super::watch;

const NAME: &str = "files.jsonl";

/// A file as it was when it was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Met {
    /// Its name in the directory.
    pub(super) file: String,
    pub(super) size: u64,
    /// Epoch milliseconds.
    pub(super) modified: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    /// The log begins at this offset.
    Base { at: i64 },
    /// Comes after those that were met before.
    Met(Met),
    /// Was read; the next one begins at this offset.
    Ended { at: i64, file: Met },
}

#[derive(Debug)]
pub(super) struct FileLog {
    checkpoint: Arc<Checkpoint>,
    file: File,
    unsynced: bool,
}

/// What the log says to somebody who goes on.
#[derive(Debug, Default)]
pub(super) struct Resumed {
    /// Not read, or read in part.
    pub(super) queue: VecDeque<Met>,
    /// Read and still in the directory.
    pub(super) done: Vec<Met>,
    /// Both, by name.
    pub(super) seen: HashMap<String, bool>,
    /// How many records of the first file of the queue were read.
    pub(super) skip: i64,
}

impl FileLog {
    /// Reads the log, as far as the state that stands at `position` knows of it, and writes it anew without what nobody needs.
    pub(super) fn open(checkpoint: &Arc<Checkpoint>, folder: &Path, position: i64) -> Result<(Self, Resumed), TaskError> {
        let text = checkpoint.read_text(NAME)?.unwrap_or_default();
        let mut events = Vec::new();
        // The last line may be the one that a crash cut off. It was not synced, so no entry rests on it.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        for line in whole.lines() {
            events.push(serde_json::from_str(line).map_err(|error| checkpoint.damaged(&format!("source/{NAME}"), &error.to_string()))?);
        }
        let (base, resumed) = resume(events, folder, position);
        let mut lines = line(&Event::Base { at: base })?;
        for met in &resumed.done {
            lines += &line(&Event::Ended { at: base, file: met.clone() })?;
        }
        for met in &resumed.queue {
            lines += &line(&Event::Met(met.clone()))?;
        }
        checkpoint.write(NAME, lines.as_bytes())?;
        let path = checkpoint.file(&format!("source/{NAME}"));
        let file = checkpoint.io(NAME, OpenOptions::new().append(true).open(path))?;
        Ok((Self { checkpoint: Arc::clone(checkpoint), file, unsynced: false }, resumed))
    }

    pub(super) fn met(&mut self, files: &[Met]) -> Result<(), TaskError> {
        files.iter().try_for_each(|met| self.append(&Event::Met(met.clone())))
    }

    pub(super) fn ended(&mut self, file: &Met, at: i64) -> Result<(), TaskError> {
        self.append(&Event::Ended { at, file: file.clone() })
    }

    fn append(&mut self, event: &Event) -> Result<(), TaskError> {
        let line = line(event)?;
        self.unsynced = true;
        self.checkpoint.io(NAME, self.file.write_all(line.as_bytes()))
    }

    /// Makes the log last; called before an entry counts the records of its files.
    pub(super) fn sync(&mut self) -> Result<(), TaskError> {
        if !std::mem::take(&mut self.unsynced) || !self.checkpoint.is_durable() {
            return Ok(());
        }
        self.checkpoint.io(NAME, self.file.sync_data())
    }
}

fn line(event: &Event) -> Result<String, TaskError> {
    let text = serde_json::to_string(event).map_err(|error| TaskError::Fatal(format!("an event of a file cannot be written: {error}")))?;
    Ok(text + "\n")
}

/// The offset at which the queue begins, and the rest.
fn resume(events: Vec<Event>, folder: &Path, position: i64) -> (i64, Resumed) {
    let (mut begin, mut resumed) = (0, Resumed::default());
    for event in events {
        match event {
            Event::Base { at } => begin = at,
            Event::Met(met) => resumed.queue.push_back(met),
            Event::Ended { at, file } if at <= position => {
                begin = at;
                if resumed.queue.front().is_some_and(|first| first.file == file.file) {
                    resumed.queue.pop_front();
                }
                resumed.done.push(file);
            }
            // Its records are in no entry, or not all of them.
            Event::Ended { .. } => {}
        }
    }
    resumed.done.retain(|met| watch::is_there(folder, met));
    resumed.skip = position - begin;
    let read = resumed.done.iter().map(|met| (met.file.clone(), true));
    resumed.seen = read.chain(resumed.queue.iter().map(|met| (met.file.clone(), false))).collect();
    (begin, resumed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn met(folder: &Path, file: &str) -> Met {
        std::fs::write(folder.join(file), "x").unwrap();
        watch::met(folder, file).unwrap()
    }

    #[test]
    fn a_position_finds_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b", "c"].map(|file| met(folder.path(), file));
        let events = || {
            let [a, b, c] = files.clone();
            let met = [a.clone(), b.clone(), c].map(Event::Met);
            met.into_iter().chain([Event::Ended { at: 10, file: a }, Event::Ended { at: 30, file: b }]).collect()
        };
        for (position, begin, queue, skip) in [
            (0, 0, vec!["a", "b", "c"], 0),
            (4, 0, vec!["a", "b", "c"], 4),
            (10, 10, vec!["b", "c"], 0),
            (29, 10, vec!["b", "c"], 19),
            (30, 30, vec!["c"], 0),
        ] {
            let (found, resumed) = resume(events(), folder.path(), position);
            let names: Vec<&str> = resumed.queue.iter().map(|met| met.file.as_str()).collect();
            assert_eq!((found, names, resumed.skip), (begin, queue, skip), "position {position}");
            assert_eq!(resumed.done.len() + resumed.queue.len(), resumed.seen.len());
        }
    }

    #[test]
    fn a_log_survives_its_reopening_and_a_torn_line() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = ["a", "b"].map(|file| met(folder.path(), file));
        let dir = super::super::super::super::checkpoint::CheckpointDir::at(state.path());
        {
            let checkpoint = Arc::new(dir.open().unwrap());
            let (mut log, resumed) = FileLog::open(&checkpoint, folder.path(), 0).unwrap();
            assert!(resumed.queue.is_empty() && resumed.skip == 0);
            log.met(&files).unwrap();
            log.ended(&files[0], 10).unwrap();
            log.sync().unwrap();
            log.file.write_all(br#"{"event":"ended","at":20,"fi"#).unwrap();
        }
        for _ in 0..2 {
            let checkpoint = Arc::new(dir.open().unwrap());
            let (_, resumed) = FileLog::open(&checkpoint, folder.path(), 12).unwrap();
            assert_eq!((resumed.queue.len(), resumed.done.len(), resumed.skip), (1, 1, 2));
        }
        // A file that is gone is not remembered.
        std::fs::remove_file(folder.path().join("a")).unwrap();
        let checkpoint = Arc::new(dir.open().unwrap());
        let (_, resumed) = FileLog::open(&checkpoint, folder.path(), 12).unwrap();
        assert_eq!((resumed.queue.len(), resumed.done.len(), resumed.skip), (1, 0, 2));
    }
}
