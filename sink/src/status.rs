//! What the sink says of itself as JSON, and when it is ready.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::metrics::Metrics;

#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) metrics: Metrics,
    database: &'static str,
    /// Wall clock of the last confirmed write, ms since 1970; 0: none yet.
    last_write_ms: AtomicI64,
    /// Start of the newest window written by this process.
    newest_ms: AtomicI64,
    /// Rows that were read and that the database has not confirmed.
    waiting: AtomicU64,
    log_away: AtomicBool,
    /// A broker was known once.
    log_known: AtomicBool,
    /// Topics and partitions that this sink reads.
    assigned: Mutex<BTreeSet<(String, i32)>>,
    /// What it is waiting for, while a write is tried again.
    trouble: Mutex<Option<String>>,
}

impl Status {
    pub(crate) fn new(metrics: Metrics, database: &'static str) -> Self {
        Self {
            metrics,
            database,
            last_write_ms: AtomicI64::new(0),
            newest_ms: AtomicI64::new(i64::MIN),
            waiting: AtomicU64::new(0),
            log_away: AtomicBool::new(false),
            log_known: AtomicBool::new(false),
            assigned: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn wrote(&self, newest_ms: Option<i64>) {
        self.last_write_ms.store(now_ms(), Ordering::Relaxed);
        if let Some(newest) = newest_ms {
            self.newest_ms.fetch_max(newest, Ordering::Relaxed);
        }
    }

    pub(crate) fn waits_for(&self, rows: usize) {
        self.waiting.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// They are written, or given up.
    pub(crate) fn waits_no_more_for(&self, rows: usize) {
        self.waiting.fetch_sub(rows as u64, Ordering::Relaxed);
    }

    /// Sets or clears the trouble; says it once, and once when it is over.
    pub(crate) fn trouble(&self, trouble: Option<&str>) {
        let mut held = lock(&self.trouble);
        match (held.as_deref(), trouble) {
            (None, Some(new)) => tracing::warn!("{new}"),
            (Some(old), Some(new)) if old != new => tracing::warn!("{new}"),
            (Some(_), None) => tracing::info!(database = self.database, "the database is written again"),
            _ => {}
        }
        *held = trouble.map(str::to_owned);
    }

    /// The output has given up.
    pub(crate) fn ended(&self, error: &str) {
        tracing::error!(output = self.metrics.output(), "{error}");
        *lock(&self.trouble) = Some(error.to_owned());
    }

    /// What the client says of its connections, see [`crate::client_stats::ClientStats::is_connected`].
    pub(crate) fn log_is_connected(&self, connected: Option<bool>) {
        let known = self.log_known.fetch_or(connected.is_some(), Ordering::Relaxed);
        let away = connected.map_or(known, |connected| !connected);
        if self.log_away.swap(away, Ordering::Relaxed) == away {
            return;
        }
        if away {
            tracing::warn!("the Kafka log does not answer; the sink waits for it");
        } else {
            tracing::info!("the Kafka log answers again");
        }
    }

    pub(crate) fn assign(&self, partitions: BTreeSet<(String, i32)>) {
        *lock(&self.assigned) = partitions;
    }

    pub(crate) fn is_log_away(&self) -> bool {
        self.log_away.load(Ordering::Relaxed)
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.is_log_away() && lock(&self.trouble).is_none()
    }

    pub(crate) fn json(&self) -> Value {
        let assigned = lock(&self.assigned).clone();
        let topics: BTreeSet<&str> = assigned.iter().map(|(topic, _)| topic.as_str()).collect();
        let last_write = self.last_write_ms.load(Ordering::Relaxed);
        let newest = self.newest_ms.load(Ordering::Relaxed);
        let away = self.is_log_away().then(|| "the Kafka log does not answer".to_owned());
        json!({
            "output": self.metrics.output(),
            "database": self.database,
            "rows": self.metrics.rows.get(),
            "waiting": self.waiting.load(Ordering::Relaxed),
            "points": self.metrics.written.get(),
            "stale": self.metrics.stale.get(),
            "rejected": self.metrics.rejected_total(),
            "left_out": self.metrics.left_out_total(),
            "batches": self.metrics.batches.get(),
            "lag": self.metrics.lag.get(),
            "series": self.metrics.series.get(),
            "last_write_ms": (last_write > 0).then_some(last_write),
            "newest_window_ms": (newest > i64::MIN).then_some(newest),
            "topics": topics,
            "partitions": assigned.len(),
            "error": away.or_else(|| lock(&self.trouble).clone()),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
