//! Where results and lanes go: topics ([`Deliverer`]), or a [`Sink`] outside Kafka behind [`Batches`].
//!
//! ```text
//! Delivery ── Deliverer   records into topics, lanes' rows held a moment; identity and revision let a reader forget what comes twice
//!          └─ Batches     the rows of an entry together, once the entry is there; the entry's number lets a sink forget it
//!               Sink ── console.rs   a table on standard output
//!                    ├─ files/       files of a directory
//!                    ├─ foreach.rs   a program or a web address
//!                    └─ memory.rs    a table that `/tables` shows
//! ```

mod batches;
mod body;
mod console;
mod files;
mod foreach;
mod memory;
mod rows;

use std::sync::Arc;

use arrow::array::RecordBatch;
use common::Settings;

pub(crate) use batches::Batches;
pub(crate) use memory::Tables;

use super::checkpoint::Checkpoint;
use super::deliver::Deliverer;
use super::error::TaskError;
use super::owner::Owner;
use super::records::Records;
use crate::engine::{Output, PlainRows, Refused};
use crate::query::StreamQuery;
use crate::query::file::SinkFormat;

/// Takes what a worker's steps give out.
pub(crate) trait Delivery {
    /// Rows that are set aside, whole, with where they were and why they are there. They may be held until [`Delivery::before_entry`] or
    /// [`Delivery::flush`].
    fn lanes(&mut self, records: &Records, late: &[Refused], dead: &[Refused], owner: &Owner) -> Result<(), TaskError>;

    /// The results of a query without a grouping; they come before their entry.
    fn plain_rows(&mut self, records: &Records, plain: &PlainRows, base: i64, owner: &Owner) -> Result<(), TaskError>;

    /// The result rows of an entry.
    fn results(&mut self, query: &StreamQuery, output: &Output, revision: i64, owner: &Owner) -> Result<(), TaskError>;

    /// Waits until an entry may be appended to a journal whose restore gives the rows of the newest *two* again: until the lanes, and the
    /// results of all entries but the newest, last. What comes then are the results of the next entry.
    fn before_entry(&mut self, owner: &Owner) -> Result<(), TaskError> {
        self.flush(owner)
    }

    /// Waits until everything so far lasts.
    fn flush(&mut self, owner: &Owner) -> Result<(), TaskError>;

    /// The entry is in the journal, and all of its rows were given.
    fn committed(&mut self, entry: i64, owner: &Owner) -> Result<(), TaskError>;

    /// Takes in what its client has to say, and lets go of what it holds, while nothing else is to be done.
    fn hear(&mut self, _owner: &Owner) -> Result<(), TaskError> {
        Ok(())
    }
}

/// The rows of one entry.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The entry's number. The same number has the same rows, however often it comes.
    pub(crate) id: i64,
    pub(crate) rows: RecordBatch,
    /// Whether they are the whole result, which replaces the one before.
    pub(crate) is_whole: bool,
}

/// Takes batches in the order of their numbers.
pub(crate) trait Sink {
    /// Takes a batch; when it returns, the batch lasts. The newest one may come again after a crash.
    fn write(&mut self, batch: &Batch, owner: &Owner) -> Result<(), TaskError>;

    /// Whether it has what it took after a restart of the program.
    fn remembers(&self) -> bool {
        true
    }

    /// Takes back what it has of batches after `last`: their entries are lost, and their rows will be computed again. `fresh`: there is no
    /// state, so the query has never written.
    fn rewind(&mut self, last: i64, fresh: bool) -> Result<(), TaskError> {
        let _ = (last, fresh);
        Ok(())
    }
}

/// Opens the way out of a query that has a checkpoint directory, `last` being its newest entry; `fresh`: there is none.
///
/// # Errors
/// When the sink cannot be had.
pub(crate) fn open(
    settings: &Settings,
    query: &Arc<StreamQuery>,
    checkpoint: &Arc<Checkpoint>,
    (last, fresh): (i64, bool),
) -> Result<Box<dyn Delivery>, TaskError> {
    if query.file.sink.is_kafka() {
        return Ok(Box::new(Deliverer::new(settings, query)?));
    }
    let options = &query.file.sink;
    let sink: Box<dyn Sink> = match options.format {
        SinkFormat::Kafka | SinkFormat::Console => Box::new(console::Console::new(options)),
        SinkFormat::Memory => Box::new(memory::Memory::open(&query.file.name, options, &query.output)),
        SinkFormat::Csv | SinkFormat::Json | SinkFormat::Parquet => Box::new(files::Files::open(query, checkpoint.is_durable())?),
        SinkFormat::Foreach => Box::new(foreach::Foreach::new(&query.file.name, options)),
    };
    let lanes = if query.file.source.is_kafka() { Some(Deliverer::new(settings, query)?) } else { None };
    Ok(Box::new(Batches::open(query, Arc::clone(checkpoint), lanes, sink, last, fresh)?))
}
