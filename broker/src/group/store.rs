//! What groups must not forget: `groups.log`, a file of checked records, written in groups by one thread.
//!
//! The file begins with `TMGROUPS` and a format version (u32), then records `length u32 | crc-32c u32 | JSON`. A torn end is
//! cut; when old records outweigh what is alive, the file is written anew as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::offsets::{Committed, Offsets};
use crate::error::BrokerError;
use crate::log::disk::{self, Disk};
use crate::log::waiters::StorageFault;

const MAGIC: &[u8; 8] = b"TMGROUPS";
const VERSION: u32 = 1;
const HEAD: usize = 12;
/// The file is written anew when it is larger than this and than four times what is alive.
const COMPACT_AT: u64 = 1 << 20;

/// A change that must survive a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Record {
    Offsets {
        group: String,
        offsets: Offsets,
    },
    Members(KeptGroup),
    /// The group is gone, with its offsets.
    Removed {
        group: String,
    },
    /// A topic is gone, with all offsets in it.
    TopicRemoved {
        topic: String,
    },
    /// Some offsets of a group are gone.
    Forgotten {
        group: String,
        partitions: Vec<(String, i32)>,
    },
}

/// Members and generation of a group, as of its last assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptGroup {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) stable: bool,
    pub(crate) members: Vec<KeptMember>,
}

/// A member that may come back after a restart of the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptMember {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout_ms: u64,
    pub(crate) rebalance_timeout_ms: u64,
    pub(crate) protocols: Vec<(String, Vec<u8>)>,
    pub(crate) assignment: Vec<u8>,
}

/// Everything that is kept of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) offsets: Offsets,
    pub(crate) members: Option<KeptGroup>,
}

/// All groups, as the records say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image(pub(crate) BTreeMap<String, Kept>);

impl Image {
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Offsets { group, offsets } => {
                let kept = self.0.entry(group).or_default();
                for (topic, partitions) in offsets {
                    kept.offsets.entry(topic).or_default().extend(partitions);
                }
            }
            Record::Members(members) => {
                let kept = self.0.entry(members.group.clone()).or_default();
                kept.members = Some(members);
            }
            Record::Removed { group } => drop(self.0.remove(&group)),
            Record::TopicRemoved { topic } => self.0.values_mut().for_each(|kept| drop(kept.offsets.remove(&topic))),
            Record::Forgotten { group, partitions } => {
                let Some(kept) = self.0.get_mut(&group) else { return };
                for (topic, partition) in partitions {
                    if let Some(offsets) = kept.offsets.get_mut(&topic) {
                        offsets.remove(&partition);
                    }
                }
            }
        }
    }

    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (group, kept) in &self.0 {
            records.extend(kept.members.clone().map(Record::Members));
            if !kept.offsets.is_empty() {
                records.push(Record::Offsets { group: group.clone(), offsets: kept.offsets.clone() });
            }
        }
        records
    }

    pub(crate) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<&Committed> {
        self.0.get(group)?.offsets.get(topic)?.get(&partition)
    }
}

struct Job {
    record: Record,
    done: Option<oneshot::Sender<Result<(), StorageFault>>>,
}

/// The writing side: a queue into the writing thread.
#[derive(Debug)]
pub(crate) struct GroupStore {
    image: Arc<Mutex<Image>>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl GroupStore {
    /// Reads the file and starts the writing thread.
    pub(crate) fn open(path: &Path, disk: Disk, sync: bool) -> Result<Self, BrokerError> {
        let (image, size) = read(path)?;
        let image = Arc::new(Mutex::new(image));
        let file = disk::open_log(path).map_err(|fault| BrokerError::io("open", path, fault))?;
        let mut writer = Writer { path: path.to_path_buf(), file, size, image: image.clone(), disk, sync, live: size };
        if size == 0 {
            writer.rewrite().map_err(|fault| BrokerError::io("write", path, fault))?;
        } else {
            writer.file.set_len(size).map_err(|fault| BrokerError::io("cut", path, fault))?;
        }
        let (queue, jobs) = mpsc::channel();
        let thread = std::thread::Builder::new().name("group-store".to_owned()).spawn(move || writer.run(&jobs));
        let thread = thread.map_err(|fault| BrokerError::io("start the writer of", path, fault))?;
        Ok(Self { image, queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    /// What is kept, as far as it is durable.
    pub(crate) fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a record written; resolves when it is durable.
    pub(crate) fn keep(&self, record: Record) -> oneshot::Receiver<Result<(), StorageFault>> {
        let (done, kept) = oneshot::channel();
        if let Some(queue) = &*self.queue.lock().unwrap_or_else(PoisonError::into_inner)
            && queue.send(Job { record, done: Some(done) }).is_err()
        {
            tracing::error!("the writer of groups.log has stopped");
        }
        kept
    }

    /// Lets the thread write what it has and end. Blocks.
    pub(crate) fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of groups.log has panicked");
        }
    }
}

/// Reads all whole records; returns the size up to the last of them. 0 means that there is no file yet.
fn read(path: &Path) -> Result<(Image, u64), BrokerError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok((Image::default(), 0)),
        Err(fault) => return Err(BrokerError::io("read", path, fault)),
    };
    let Some((head, mut rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok((Image::default(), 0)) };
    let version = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    if !head.starts_with(MAGIC) {
        return Err(BrokerError::Damaged { path: path.to_path_buf(), detail: "is not a file of consumer groups".to_owned() });
    }
    if version != VERSION {
        let (found, supported) = (u64::from(version), u64::from(VERSION));
        return Err(BrokerError::Format { path: path.to_path_buf(), found, supported });
    }
    let mut image = Image::default();
    while let Some((record, after)) = next_record(rest) {
        image.apply(record);
        rest = after;
    }
    if !rest.is_empty() {
        tracing::warn!(file = %path.display(), bytes = rest.len(), "the torn end of the groups' file is removed");
    }
    Ok((image, (bytes.len() - rest.len()) as u64))
}

fn next_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let payload = rest.get(..u32::from_be_bytes(*length) as usize)?;
    if crc32c::crc32c(payload) != u32::from_be_bytes(*crc) {
        return None;
    }
    Some((serde_json::from_slice(payload).ok()?, &rest[payload.len()..]))
}

fn encode(out: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    let payload = serde_json::to_vec(record)?;
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(crc32c::crc32c(&payload).to_be_bytes());
    out.extend(payload);
    Ok(())
}

struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
    /// Size after the last rewriting.
    live: u64,
    image: Arc<Mutex<Image>>,
    disk: Disk,
    sync: bool,
}

impl Writer {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            // Whatever has come meanwhile shares the flush.
            let batch: Vec<Job> = std::iter::once(first).chain(jobs.try_iter().take(1000)).collect();
            let written = self.write(batch.iter().map(|job| &job.record));
            if let Err(fault) = &written {
                tracing::error!(file = %self.path.display(), %fault, "offsets of groups cannot be kept; commits are refused until there is space");
            }
            for job in batch {
                if written.is_ok() {
                    self.image.lock().unwrap_or_else(PoisonError::into_inner).apply(job.record);
                }
                if let Some(done) = job.done {
                    done.send(if written.is_ok() { Ok(()) } else { Err(StorageFault) }).ok();
                }
            }
            if self.size > COMPACT_AT.max(4 * self.live)
                && let Err(fault) = self.rewrite()
            {
                tracing::warn!(file = %self.path.display(), %fault, "the groups' file could not be written anew");
            }
        }
    }

    fn write<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            encode(&mut bytes, record)?;
        }
        let written =
            self.disk.write_at(&self.file, &bytes, self.size).and_then(|()| if self.sync { self.disk.sync(&self.file) } else { Ok(()) });
        match written {
            Ok(()) => {
                self.size += bytes.len() as u64;
                Ok(())
            }
            Err(fault) => {
                self.file.set_len(self.size)?;
                Err(fault)
            }
        }
    }

    /// Writes what is alive into a new file and puts it in place of the old one.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_be_bytes());
        let records = self.image.lock().unwrap_or_else(PoisonError::into_inner).records();
        for record in records {
            encode(&mut bytes, &record)?;
        }
        disk::replace(&self.path, &bytes)?;
        self.file = disk::open_log(&self.path)?;
        self.size = bytes.len() as u64;
        self.live = self.size;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Record {
        let committed = Committed { offset, leader_epoch: -1, metadata: "m".repeat(100) };
        let offsets = Offsets::from([("iot".to_owned(), BTreeMap::from([(0, committed)]))]);
        Record::Offsets { group: "g".to_owned(), offsets }
    }

    fn offset(store: &GroupStore) -> Option<i64> {
        store.image().committed("g", "iot", 0).map(|committed| committed.offset)
    }

    #[test]
    fn offsets_survive_torn_ends_and_rewriting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("groups.log");
        let store = GroupStore::open(&path, Disk::default(), true).unwrap();
        let kept: Vec<_> = (0..10_000).map(|i| store.keep(record(i))).collect();
        for done in kept {
            assert_eq!(done.blocking_recv().unwrap(), Ok(()));
        }
        assert_eq!(offset(&store), Some(9_999));
        store.close();
        assert!(fs::metadata(&path).unwrap().len() < 2 * COMPACT_AT, "old records have been dropped");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let store = GroupStore::open(&path, Disk::default(), true).unwrap();
        assert!(offset(&store).is_none_or(|offset| offset == 9_998));
        store.keep(record(5)).blocking_recv().unwrap().unwrap();
        store.close();
        let store = GroupStore::open(&path, Disk::default(), true).unwrap();
        assert_eq!(offset(&store), Some(5));
    }

    #[test]
    fn a_full_disk_refuses_a_commit_and_the_next_one_goes_through() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, budget) = Disk::with_budget(50);
        let store = GroupStore::open(&dir.path().join("groups.log"), disk, true).unwrap();
        assert!(store.keep(record(1)).blocking_recv().unwrap().is_err());
        assert_eq!(offset(&store), None);
        budget.store(1 << 20, std::sync::atomic::Ordering::SeqCst);
        store.keep(record(2)).blocking_recv().unwrap().unwrap();
        assert_eq!(offset(&store), Some(2));
    }
}
