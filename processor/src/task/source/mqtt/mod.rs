//! Messages of an MQTT broker, straight into a query.
//!
//! ```text
//! broker ─▶ connection.rs ─▶ inbox.rs ─▶ step ─▶ entry in the checkpoint
//!    ▲                                             │
//!    └───── acknowledged, in the order of receipt ◀┘
//! ```
//! The session is the broker's memory of what no entry counts. A message is acknowledged when the entry that counts it is on the disk, so a
//! crash loses nothing: what has no acknowledgement comes again. It may have been counted, and is counted once more then. No memory of our
//! own could tell for sure: the broker gives the number of a message to another one as soon as it has the acknowledgement, and two messages
//! of the same text are nothing unusual.

mod connection;
mod inbox;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::Shutdown;
use common::mqtt::options::check_files;
use prometheus::IntCounterVec;
use tokio::task::JoinHandle;

use self::connection::Connection;
use self::inbox::{Inbox, Receipt};
use super::super::error::TaskError;
use super::super::owner::Owner;
use super::super::records::Records;
use super::columns::Columns;
use super::local::{Feed, Pulled};
use crate::engine::Input;
use crate::format::decode::Decoder;
use crate::query::StreamQuery;

/// How long the farewell to the broker may take.
const FAREWELL: Duration = Duration::from_secs(3);

pub(super) struct Mqtt {
    inbox: Arc<Inbox>,
    columns: Columns,
    next: i64,
    /// The records before this one are in an entry.
    committed: i64,
    /// Of each message that a step has, or that is counted and could not be acknowledged yet: its offset, and what acknowledges it.
    open: VecDeque<(i64, Receipt)>,
    stop: Shutdown,
    task: JoinHandle<()>,
    /// Disconnected when the task has ended.
    ended: Receiver<()>,
}

impl Mqtt {
    /// `durable`: the state outlives this run, and so must the session.
    pub(super) fn open(
        query: &StreamQuery,
        position: Option<i64>,
        durable: bool,
        dropped: &IntCounterVec,
        owner: &Owner,
    ) -> Result<Self, TaskError> {
        let Some(settings) = query.file.source.mqtt.clone() else {
            return Err(TaskError::Fatal("[source.mqtt] is missing".into()));
        };
        // They are read again at each connection, when a wrong one is no reason to end any more.
        check_files(&settings.connection()).map_err(|fault| TaskError::Fatal(format!("source.mqtt.{fault}")))?;
        if !durable {
            tracing::warn!(
                query = query.file.name,
                "without query.checkpoint this query is a guest of the MQTT broker: what is published while it does not run is not kept for it"
            );
        }
        let (inbox, stop) = (Arc::new(Inbox::default()), Shutdown::manual());
        let columns = Columns::new(query, settings.payload, &settings.own);
        let connection = Connection::new(&query.file.name, settings, durable, Arc::clone(&inbox), dropped.clone());
        let (told, ended) = channel();
        let task = owner.runtime.spawn({
            let stop = stop.clone();
            async move {
                connection.run(&stop).await;
                drop(told);
            }
        });
        let next = position.unwrap_or(0);
        Ok(Self { inbox, columns, next, committed: next, open: VecDeque::new(), stop, task, ended })
    }

    /// Acknowledges what is counted, as far as the connection takes it.
    fn acknowledge(&mut self) {
        while let Some((offset, receipt)) = self.open.front()
            && *offset < self.committed
            && self.inbox.acknowledge(*receipt)
        {
            self.open.pop_front();
        }
    }
}

impl Feed for Mqtt {
    fn pull(&mut self, records: &mut Records, most: usize, patience: Duration) -> Result<Pulled, TaskError> {
        self.acknowledge();
        if self.task.is_finished() {
            return Err(TaskError::Retry("the task that reads the MQTT broker has ended".into()));
        }
        let messages = self.inbox.take(most, patience);
        let pulled = if messages.is_empty() { Pulled::Nothing } else { Pulled::Some };
        for message in messages {
            records.push(self.next, message.received, Some(&message.topic), Some(&message.payload));
            self.open.extend(message.receipt.map(|receipt| (self.next, receipt)));
            self.next += 1;
        }
        Ok(pulled)
    }

    fn is_at_end(&mut self) -> bool {
        self.inbox.is_drained()
    }

    fn is_away(&self) -> bool {
        !self.inbox.is_connected()
    }

    fn decode(&self, records: &Records, _decoder: &mut Decoder) -> Result<Input, TaskError> {
        Ok(records.input(self.columns.decode(records).map_err(TaskError::Fatal)?))
    }

    fn committed(&mut self, position: i64) -> Result<(), TaskError> {
        self.committed = position;
        self.acknowledge();
        Ok(())
    }
}

impl Drop for Mqtt {
    /// Says farewell, after the last acknowledgements.
    fn drop(&mut self) {
        self.stop.trigger();
        if self.ended.recv_timeout(FAREWELL) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the MQTT broker does not take our farewell; what was acknowledged last may come again");
            self.task.abort();
        }
    }
}
