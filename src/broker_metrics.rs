//! The embedded log's counts as Prometheus metrics: read when asked, kept nowhere twice.

use broker::BrokerStats;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge};

/// Asks the log for its counts at each scrape.
pub(crate) struct BrokerMetrics<F> {
    stats: F,
    descs: Vec<Desc>,
}

impl<F: Fn() -> BrokerStats + Send + Sync> BrokerMetrics<F> {
    /// # Errors
    /// Never for the names below.
    pub(crate) fn new(stats: F) -> Result<Self, prometheus::Error> {
        let mut descs = Vec::new();
        for collector in collectors(&BrokerStats::default())? {
            descs.extend(collector.desc().into_iter().cloned());
        }
        Ok(Self { stats, descs })
    }
}

impl<F: Fn() -> BrokerStats + Send + Sync> Collector for BrokerMetrics<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        collectors(&(self.stats)()).unwrap_or_default().iter().flat_map(|collector| collector.collect()).collect()
    }
}

fn collectors(stats: &BrokerStats) -> Result<Vec<Box<dyn Collector>>, prometheus::Error> {
    let counters = [
        ("records_in_total", "Records appended to the log.", stats.records_in),
        ("bytes_in_total", "Bytes of record batches appended to the log.", stats.bytes_in),
        ("records_out_total", "Records sent to consumers.", stats.records_out),
        ("bytes_out_total", "Bytes of record batches sent to consumers.", stats.bytes_out),
        ("fsyncs_total", "Files synced.", stats.fsyncs),
        ("requests_total", "Requests taken.", stats.requests),
    ];
    let gauges = [
        ("log_bytes", "Bytes of all segment files.", stats.log_bytes),
        ("partitions", "Partitions of all topics.", stats.partitions as u64),
        ("connections", "Open connections.", stats.connections as u64),
        ("groups", "Consumer groups known.", stats.groups as u64),
        ("transactions", "Transactional ids known.", stats.transactions as u64),
        ("open_files", "Log files open.", stats.open_files as u64),
        ("disk_free_bytes", "Free bytes of the log's disk.", stats.disk_free_bytes),
        ("disk_low", "1 while produces are refused because the disk is nearly full.", u64::from(stats.disk_low)),
    ];
    let mut collectors: Vec<Box<dyn Collector>> = Vec::new();
    for (name, help, value) in counters {
        let counter = IntCounter::new(format!("tidemark_broker_{name}"), help)?;
        counter.inc_by(value);
        collectors.push(Box::new(counter));
    }
    for (name, help, value) in gauges {
        let gauge = IntGauge::new(format!("tidemark_broker_{name}"), help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        collectors.push(Box::new(gauge));
    }
    Ok(collectors)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_the_counts_of_the_moment() {
        let registry = prometheus::Registry::new();
        let stats = || BrokerStats { records_in: 7, ..BrokerStats::default() };
        registry.register(Box::new(BrokerMetrics::new(stats).unwrap())).unwrap();
        let family = registry.gather().into_iter().find(|family| family.name() == "tidemark_broker_records_in_total").unwrap();
        assert_eq!(family.get_metric()[0].get_counter().get_value(), 7.0);
    }
}
