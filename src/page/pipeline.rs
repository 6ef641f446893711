//! The parts' own state, asked at a bounded rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::Telemetry;
use serde_json::{Value, json};

/// Parts measure their rates from one question to the next: many listeners must not make that interval short.
const AT_MOST_EVERY: Duration = Duration::from_millis(900);

/// When the telemetry was asked, and its answer.
type Asked = (Instant, Arc<Value>);

#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    telemetry: Telemetry,
    last: Arc<Mutex<Option<Asked>>>,
}

impl Pipeline {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, last: Arc::default() }
    }

    /// The newest status, and the wall clock it was taken at (`now_ms`). The same `Arc` while nothing was asked anew.
    pub(super) fn status(&self) -> Arc<Value> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((asked, status)) if asked.elapsed() < AT_MOST_EVERY => Arc::clone(status),
            _ => {
                let mut status = self.telemetry.status();
                status["now_ms"] = json!(now_ms());
                let status = Arc::new(status);
                *last = Some((Instant::now(), Arc::clone(&status)));
                status
            }
        }
    }
}

/// The server's wall clock, ms since 1970: the browser's may be wrong.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
