//! What a worker knows of its owner: whether to stop, how long it may still wait, and how to say that it is alive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::Shutdown;

use super::points::{self, Point};

/// When a worker's loop last turned, and the last named step that it passed; the worker sets it, its membership looks at it.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat(Arc<Mutex<(Instant, &'static str)>>);

impl Heartbeat {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), "start"))))
    }

    fn beat(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Instant::now();
    }

    fn at(&self, point: Point) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), point.name());
    }

    /// How long ago the last beat was, and the last named step.
    pub(crate) fn last(&self) -> (Duration, &'static str) {
        let (beat, point) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (beat.elapsed(), point)
    }
}

pub(crate) struct Owner {
    pub(crate) stop: Shutdown,
    pub(crate) runtime: tokio::runtime::Handle,
    /// Of the worker's query.
    query: String,
    heartbeat: Heartbeat,
    drain: Duration,
    /// When the worker first saw that it should stop.
    stopping_since: Mutex<Option<Instant>>,
}

impl Owner {
    pub(crate) fn new(query: &str, stop: Shutdown, runtime: tokio::runtime::Handle, heartbeat: Heartbeat, drain: Duration) -> Self {
        Self { stop, runtime, query: query.to_owned(), heartbeat, drain, stopping_since: Mutex::new(None) }
    }

    /// The worker passes a named step.
    pub(crate) fn at(&self, point: Point) {
        self.heartbeat.at(point);
        points::reached(point, &self.query);
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
