//! Standby copies: the state of shards that other processors own, as far as their journals go.
//!
//! A follower only reads. When its shard comes to this processor, the new owner appends its fence as ever and goes on with the restore from
//! where the follower stands. Rows and epochs are judged by the same code, so a copy can be behind, and cannot be wrong.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Settings, Shutdown};

use super::error::TaskError;
use super::journal::{Restoring, Turn};
use super::owner::Owner;
use super::status::{QueryStatus, StandbyStatus};
use super::worker::Shard;
use crate::query::StreamQuery;

/// How often the status is told where a follower stands.
const TELL: Duration = Duration::from_millis(500);
/// Pause before a follower that could not go on begins anew.
const AGAIN: Duration = Duration::from_secs(10);
/// Longest wait without looking whether to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// A follower at work.
pub(crate) struct Standby {
    stop: Shutdown,
    thread: Option<JoinHandle<Option<Restoring>>>,
}

impl Standby {
    pub(crate) fn start(follower: Follower, stop: Shutdown) -> Result<Self, TaskError> {
        let thread = std::thread::Builder::new()
            .name(format!("{}-{}-standby", follower.query.file.name, follower.shard.journal_partition))
            .spawn(move || follower.run())
            .map_err(|error| TaskError::Fatal(format!("a thread for a standby copy cannot be started: {error}")))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    pub(crate) fn stop(&self) {
        self.stop.trigger();
    }

    /// Stops the follower and gives what it has; `None`: nothing that could be gone on from.
    pub(crate) fn end(mut self) -> Option<Restoring> {
        self.stop();
        self.thread.take()?.join().unwrap_or_else(|_| {
            tracing::warn!("a standby copy ended by a fault of the program; the journal is read from its beginning");
            None
        })
    }
}

impl Drop for Standby {
    /// Whoever should have taken over has failed before it could.
    fn drop(&mut self) {
        self.stop();
    }
}

/// Follows the journal of one shard.
pub(crate) struct Follower {
    pub(crate) settings: Arc<Settings>,
    pub(crate) query: Arc<StreamQuery>,
    pub(crate) shard: Shard,
    /// Of nothing: it says when to stop.
    pub(crate) owner: Owner,
    pub(crate) status: Arc<QueryStatus>,
}

impl Follower {
    fn run(self) -> Option<Restoring> {
        let mut said = false;
        let followed = loop {
            match self.follow() {
                Ok(restoring) => break Some(restoring),
                Err(TaskError::Stopped) => break None,
                Err(error) => {
                    let (query, shard) = (&self.query.file.name, self.shard.journal_partition);
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(query, shard, %error, "the standby copy cannot follow its journal; beginning anew");
                    }
                }
            }
            self.status.forget_standby(self.shard.journal_partition);
            if self.owner.stop.wait_timeout(AGAIN) {
                break None;
            }
        };
        self.status.forget_standby(self.shard.journal_partition);
        followed
    }

    /// From the beginning of the journal until it is told to stop.
    fn follow(&self) -> Result<Restoring, TaskError> {
        let mut restoring = Restoring::open(&self.settings, &self.query, &self.shard, &self.owner)?;
        let (mut told, mut at_end) = (None::<Instant>, false);
        while !self.owner.stop.is_set() {
            match restoring.turn(i64::MAX, PATIENCE)? {
                Turn::Read { .. } => at_end = false,
                Turn::AtEnd => at_end = true,
                Turn::Nothing => {}
            }
            if told.is_none_or(|told| told.elapsed() >= TELL) {
                self.tell(&restoring, at_end);
                told = Some(Instant::now());
            }
        }
        Ok(restoring)
    }

    fn tell(&self, restoring: &Restoring, at_end: bool) {
        let replay = restoring.replay();
        let status = StandbyStatus { offset: replay.next(), at_end, state_rows: replay.state_rows(), state_bytes: replay.state_bytes() };
        self.status.set_standby(self.shard.journal_partition, status);
    }
}
