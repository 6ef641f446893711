//! What `/status` tells of each query, and the gauges that follow it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::metrics::Metrics;
use crate::engine::{Engine, Ledger};

/// The status of one query; shared by its workers and its membership.
#[derive(Debug)]
pub(crate) struct QueryStatus {
    name: String,
    delay: i64,
    metrics: Metrics,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    partitions: BTreeMap<i32, PartitionStatus>,
    rate: Rate,
}

#[derive(Debug, Clone, Copy, Default)]
struct PartitionStatus {
    position: Option<i64>,
    end: Option<i64>,
    watermark: Option<i64>,
    ledger: Ledger,
    state_rows: u64,
    state_bytes: u64,
}

/// Rows per second over the last seconds.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    rows: u64,
    last: f64,
}

impl Rate {
    fn add(&mut self, rows: u64) {
        self.rows += rows;
        self.roll();
    }

    fn roll(&mut self) -> f64 {
        let since = *self.since.get_or_insert_with(Instant::now);
        let seconds = since.elapsed().as_secs_f64();
        if seconds >= 2.0 {
            self.last = self.rows as f64 / seconds;
            self.rows = 0;
            self.since = Some(Instant::now());
        }
        self.last
    }
}

impl QueryStatus {
    pub(crate) fn new(name: &str, delay: i64, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), delay, metrics, inner: Mutex::default() })
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a shard's engine says after a step or a restore.
    pub(crate) fn update(&self, engine: &Engine, step_rows: u64) {
        let mut inner = self.inner();
        inner.rate.add(step_rows);
        for (number, partition) in engine.partitions() {
            let status = inner.partitions.entry(*number).or_default();
            let before = status.ledger;
            status.position = partition.position;
            status.watermark = partition.time.watermark(self.delay);
            status.ledger = partition.ledger;
            status.state_rows = partition.rows();
            status.state_bytes = partition.bytes();
            self.gauges(*number, status);
            if step_rows > 0 {
                self.count(before, status.ledger);
            }
        }
    }

    /// The ends of the input partitions, as the log says them.
    pub(crate) fn set_end(&self, partition: i32, end: i64) {
        let mut inner = self.inner();
        let status = inner.partitions.entry(partition).or_default();
        status.end = Some(end);
        let lag = status.position.map_or(end, |position| (end - position).max(0));
        self.metrics.lag.with_label_values(&[&self.name, &partition.to_string()]).set(lag);
    }

    /// The partitions of a shard that is no longer ours.
    pub(crate) fn forget(&self, partitions: impl Iterator<Item = i32>) {
        let mut inner = self.inner();
        for partition in partitions {
            inner.partitions.remove(&partition);
            self.metrics.forget(&self.name, &partition.to_string());
        }
    }

    /// The next offset to read of each partition.
    pub(crate) fn positions(&self) -> Vec<(i32, i64)> {
        self.inner().partitions.iter().filter_map(|(number, status)| Some((*number, status.position?))).collect()
    }

    fn count(&self, before: Ledger, after: Ledger) {
        let outcomes = [
            ("used", after.used - before.used),
            ("late", after.late - before.late),
            ("dead", after.dead - before.dead),
            ("filtered", after.filtered - before.filtered),
        ];
        for (outcome, rows) in outcomes {
            self.metrics.rows.with_label_values(&[self.name.as_str(), outcome]).inc_by(rows);
        }
    }

    fn gauges(&self, number: i32, status: &PartitionStatus) {
        let partition = number.to_string();
        let labels = &[self.name.as_str(), partition.as_str()];
        if let Some(watermark) = status.watermark {
            self.metrics.watermark.with_label_values(labels).set(watermark as f64 / 1000.0);
            self.metrics.watermark_lag.with_label_values(labels).set((now_ms() - watermark) as f64 / 1000.0);
        }
        self.metrics.state_rows.with_label_values(labels).set(i64::try_from(status.state_rows).unwrap_or(i64::MAX));
        self.metrics.state_bytes.with_label_values(labels).set(i64::try_from(status.state_bytes).unwrap_or(i64::MAX));
        self.metrics.imbalance.with_label_values(labels).set(status.ledger.imbalance());
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut inner = self.inner();
        let rows_per_second = inner.rate.roll();
        let partition = |(number, status): (&i32, &PartitionStatus)| {
            json!({
                "partition": number,
                "offset": status.position,
                "end": status.end,
                "watermark_ms": status.watermark,
                "read": status.ledger.read,
                "used": status.ledger.used,
                "late": status.ledger.late,
                "dead": status.ledger.dead,
                "filtered": status.ledger.filtered,
                "imbalance": status.ledger.imbalance(),
                "state_rows": status.state_rows,
                "state_bytes": status.state_bytes,
            })
        };
        json!({
            "name": self.name,
            "rows_per_second": rows_per_second,
            "state_rows": inner.partitions.values().map(|status| status.state_rows).sum::<u64>(),
            "partitions": inner.partitions.iter().map(partition).collect::<Vec<_>>(),
        })
    }
}

/// The wall clock, milliseconds since 1970; for display and triggers only, never for results.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
