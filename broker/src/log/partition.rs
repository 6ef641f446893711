//! One partition: its segments behind a lock, its durable end for everybody to see, and those who wait for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::compact;
use super::disk::Disk;
use super::files::Files;
use super::producers::{Aborted, Described, Verdict};
use super::room::Room;
use super::scan::batches;
use super::segments::Segments;
use super::waiters::{Ack, Waiters};
use crate::batch::{BatchFault, BatchHeader, marker, repacked, stamped};
use crate::clock::now_millis;
use crate::complaints::Complaints;
use crate::config::Durability;
use crate::error::BrokerError;
use crate::records::{RecordFault, all_have_keys};
use crate::stats::Counters;
use crate::topic_config::{LiveConfig, TopicConfig};

/// So many of the newest records have just been written.
const FRESH: i64 = 1_000;

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
    #[error("a compacted topic takes only records with a key")]
    NoKey,
    #[error("{0}")]
    Records(#[from] RecordFault),
    #[error("the timestamp is further from now than the topic's message.timestamp.before.max.ms or after.max.ms")]
    Timestamp,
    #[error("the disk is nearly full; free some space on the broker's machine")]
    NoRoom,
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
    /// The time that the broker gave the records, if it did.
    pub(crate) append_time: Option<i64>,
    pub(crate) ack: Ack,
}

/// What a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Everything that is durable.
    Uncommitted,
    /// What lies before the first open transaction.
    Committed,
}

/// What all partitions of a broker share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ground {
    pub(crate) durability: Durability,
    pub(crate) disk: Disk,
    pub(crate) files: Files,
    pub(crate) room: Room,
    pub(crate) counters: Arc<Counters>,
}

/// One partition of a topic.
#[derive(Debug)]
pub(crate) struct Partition {
    /// `<topic>-<index>`, as in its folder's name.
    pub(crate) name: String,
    dir: PathBuf,
    config: LiveConfig,
    ground: Ground,
    segments: Mutex<Segments>,
    waiters: Mutex<Waiters>,
    /// Copies of what the lock guards, for readers that need not wait for an append.
    high_watermark: AtomicI64,
    last_stable: AtomicI64,
    end: AtomicI64,
    start: AtomicI64,
    /// A flush failed: nothing is appended until the log has been cut back to what is surely there.
    failed: AtomicBool,
    closed: AtomicBool,
    /// So that a full disk does not fill the log.
    complaints: Complaints,
    /// Whether the flusher has it in its queue or its hands.
    pub(crate) queued: AtomicBool,
    /// How far compaction has come; held while it works.
    cleaning: Mutex<compact::Progress>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock leaves at worst an entry too few in an index; the log's bytes are checked by readers anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partition {
    /// Opens or creates the partition in `dir`.
    pub(crate) fn open(dir: &Path, config: LiveConfig, ground: Ground) -> Result<Self, BrokerError> {
        let segments = Segments::open(dir, ground.disk.clone(), ground.files.clone())?;
        let partition = Self {
            name: dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            dir: dir.to_path_buf(),
            config,
            ground,
            high_watermark: AtomicI64::new(0),
            last_stable: AtomicI64::new(0),
            end: AtomicI64::new(segments.end()),
            start: AtomicI64::new(segments.start),
            segments: Mutex::new(segments),
            waiters: Mutex::new(Waiters::default()),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            complaints: Complaints::default(),
            queued: AtomicBool::new(false),
            cleaning: Mutex::new(compact::Progress::load(dir)),
        };
        partition.publish(&lock(&partition.segments));
        Ok(partition)
    }

    /// Offset up to which consumers may read: everything before it is durable.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Offset up to which `isolation` lets a consumer read.
    pub(crate) fn readable(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::Uncommitted => self.high_watermark(),
            Isolation::Committed => self.last_stable.load(Ordering::Acquire),
        }
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
        let (config, now) = (self.config.get(), now_millis());
        check_batch(&header, batch, &config, now)?;
        let repacked = match config.codec {
            Some(codec) if codec != header.codec() => Some(Bytes::from(repacked(&header, batch, codec)?)),
            _ => None,
        };
        let (header, batch) = match &repacked {
            Some(batch) => (BatchHeader::parse(batch)?, batch),
            None => (header, batch),
        };
        check_size(batch, &config)?;
        if !self.ground.room.take(batch.len()) {
            return Err(AppendFault::NoRoom);
        }
        if config.log_append_time {
            let stamped = stamped(batch, now);
            let header = BatchHeader::parse(&stamped)?;
            return self.place(&header, &stamped, &config, None).map(|placed| Appended { append_time: Some(now), ..placed });
        }
        self.place(&header, batch, &config, None)
    }

    /// Ends a producer's transaction here. Blocks on the disk; asks for no room, so that transactions end on a full disk, too.
    pub(crate) fn append_marker(&self, producer_id: i64, epoch: i16, commit: bool) -> Result<Appended, AppendFault> {
        let batch = marker(producer_id, epoch, commit, now_millis());
        let header = BatchHeader::parse(&batch)?;
        self.place(&header, &batch, &self.config.get(), Some(commit))
    }

    fn place(&self, header: &BatchHeader, batch: &[u8], config: &TopicConfig, marker: Option<bool>) -> Result<Appended, AppendFault> {
        let mut segments = lock(&self.segments);
        if self.closed.load(Ordering::Acquire) {
            return Err(AppendFault::Closed);
        }
        if self.failed.load(Ordering::Acquire) {
            self.heal(&mut segments)?;
        }
        let verdict = if marker.is_some() { Verdict::Next } else { segments.producers.judge(header) };
        let (base_offset, next) = match verdict {
            Verdict::Next => {
                let offset = segments.append(header, batch, config, marker).inspect_err(|fault| {
                    self.complain(fault);
                    self.after_failed_append(&segments);
                })?;
                self.ground.counters.appended(header.records, header.size);
                (offset, segments.end())
            }
            Verdict::Duplicate { base_offset, next_offset } => (base_offset, next_offset),
            Verdict::OutOfOrder => return Err(AppendFault::OutOfOrder),
            Verdict::OldEpoch => return Err(AppendFault::OldEpoch),
        };
        self.end.store(segments.end(), Ordering::Release);
        let ack = lock(&self.waiters).wait_until(next);
        if self.ground.durability == Durability::Os {
            segments.durable = segments.end_point();
            segments.close_idle();
        }
        self.publish(&segments);
        Ok(Appended { base_offset, start: segments.start, append_time: None, ack })
    }

    /// A roll inside the append may have gone half way, or have met a disk that cannot flush.
    fn after_failed_append(&self, segments: &Segments) {
        self.end.store(segments.end(), Ordering::Release);
        if segments.suspect {
            self.fail();
        } else {
            self.publish(segments);
        }
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        lock(&self.waiters).fail();
    }

    /// Shows the durable end to readers and answers those who waited for it.
    fn publish(&self, segments: &Segments) {
        let durable = segments.durable.offset;
        let stable = segments.producers.first_open().map_or(durable, |open| open.min(durable));
        self.high_watermark.store(durable, Ordering::Release);
        self.last_stable.store(stable, Ordering::Release);
        lock(&self.waiters).advance(durable);
    }

    /// Whether something waits for a flush.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.failed.load(Ordering::Acquire) && self.high_watermark() < self.end()
    }

    /// Makes everything appended so far durable. Appends go on meanwhile. Blocks on the disk.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let plan = lock(&self.segments).flush_plan();
        let synced = plan.and_then(|plan| plan.disk.sync(plan.file.file()).map(|()| plan));
        self.ground.counters.synced(1);
        let mut segments = lock(&self.segments);
        match synced {
            Ok(plan) => {
                segments.flushed(&plan);
                drop(plan);
                segments.close_idle();
                self.publish(&segments);
                Ok(())
            }
            Err(fault) => {
                self.fail();
                self.complain(&fault);
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
        if let Some(unsaid) = self.complaints.next(now_millis()) {
            tracing::error!(
                partition = %self.name, %fault, unsaid,
                "the log cannot be written: produces are answered with a retriable error, reading goes on; \
                 free space or repair the disk and it goes on by itself"
            );
        }
    }

    /// Whole batches from `offset` on, those that `isolation` shows, at least one if there is any. Blocks on the disk.
    pub(crate) fn read(&self, offset: i64, max_bytes: usize, isolation: Isolation) -> io::Result<Bytes> {
        let readable = self.readable(isolation);
        if offset >= readable {
            return Ok(Bytes::new());
        }
        let extent = lock(&self.segments).locate(offset)?;
        let Some(extent) = extent else { return Ok(Bytes::new()) };
        let mut read = extent.read(offset, max_bytes)?;
        if isolation == Isolation::Committed {
            let open = batches(&read).find(|(_, header)| header.base_offset >= readable).map(|(begin, _)| begin);
            read.truncate(open.unwrap_or(read.len()));
        }
        Ok(read)
    }

    /// Aborted transactions that concern a reader of the offsets between `from` and `until`.
    pub(crate) fn aborted_in(&self, from: i64, until: i64) -> Vec<Aborted> {
        lock(&self.segments).producers.aborted_in(from, until)
    }

    /// Producers with an open transaction here, with their epochs.
    pub(crate) fn open_transactions(&self) -> Vec<(i64, i16)> {
        lock(&self.segments).producers.open()
    }

    pub(crate) fn producers(&self) -> Vec<Described> {
        lock(&self.segments).producers.described()
    }

    /// Whether no more than the newest few records lie behind `offset`.
    pub(crate) fn is_fresh(&self, offset: i64) -> bool {
        self.high_watermark() - offset <= FRESH
    }

    /// Wakes `fetch` when the durable end moves.
    pub(crate) fn watch(&self, fetch: &Arc<Notify>) {
        lock(&self.waiters).watch(fetch);
    }

    /// First kept record with a timestamp of at least `timestamp`, as (offset, timestamp).
    pub(crate) fn find_time(&self, timestamp: i64) -> io::Result<Option<(i64, i64)>> {
        let mut after = i64::MIN;
        loop {
            let (located, start) = {
                let segments = lock(&self.segments);
                (segments.locate_time(timestamp, after)?, segments.start)
            };
            let Some((extent, next)) = located else { return Ok(None) };
            if let Some(found) = extent.find_time(timestamp, start)? {
                return Ok(Some(found));
            }
            after = next;
        }
    }

    /// The record with the largest timestamp, as (offset, timestamp).
    pub(crate) fn find_max_time(&self) -> io::Result<Option<(i64, i64)>> {
        let extent = lock(&self.segments).locate_max_time()?;
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

    /// Looks after a failed log.
    pub(crate) fn look_after(&self) {
        if self.failed.load(Ordering::Acquire) && !self.closed.load(Ordering::Acquire) {
            let mut segments = lock(&self.segments);
            if let Err(fault) = self.heal(&mut segments) {
                self.complain(&fault);
            }
        }
    }

    /// Rolls by time and deletes the closed segments that the topic's retention no longer wants.
    pub(crate) fn retain(&self, now_millis: i64) {
        let config = self.config.get();
        let mut segments = lock(&self.segments);
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        if let Err(fault) = self.roll_by_time(&mut segments, &config, now_millis) {
            self.complain(&fault);
        }
        retain(&mut segments, &config, now_millis);
        segments.close_idle();
        self.end.store(segments.end(), Ordering::Release);
        self.start.store(segments.start, Ordering::Release);
    }

    /// Compacts the log if its topic is compacted and a pass is due.
    pub(crate) fn compact(&self, now_millis: i64) {
        if self.config.get().compacts
            && let Err(fault) = self.compact_now(now_millis)
        {
            tracing::warn!(partition = %self.name, %fault, "the log could not be compacted; it stays as it is and is tried again");
        }
    }

    /// A segment that is old enough is closed, or what is in it could never be deleted or compacted.
    fn roll_by_time(&self, segments: &mut Segments, config: &TopicConfig, now_millis: i64) -> io::Result<()> {
        let (first, last) = segments.active_times();
        let expired = config.deletes && config.retention_ms().is_some_and(|keep| last < now_millis.saturating_sub(keep));
        let empty = last == i64::MIN;
        if empty || self.failed.load(Ordering::Acquire) || (!expired && first >= now_millis.saturating_sub(config.roll_ms())) {
            return Ok(());
        }
        let rolled = segments.roll();
        if segments.suspect {
            self.fail();
        } else {
            self.publish(segments);
        }
        rolled
    }

    /// A pass, if one is due.
    pub(super) fn compact_now(&self, now_millis: i64) -> io::Result<()> {
        let config = self.config.get();
        let mut progress = lock(&self.cleaning);
        let plan = compact::plan(&lock(&self.segments), &progress, &config, self.readable(Isolation::Committed), now_millis);
        let Some(plan) = plan else { return Ok(()) };
        let before = self.bytes();
        let pass = compact::Pass::begin(&plan, &config, now_millis)?;
        let done = pass.run(|cleaned| {
            let mut segments = lock(&self.segments);
            if self.closed.load(Ordering::Acquire) { Ok(false) } else { compact::put_in_place(&mut segments, cleaned) }
        })?;
        if let Some(done) = done {
            tracing::debug!(partition = %self.name, before, after = self.bytes(), "compacted");
            *progress = done;
        }
        Ok(())
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

fn check_batch(header: &BatchHeader, batch: &[u8], config: &TopicConfig, now: i64) -> Result<(), AppendFault> {
    check_size(batch, config)?;
    if config.compacts && !all_have_keys(header, batch)? {
        return Err(AppendFault::NoKey);
    }
    let late = header.base_timestamp < now.saturating_sub(config.before_max_ms);
    let early = header.max_timestamp > now.saturating_add(config.after_max_ms);
    if !config.log_append_time && header.max_timestamp >= 0 && (late || early) {
        return Err(AppendFault::Timestamp);
    }
    Ok(())
}

fn check_size(batch: &[u8], config: &TopicConfig) -> Result<(), AppendFault> {
    let (size, limit) = (batch.len(), config.max_message_bytes());
    if size > limit { Err(AppendFault::TooLarge { size, limit }) } else { Ok(()) }
}

fn retain(segments: &mut Segments, config: &TopicConfig, now_millis: i64) {
    if !config.deletes {
        return;
    }
    if let Some(keep) = config.retention_ms() {
        segments.delete_while(|_, segment| segment.index.max_timestamp < now_millis.saturating_sub(keep));
    }
    if let Some(keep) = config.retention_bytes() {
        segments.delete_while(|total, segment| total - segment.index.size >= keep);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::batch::fixture::{Spec, batch};

    fn open_with(dir: &Path, segment_bytes: u64, disk: Disk) -> Result<Partition, BrokerError> {
        let config = LiveConfig::new(TopicConfig::new(BTreeMap::new(), segment_bytes).unwrap());
        Partition::open(dir, config, Ground { disk, ..Ground::default() })
    }

    fn open(dir: &Path) -> Partition {
        open_with(dir, 1 << 20, Disk::default()).unwrap()
    }

    fn spec(i: i64) -> Spec {
        Spec { records: 2, timestamp: 1_000 + i * 10, producer: (7, 0, (i * 2) as i32), value: Some(vec![i as u8; 30]), ..Spec::default() }
    }

    fn put(partition: &Partition, i: i64) -> Result<i64, AppendFault> {
        partition.append(&batch(&spec(i)).into()).map(|appended| appended.base_offset)
    }

    fn bases(bytes: &[u8]) -> Vec<i64> {
        batches(bytes).map(|(_, header)| header.base_offset).collect()
    }

    #[test]
    fn only_what_is_flushed_is_read_and_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path());
        let mut appended = partition.append(&batch(&spec(0)).into()).unwrap();
        assert!(appended.ack.try_recv().is_err());
        assert_eq!((partition.high_watermark(), partition.end()), (0, 2));
        assert!(partition.read(0, 1 << 20, Isolation::Uncommitted).unwrap().is_empty());
        partition.flush().unwrap();
        assert_eq!(appended.ack.try_recv().unwrap(), Ok(()));
        assert_eq!(bases(&partition.read(1, 1 << 20, Isolation::Uncommitted).unwrap()), [0]);
    }

    #[test]
    fn reads_begin_anywhere_cross_segments_and_keep_to_their_size() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open_with(dir.path(), 4096, Disk::default()).unwrap();
        for i in 0..200 {
            assert_eq!(put(&partition, i).unwrap(), i * 2);
        }
        partition.flush().unwrap();
        let size = batch(&spec(0)).len();
        for offset in 0..400 {
            let read = partition.read(offset, size * 3, Isolation::Uncommitted).unwrap();
            let found = bases(&read);
            assert_eq!(found[0], offset / 2 * 2);
            assert!(found.len() <= 3);
            assert_eq!(bases(&partition.read(offset, 1, Isolation::Uncommitted).unwrap()), [offset / 2 * 2], "at least one batch");
        }
        let mut at = 0;
        while at < 400 {
            let read = partition.read(at, 10_000, Isolation::Uncommitted).unwrap();
            at = batches(&read).last().unwrap().1.next_offset();
        }
        assert_eq!(partition.find_time(1_000 + 77 * 10).unwrap(), Some((154, 1_770)));
        assert_eq!(partition.find_time(1_000 + 77 * 10 + 1).unwrap(), Some((155, 1_771)));
        assert_eq!(partition.find_max_time().unwrap(), Some((399, 2_991)));
        assert_eq!(partition.find_time(5_000).unwrap(), None);
    }

    #[test]
    fn a_large_batch_between_small_ones_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path());
        put(&partition, 0).unwrap();
        let large = batch(&Spec { value: Some(vec![1; 300_000]), ..Spec::default() });
        partition.append(&large.into()).unwrap();
        put(&partition, 1).unwrap();
        partition.flush().unwrap();
        assert_eq!(bases(&partition.read(2, 100, Isolation::Uncommitted).unwrap()), [2]);
        assert_eq!(bases(&partition.read(3, 100, Isolation::Uncommitted).unwrap()), [3]);
        assert_eq!(
            partition.read(0, 400_000, Isolation::Uncommitted).unwrap().len(),
            fs::metadata(dir.path().join("00000000000000000000.log")).unwrap().len() as usize
        );
    }

    #[test]
    fn duplicates_are_acknowledged_with_their_first_offset_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for clean in [false, true] {
            let partition = open(dir.path());
            let next = partition.end() / 2;
            for i in next..next + 3 {
                put(&partition, i).unwrap();
            }
            assert_eq!(put(&partition, next).unwrap(), next * 2);
            assert!(matches!(put(&partition, next + 7), Err(AppendFault::OutOfOrder)));
            if clean {
                partition.close().unwrap();
            } else {
                partition.flush().unwrap();
                partition.abandon();
            }
            let again = open(dir.path());
            assert_eq!(again.end(), next * 2 + 6);
            assert_eq!(put(&again, next + 2).unwrap(), (next + 2) * 2);
            assert_eq!(again.end(), next * 2 + 6, "nothing was appended twice");
            assert!(matches!(put(&again, next + 9), Err(AppendFault::OutOfOrder)));
        }
    }

    #[test]
    fn producers_are_known_after_a_restart_whatever_is_left_of_snapshots_and_indexes() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open_with(dir.path(), 2048, Disk::default()).unwrap();
        for i in 0..60 {
            put(&partition, i).unwrap();
            partition.flush().unwrap();
        }
        partition.close().unwrap();
        for kind in ["producers", "index"] {
            for entry in fs::read_dir(dir.path()).unwrap().flatten() {
                if entry.path().extension().is_some_and(|e| e == kind) {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
            let again = open_with(dir.path(), 2048, Disk::default()).unwrap();
            assert_eq!(put(&again, 59).unwrap(), 118);
            assert!(matches!(put(&again, 61), Err(AppendFault::OutOfOrder)));
            again.abandon();
        }
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("00000000000000000000.log");
        let partition = open(dir.path());
        for i in 0..3 {
            put(&partition, i).unwrap();
        }
        partition.flush().unwrap();
        partition.abandon();
        let whole = fs::read(&log).unwrap();
        let size = batch(&spec(0)).len();
        for cut in whole.len() - size..whole.len() {
            fs::write(&log, &whole[..cut]).unwrap();
            let again = open(dir.path());
            assert_eq!(again.end(), 4, "cut at {cut}");
            assert_eq!(fs::metadata(&log).unwrap().len(), (whole.len() - size) as u64);
            assert_eq!(put(&again, 2).unwrap(), 4, "the producer's last batch is expected again");
            again.flush().unwrap();
            assert_eq!(fs::read(&log).unwrap(), whole);
        }
    }

    #[test]
    fn damage_before_the_end_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("00000000000000000000.log");
        let partition = open(dir.path());
        for i in 0..3 {
            put(&partition, i).unwrap();
        }
        partition.close().unwrap();
        let whole = fs::read(&log).unwrap();
        let size = batch(&spec(0)).len();
        for at in size..2 * size {
            let mut broken = whole.clone();
            broken[at] ^= 0x10;
            fs::write(&log, &broken).unwrap();
            match open_with(dir.path(), 1 << 20, Disk::default()) {
                Err(BrokerError::Corrupt { file, at: named, .. }) => assert_eq!((file, named), (log.clone(), size as u64)),
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_full_disk_refuses_leaves_nothing_half_written_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let size = batch(&spec(0)).len() as i64;
        // Two batches, half of a third, and the two slots of the mark.
        let (disk, budget) = Disk::with_budget(2 * size + 20 + 72);
        let partition = open_with(dir.path(), 1 << 20, disk).unwrap();
        put(&partition, 0).unwrap();
        put(&partition, 1).unwrap();
        assert!(matches!(put(&partition, 2), Err(AppendFault::Storage(_))));
        assert_eq!(fs::metadata(dir.path().join("00000000000000000000.log")).unwrap().len(), 2 * size as u64);
        partition.flush().unwrap();
        assert_eq!(bases(&partition.read(0, 1 << 20, Isolation::Uncommitted).unwrap()), [0, 2]);
        budget.store(1 << 20, Ordering::SeqCst);
        assert_eq!(put(&partition, 2).unwrap(), 4);
    }

    #[test]
    fn a_failed_flush_refuses_and_the_log_goes_back_to_what_is_sure() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path());
        put(&partition, 0).unwrap();
        partition.close().unwrap();
        let partition = open_with(dir.path(), 1 << 20, Disk::with_failing_syncs(1)).unwrap();
        let mut appended = partition.append(&batch(&spec(1)).into()).unwrap();
        partition.flush().unwrap_err();
        assert!(appended.ack.try_recv().unwrap().is_err());
        assert_eq!(bases(&partition.read(0, 1 << 20, Isolation::Uncommitted).unwrap()), [0]);
        assert_eq!(put(&partition, 1).unwrap(), 2, "the same batch again is no duplicate");
        partition.flush().unwrap();
        assert_eq!(bases(&partition.read(0, 1 << 20, Isolation::Uncommitted).unwrap()), [0, 2]);
    }

    #[test]
    fn the_first_offset_is_kept_even_when_all_records_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path());
        for i in 0..4 {
            put(&partition, i).unwrap();
        }
        partition.flush().unwrap();
        assert_eq!(partition.delete_until(8).unwrap(), 8);
        partition.close().unwrap();
        let again = open(dir.path());
        assert_eq!((again.start(), again.end()), (8, 8));
        assert_eq!(put(&again, 4).unwrap(), 8);
    }

    #[test]
    fn segments_must_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open_with(dir.path(), 1024, Disk::default()).unwrap();
        for i in 0..30 {
            put(&partition, i).unwrap();
        }
        partition.close().unwrap();
        // A roll that ran out of space leaves an empty file; the log goes on without it.
        let leftover = dir.path().join("00000000000000000099.log");
        fs::write(&leftover, "").unwrap();
        let again = open_with(dir.path(), 1024, Disk::default()).unwrap();
        assert_eq!(again.end(), 60);
        assert!(!leftover.exists());
        again.abandon();
        let second = fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.path());
        let mut logs: Vec<_> = second.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
        logs.sort();
        assert!(logs.len() > 2);
        fs::remove_file(&logs[1]).unwrap();
        let refused = open_with(dir.path(), 1024, Disk::default()).unwrap_err();
        assert!(matches!(refused, BrokerError::Damaged { .. }), "{refused}");
    }
}
