//! What the coordinators must not forget: `groups.log`, a file of checked frames, written in groups by one thread.
//!
//! The file begins with `TMGROUPS` and a format version (u32), then frames `length u32 | crc-32c u32 | JSON`, each an array of records
//! that were written and synced together. A torn last frame is cut; damage before it is refused. When old records outweigh what is
//! alive, the file is written anew as a whole. A transaction and the offsets that it commits are one record, so both count or none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::error::BrokerError;
use crate::group::offsets::{Committed, Offsets};
use crate::log::disk::{self, Disk};
use crate::log::waiters::StorageFault;
use crate::txn::state::{KeptTransaction, Status};

const MAGIC: &[u8; 8] = b"TMGROUPS";
const VERSION: u32 = 2;
/// One record a frame, no transactions.
const FIRST_VERSION: u32 = 1;
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
    /// A transaction as it stands now. When it has been committed, so have its offsets.
    Transaction(KeptTransaction),
    /// A transactional id has not been heard of for long.
    TransactionRemoved {
        id: String,
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

/// All groups and transactions, as the records say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) groups: BTreeMap<String, Kept>,
    pub(crate) transactions: BTreeMap<String, KeptTransaction>,
}

impl Image {
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Offsets { group, offsets } => self.commit(group, offsets),
            Record::Members(members) => {
                let kept = self.groups.entry(members.group.clone()).or_default();
                kept.members = Some(members);
            }
            Record::Removed { group } => drop(self.groups.remove(&group)),
            Record::TopicRemoved { topic } => self.groups.values_mut().for_each(|kept| drop(kept.offsets.remove(&topic))),
            Record::Forgotten { group, partitions } => {
                let Some(kept) = self.groups.get_mut(&group) else { return };
                for (topic, partition) in partitions {
                    if let Some(offsets) = kept.offsets.get_mut(&topic) {
                        offsets.remove(&partition);
                    }
                }
                kept.offsets.retain(|_, partitions| !partitions.is_empty());
            }
            Record::Transaction(mut transaction) => {
                if transaction.status == Status::CompleteCommit {
                    for (group, offsets) in std::mem::take(&mut transaction.offsets) {
                        self.commit(group, offsets);
                    }
                }
                self.transactions.insert(transaction.id.clone(), transaction);
            }
            Record::TransactionRemoved { id } => drop(self.transactions.remove(&id)),
        }
    }

    fn commit(&mut self, group: String, offsets: Offsets) {
        let kept = self.groups.entry(group).or_default();
        for (topic, partitions) in offsets {
            kept.offsets.entry(topic).or_default().extend(partitions);
        }
    }

    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (group, kept) in &self.groups {
            records.extend(kept.members.clone().map(Record::Members));
            if !kept.offsets.is_empty() {
                records.push(Record::Offsets { group: group.clone(), offsets: kept.offsets.clone() });
            }
        }
        records.extend(self.transactions.values().cloned().map(Record::Transaction));
        records
    }

    pub(crate) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<&Committed> {
        self.groups.get(group)?.offsets.get(topic)?.get(&partition)
    }
}

struct Job {
    record: Record,
    done: Option<oneshot::Sender<Result<(), StorageFault>>>,
}

/// The writing side: a queue into the writing thread.
#[derive(Debug)]
pub(crate) struct Store {
    image: Arc<Mutex<Image>>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Reads the file and starts the writing thread.
    pub(crate) fn open(path: &Path, disk: Disk, sync: bool) -> Result<Self, BrokerError> {
        let (image, size, version) = read(path, sync)?;
        let image = Arc::new(Mutex::new(image));
        let file = disk::open_log(path).map_err(|fault| BrokerError::io("open", path, fault))?;
        let mut writer = Writer { path: path.to_path_buf(), file, size, image: image.clone(), disk, sync, live: size };
        if size == 0 || version != VERSION {
            writer.rewrite().map_err(|fault| BrokerError::io("write", path, fault))?;
        } else {
            writer.file.set_len(size).map_err(|fault| BrokerError::io("cut", path, fault))?;
        }
        let (queue, jobs) = mpsc::channel();
        let thread = std::thread::Builder::new().name("coordinator-store".to_owned()).spawn(move || writer.run(&jobs));
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

/// Reads all whole frames; returns the size up to the last of them and the file's version. Size 0 means that there is no file yet.
/// `synced`: each frame was on disk before the next was written, so that only the last one can be torn.
fn read(path: &Path, synced: bool) -> Result<(Image, u64, u32), BrokerError> {
    let none = || Ok((Image::default(), 0, VERSION));
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return none(),
        Err(fault) => return Err(BrokerError::io("read", path, fault)),
    };
    let Some((head, mut rest)) = bytes.split_first_chunk::<HEAD>() else { return none() };
    let version = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    let damaged = |detail: String| BrokerError::Damaged { path: path.to_path_buf(), detail };
    if !head.starts_with(MAGIC) {
        return Err(damaged("is not a file of consumer groups".to_owned()));
    }
    if !(FIRST_VERSION..=VERSION).contains(&version) {
        let (found, supported) = (u64::from(version), u64::from(VERSION));
        return Err(BrokerError::Format { path: path.to_path_buf(), found, supported });
    }
    let mut image = Image::default();
    while let Some((payload, after)) = next_frame(rest) {
        let records = if version == FIRST_VERSION {
            serde_json::from_slice(payload).map(|record| vec![record])
        } else {
            serde_json::from_slice(payload)
        };
        let records: Vec<Record> = records.map_err(|fault| damaged(format!("cannot be read ({fault})")))?;
        records.into_iter().for_each(|record| image.apply(record));
        rest = after;
    }
    let whole = bytes.len() - rest.len();
    if !rest.is_empty() {
        if synced && version == VERSION && (1..rest.len()).any(|at| next_frame(&rest[at..]).is_some()) {
            return Err(damaged(format!("is damaged at byte {whole} and has valid records after it")));
        }
        tracing::warn!(file = %path.display(), bytes = rest.len(), "the torn end of the groups' file is removed");
    }
    Ok((image, whole as u64, version))
}

fn next_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    // No frame is empty; zeros, as a file system leaves them behind, are none.
    let payload = rest.get(..length).filter(|payload| !payload.is_empty())?;
    (crc32c::crc32c(payload) == u32::from_be_bytes(*crc)).then(|| (payload, &rest[length..]))
}

fn encode(out: &mut Vec<u8>, records: &[&Record]) -> io::Result<()> {
    let payload = serde_json::to_vec(records)?;
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
        encode(&mut bytes, &records.collect::<Vec<_>>())?;
        let written =
            self.disk.write_at(&self.file, &bytes, self.size).and_then(|()| if self.sync { self.disk.sync(&self.file) } else { Ok(()) });
        match written {
            Ok(()) => {
                self.size += bytes.len() as u64;
                Ok(())
            }
            Err(fault) => {
                self.disk.set_len(&self.file, self.size)?;
                Err(fault)
            }
        }
    }

    /// Writes what is alive into a new file and puts it in place of the old one.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_be_bytes());
        let records = self.image.lock().unwrap_or_else(PoisonError::into_inner).records();
        for record in &records {
            encode(&mut bytes, &[record])?;
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

    fn offset(store: &Store) -> Option<i64> {
        store.image().committed("g", "iot", 0).map(|committed| committed.offset)
    }

    #[test]
    fn offsets_survive_torn_ends_and_rewriting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("groups.log");
        let store = Store::open(&path, Disk::default(), true).unwrap();
        let kept: Vec<_> = (0..10_000).map(|i| store.keep(record(i))).collect();
        for done in kept {
            assert_eq!(done.blocking_recv().unwrap(), Ok(()));
        }
        assert_eq!(offset(&store), Some(9_999));
        store.close();
        assert!(fs::metadata(&path).unwrap().len() < 2 * COMPACT_AT, "old records have been dropped");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let store = Store::open(&path, Disk::default(), true).unwrap();
        assert!(offset(&store).is_none_or(|offset| offset < 9_999));
        store.keep(record(5)).blocking_recv().unwrap().unwrap();
        store.close();
        let store = Store::open(&path, Disk::default(), true).unwrap();
        assert_eq!(offset(&store), Some(5));
    }

    #[test]
    fn damage_before_the_end_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("groups.log");
        let store = Store::open(&path, Disk::default(), true).unwrap();
        for i in 0..3 {
            store.keep(record(i)).blocking_recv().unwrap().unwrap();
        }
        store.close();
        let whole = fs::read(&path).unwrap();
        for at in HEAD..HEAD + 100 {
            let mut broken = whole.clone();
            broken[at] ^= 2;
            fs::write(&path, broken).unwrap();
            let refused = Store::open(&path, Disk::default(), true).unwrap_err();
            assert!(refused.to_string().contains("byte 12"), "byte {at}: {refused}");
        }
    }

    #[test]
    fn a_file_of_the_first_version_is_read_and_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("groups.log");
        let mut bytes = [&MAGIC[..], &FIRST_VERSION.to_be_bytes()].concat();
        let payload = serde_json::to_vec(&record(42)).unwrap();
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(crc32c::crc32c(&payload).to_be_bytes());
        bytes.extend(payload);
        fs::write(&path, bytes).unwrap();
        for _ in 0..2 {
            let store = Store::open(&path, Disk::default(), true).unwrap();
            assert_eq!(offset(&store), Some(42));
            store.close();
        }
        assert_eq!(fs::read(&path).unwrap()[8..12], VERSION.to_be_bytes());
    }

    #[test]
    fn a_full_disk_refuses_a_commit_and_the_next_one_goes_through() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, budget) = Disk::with_budget(50);
        let store = Store::open(&dir.path().join("groups.log"), disk, true).unwrap();
        assert!(store.keep(record(1)).blocking_recv().unwrap().is_err());
        assert_eq!(offset(&store), None);
        budget.store(1 << 20, std::sync::atomic::Ordering::SeqCst);
        store.keep(record(2)).blocking_recv().unwrap().unwrap();
        assert_eq!(offset(&store), Some(2));
    }
}
