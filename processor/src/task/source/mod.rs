//! Where a worker's records come from: a topic ([`Reader`]), or what Spark's other sources read ([`Local`]).
//!
//! ```text
//! Source ── Reader    partitions of a topic
//!        ├─ Partials  what the shards that read partitions have in their journals, for one that merges
//!        └─ Local     one partition with offsets of its own: pace, idleness and ends; over a Feed
//!             Feed ── socket.rs   lines; each once, none again
//!                  ├─ rate.rs     rows that follow from their number
//!                  ├─ mqtt/       messages of a broker that keeps them until they are acknowledged
//!                  ├─ kinesis/    records of a stream's shards, in the order in which they came
//!                  └─ files/      a watched directory, with a log of which file has which offsets
//! ```

mod columns;
mod files;
#[cfg(any(test, feature = "kinesis"))]
mod kinesis;
mod local;
mod mqtt;
mod partials;
mod rate;
mod socket;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Settings;
use prometheus::IntCounterVec;

pub(crate) use local::Local;
pub(crate) use partials::{Partial, Partials};

use super::checkpoint::Checkpoint;
use super::error::TaskError;
use super::input::{BATCH, Reader};
use super::owner::Owner;
use super::records::Records;
use crate::engine::Input;
use crate::format::decode::Decoder;
use crate::query::StreamQuery;
use crate::query::file::SourceFormat;

/// What ended a [`Source::fill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// As many rows as a step takes.
    Full,
    /// No more rows just now.
    Drained,
    /// The time was up.
    Due,
}

/// The input partitions of one shard, read in order.
pub(crate) trait Source {
    /// Takes records until the step is full, nothing more is there, or it is `due`. Waits for a first record up to `patience`.
    fn fill(&mut self, patience: Duration, due: Option<Instant>, owner: &Owner) -> Result<Filled, TaskError>;

    /// Whether the rows of further steps are waiting, for all that is known without asking.
    fn lags(&self) -> bool {
        false
    }

    /// How many records the step has.
    fn rows(&self) -> usize;

    /// The records so far, by partition; partitions without any are left out.
    fn taken(&self) -> Vec<&Records>;

    /// Decodes records that were taken.
    fn decode(&self, records: &Records, decoder: &mut Decoder) -> Result<Input, TaskError> {
        records.decode(decoder)
    }

    /// Itself, when it brings no records and what others have made of theirs.
    fn partials(&mut self) -> Option<&mut Partials> {
        None
    }

    /// Forgets the records so far; their buffers stay.
    fn clear(&mut self);

    /// Makes what it knows of the records last; an entry is about to count them.
    fn settle(&mut self) -> Result<(), TaskError> {
        Ok(())
    }

    /// For a while nobody has listened, because the log took nothing: it may have been away, and silence of that time is none.
    ///
    /// # Errors
    /// When it cannot be read on.
    fn was_deaf(&mut self) -> Result<(), TaskError> {
        Ok(())
    }

    /// The records up to here are in the journal.
    fn committed(&mut self, positions: &BTreeMap<i32, i64>) -> Result<(), TaskError> {
        let _ = positions;
        Ok(())
    }

    /// Whether a bounded run has read everything that was there at its start.
    fn is_done(&self) -> bool;

    /// Of a bounded run: each partition with the offsets from where and to where it is read, where that is known.
    fn goal(&self) -> BTreeMap<i32, (i64, i64)>;

    /// For each partition its end as its place says it now, or the offset `most` beyond the one that it stands at when that is nearer.
    fn ends_within(&self, most: i64, owner: &Owner) -> Result<BTreeMap<i32, i64>, TaskError>;

    /// Whether a step has taken all rows before `target`. The last offsets of a partition may have no rows.
    fn has_passed(&self, partition: i32, target: i64) -> bool;

    /// Of each partition: whether it is read to its end, and for how long no row has come while its place could be heard.
    fn quiet(&self) -> Vec<(i32, bool, Duration)>;

    /// Whether the place of the records has not answered since it was last asked.
    fn is_away(&self) -> bool;

    /// Whether nothing lies beyond `offset`, asked anew.
    fn stands_at_end(&mut self, partition: i32, offset: i64) -> bool;

    /// The partitions that are read to their ends and have been quiet for `timeout`, with the offsets that they stand at. Never one with
    /// rows that a step has still to take.
    fn idle(&self, timeout: Duration) -> Vec<(i32, i64)>;
}

/// Opens the source of a query where its state stands. `dropped` counts what a source leaves out, by query and reason.
///
/// # Errors
/// When it cannot be had.
pub(crate) fn open(
    settings: &Settings,
    query: &StreamQuery,
    positions: &BTreeMap<i32, Option<i64>>,
    checkpoint: Option<&Arc<Checkpoint>>,
    dropped: &IntCounterVec,
    owner: &Owner,
) -> Result<Box<dyn Source>, TaskError> {
    let Some(checkpoint) = checkpoint.filter(|_| !query.file.source.is_kafka()) else {
        return Ok(Box::new(Reader::start(settings, query, positions, owner)?));
    };
    let position = positions.get(&0).copied().flatten();
    let most = settings.processor.max_rows_per_step.min(BATCH);
    Ok(match query.file.source.format {
        SourceFormat::Socket | SourceFormat::Kafka => Box::new(Local::new(query, socket::Socket::open(query, position)?, position, most)),
        SourceFormat::Rate => Box::new(Local::new(query, rate::Rate::open(query, checkpoint, position)?, position, most)),
        SourceFormat::Mqtt => {
            let in_flight = query.file.source.mqtt.as_ref().map_or(most, |mqtt| usize::from(mqtt.receive_maximum));
            let feed = mqtt::Mqtt::open(query, position, checkpoint.is_durable(), dropped, owner)?;
            // The broker sends no more without acknowledgements, so a step of so many rows must not wait for its tick.
            Box::new(Local::new(query, feed, position, most.min(in_flight)))
        }
        #[cfg(feature = "kinesis")]
        SourceFormat::Kinesis => {
            Box::new(Local::new(query, kinesis::Kinesis::open(query, checkpoint, position, dropped, owner)?, position, most))
        }
        #[cfg(not(feature = "kinesis"))]
        SourceFormat::Kinesis => return Err(TaskError::Fatal("this program was built without the source \"kinesis\"".into())),
        SourceFormat::Csv | SourceFormat::Json | SourceFormat::Parquet | SourceFormat::Text => {
            Box::new(Local::new(query, files::Files::open(query, checkpoint, position)?, position, most))
        }
    })
}
