//! What of a write is done before its turn: types, series, and the bytes of its request. The reading thread does it while the delivering one
//! waits for the database's answer to the batch before, so that the database waits for nobody.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use crate::batch::Batch;
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::newest::Newest;
use crate::point::Point;
use crate::status::Status;
use crate::web::Body;
use crate::writer::{Rejection, WriteError, WriteOutcome};

/// Makes the bytes of a write, on another thread than the one that writes.
pub trait Prepare: Send + std::fmt::Debug {
    /// What [`crate::writer::Writer::write_prepared`] gets with the same points.
    fn prepare(&mut self, points: &[Point]) -> Draft;
}

/// A write whose bytes are made. It is valid for just the points that it was made of.
#[derive(Debug, Default)]
pub struct Draft {
    /// Points that can never be written; there is no body then.
    pub(crate) faults: Vec<Rejection>,
    /// The rows that are in the body, but for those that cannot be in one.
    pub(crate) newest: Newest,
    pub(crate) body: Body,
    /// What the write will have done when the database has confirmed it.
    pub(crate) outcome: WriteOutcome,
}

/// The guard of an output, which both threads use: the reading one first, the delivering one when the state could not be written then.
pub(crate) type SharedGuard = Arc<Mutex<Guard>>;

/// The reading thread's part of a write.
pub(crate) struct Ahead {
    guard: Option<SharedGuard>,
    preparer: Option<Box<dyn Prepare>>,
    status: Arc<Status>,
}

impl Ahead {
    pub(crate) fn new(guard: Option<SharedGuard>, preparer: Option<Box<dyn Prepare>>, status: Arc<Status>) -> Self {
        Self { guard, preparer, status }
    }

    /// Makes `batch` ready as far as that can be done now; once, until it gets another row.
    pub(crate) fn prepare(&mut self, batch: &mut Batch) {
        if std::mem::replace(&mut batch.looked_at, true) {
            return;
        }
        if let Some(guard) = &self.guard {
            let mut guard = match guard.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // The delivering thread waits for the state's disk.
                Err(TryLockError::WouldBlock) => return,
            };
            if let Err(error) = admit(&mut guard, batch, &self.status.metrics) {
                tracing::debug!(%error, "the delivering thread tries again, and says so");
                return;
            }
        }
        batch.admitted = true;
        if let Some(preparer) = &mut self.preparer
            && !batch.points.is_empty()
        {
            batch.prepared = Some(preparer.prepare(&batch.points));
        }
    }
}

/// Types and series of a batch; what cannot be taken becomes its dead rows.
pub(crate) fn admit(guard: &mut Guard, batch: &mut Batch, metrics: &Metrics) -> Result<(), WriteError> {
    let refused = guard.admit(&mut batch.points, metrics)?;
    if !refused.is_empty() {
        batch.reject(refused);
    }
    Ok(())
}

pub(crate) fn lock(guard: &SharedGuard) -> std::sync::MutexGuard<'_, Guard> {
    guard.lock().unwrap_or_else(PoisonError::into_inner)
}
