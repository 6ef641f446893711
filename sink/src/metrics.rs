//! The sink's metrics, for each output.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// All outputs' metrics; registered once.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    rows: IntCounterVec,
    written: IntCounterVec,
    stale: IntCounterVec,
    rejected: IntCounterVec,
    left_out: IntCounterVec,
    batches: IntCounterVec,
    retries: IntCounterVec,
    write_seconds: HistogramVec,
    lag: IntGaugeVec,
    series: IntGaugeVec,
    max_series: IntGaugeVec,
}

/// One output's.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    output: String,
    pub(crate) rows: IntCounter,
    pub(crate) written: IntCounter,
    pub(crate) stale: IntCounter,
    rejected: IntCounterVec,
    left_out: IntCounterVec,
    pub(crate) batches: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) write_seconds: Histogram,
    pub(crate) lag: IntGauge,
    pub(crate) series: IntGauge,
    pub(crate) max_series: IntGauge,
}

impl Family {
    /// # Errors
    /// When the registry has a sink's metrics already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name, help| -> prometheus::Result<IntGaugeVec> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["output"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let seconds = HistogramOpts::new("tidemark_sink_write_duration_seconds", "Time that the database took for one batch.")
            .buckets(prometheus::exponential_buckets(0.001, 2.0, 14)?);
        let write_seconds = HistogramVec::new(seconds, &["output"])?;
        registry.register(Box::new(write_seconds.clone()))?;
        let one = &["output"];
        let two = &["output", "reason"];
        Ok(Self {
            rows: counter("tidemark_sink_rows_total", "Rows that were taken from the log.", one)?,
            written: counter("tidemark_sink_points_written_total", "Points that the database has confirmed.", one)?,
            stale: counter("tidemark_sink_stale_total", "Rows left out because the database held a larger revision.", one)?,
            rejected: counter("tidemark_sink_rejected_total", "Rows that went into the dead lane, by reason.", two)?,
            left_out: counter("tidemark_sink_left_out_total", "Rows or fields that the database cannot hold, by reason.", two)?,
            batches: counter("tidemark_sink_batches_total", "Batches that the database has confirmed.", one)?,
            retries: counter("tidemark_sink_retries_total", "Writes that failed and were tried again.", one)?,
            write_seconds,
            lag: gauge("tidemark_sink_lag_rows", "Rows in the log that this sink has not read yet.")?,
            series: gauge("tidemark_sink_series", "Series that this output has made.")?,
            max_series: gauge("tidemark_sink_series_limit", "Series that this output may make.")?,
        })
    }

    pub(crate) fn of(&self, output: &str) -> Metrics {
        let label = &[output];
        Metrics {
            output: output.to_owned(),
            rows: self.rows.with_label_values(label),
            written: self.written.with_label_values(label),
            stale: self.stale.with_label_values(label),
            rejected: self.rejected.clone(),
            left_out: self.left_out.clone(),
            batches: self.batches.with_label_values(label),
            retries: self.retries.with_label_values(label),
            write_seconds: self.write_seconds.with_label_values(label),
            lag: self.lag.with_label_values(label),
            series: self.series.with_label_values(label),
            max_series: self.max_series.with_label_values(label),
        }
    }
}

impl Metrics {
    pub(crate) fn output(&self) -> &str {
        &self.output
    }

    pub(crate) fn rejected(&self, reason: &str) {
        self.rejected.with_label_values(&[self.output.as_str(), reason]).inc();
    }

    pub(crate) fn left_out(&self, reason: &str, count: u64) {
        self.left_out.with_label_values(&[self.output.as_str(), reason]).inc_by(count);
    }

    pub(crate) fn rejected_total(&self) -> u64 {
        self.total(&self.rejected)
    }

    pub(crate) fn left_out_total(&self) -> u64 {
        self.total(&self.left_out)
    }

    /// Over all reasons.
    fn total(&self, counter: &IntCounterVec) -> u64 {
        let families = counter.collect();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        let ours = metrics.filter(|metric| metric.get_label().iter().any(|label| label.name() == "output" && label.value() == self.output));
        ours.map(|metric| metric.get_counter().get_value() as u64).sum()
    }
}
