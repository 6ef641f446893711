//! Batches for a sink outside Kafka: rows wait for their entry, and leave together under its number.
//!
//! A query without a grouping has its rows before the entry, and after a crash the input may be cut in another way. So they are staged
//! beside the state first, and go out when the entry is there: a number that was given out never gets other rows. The rows of a grouping
//! follow from the entry and need no staging.

use std::fmt::Write as _;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde_json::json;

use super::super::checkpoint::{Checkpoint, numbered, open_frame, seal, write_whole};
use super::super::deliver::Deliverer;
use super::super::error::TaskError;
use super::super::lanes::Lane;
use super::super::owner::Owner;
use super::super::records::Records;
use super::{Batch, Delivery, Sink};
use crate::engine::{Output, PlainRows, Refused};
use crate::format::base64;
use crate::query::StreamQuery;

const STAGED: u8 = 3;
/// The file that holds the number of the newest batch that the sink has. It is not synced: an old number only gives a batch once more.
const DELIVERED: &str = "delivered";

pub(crate) struct Batches {
    query: Arc<StreamQuery>,
    checkpoint: Arc<Checkpoint>,
    /// Of a source in Kafka: its lanes are topics.
    topics: Option<Deliverer>,
    sink: Box<dyn Sink>,
    /// The number of the next entry.
    next: i64,
    /// The newest batch that the sink is known to have taken; it need not get it again.
    delivered: i64,
    staged: Vec<RecordBatch>,
    /// Whether `staged` has rows that the disk does not have.
    unsaved: bool,
    results: Vec<RecordBatch>,
    late: LaneFile,
    dead: LaneFile,
}

/// The rows of the next entry in one lane.
struct LaneFile {
    lane: Lane,
    lines: String,
    unsaved: bool,
}

impl LaneFile {
    fn new(lane: Lane) -> Self {
        Self { lane, lines: String::new(), unsaved: false }
    }

    fn name(&self, entry: i64) -> String {
        format!("lanes/{}/{}.jsonl", self.lane.name(), numbered(entry))
    }

    fn push(&mut self, records: &Records, refused: &[Refused], stage: &str) {
        for row in refused {
            let record = records.get(row.index as usize);
            let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let mut line = json!({
                "source": records.topic(), "offset": record.offset, "timestamp": record.timestamp, "reason": row.reason,
                "detail": row.detail, "stage": stage, "payload": text(record.payload),
            });
            if record.key.is_some() {
                line["key"] = json!(text(record.key));
            }
            if let Some(payload) = record.payload.filter(|payload| std::str::from_utf8(payload).is_err()) {
                line["payload_base64"] = json!(base64::text(payload));
            }
            // Writing into a string does not fail.
            writeln!(self.lines, "{line}").unwrap_or_default();
            self.unsaved = true;
        }
    }
}

impl Batches {
    /// Goes on behind the entry `last`. Rows that are staged for it are given with it once more; later ones never were.
    pub(super) fn open(
        query: &Arc<StreamQuery>,
        checkpoint: Arc<Checkpoint>,
        topics: Option<Deliverer>,
        mut sink: Box<dyn Sink>,
        last: i64,
        fresh: bool,
    ) -> Result<Self, TaskError> {
        sink.rewind(last, fresh)?;
        let (late, dead) = (LaneFile::new(Lane::Late), LaneFile::new(Lane::Dead));
        for lane in [&late, &dead] {
            let folder = format!("lanes/{}", lane.lane.name());
            for number in checkpoint.numbers(&folder, ".jsonl")?.into_iter().filter(|number| *number > last) {
                checkpoint.remove(&lane.name(number))?;
            }
        }
        let mut staged = Vec::new();
        for number in checkpoint.numbers("staged", "")? {
            match number == last {
                true => staged = read_staged(&checkpoint, number)?,
                false => checkpoint.remove(&staged_name(number))?,
            }
        }
        let query = Arc::clone(query);
        let told = std::fs::read_to_string(checkpoint.file(DELIVERED)).ok().and_then(|text| text.trim().parse().ok());
        // A later number is of a batch that is computed again.
        let delivered = told.filter(|_| sink.remembers()).unwrap_or(-1).min(last);
        Ok(Self { delivered, query, checkpoint, topics, sink, next: last + 1, staged, unsaved: false, results: Vec::new(), late, dead })
    }

    fn save_lane(checkpoint: &Checkpoint, lane: &mut LaneFile, entry: i64) -> Result<(), TaskError> {
        if !std::mem::take(&mut lane.unsaved) {
            return Ok(());
        }
        let name = lane.name(entry);
        checkpoint.io(&name, write_whole(&checkpoint.file(&name), lane.lines.as_bytes(), checkpoint.is_durable()))
    }

    fn save_staged(&mut self) -> Result<(), TaskError> {
        if !std::mem::take(&mut self.unsaved) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let written = StreamWriter::try_new(&mut bytes, &self.query.output).and_then(|mut writer| {
            self.staged.iter().try_for_each(|rows| writer.write(rows))?;
            writer.finish()
        });
        written.map_err(|error| TaskError::Fatal(format!("rows cannot be staged: {error}")))?;
        let name = staged_name(self.next);
        let written = write_whole(&self.checkpoint.file(&name), &seal(STAGED, self.next, &bytes), self.checkpoint.is_durable());
        self.checkpoint.io(&name, written)
    }
}

fn staged_name(number: i64) -> String {
    format!("staged/{}", numbered(number))
}

fn read_staged(checkpoint: &Checkpoint, number: i64) -> Result<Vec<RecordBatch>, TaskError> {
    let name = staged_name(number);
    let file = checkpoint.io(&name, std::fs::read(checkpoint.file(&name)))?;
    // They were there before their entry, so a whole entry with damaged rows is a disk that forgets.
    let bytes = open_frame(STAGED, number, &file).map_err(|cause| checkpoint.damaged(&name, &cause))?;
    let read = StreamReader::try_new(Cursor::new(bytes), None).and_then(Iterator::collect);
    read.map_err(|error| checkpoint.damaged(&name, &error.to_string()))
}

impl Delivery for Batches {
    fn lanes(&mut self, records: &Records, late: &[Refused], dead: &[Refused], owner: &Owner) -> Result<(), TaskError> {
        if let Some(topics) = &mut self.topics {
            return topics.lanes(records, late, dead, owner);
        }
        let stage = &self.query.file.name;
        self.late.push(records, late, stage);
        self.dead.push(records, dead, stage);
        for (lane, refused) in [("late", late), ("dead", dead)] {
            if let Some(first) = refused.first() {
                let folder = self.checkpoint.file("lanes").join(lane);
                tracing::warn!(query = stage, rows = refused.len(), first = first.detail, lane = %folder.display(), "rows are set aside");
            }
        }
        Ok(())
    }

    fn plain_rows(&mut self, _records: &Records, plain: &PlainRows, _base: i64, _owner: &Owner) -> Result<(), TaskError> {
        if plain.rows.num_rows() > 0 {
            self.staged.push(plain.rows.clone());
            self.unsaved = true;
        }
        Ok(())
    }

    fn results(&mut self, _query: &StreamQuery, output: &Output, _revision: i64, _owner: &Owner) -> Result<(), TaskError> {
        let rows = output.changed_rows().map_err(|error| TaskError::Fatal(format!("a batch cannot be filtered: {error}")))?;
        if rows.num_rows() > 0 {
            self.results.push(rows);
        }
        Ok(())
    }

    fn flush(&mut self, owner: &Owner) -> Result<(), TaskError> {
        Self::save_lane(&self.checkpoint, &mut self.late, self.next)?;
        Self::save_lane(&self.checkpoint, &mut self.dead, self.next)?;
        self.save_staged()?;
        self.topics.as_mut().map_or(Ok(()), |topics| topics.flush(owner))
    }

    fn hear(&mut self, owner: &Owner) -> Result<(), TaskError> {
        self.topics.as_mut().map_or(Ok(()), |topics| topics.hear(owner))
    }

    fn committed(&mut self, entry: i64, owner: &Owner) -> Result<(), TaskError> {
        let rows = concat_batches(&self.query.output, self.staged.iter().chain(&self.results))
            .map_err(|error| TaskError::Fatal(format!("the rows of a batch do not fit together: {error}")))?;
        if entry > self.delivered {
            self.sink.write(&Batch { id: entry, rows, is_whole: self.query.is_complete() }, owner)?;
            let written = write_whole(&self.checkpoint.file(DELIVERED), entry.to_string().as_bytes(), false);
            self.checkpoint.io(DELIVERED, written)?;
            self.delivered = entry;
        }
        if !self.staged.is_empty() {
            self.checkpoint.remove(&staged_name(entry))?;
        }
        self.staged.clear();
        self.results.clear();
        self.late.lines.clear();
        self.dead.lines.clear();
        self.next = entry + 1;
        Ok(())
    }
}
