//! One partition: its segments behind a lock, its durable end for everybody to see, and those who wait for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::disk::Disk;
use super::producers::Verdict;
use super::segments::Segments;
use super::waiters::{Ack, Waiters};
use crate::batch::{BatchFault, BatchHeader};
use crate::config::Durability;
use crate::error::BrokerError;
use crate::stats::Counters;
use crate::topic_config::TopicConfig;

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendFault {
    #[error("{0}")]
    Batch(#[from] BatchFault),
    #[error("the batch of {size} bytes is larger than the topic's max.message.bytes ({limit})")]
    TooLarge { size: usize, limit: usize },
    #[error("the sequence number leaves a gap")]
    OutOfOrder,
    #[error("a newer epoch of this producer has written here")]
    OldEpoch,
    #[error("the disk refused the write: {0}")]
    Storage(#[from] io::Error),
    #[error("the log is closed")]
    Closed,
}

/// A batch that is in the log, durable or about to be.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    pub(crate) start: i64,
    pub(crate) ack: Ack,
}

/// One partition of a topic.
#[derive(Debug)]
pub(crate) struct Partition {
    /// `<topic>-<index>`, as in its folder's name.
    pub(crate) name: String,
    dir: PathBuf,
    config: Arc<TopicConfig>,
    durability: Durability,
    segments: Mutex<Segments>,
    waiters: Mutex<Waiters>,
    /// Copies of what the lock guards, for readers that need not wait for an append.
    high_watermark: AtomicI64,
    end: AtomicI64,
    start: AtomicI64,
    /// A flush failed: nothing is appended until the log has been cut back to what is surely there.
    failed: AtomicBool,
    closed: AtomicBool,
    /// Whether a segment was closed since the last flush: it is synced even when nobody waits for it.
    rolled: AtomicBool,
    /// Milliseconds since 1970 of the last storage complaint, so that a full disk does not fill the log.
    complained: AtomicU64,
    /// Whether the flusher has it in its queue or its hands.
    pub(crate) queued: AtomicBool,
    counters: Arc<Counters>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock leaves at worst an entry too few in an index; the log's bytes are checked by readers anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partition {
    /// Opens or creates the partition in `dir`.
    pub(crate) fn open(
        dir: &Path,
        config: Arc<TopicConfig>,
        durability: Durability,
        disk: Disk,
        counters: Arc<Counters>,
    ) -> Result<Self, BrokerError> {
        let segments = Segments::open(dir, disk)?;
        Ok(Self {
            name: dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            dir: dir.to_path_buf(),
            config,
            durability,
            high_watermark: AtomicI64::new(segments.durable.offset),
            end: AtomicI64::new(segments.end()),
            start: AtomicI64::new(segments.start),
            segments: Mutex::new(segments),
            waiters: Mutex::new(Waiters::default()),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            rolled: AtomicBool::new(false),
            complained: AtomicU64::new(0),
            queued: AtomicBool::new(false),
            counters,
        })
    }

    /// Offset up to which consumers may read: everything before it is durable.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Offset that the next record gets.
    pub(crate) fn end(&self) -> i64 {
        self.end.load(Ordering::Acquire)
    }

    /// Offset of the first record that is kept.
    pub(crate) fn start(&self) -> i64 {
        self.start.load(Ordering::Acquire)
    }

    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.segments).bytes()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends one batch as a client sent it. Blocks on the disk. The caller asks for a flush afterwards.
    pub(crate) fn append(&self, batch: &Bytes) -> Result<Appended, AppendFault> {
        let header = BatchHeader::parse_produced(batch)?;
        let limit = self.config.max_message_bytes();
        if batch.len() > limit {
            return Err(AppendFault::TooLarge { size: batch.len(), limit });
        }
        let mut segments = lock(&self.segments);
        if self.closed.load(Ordering::Acquire) {
            return Err(AppendFault::Closed);
        }
        if self.failed.load(Ordering::Acquire) {
            self.heal(&mut segments)?;
        }
        let (base_offset, next) = match segments.producers.judge(&header) {
            Verdict::Next => {
                let offset = segments.append(&header, batch, self.config.segment_bytes()).inspect_err(|fault| {
                    self.complain(fault);
                    self.after_failed_append(&segments);
                })?;
                self.counters.appended(header.records, header.size);
                (offset, segments.end())
            }
            Verdict::Duplicate { base_offset, next_offset } => (base_offset, next_offset),
            Verdict::OutOfOrder => return Err(AppendFault::OutOfOrder),
            Verdict::OldEpoch => return Err(AppendFault::OldEpoch),
        };
        self.end.store(segments.end(), Ordering::Release);
        self.rolled.store(segments.has_unsynced(), Ordering::Release);
        let ack = lock(&self.waiters).wait_until(next);
        if self.durability == Durability::Os {
            segments.durable = segments.end_point();
        }
        self.publish(&segments);
        Ok(Appended { base_offset, start: segments.start, ack })
    }

    fn after_failed_append(&self, segments: &Segments) {
        self.end.store(segments.end(), Ordering::Release);
    }

    /// Shows the durable end to readers and answers those who waited for it.
    fn publish(&self, segments: &Segments) {
        self.high_watermark.store(segments.durable.offset, Ordering::Release);
        lock(&self.waiters).advance(segments.durable.offset);
    }

    /// Whether something waits for a flush.
    pub(crate) fn is_dirty(&self) -> bool {
        let pending = self.high_watermark() < self.end() || self.rolled.load(Ordering::Acquire);
        pending && !self.failed.load(Ordering::Acquire)
    }

    /// Makes everything appended so far durable. Appends go on meanwhile. Blocks on the disk.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let (plan, disk) = {
            let mut segments = lock(&self.segments);
            (segments.flush_plan(), segments.disk())
        };
        let synced = plan.files.iter().try_for_each(|file| disk.sync(file));
        let synced = synced.and_then(|()| plan.dir.as_deref().map_or(Ok(()), super::disk::sync_dir));
        self.counters.synced(plan.files.len());
        let mut segments = lock(&self.segments);
        match synced {
            Ok(()) => {
                segments.flushed(&plan);
                self.rolled.store(segments.has_unsynced(), Ordering::Release);
                self.publish(&segments);
                Ok(())
            }
            Err(fault) => {
                self.complain(&fault);
                self.failed.store(true, Ordering::Release);
                lock(&self.waiters).fail();
                Err(fault)
            }
        }
    }

    /// After a failed flush: back to what is surely on disk. The producers hear of it and send again.
    fn heal(&self, segments: &mut Segments) -> io::Result<()> {
        segments.cut_to_durable().map_err(io::Error::other)?;
        self.failed.store(false, Ordering::Release);
        self.end.store(segments.end(), Ordering::Release);
        self.publish(segments);
        tracing::info!(partition = %self.name, end = segments.end(), "the log's storage works again");
        Ok(())
    }

    /// Says at most once in ten seconds that the disk fails.
    fn complain(&self, fault: &io::Error) {
        let now = crate::clock::now_millis() as u64;
        let last = self.complained.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= 10_000 {
            self.complained.store(now, Ordering::Relaxed);
            tracing::error!(
                partition = %self.name, %fault,
                "the log cannot be written: produces are answered with a retriable error, reading goes on; \
                 free space or repair the disk and it goes on by itself"
            );
        }
    }

    /// Whole batches from `offset` on, durable ones only, at least one if there is any. Blocks on the disk.
    pub(crate) fn read(&self, offset: i64, max_bytes: usize) -> io::Result<Vec<u8>> {
        let Some(extent) = lock(&self.segments).locate(offset) else { return Ok(Vec::new()) };
        match extent.read(offset, max_bytes) {
            // Retention has taken the segment meanwhile; the next fetch hears that its offset is out of range.
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Wakes `fetch` when the durable end moves.
    pub(crate) fn watch(&self, fetch: &Arc<Notify>) {
        lock(&self.waiters).watch(fetch);
    }

    /// First kept record with a timestamp of at least `timestamp`, as (offset, timestamp).
    pub(crate) fn find_time(&self, timestamp: i64) -> io::Result<Option<(i64, i64)>> {
        let (extents, start) = {
            let segments = lock(&self.segments);
            (segments.locate_time(timestamp), segments.start)
        };
        for extent in extents {
            if let Some((offset, found)) = extent.find_time(timestamp)? {
                return Ok(Some((offset.max(start), found)));
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp, as (offset, timestamp).
    pub(crate) fn find_max_time(&self) -> io::Result<Option<(i64, i64)>> {
        let extent = lock(&self.segments).locate_max_time();
        extent.map_or(Ok(None), |extent| extent.max_record())
    }

    /// Moves the first offset to `offset` (at most the durable end) and returns it. Blocks on the disk.
    pub(crate) fn delete_until(&self, offset: i64) -> Result<i64, BrokerError> {
        let mut segments = lock(&self.segments);
        if offset > segments.start {
            segments.set_start(offset)?;
        }
        self.start.store(segments.start, Ordering::Release);
        Ok(segments.start)
    }

    /// Deletes the closed segments that the topic's retention no longer wants, and looks after a failed log.
    pub(crate) fn maintain(&self, now_millis: i64) {
        let mut segments = lock(&self.segments);
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        if self.failed.load(Ordering::Acquire)
            && let Err(fault) = self.heal(&mut segments)
        {
            self.complain(&fault);
        }
        if !self.config.deletes() {
            return;
        }
        if let Some(keep) = self.config.retention_ms() {
            segments.delete_while(|_, segment| segment.index.max_timestamp < now_millis.saturating_sub(keep));
        }
        if let Some(keep) = self.config.retention_bytes() {
            segments.delete_while(|total, segment| total - segment.index.size >= keep);
        }
        self.start.store(segments.start, Ordering::Release);
    }

    /// Flushes, keeps what makes the next start quick, and lets nobody append any more.
    pub(crate) fn close(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            self.abandon();
            return Err(io::Error::other("an earlier flush failed"));
        }
        self.closed.store(true, Ordering::Release);
        let flushed = self.flush();
        let mut segments = lock(&self.segments);
        if flushed.is_ok() {
            segments.save();
        }
        flushed
    }

    /// Lets nobody append any more, as after a crash: nothing is flushed or kept.
    pub(crate) fn abandon(&self) {
        let _held = lock(&self.segments);
        self.closed.store(true, Ordering::Release);
        lock(&self.waiters).fail();
    }
}
