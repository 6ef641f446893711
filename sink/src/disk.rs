//! How full the disk of the sink's own files is, as metrics: looked at when asked.

use std::path::PathBuf;

use prometheus::IntGauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

/// Asks the file system of a folder at each scrape. In a stack of containers that is the disk of the named volumes, the database's too.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    free: IntGauge,
    size: IntGauge,
}

impl Disk {
    /// # Errors
    /// Never for the names below.
    pub(crate) fn new(folder: PathBuf) -> prometheus::Result<Self> {
        Ok(Self {
            folder,
            free: IntGauge::new("tidemark_sink_disk_free_bytes", "Free bytes of the disk on which the sink keeps its state.")?,
            size: IntGauge::new("tidemark_sink_disk_size_bytes", "Size of the disk on which the sink keeps its state.")?,
        })
    }
}

impl Collector for Disk {
    fn desc(&self) -> Vec<&Desc> {
        [&self.free, &self.size].into_iter().flat_map(Collector::desc).collect()
    }

    /// Nothing when the file system does not answer: a wrong number would be worse for an alert than none.
    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(stat) = rustix::fs::statvfs(&self.folder) else { return Vec::new() };
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
        self.free.set(bytes(stat.f_bavail));
        self.size.set(bytes(stat.f_blocks));
        [&self.free, &self.size].into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn values(folder: PathBuf) -> Vec<f64> {
        let registry = prometheus::Registry::new();
        registry.register(Box::new(Disk::new(folder).unwrap())).unwrap();
        registry.gather().iter().map(|family| family.get_metric()[0].get_gauge().get_value()).collect()
    }

    #[test]
    fn a_scrape_shows_the_disk_of_the_moment_and_nothing_for_a_folder_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let [free, size] = values(dir.path().into())[..] else { panic!("two metrics") };
        assert!(free > 0.0 && free <= size, "{free} of {size}");
        assert!(values(dir.path().join("gone")).is_empty());
    }
}
