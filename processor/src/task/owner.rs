//! What a worker knows of its owner: whether to stop, how long it may still wait, and how to say that it is alive.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::Shutdown;
use common::telemetry::Part;

pub(crate) struct Owner {
    pub(crate) stop: Shutdown,
    pub(crate) runtime: tokio::runtime::Handle,
    part: Part,
    drain: Duration,
    /// When the worker first saw that it should stop.
    stopping_since: Mutex<Option<Instant>>,
}

impl Owner {
    pub(crate) fn new(stop: Shutdown, runtime: tokio::runtime::Handle, part: Part, drain: Duration) -> Self {
        Self { stop, runtime, part, drain, stopping_since: Mutex::new(None) }
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
        self.part.beat();
    }
}
