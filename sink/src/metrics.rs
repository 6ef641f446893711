//! The sink's metrics.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) rows: IntCounter,
    pub(crate) written: IntCounter,
    pub(crate) stale: IntCounter,
    pub(crate) rejected: IntCounterVec,
    pub(crate) batches: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) write_seconds: Histogram,
    pub(crate) lag: IntGauge,
}

impl Metrics {
    /// # Errors
    /// When the registry has a sink's metrics already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let rejected = Opts::new("tidemark_sink_rejected_total", "Rows that went into the dead lane, by reason.");
        let rejected = IntCounterVec::new(rejected, &["reason"])?;
        registry.register(Box::new(rejected.clone()))?;
        let seconds = HistogramOpts::new("tidemark_sink_write_duration_seconds", "Time that the database took for one batch.")
            .buckets(prometheus::exponential_buckets(0.001, 2.0, 14)?);
        let write_seconds = Histogram::with_opts(seconds)?;
        registry.register(Box::new(write_seconds.clone()))?;
        let lag = IntGauge::new("tidemark_sink_lag_rows", "Result rows in the log that this sink has not read yet.")?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self {
            rows: counter("tidemark_sink_rows_total", "Result rows that were taken from the log.")?,
            written: counter("tidemark_sink_points_written_total", "Points that the database has confirmed.")?,
            stale: counter("tidemark_sink_stale_total", "Rows left out because the database held a larger revision.")?,
            batches: counter("tidemark_sink_batches_total", "Batches that the database has confirmed.")?,
            retries: counter("tidemark_sink_retries_total", "Writes that failed and were tried again.")?,
            rejected,
            write_seconds,
            lag,
        })
    }
}
