//! The stream as a feed of records.

use std::sync::Arc;
use std::time::Duration;

use common::Shutdown;
use prometheus::IntCounterVec;
use tokio::task::JoinHandle;

use super::super::super::checkpoint::Checkpoint;
use super::super::super::error::TaskError;
use super::super::super::owner::Owner;
use super::super::super::records::Records;
use super::super::super::status::now_ms;
use super::super::columns::Columns;
use super::super::local::{Feed, Pulled};
use super::client::{Client, Fault};
use super::desk::Desk;
use super::merge::{Merge, Shard};
use super::positions::Positions;
use super::reader::Readers;
use crate::engine::Input;
use crate::format::decode::Decoder;
use crate::query::StreamQuery;
use crate::query::file::{Kinesis as Settings, Start};

/// Rows that are given at a time.
const PULL: usize = 1000;
/// Pause before another try to find the stream.
const RETRY: Duration = Duration::from_secs(1);

pub(in super::super) struct Kinesis {
    desk: Arc<Desk>,
    positions: Positions,
    columns: Columns,
    next: i64,
    /// The offset and the moment at which it was asked whether anything is there.
    looked: Option<(i64, u64)>,
    stop: Shutdown,
    task: JoinHandle<()>,
}

impl Kinesis {
    pub(in super::super) fn open(
        query: &StreamQuery,
        checkpoint: &Arc<Checkpoint>,
        position: Option<i64>,
        dropped: &IntCounterVec,
        owner: &Owner,
    ) -> Result<Self, TaskError> {
        let Some(settings) = query.file.source.kinesis.clone() else {
            return Err(TaskError::Fatal("[source.kinesis] is missing".into()));
        };
        let (client, shards) = find(&settings, owner)?;
        let (next, now) = (position.unwrap_or(0), now_ms());
        let mut fresh = false;
        let positions = Positions::open(checkpoint, next, || {
            fresh = true;
            (now, shards.iter().map(|shard| shard.id.clone()).collect())
        })?;
        if let Start::At(time) = settings.start
            && time > now
        {
            return Err(TaskError::Fatal("source.kinesis.start is a time that has not come yet; use \"latest\" to begin now".into()));
        }
        let (merge, lost) = Merge::new(shards, positions.places(), query.file.query.trigger.is_bounded());
        for id in lost {
            tracing::error!(
                query = query.file.name,
                shard = id,
                "the stream no longer has this shard: what was in it and not read is lost; read it sooner, or let it keep records for longer"
            );
        }
        let (desk, stop) = (Arc::new(Desk::new(merge)), Shutdown::manual());
        let columns = Columns::new(query, settings.payload, &settings.own);
        let readers = Arc::new(Readers {
            query: query.file.name.clone(),
            client,
            desk: Arc::clone(&desk),
            settings,
            began: positions.base.began,
            first: positions.base.first.iter().cloned().collect(),
            fresh,
            dropped: dropped.clone(),
        });
        let task = owner.runtime.spawn({
            let stop = stop.clone();
            async move { readers.run(&stop).await }
        });
        Ok(Self { desk, positions, columns, next, looked: None, stop, task })
    }
}

/// The stream and its shards. A stream that does not answer is waited for; one that is not there, or not for us, is a fault.
fn find(settings: &Settings, owner: &Owner) -> Result<(Client, Vec<Shard>), TaskError> {
    let mut said = None;
    loop {
        owner.beat();
        let found = owner.runtime.block_on(async {
            tokio::select! {
                () = owner.stop.wait() => None,
                found = async {
                    let client = Client::new(settings).await?;
                    let shards = client.shards().await?;
                    Ok::<_, Fault>((client, shards))
                } => Some(found),
            }
        });
        match found {
            None => return Err(TaskError::Stopped),
            Some(Ok(found)) => return Ok(found),
            Some(Err(Fault::Gone(cause) | Fault::Refused(cause))) => return Err(TaskError::Fatal(cause)),
            Some(Err(Fault::Throttled | Fault::Expired)) => {}
            Some(Err(Fault::Away(cause))) => {
                if said.as_ref() != Some(&cause) {
                    tracing::warn!("{cause}: trying again");
                    said = Some(cause);
                }
            }
        }
        if owner.stop.wait_timeout(RETRY) {
            return Err(TaskError::Stopped);
        }
    }
}

impl Feed for Kinesis {
    fn pull(&mut self, records: &mut Records, most: usize, patience: Duration) -> Result<Pulled, TaskError> {
        if self.task.is_finished() {
            return Err(TaskError::Retry("the task that reads the Kinesis stream has ended".into()));
        }
        let rows = self.desk.take(most.min(PULL), patience);
        let pulled = if rows.is_empty() { Pulled::Nothing } else { Pulled::Some };
        for row in rows {
            records.push(self.next, row.received, Some(row.key.as_bytes()), Some(&row.payload));
            self.next += 1;
        }
        Ok(pulled)
    }

    /// Asks each shard anew: the first look begins a question, and a later one has the answer.
    fn is_at_end(&mut self) -> bool {
        let (_, moment) = *self.looked.filter(|(offset, _)| *offset == self.next).get_or_insert_with(|| (self.next, self.desk.ask()));
        let empty = self.desk.is_empty_since(moment);
        self.looked = (!empty).then_some((self.next, moment));
        empty
    }

    fn is_spent(&self) -> bool {
        self.desk.is_spent()
    }

    fn is_away(&self) -> bool {
        self.desk.is_away()
    }

    fn decode(&self, records: &Records, _decoder: &mut Decoder) -> Result<Input, TaskError> {
        Ok(records.input(self.columns.decode(records).map_err(TaskError::Fatal)?))
    }

    fn settle(&mut self) -> Result<(), TaskError> {
        self.positions.append(self.next, self.desk.take_changed())
    }
}

impl Drop for Kinesis {
    fn drop(&mut self) {
        self.stop.trigger();
        self.task.abort();
    }
}
