//! Compaction: of all records with a key, the last one stays.
//!
//! A pass reads the closed segments that are new since the last one and notes the last offset of each key. Then it writes all closed
//! segments anew without the records that a later one has replaced, and puts each into the place of its old file. The active segment,
//! and what lies after the first open transaction, is left alone.
//!
//! Offsets stay: where whole batches go, one batch without records takes their range, so that every segment still begins where the
//! one before it ends, and a missing file is noticed. A tombstone, and a transaction's marker, stays `delete.retention.ms` longer
//! than the first pass that met it; until when is noted in its batch, as Kafka does.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk;
use super::index::Index;
use super::open::UNFINISHED;
use super::producers::Aborted;
use super::segment::Segment;
use super::segments::Segments;
use crate::batch::{BatchHeader, HEADER, seal};
use crate::records::{Record, Records, compress, unpack};
use crate::topic_config::TopicConfig;

/// Keys that one pass remembers; what comes after them waits for the next pass.
const MAX_KEYS: usize = 500_000;
const FILE: &str = "compaction.json";

/// How far the log has been compacted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// No key before this offset is there twice.
    until: i64,
    /// Milliseconds since 1970 at which the next tombstone may go.
    horizon: Option<i64>,
}

impl Progress {
    /// Reads it; without the file the log counts as never compacted, which costs a pass.
    pub(crate) fn load(dir: &Path) -> Self {
        fs::read(dir.join(FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn save(&self, dir: &Path) -> io::Result<()> {
        disk::replace(&dir.join(FILE), &serde_json::to_vec(self)?)
    }
}

/// A closed segment that a pass reads.
#[derive(Debug, Clone)]
struct Source {
    base: i64,
    path: PathBuf,
    size: u64,
    next_offset: i64,
}

/// What one pass will do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) dir: PathBuf,
    sources: Vec<Source>,
    dirty_from: i64,
    aborted: Vec<Aborted>,
}

/// Looks whether a pass is due; callers hold the partition's lock. `stable`: offset of the first open transaction.
pub(crate) fn plan(segments: &Segments, progress: &Progress, config: &TopicConfig, stable: i64, now: i64) -> Option<Plan> {
    let closed = &segments.list[..segments.list.len() - 1];
    let settled = |s: &&Segment| {
        let old = config.min_compaction_lag_ms == 0 || s.index.max_timestamp <= now.saturating_sub(config.min_compaction_lag_ms);
        s.base < segments.durable.segment && s.index.next_offset <= stable && old
    };
    let ready: Vec<&Segment> = closed.iter().take_while(settled).collect();
    let dirty: Vec<&&Segment> = ready.iter().filter(|s| s.index.next_offset > progress.until).collect();
    let bytes = |list: &mut dyn Iterator<Item = &Segment>| list.map(|s| s.index.size).sum::<u64>();
    let (dirty_bytes, all) = (bytes(&mut dirty.iter().map(|s| **s)), bytes(&mut ready.iter().copied()));
    let waited = dirty.first().is_some_and(|s| s.index.first_timestamp < now.saturating_sub(config.max_compaction_lag_ms));
    let enough = dirty_bytes > 0 && (dirty_bytes as f64 >= config.dirty_ratio * all as f64 || waited);
    let expired = progress.horizon.is_some_and(|horizon| horizon <= now) && !ready.is_empty();
    let until = ready.last()?.index.next_offset;
    let source = |s: &&Segment| Source { base: s.base, path: s.path.clone(), size: s.index.size, next_offset: s.index.next_offset };
    (enough || expired).then(|| Plan {
        dir: segments.dir.clone(),
        sources: ready.iter().map(source).collect(),
        dirty_from: progress.until,
        aborted: segments.producers.aborted_in(0, until),
    })
}

/// The last offset of each key, by a hash of the key that a client cannot foresee.
struct Keys {
    hashers: (RandomState, RandomState),
    last: HashMap<u128, i64>,
    /// Offset from which on nothing is known.
    until: i64,
}

impl Keys {
    fn hash(&self, key: &[u8]) -> u128 {
        u128::from(self.hashers.0.hash_one(key)) << 64 | u128::from(self.hashers.1.hash_one(key))
    }
}

/// Segments that have been written anew as one, not yet in place.
#[derive(Debug)]
pub(crate) struct Cleaned {
    bases: Vec<i64>,
    fresh: PathBuf,
    index: Index,
}

/// A pass: the keys it knows and what it has found out for the next.
pub(crate) struct Pass<'a> {
    plan: &'a Plan,
    config: &'a TopicConfig,
    now: i64,
    keys: Keys,
    horizon: Option<i64>,
}

impl<'a> Pass<'a> {
    /// Reads the keys of what is new.
    pub(crate) fn begin(plan: &'a Plan, config: &'a TopicConfig, now: i64) -> io::Result<Self> {
        let mut keys = Keys { hashers: <_>::default(), last: HashMap::new(), until: plan.dirty_from };
        'all: for source in plan.sources.iter().filter(|source| source.next_offset > plan.dirty_from) {
            let mut batches = Batches::open(source)?;
            while let Some((header, batch)) = batches.next()? {
                if !header.is_control() && !plan.is_aborted(&header) {
                    note(&mut keys, &header, &batch);
                }
                keys.until = keys.until.max(header.next_offset());
                if keys.last.len() >= MAX_KEYS {
                    break 'all;
                }
            }
        }
        Ok(Self { plan, config, now, keys, horizon: None })
    }

    /// The segments in groups, each of which becomes one file of at most a segment's size.
    fn groups(&self) -> Vec<&'a [Source]> {
        let sources = &self.plan.sources;
        let last = sources.iter().position(|source| source.base >= self.keys.until).unwrap_or(sources.len());
        let (mut groups, mut from, mut bytes) = (Vec::new(), 0, 0);
        for at in 0..last {
            if at > from && bytes + sources[at].size > self.config.segment_bytes() {
                groups.push(&sources[from..at]);
                (from, bytes) = (at, 0);
            }
            bytes += sources[at].size;
        }
        groups.push(&sources[from..last]);
        groups
    }

    /// Writes all segments anew, one group at a time, and has each put into its place.
    pub(crate) fn run(mut self, mut place: impl FnMut(Cleaned) -> io::Result<bool>) -> io::Result<Option<Progress>> {
        for group in self.groups() {
            let Some(first) = group.first() else { continue };
            let fresh = first.path.with_extension(UNFINISHED);
            let placed = self.clean(group, &fresh).and_then(&mut place);
            if !matches!(placed, Ok(true)) {
                disk::remove(&fresh)?;
            }
            if !placed? {
                return Ok(None);
            }
        }
        let progress = Progress { until: self.keys.until, horizon: self.horizon };
        progress.save(&self.plan.dir)?;
        Ok(Some(progress))
    }

    fn clean(&mut self, group: &[Source], fresh: &Path) -> io::Result<Cleaned> {
        let base = group.first().map_or(0, |source| source.base);
        let mut out = Out { file: BufWriter::new(File::create(fresh)?), index: Index::new(base) };
        for source in group {
            let mut batches = Batches::open(source)?;
            while let Some((header, batch)) = batches.next()? {
                match self.judge(&header, &batch)? {
                    Fate::Stays => out.write(&header, &batch)?,
                    Fate::Changed(batch) => out.write(&BatchHeader::parse(&batch).map_err(io::Error::other)?, &batch)?,
                    Fate::Goes => {}
                }
            }
            out.fill(source.next_offset)?;
        }
        out.file.into_inner()?.sync_all()?;
        Ok(Cleaned { bases: group.iter().map(|source| source.base).collect(), fresh: fresh.to_path_buf(), index: out.index })
    }

    fn judge(&mut self, header: &BatchHeader, batch: &[u8]) -> io::Result<Fate> {
        if header.base_offset >= self.keys.until {
            return Ok(Fate::Stays);
        }
        if header.records == 0 || (!header.is_control() && self.plan.is_aborted(header)) {
            return Ok(Fate::Goes);
        }
        let unpacked = match unpack(header, batch) {
            Ok(unpacked) => unpacked,
            Err(fault) => {
                tracing::warn!(offset = header.base_offset, %fault, "a batch of a compacted topic cannot be read and stays as it is");
                return Ok(Fate::Stays);
            }
        };
        let Ok(records) = Records::new(&unpacked).collect::<Result<Vec<_>, _>>() else { return Ok(Fate::Stays) };
        let mortal = |record: &Record<'_>| header.is_control() || !record.has_value;
        let gone = header.delete_horizon().is_some_and(|horizon| horizon <= self.now);
        let stays = |record: &Record<'_>| {
            let newest = header.is_control() || self.is_newest(header, record);
            newest && !(gone && mortal(record))
        };
        let kept: Vec<_> = records.iter().filter(|record| stays(record)).collect();
        if kept.is_empty() {
            return Ok(Fate::Goes);
        }
        let has_mortal = kept.iter().any(|record| mortal(record));
        let horizon = has_mortal.then(|| header.delete_horizon().unwrap_or(self.now.saturating_add(self.config.delete_retention_ms)));
        self.horizon = [self.horizon, horizon].into_iter().flatten().min();
        let begins = horizon.filter(|_| header.delete_horizon().is_none());
        if kept.len() == records.len() && begins.is_none() {
            return Ok(Fate::Stays);
        }
        rebuild(header, &kept, begins).map(Fate::Changed)
    }

    fn is_newest(&self, header: &BatchHeader, record: &Record<'_>) -> bool {
        let Some(key) = record.key else { return false };
        let offset = header.base_offset + record.offset_delta;
        self.keys.last.get(&self.keys.hash(key)).is_none_or(|last| *last <= offset)
    }
}

impl Plan {
    fn is_aborted(&self, header: &BatchHeader) -> bool {
        let within = |a: &Aborted| a.producer_id == header.producer_id && (a.first_offset..a.last_offset).contains(&header.base_offset);
        header.is_transactional() && self.aborted.iter().any(within)
    }
}

fn note(keys: &mut Keys, header: &BatchHeader, batch: &[u8]) {
    // A batch that cannot be read stays, and replaces nothing.
    let Ok(unpacked) = unpack(header, batch) else { return };
    for record in Records::new(&unpacked).map_while(Result::ok) {
        if let Some(key) = record.key {
            let hash = keys.hash(key);
            keys.last.insert(hash, header.base_offset + record.offset_delta);
        }
    }
}

/// What becomes of a batch.
enum Fate {
    Stays,
    Changed(Vec<u8>),
    Goes,
}

/// The batch with some of its records, and perhaps with a horizon, which the records' timestamps are then relative to.
fn rebuild(header: &BatchHeader, kept: &[&Record<'_>], horizon: Option<i64>) -> io::Result<Vec<u8>> {
    let fresh = horizon.map_or(*header, |horizon| header.with_horizon(horizon));
    let shift = header.base_timestamp.wrapping_sub(fresh.base_timestamp);
    let mut records = Vec::new();
    for record in kept {
        record.write(&mut records, record.timestamp_delta.wrapping_add(shift));
    }
    let latest = kept.iter().map(|record| header.base_timestamp.wrapping_add(record.timestamp_delta)).max();
    let max_timestamp = if header.is_append_time() { header.max_timestamp } else { latest.unwrap_or(-1) };
    let fresh = BatchHeader { records: kept.len() as i32, max_timestamp, ..fresh };
    Ok(seal(&fresh, &compress(header.codec(), &records)?))
}

/// The fresh file of a group.
struct Out {
    file: BufWriter<File>,
    index: Index,
}

impl Out {
    fn write(&mut self, header: &BatchHeader, batch: &[u8]) -> io::Result<()> {
        self.fill(header.base_offset)?;
        self.file.write_all(batch)?;
        self.index.push(header.base_offset, batch.len() as u64, header.next_offset(), header.max_timestamp);
        Ok(())
    }

    /// Takes the place of what has gone, up to `offset`.
    fn fill(&mut self, offset: i64) -> io::Result<()> {
        while self.index.next_offset < offset {
            let base = self.index.next_offset;
            let delta = (offset - base - 1).min(i64::from(i32::MAX));
            let empty = seal(&BatchHeader::blank(base, delta as i32, 0), &[]);
            self.file.write_all(&empty)?;
            self.index.push(base, empty.len() as u64, base + delta + 1, -1);
        }
        Ok(())
    }
}

/// The checked batches of a segment file.
struct Batches {
    reader: BufReader<File>,
    left: u64,
}

impl Batches {
    fn open(source: &Source) -> io::Result<Self> {
        Ok(Self { reader: BufReader::with_capacity(256 << 10, File::open(&source.path)?), left: source.size })
    }

    fn next(&mut self) -> io::Result<Option<(BatchHeader, Vec<u8>)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut batch = vec![0; HEADER];
        self.reader.read_exact(&mut batch)?;
        let header = BatchHeader::parse(&batch).map_err(io::Error::other)?;
        self.left = self.left.checked_sub(header.size as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        batch.resize(header.size, 0);
        self.reader.read_exact(&mut batch[HEADER..])?;
        header.verify(&batch).map_err(io::Error::other)?;
        Ok(Some((header, batch)))
    }
}

/// Exchanges a group of segments for its fresh file; callers hold the partition's lock. `false` when the segments have changed
/// meanwhile, and the fresh file is of no use.
pub(crate) fn put_in_place(segments: &mut Segments, mut cleaned: Cleaned) -> io::Result<bool> {
    let Some(at) = segments.list.iter().position(|segment| cleaned.bases.first() == Some(&segment.base)) else { return Ok(false) };
    let until = at + cleaned.bases.len();
    let same = segments.list.get(at..until).is_some_and(|list| list.iter().map(|s| s.base).eq(cleaned.bases.iter().copied()));
    if !same || until >= segments.list.len() {
        return Ok(false);
    }
    let path = segments.list[at].path.clone();
    Index::forget(&path)?;
    fs::rename(&cleaned.fresh, &path)?;
    disk::sync_dir(&segments.dir)?;
    // From here on a start would remove the others itself: what is in them is in the first one.
    for other in &segments.list[at + 1..until] {
        Index::forget(&other.path)?;
        disk::remove(&other.path)?;
    }
    if let Err(fault) = cleaned.index.save(&path) {
        tracing::debug!(path = %path.display(), %fault, "no index beside the segment; a start will scan it");
    }
    let base = cleaned.bases[0];
    segments.list.splice(at..until, [Segment { base, path, index: cleaned.index }]);
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::batch::fixture::{Spec, batch};
    use crate::log::partition::{Ground, Isolation, Partition};
    use crate::log::scan::batches;
    use crate::topic_config::LiveConfig;

    fn open(dir: &Path) -> Partition {
        let given = [("cleanup.policy", "compact"), ("segment.bytes", "2048"), ("delete.retention.ms", "1000")];
        let given: BTreeMap<String, String> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Partition::open(dir, LiveConfig::new(TopicConfig::new(given, 1 << 20).unwrap()), Ground::default()).unwrap()
    }

    fn put(partition: &Partition, key: u64, value: Option<u64>, codec: i16) {
        let value = value.map(|value| format!("{value:030}").into_bytes());
        let spec = Spec { key: Some(format!("k{key}").into_bytes()), value, codec, timestamp: 5_000, ..Spec::default() };
        partition.append(&batch(&spec).into()).unwrap();
    }

    /// Offset and value of each key, as a reader of everything sees it; values without "k".
    fn contents(partition: &Partition) -> (BTreeMap<Vec<u8>, (i64, bool)>, usize) {
        let (mut found, mut records, mut at) = (BTreeMap::new(), 0, partition.start());
        while at < partition.high_watermark() {
            let read = partition.read(at, 1 << 20, Isolation::Uncommitted).unwrap();
            assert!(!read.is_empty(), "a hole at {at}");
            for (begin, header) in batches(&read) {
                header.verify(&read[begin..]).unwrap();
                let unpacked = unpack(&header, &read[begin..]).unwrap();
                for record in Records::new(&unpacked).map(Result::unwrap).filter(|_| !header.is_control()) {
                    found.insert(record.key.unwrap().to_vec(), (header.base_offset + record.offset_delta, record.has_value));
                    records += 1;
                    assert_eq!(header.base_timestamp + record.timestamp_delta, 5_000);
                }
                at = header.next_offset();
            }
        }
        (found, records)
    }

    #[test]
    fn the_last_record_of_each_key_stays_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path());
        for i in 0..600 {
            put(&partition, i % 7, Some(i), (i % 5) as i16);
        }
        partition.flush().unwrap();
        let (before, many) = contents(&partition);
        partition.compact_now(10_000).unwrap();
        let (after, few) = contents(&partition);
        assert_eq!(before, after);
        assert!(many == 600 && few < 60, "{few}");
        let bytes = partition.bytes();
        partition.compact_now(10_000).unwrap();
        assert_eq!(partition.bytes(), bytes, "nothing is left to do");
        // More of the same, a restart from an unbelieved state, and another pass.
        partition.close().unwrap();
        for entry in fs::read_dir(dir.path()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|e| e == "index") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        let partition = open(dir.path());
        assert_eq!(contents(&partition), (after, few));
        for i in 0..300 {
            put(&partition, i % 3, Some(i), 0);
        }
        partition.flush().unwrap();
        let (before, _) = contents(&partition);
        partition.compact_now(10_000).unwrap();
        assert_eq!(contents(&partition).0, before);
        assert_eq!(partition.end(), 900);
        assert_eq!(partition.find_time(5_000).unwrap().map(|found| found.1), Some(5_000));
    }

    #[test]
    fn a_segment_ends_when_the_time_of_its_records_does_and_is_compacted_at_the_next_look() {
        for limit in ["segment.ms", "max.compaction.lag.ms"] {
            let dir = tempfile::tempdir().unwrap();
            let given = [("cleanup.policy", "compact"), (limit, "1000"), ("min.cleanable.dirty.ratio", "0.01")];
            let given: BTreeMap<String, String> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let config = LiveConfig::new(TopicConfig::new(given, 1 << 20).unwrap());
            let partition = Partition::open(dir.path(), config, Ground::default()).unwrap();
            let segments = || {
                let names = fs::read_dir(dir.path()).unwrap().flatten().filter_map(|entry| Segment::base_of(&entry.path()));
                let mut bases: Vec<_> = names.collect();
                bases.sort_unstable();
                bases
            };
            let put = |timestamp: i64| {
                // The latest of the two is a millisecond later.
                let spec = Spec { key: Some(b"k".to_vec()), records: 2, timestamp, ..Spec::default() };
                partition.append(&batch(&spec).into()).unwrap();
            };
            for timestamp in [10_000, 10_500, 9_000, 11_000] {
                put(timestamp);
            }
            assert_eq!(segments(), [0], "{limit}");
            put(11_001);
            put(11_500);
            assert_eq!(segments(), [0, 8]);
            partition.flush().unwrap();
            partition.compact_now(20_000).unwrap();
            let kept = batches(&fs::read(dir.path().join("00000000000000000000.log")).unwrap()).map(|(_, h)| h.records).sum::<i32>();
            assert_eq!(kept, 1, "the last one of the closed segment");
        }
    }

    #[test]
    fn tombstones_stay_for_their_time_and_then_go() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path());
        for i in 0..100 {
            put(&partition, i, Some(i), 4);
        }
        for i in 0..50 {
            put(&partition, i, None, 3);
        }
        for i in 0..50 {
            put(&partition, 1000 + i, Some(i), 0);
        }
        partition.flush().unwrap();
        partition.compact_now(10_000).unwrap();
        let (found, _) = contents(&partition);
        assert_eq!(found.len(), 150);
        assert_eq!(found.values().filter(|(_, value)| !value).count(), 50, "readers that were behind still hear of it");
        partition.compact_now(10_999).unwrap();
        assert_eq!(contents(&partition).0.len(), 150);
        partition.compact_now(11_000).unwrap();
        assert_eq!(contents(&partition).0.len(), 100);
    }

    #[test]
    fn what_was_aborted_goes_and_what_is_open_stays() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path());
        let transactional = |id: i64, sequence: i32, key: &str| {
            let spec = Spec {
                producer: (id, 0, sequence),
                transactional: true,
                key: Some(key.as_bytes().to_vec()),
                timestamp: 5_000,
                ..Spec::default()
            };
            partition.append(&batch(&spec).into()).unwrap();
        };
        put(&partition, 1, Some(1), 0);
        transactional(7, 0, "k1");
        partition.append_marker(7, 0, false).unwrap();
        for i in 0..100 {
            put(&partition, 100 + i, Some(i), 0);
        }
        transactional(8, 0, "k100");
        for i in 0..100 {
            put(&partition, 300, Some(i), 0);
        }
        partition.flush().unwrap();
        let open_at = partition.readable(Isolation::Committed);
        partition.compact_now(10_000).unwrap();
        let (found, records) = contents(&partition);
        assert_eq!(found[&b"k1"[..]], (0, true), "the aborted record replaces nothing");
        assert_eq!(found[&b"k100"[..]].0, open_at);
        assert!(records > 200, "nothing after the open transaction has been touched");
    }

    #[test]
    fn a_pass_that_was_interrupted_leaves_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path());
        for i in 0..300 {
            put(&partition, i % 7, Some(i), 0);
        }
        partition.flush().unwrap();
        let before = contents(&partition).0;
        let copies: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|e| (e.path(), fs::read(e.path()).unwrap())).collect();
        partition.compact_now(10_000).unwrap();
        partition.abandon();
        // As if it had ended after the first file was in place: all the others are back, and half a file is left.
        for (path, content) in &copies {
            if !path.exists() && path.extension().is_some_and(|e| e == "log") {
                fs::write(path, content).unwrap();
            }
        }
        fs::write(dir.path().join("00000000000000000000.cleaned"), "half").unwrap();
        let partition = open(dir.path());
        assert_eq!(contents(&partition).0, before);
        assert_eq!(partition.end(), 300);
        assert!(!dir.path().join("00000000000000000000.cleaned").exists());
    }
}
