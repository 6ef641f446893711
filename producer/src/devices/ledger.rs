//! What the devices saw acknowledged, for whoever wants to compare it with the log: a line `sensor_id seq` each.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Clones write the same file. Not buffered: what a killed process saw acknowledged is in it.
#[derive(Debug, Clone)]
pub(super) struct Ledger(Arc<Mutex<File>>);

impl Ledger {
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        let file =
            File::create(path).map_err(|error| format!("producer.simulator.mqtt.ledger_file: cannot write {}: {error}", path.display()))?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    pub(super) fn acknowledged(&self, sensor_id: &str, seq: i64) {
        let line = format!("{sensor_id} {seq}\n");
        if let Err(error) = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes()) {
            tracing::error!(%error, "the ledger cannot be written");
        }
    }
}
