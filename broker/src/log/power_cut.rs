//! Power cuts by chance: what was acknowledged is there, in order, and the log always starts.
//!
//! `TIDEMARK_TEST_POWER_CUTS=1000 cargo test --release -p broker power_cut` runs more seeds, `TIDEMARK_TEST_SEED=N` repeats one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;

use super::disk::Disk;
use super::partition::{Ground, Isolation, Partition};
use super::power::{Chance, Power};
use super::scan::batches;
use super::waiters::Ack;
use crate::batch::fixture::{Spec, batch};
use crate::group::offsets::{Committed, Offsets};
use crate::store::{Record, Store};
use crate::topic_config::{LiveConfig, TopicConfig};

const SEEDS: u64 = 100;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("TIDEMARK_TEST_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TIDEMARK_TEST_POWER_CUTS").unwrap_or(SEEDS)).collect(),
    }
}

/// In memory where there is such a file system: the model is the disk, the real one would only be slow.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn open(dir: &Path, power: &Power) -> Partition {
    let config = LiveConfig::new(TopicConfig::new(BTreeMap::new(), 4096).unwrap());
    Partition::open(dir, config, Ground { disk: Disk::with_power(power), ..Ground::default() }).unwrap()
}

/// What a client was promised: offset and the number that the record holds.
#[derive(Default)]
struct Promised {
    kept: BTreeMap<i64, u8>,
    waiting: Vec<(i64, u8, i32, Ack)>,
}

impl Promised {
    fn collect(&mut self) {
        let mut still = Vec::new();
        for (offset, mark, records, mut ack) in self.waiting.drain(..) {
            match ack.try_recv() {
                Ok(Ok(())) => self.kept.extend((0..i64::from(records)).map(|i| (offset + i, mark))),
                Ok(Err(_)) => {}
                Err(_) => still.push((offset, mark, records, ack)),
            }
        }
        self.waiting = still;
    }
}

fn check(partition: &Partition, promised: &BTreeMap<i64, u8>, seed: u64) {
    let (mut found, mut at) = (BTreeMap::new(), partition.start());
    while at < partition.high_watermark() {
        let read = partition.read(at, 1 << 20, Isolation::Uncommitted).unwrap();
        for (begin, header) in batches(&read) {
            header.verify(&read[begin..]).unwrap();
            let mark = read[begin + header.size - 2];
            found.extend((0..i64::from(header.records)).map(|i| (header.base_offset + i, mark)));
            at = header.next_offset();
        }
    }
    for (offset, mark) in promised {
        assert_eq!(found.get(offset), Some(mark), "seed {seed}: what was acknowledged at offset {offset}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    for seed in seeds() {
        let mut chance = Chance::new(seed + 1);
        let dir = folder();
        let mut kept = BTreeMap::new();
        for _ in 0..4 {
            let power = Power::default();
            let partition = open(dir.path(), &power);
            check(&partition, &kept, seed);
            kept.retain(|offset, _| *offset < partition.end());
            let mut promised = Promised { kept, waiting: Vec::new() };
            for _ in 0..chance.below(40) {
                let (mark, records) = (chance.below(256) as u8, 1 + chance.below(3) as i32);
                let value = Some(vec![mark; 1 + chance.below(1500) as usize]);
                let appended = partition.append(&batch(&Spec { records, value, ..Spec::default() }).into()).unwrap();
                promised.waiting.push((appended.base_offset, mark, records, appended.ack));
                if chance.below(4) == 0 {
                    partition.flush().unwrap();
                }
                promised.collect();
            }
            kept = promised.kept;
            partition.abandon();
            power.cut(dir.path(), &mut chance).unwrap();
        }
        check(&open(dir.path(), &Power::default()), &kept, seed);
    }
}

#[test]
fn no_committed_offset_is_lost_by_a_power_cut() {
    for seed in seeds() {
        let mut chance = Chance::new(seed + 7);
        let dir = folder();
        let path = dir.path().join("groups.log");
        let mut kept = -1;
        for _ in 0..4 {
            let power = Power::default();
            let store = Store::open(&path, Disk::with_power(&power), true).unwrap();
            let found = store.image().committed("g", "iot", 0).map_or(-1, |committed| committed.offset);
            assert!(found >= kept, "seed {seed}: {found} is before {kept}");
            let mut last = None;
            for i in 0..1 + chance.below(20) as i64 {
                let committed = Committed { offset: found + 1 + i, leader_epoch: -1, metadata: "m".repeat(chance.below(900) as usize) };
                let offsets = Offsets::from([("iot".to_owned(), BTreeMap::from([(0, committed)]))]);
                let done = store.keep(Record::Offsets { group: "g".to_owned(), offsets });
                if chance.below(3) == 0 {
                    done.blocking_recv().unwrap().unwrap();
                    kept = found + 1 + i;
                } else {
                    last = Some(done);
                }
            }
            drop(last);
            store.close();
            power.cut(dir.path(), &mut chance).unwrap();
        }
    }
}

#[test]
fn damage_by_one_bit_is_refused_or_said_and_never_read() {
    for seed in seeds() {
        let mut chance = Chance::new(seed + 13);
        let dir = folder();
        let partition = open(dir.path(), &Power::default());
        for i in 0..20_u8 {
            partition.append(&batch(&Spec { value: Some(vec![i; 200]), ..Spec::default() }).into()).unwrap();
        }
        partition.flush().unwrap();
        partition.abandon();
        let paths = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
        let files: Vec<_> = paths.filter(|path| std::fs::metadata(path).unwrap().len() > 0).collect();
        let path = &files[chance.below(files.len() as u64) as usize];
        let mut bytes = std::fs::read(path).unwrap();
        let at = chance.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << chance.below(8);
        std::fs::write(path, bytes).unwrap();
        let config = LiveConfig::new(TopicConfig::new(BTreeMap::new(), 4096).unwrap());
        // Refused is fine, and so is going on without the last batch; what is read is never wrong.
        if let Ok(partition) = Partition::open(dir.path(), config, Ground::default()) {
            assert!(partition.end() >= 19, "seed {seed}: {path:?} byte {at}");
            check(&partition, &BTreeMap::new(), seed);
        }
    }
}
