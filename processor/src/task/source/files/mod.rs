//! A watched directory: each file once, in an order that a log keeps.
//!
//! ```text
//! directory ──watch.rs──▶ names in order ──log.rs──▶ which file has which offsets ──content.rs──▶ records
//! ```
//! A record's offset counts the records of all files before it. The log of the files is on the disk before an entry counts their records, so
//! a restart opens the file in which its position lies and steps over what was read. A file must be put into the directory as a whole, by a
//! rename, and must not change any more.

mod content;
mod log;
mod watch;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use super::super::checkpoint::Checkpoint;
use super::super::error::TaskError;
use super::super::records::Records;
use super::local::{Feed, Pulled};
use crate::engine::Input;
use crate::format::decode::Decoder;
use crate::query::StreamQuery;
use crate::query::file::{CleanSource, Source};
use content::{Content, Segments};
use log::{FileLog, Met};
use watch::Watch;

/// Records that are taken from a file at a time.
const PULL: usize = 1000;

pub(super) struct Files {
    source: Source,
    schema: SchemaRef,
    folder: PathBuf,
    watch: Watch,
    log: FileLog,
    /// Met and not read, in order.
    queue: VecDeque<Met>,
    current: Option<Open>,
    next: i64,
    /// Files whose last record the step has, or an earlier one that is not committed: the offset behind it.
    ended: Vec<(i64, Met)>,
    files_in_step: usize,
    segments: Segments,
}

/// A file that is being read.
struct Open {
    met: Met,
    content: Content,
}

impl Files {
    pub(super) fn open(query: &StreamQuery, checkpoint: &Arc<Checkpoint>, position: Option<i64>) -> Result<Self, TaskError> {
        let source = query.file.source.clone();
        let folder = source.path.clone().unwrap_or_default();
        if !folder.is_dir() {
            return Err(TaskError::Fatal(format!(
                "source.path: {} is no directory; make it, or correct the path in the query file",
                folder.display()
            )));
        }
        let position = position.unwrap_or(0);
        let (log, resumed) = FileLog::open(checkpoint, &folder, position)?;
        let bounded = query.file.query.trigger.is_bounded();
        let watch = Watch::new(folder.clone(), source.order.unwrap_or_default(), bounded, resumed.seen);
        let mut files = Self {
            schema: Arc::clone(&query.schema),
            source,
            folder,
            watch,
            log,
            queue: resumed.queue,
            current: None,
            next: position,
            ended: Vec::new(),
            files_in_step: 0,
            segments: Segments::default(),
        };
        for met in resumed.done {
            files.clean(&met);
        }
        if resumed.skip > 0 {
            files.resume(resumed.skip)?;
        }
        Ok(files)
    }

    /// Opens the file in which the position lies, and steps over its first records.
    fn resume(&mut self, skip: i64) -> Result<(), TaskError> {
        let lost = |name: &str, why: &str| {
            TaskError::Fatal(format!(
                "the file {name} of the source was read in part when the query stopped, and {why}; put the file back as it was, or begin anew \
                 with another checkpoint directory"
            ))
        };
        let Some(met) = self.queue.pop_front() else { return Err(lost("that comes next", "the log of the files does not name it")) };
        if !self.watch.is_as_met(&met) {
            return Err(lost(&met.file, "it has changed since, or is gone"));
        }
        let content = Content::open(&self.folder.join(&met.file), &self.source, &self.schema, met.modified);
        let mut content = content.map_err(|cause| lost(&met.file, &format!("it cannot be read any more ({cause})")))?;
        if content.skip(skip) < skip {
            return Err(lost(&met.file, "it has fewer rows than were read"));
        }
        self.current = Some(Open { met, content });
        Ok(())
    }

    /// The file to read from, or `None` when there is none now.
    fn file(&mut self, records: &mut Records) -> Result<Option<&mut Open>, TaskError> {
        while self.current.is_none() {
            if self.queue.is_empty() {
                let met = self.watch.look()?;
                self.log.met(&met)?;
                self.queue.extend(met);
            }
            let Some(met) = self.queue.pop_front() else { return Ok(None) };
            let path = self.folder.join(&met.file);
            match Content::open(&path, &self.source, &self.schema, met.modified) {
                Ok(content) => self.current = Some(Open { met, content }),
                Err(cause) => {
                    // The file as a whole is one record that cannot be read: it is counted, told, and its neighbours pass.
                    let detail = format!("the file {} cannot be read: {cause}", path.display());
                    self.segments.bad(records.len(), detail);
                    records.push(self.next, -1, None, Some(met.file.as_bytes()));
                    self.next += 1;
                    self.end(&met, true)?;
                    return Ok(None);
                }
            }
        }
        Ok(self.current.as_mut())
    }

    fn end(&mut self, met: &Met, failed: bool) -> Result<(), TaskError> {
        self.log.ended(met, self.next)?;
        self.files_in_step += 1;
        if !failed {
            self.ended.push((self.next, met.clone()));
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.source.max_files_per_trigger.is_some_and(|most| self.files_in_step >= most)
    }

    /// Does with a file that is read what `clean_source` says. What cannot be done is only said: the file is not read again.
    fn clean(&mut self, met: &Met) {
        let path = self.folder.join(&met.file);
        let done = match self.source.clean_source.unwrap_or_default() {
            CleanSource::Off => return,
            CleanSource::Delete => std::fs::remove_file(&path),
            CleanSource::Archive => watch::archive(&path, self.source.source_archive_dir.as_deref().unwrap_or(&self.folder)),
        };
        match done {
            Ok(()) => self.watch.forget(&met.file),
            Err(error) => {
                tracing::warn!("the file {} is read, and could not be put away: {error}; it is not read again", path.display());
            }
        }
    }
}

impl Feed for Files {
    fn pull(&mut self, records: &mut Records, most: usize, patience: Duration) -> Result<Pulled, TaskError> {
        let before = records.len();
        while records.len() == before {
            let (next, is_text) = (self.next, self.source.format == crate::query::file::SourceFormat::Text);
            let Some(open) = self.file(records)? else {
                if records.len() > before {
                    break;
                }
                self.watch.wait(patience);
                return Ok(Pulled::Nothing);
            };
            let received = if is_text { open.met.modified } else { -1 };
            let (first, kind) = (records.len(), open.content.kind());
            let mut offset = next;
            let more = open.content.take(most.min(PULL), |payload| {
                records.push(offset, received, None, Some(payload));
                offset += 1;
            });
            let ended = if more { None } else { self.current.take() };
            self.next = offset;
            self.segments.rows(first, records.len(), kind);
            if let Some(open) = ended {
                if let Some(cause) = open.content.fault() {
                    let detail = format!("the rest of the file {} cannot be read: {cause}", self.folder.join(&open.met.file).display());
                    self.segments.bad(records.len(), detail);
                    records.push(self.next, -1, None, Some(open.met.file.as_bytes()));
                    self.next += 1;
                }
                self.end(&open.met, open.content.fault().is_some())?;
                if self.is_full() {
                    return Ok(Pulled::Break);
                }
            }
        }
        Ok(if self.is_full() { Pulled::Break } else { Pulled::Some })
    }

    fn is_at_end(&mut self) -> bool {
        self.current.is_none() && self.queue.is_empty() && self.watch.is_empty()
    }

    fn decode(&self, records: &Records, decoder: &mut Decoder) -> Result<Input, TaskError> {
        Ok(records.input(self.segments.decode(records, decoder).map_err(TaskError::Fatal)?))
    }

    fn clear(&mut self) {
        self.segments.clear();
        self.files_in_step = 0;
    }

    fn settle(&mut self) -> Result<(), TaskError> {
        self.log.sync()
    }

    fn committed(&mut self, position: i64) -> Result<(), TaskError> {
        let (done, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ended).into_iter().partition(|(end, _)| *end <= position);
        self.ended = open;
        done.iter().for_each(|(_, met)| self.clean(met));
        Ok(())
    }
}
