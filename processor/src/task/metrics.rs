//! The processor's metric families; one place for their names.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Input rows by what became of them.
    pub(crate) rows: IntCounterVec,
    /// Messages that a source has left out.
    pub(crate) dropped: IntCounterVec,
    pub(crate) results: IntCounterVec,
    pub(crate) failed_results: IntCounterVec,
    pub(crate) steps: IntCounterVec,
    pub(crate) step_seconds: Histogram,
    pub(crate) journal_bytes: IntCounterVec,
    pub(crate) watermark: GaugeVec,
    pub(crate) watermark_lag: GaugeVec,
    pub(crate) lag: IntGaugeVec,
    pub(crate) state_rows: IntGaugeVec,
    pub(crate) state_bytes: IntGaugeVec,
    pub(crate) imbalance: IntGaugeVec,
    pub(crate) restore_seconds: Gauge,
    pub(crate) standby_rows: IntGaugeVec,
    pub(crate) standby_bytes: IntGaugeVec,
}

impl Metrics {
    /// Creates the families and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("tidemark_processor_{name}"), help);
        let (partition, shard) = (&["query", "partition"], &["query", "shard"]);
        let metrics = Self {
            rows: IntCounterVec::new(opts("rows_total", "Input rows, by outcome: used, late, dead or filtered."), &["query", "outcome"])?,
            dropped: IntCounterVec::new(
                opts(
                    "dropped_total",
                    "Messages that a source left out. MQTT: retained, qos0_full, or deferred, which come again. Kinesis: other_shard.",
                ),
                &["query", "reason"],
            )?,
            results: IntCounterVec::new(opts("results_total", "Result rows sent."), &["query"])?,
            failed_results: IntCounterVec::new(opts("failed_results_total", "Result rows that could not be computed."), &["query"])?,
            steps: IntCounterVec::new(opts("steps_total", "Steps committed to the journal."), &["query"])?,
            step_seconds: Histogram::with_opts(
                HistogramOpts::new("tidemark_processor_step_duration_seconds", "Time from a step's decode to its results being sent.")
                    .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]),
            )?,
            journal_bytes: IntCounterVec::new(opts("journal_bytes_total", "Bytes of journal entries written."), &["query"])?,
            watermark: GaugeVec::new(opts("watermark_timestamp_seconds", "The watermark of an input partition."), partition)?,
            watermark_lag: GaugeVec::new(opts("watermark_lag_seconds", "How far the watermark is behind the wall clock."), partition)?,
            lag: IntGaugeVec::new(opts("lag_rows", "Input rows in the log that are not yet committed."), partition)?,
            state_rows: IntGaugeVec::new(opts("state_rows", "Groups held in state."), partition)?,
            state_bytes: IntGaugeVec::new(opts("state_bytes", "Bytes of groups held in state."), partition)?,
            imbalance: IntGaugeVec::new(opts("ledger_imbalance", "Rows read less rows accounted for; must be 0."), partition)?,
            restore_seconds: Gauge::with_opts(opts("restore_duration_seconds", "Time that the newest restore from a journal took."))?,
            standby_rows: IntGaugeVec::new(opts("standby_rows", "Groups held in copies of what other processors own."), shard)?,
            standby_bytes: IntGaugeVec::new(opts("standby_bytes", "Bytes of groups held in copies of what other processors own."), shard)?,
        };
        for collector in metrics.collectors() {
            registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Takes the gauges of a partition away: another processor shows them now.
    pub(crate) fn forget(&self, query: &str, partition: &str) {
        let labels = &[query, partition];
        for gauges in [&self.lag, &self.state_rows, &self.state_bytes, &self.imbalance] {
            gauges.remove_label_values(labels).unwrap_or_default();
        }
        for gauges in [&self.watermark, &self.watermark_lag] {
            gauges.remove_label_values(labels).unwrap_or_default();
        }
    }

    /// A copy has gone.
    pub(crate) fn forget_standby(&self, query: &str, shard: &str) {
        for gauges in [&self.standby_rows, &self.standby_bytes] {
            gauges.remove_label_values(&[query, shard]).unwrap_or_default();
        }
    }

    fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        vec![
            Box::new(self.rows.clone()),
            Box::new(self.dropped.clone()),
            Box::new(self.results.clone()),
            Box::new(self.failed_results.clone()),
            Box::new(self.steps.clone()),
            Box::new(self.step_seconds.clone()),
            Box::new(self.journal_bytes.clone()),
            Box::new(self.watermark.clone()),
            Box::new(self.watermark_lag.clone()),
            Box::new(self.lag.clone()),
            Box::new(self.state_rows.clone()),
            Box::new(self.state_bytes.clone()),
            Box::new(self.imbalance.clone()),
            Box::new(self.restore_seconds.clone()),
            Box::new(self.standby_rows.clone()),
            Box::new(self.standby_bytes.clone()),
        ]
    }
}
