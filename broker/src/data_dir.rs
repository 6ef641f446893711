//! The data directory: who may use it, which format it has, and the numbers that must never be given out twice.
//!
//! ```text
//! lock              held while a broker runs
//! meta.json         format version, cluster id
//! topics.json       the topics, their ids and settings: the truth about what exists
//! producer-ids.json first producer id that has never been given out
//! groups.log        consumer groups and their offsets
//! log/<topic>-<n>/  segments, indexes, producer snapshots
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::BrokerError;
use crate::ids::random_id;
use crate::log::disk;

const VERSION: u64 = 1;
/// Producer ids reserved with one write.
const ID_BLOCK: i64 = 1000;

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u64,
    cluster_id: String,
}

#[derive(Serialize, Deserialize)]
struct ProducerIds {
    version: u64,
    next: i64,
}

/// A data directory that this process holds.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    pub(crate) cluster_id: String,
    lock: Mutex<Option<File>>,
    /// Next producer id and the end of the reserved block.
    producer_ids: Mutex<(i64, i64)>,
}

impl DataDir {
    /// Creates the directory if need be, takes its lock and checks its format.
    pub(crate) fn open(path: &Path) -> Result<Self, BrokerError> {
        fs::create_dir_all(path.join("log")).map_err(|fault| BrokerError::io("create", path, fault))?;
        let lock = take_lock(path)?;
        let meta_path = path.join("meta.json");
        let meta = match load::<Meta>(&meta_path)? {
            Some(meta) => meta,
            None => {
                let meta = Meta { version: VERSION, cluster_id: format!("{:032x}", random_id()) };
                store(&meta_path, &meta)?;
                meta
            }
        };
        Ok(Self { path: path.to_path_buf(), cluster_id: meta.cluster_id, lock: Mutex::new(Some(lock)), producer_ids: Mutex::new((0, 0)) })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Folder of a partition.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> PathBuf {
        self.path.join("log").join(format!("{topic}-{index}"))
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.path.join("log")
    }

    /// A producer id that no run of this broker has given out before. Blocks on the disk once in a thousand.
    pub(crate) fn next_producer_id(&self) -> Result<i64, BrokerError> {
        let mut ids = self.producer_ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.0 == ids.1 {
            let path = self.file("producer-ids.json");
            let first = load::<ProducerIds>(&path)?.map_or(0, |kept| kept.next).max(ids.1);
            store(&path, &ProducerIds { version: VERSION, next: first + ID_BLOCK })?;
            *ids = (first, first + ID_BLOCK);
        }
        ids.0 += 1;
        Ok(ids.0 - 1)
    }

    /// Lets another broker use the directory.
    pub(crate) fn release(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn take_lock(path: &Path) -> Result<File, BrokerError> {
    let lock_path = path.join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&lock_path);
    let file = file.map_err(|fault| BrokerError::io("create", &lock_path, fault))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BrokerError::Locked { path: path.to_path_buf() }),
        Err(TryLockError::Error(fault)) => Err(BrokerError::io("lock", &lock_path, fault)),
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

/// Reads a small JSON file that begins with its format version; `None` when there is none.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, BrokerError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(BrokerError::io("read", path, fault)),
    };
    let damaged = |fault: serde_json::Error| BrokerError::Damaged { path: path.to_path_buf(), detail: format!("cannot be read ({fault})") };
    let found = serde_json::from_slice::<Versioned>(&text).map_err(damaged)?.version;
    if found != VERSION {
        return Err(BrokerError::Format { path: path.to_path_buf(), found, supported: VERSION });
    }
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

/// Replaces a small JSON file as a whole and durably.
pub(crate) fn store<T: Serialize>(path: &Path, content: &T) -> Result<(), BrokerError> {
    let text = serde_json::to_vec_pretty(content).map_err(|fault| BrokerError::io("write", path, fault.into()))?;
    disk::replace(path, &text).map_err(|fault| BrokerError::io("write", path, fault))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn one_broker_at_a_time_and_ids_never_twice() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let id = first.next_producer_id().unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(BrokerError::Locked { .. })));
        first.release();
        let second = DataDir::open(dir.path()).unwrap();
        assert!(second.next_producer_id().unwrap() > id);
        assert_eq!(first.cluster_id, second.cluster_id);
    }

    #[test]
    fn another_format_and_a_damaged_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("meta.json"), r#"{"version": 9, "shape": "new"}"#).unwrap();
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(refused, BrokerError::Format { found: 9, .. }), "{refused}");
        fs::write(dir.path().join("meta.json"), "{").unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(BrokerError::Damaged { .. })));
    }
}
