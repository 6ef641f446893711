//! What a worker knows of its owner: whether to stop, how long it may still wait, and how to say that it is alive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::Shutdown;

/// When a worker's loop last turned; the worker sets it, its membership looks at it.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat(Arc<Mutex<Instant>>);

impl Heartbeat {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago the last beat was.
    pub(crate) fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

pub(crate) struct Owner {
    pub(crate) stop: Shutdown,
    pub(crate) runtime: tokio::runtime::Handle,
    heartbeat: Heartbeat,
    drain: Duration,
    /// When the worker first saw that it should stop.
    stopping_since: Mutex<Option<Instant>>,
}

impl Owner {
    pub(crate) fn new(stop: Shutdown, runtime: tokio::runtime::Handle, heartbeat: Heartbeat, drain: Duration) -> Self {
        Self { stop, runtime, heartbeat, drain, stopping_since: Mutex::new(None) }
    }

    /// Whether the worker should stop and has waited long enough for what is in flight.
    pub(crate) fn given_up(&self) -> bool {
        if !self.stop.is_set() {
            return false;
        }
        let mut since = self.stopping_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed() > self.drain
    }

    pub(crate) fn beat(&self) {
        self.heartbeat.beat();
    }
}
