//! One shard and those who own it, one after the other and sometimes two at a time: steps, deaths at every point, takeovers, the wall clock.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::journal::{Append, Journal};
use super::query::Query;
use super::sink::{Sink, given_again, sent, sent_plain};
use super::way::Way;
use super::world::Delivery;
use crate::engine::{Engine, Entry, Input, Merged, Output, codec};

/// Who owns the shard, or thinks so.
pub(super) struct Owner {
    pub(super) engine: Engine,
    epoch: i64,
    /// Offset of its newest record in the journal.
    last: i64,
    /// Since when each partition is quiet.
    quiet: BTreeMap<i32, i64>,
    way: Way,
}

/// How often what happens, of a thousand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chaos {
    pub(super) deaths: u32,
    pub(super) snapshots: u32,
    /// The largest number of rows that a step takes of a partition.
    pub(super) batch: usize,
}

pub(super) struct Shard<'a> {
    pub(super) query: &'a Query,
    pub(super) logs: BTreeMap<i32, Vec<&'a Delivery>>,
    pub(super) journal: Journal,
    pub(super) sink: Sink,
    pub(super) owner: Option<Owner>,
    /// Former owners that do not know it yet.
    former: Vec<Owner>,
    chaos: Chaos,
    /// By partition: the furthest position and watermark that anybody has seen in a state that counts.
    furthest: BTreeMap<i32, (i64, i64)>,
    pub(super) takeovers: usize,
    /// Where others merge what it reads: what they wait for, and up to where they have read its journal.
    told: Option<(Option<i64>, usize)>,
    /// Where the snapshots begin that are in the journal.
    snapshots: Vec<usize>,
}

/// The owner is no more.
struct Died;

pub(super) fn input(query: &Query, partition: i32, from: usize, records: &[&Delivery]) -> Input {
    let mut decoder = query.compiled.decoder();
    let decoded = decoder.decode(records.iter().map(|record| record.bytes.as_deref())).unwrap();
    let from = i64::try_from(from).unwrap();
    let to = from + i64::try_from(records.len()).unwrap();
    Input { partition, from, to, received: records.iter().map(|record| record.received).collect(), decoded }
}

impl<'a> Shard<'a> {
    pub(super) fn new(query: &'a Query, partitions: &[i32], log: &'a [Delivery], chaos: Chaos) -> Self {
        let of = |number: i32| log.iter().filter(|delivery| delivery.partition == number).collect();
        Self {
            query,
            logs: partitions.iter().map(|number| (*number, of(*number))).collect(),
            journal: Journal::default(),
            sink: Sink::default(),
            owner: None,
            former: Vec::new(),
            chaos,
            furthest: BTreeMap::new(),
            takeovers: 0,
            told: None,
            snapshots: Vec::new(),
        }
    }

    /// What those who merge tell.
    pub(super) fn is_told(&mut self, waits_for: Option<i64>, read: usize) {
        self.told = Some((waits_for, read));
    }

    fn dies(&self, random: &mut ChaCha8Rng) -> bool {
        random.random_range(0..1000) < self.chaos.deaths
    }

    /// One thing happens at `now`.
    pub(super) fn tick(&mut self, random: &mut ChaCha8Rng, now: i64) {
        self.wake_former(random);
        self.journal.follow(self.query, self.logs.keys().copied(), random);
        let Some(mut owner) = self.owner.take() else {
            self.owner = self.take_over(random, now).ok();
            return;
        };
        owner.way.some_arrive(self.query, &mut self.sink, random);
        // Another processor gets the shard; this one is stopped, or paused and will not know.
        if random.random_range(0..1000) < self.chaos.deaths / 3 {
            if random.random_bool(0.5) {
                self.former.push(owner);
            }
            return;
        }
        let lived = if random.random_bool(0.7) { self.step(&mut owner, random, now) } else { self.close_idle(&mut owner, random, now) };
        match lived {
            Ok(()) => self.owner = Some(owner),
            Err(Died) if !owner.way.is_empty() && random.random_bool(0.5) => self.former.push(owner),
            Err(Died) => {}
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.former.is_empty()
            && self.owner.as_ref().is_some_and(|owner| {
                owner.way.is_empty() && self.logs.iter().all(|(number, log)| position(&owner.engine, *number) == log.len())
            })
    }

    fn visible(&self, partition: i32, now: i64) -> usize {
        self.logs[&partition].partition_point(|delivery| delivery.arrival <= now)
    }

    /// A step has an entry of its own, or, as in a backlog, one together with those that follow it.
    fn step(&mut self, owner: &mut Owner, random: &mut ChaCha8Rng, now: i64) -> Result<(), Died> {
        if random.random_bool(0.7) {
            let Some(entry) = self.prepare(owner, random, now) else { return Ok(()) };
            return self.commit(owner, &entry, random);
        }
        let mut open = Merged::default();
        for _ in 0..random.random_range(2..=4) {
            let Some(entry) = self.prepare(owner, random, now) else { continue };
            let moved = owner.engine.absorb_step(&entry).unwrap();
            open.extend(entry, moved);
        }
        if open.is_empty() {
            return Ok(());
        }
        if self.dies(random) {
            return Err(Died);
        }
        let moved = open.moved();
        self.append(owner, open.entry(), random)?;
        let output = owner.engine.give(open.entry(), moved).unwrap();
        owner.engine.evict(open.entry(), moved);
        self.check_progress(&owner.engine);
        self.send(owner, &output, random)?;
        self.snapshot_at_times(owner, random)
    }

    /// Decides about the next rows; their lanes leave.
    fn prepare(&mut self, owner: &mut Owner, random: &mut ChaCha8Rng, now: i64) -> Option<Entry> {
        let mut inputs = Vec::new();
        for (partition, log) in &self.logs {
            let from = position(&owner.engine, *partition);
            let left = self.visible(*partition, now) - from;
            let rows = random.random_range(0..=left.min(self.chaos.batch));
            if rows > 0 {
                inputs.push(input(self.query, *partition, from, &log[from..from + rows]));
                owner.quiet.insert(*partition, now);
            }
        }
        if inputs.is_empty() {
            return None;
        }
        let places: Vec<(i32, i64)> = inputs.iter().map(|input| (input.partition, input.from)).collect();
        let prepared = owner.engine.prepare(inputs).unwrap();
        for (place, (late, dead)) in places.iter().zip(prepared.late.iter().zip(&prepared.dead)) {
            self.sink.take_lanes(*place, late, dead);
        }
        for (place, plain) in places.iter().zip(&prepared.rows) {
            for message in sent_plain(*place, plain) {
                self.sink.take(self.query, &message);
            }
        }
        Some(prepared.entry)
    }

    fn close_idle(&mut self, owner: &mut Owner, random: &mut ChaCha8Rng, now: i64) -> Result<(), Died> {
        let is_idle = |partition: &&i32| {
            let caught_up = position(&owner.engine, **partition) == self.visible(**partition, now);
            caught_up && now - owner.quiet[*partition] >= self.query.idle
        };
        let offset = |partition: &i32| (*partition, i64::try_from(position(&owner.engine, *partition)).unwrap());
        let idle: Vec<(i32, i64)> = self.logs.keys().filter(is_idle).map(offset).collect();
        match owner.engine.close_idle_for(now, &idle, self.told.and_then(|(waits_for, _)| waits_for)) {
            Some(entry) => self.commit(owner, &entry, random),
            None => Ok(()),
        }
    }

    /// Closes all that the wall clock lets go, with nobody dying.
    pub(super) fn settle(&mut self, now: i64) {
        self.chaos = Chaos { deaths: 0, ..self.chaos };
        let mut calm = rand_chacha::rand_core::SeedableRng::seed_from_u64(0);
        let mut owner = self.owner.take().unwrap();
        loop {
            let before = self.journal.len();
            if self.close_idle(&mut owner, &mut calm, now).is_err() {
                // It finds out only now that a former owner has written.
                owner = self.take_over(&mut calm, now - self.query.idle).unwrap_or_else(|Died| panic!("nobody dies here"));
            } else if self.journal.len() == before {
                break;
            }
        }
        owner.way.all_arrive(self.query, &mut self.sink);
        self.owner = Some(owner);
    }

    fn commit(&mut self, owner: &mut Owner, entry: &Entry, random: &mut ChaCha8Rng) -> Result<(), Died> {
        if self.dies(random) {
            return Err(Died);
        }
        self.append(owner, entry, random)?;
        // What the journal keeps is what is applied.
        let entry = codec::decode(&self.query.compiled, &codec::encode(&self.query.compiled, entry).unwrap()).unwrap();
        let output = owner.engine.apply(&entry).unwrap();
        self.check_progress(&owner.engine);
        self.send(owner, &output, random)?;
        self.snapshot_at_times(owner, random)
    }

    fn snapshot_at_times(&mut self, owner: &mut Owner, random: &mut ChaCha8Rng) -> Result<(), Died> {
        if random.random_range(0..1000) < self.chaos.snapshots {
            let first = self.journal.len();
            owner.way.all_arrive(self.query, &mut self.sink);
            let snapshot = owner.engine.snapshot();
            self.append(owner, &snapshot, random)?;
            self.snapshots.push(first);
            let read = self.told.map_or(first, |(_, read)| read);
            let cut = self.snapshots.iter().copied().filter(|first| *first <= read).max();
            if let Some(cut) = cut.filter(|_| random.random_bool(0.8)) {
                self.journal.cut(cut);
            }
            if self.dies(random) {
                return Err(Died);
            }
        }
        Ok(())
    }

    fn append(&mut self, owner: &mut Owner, entry: &Entry, random: &mut ChaCha8Rng) -> Result<(), Died> {
        let bytes = codec::encode(&self.query.compiled, entry).unwrap();
        assert_eq!(&codec::decode(&self.query.compiled, &bytes).unwrap(), entry, "the journal does not keep an entry as it is");
        owner.way.before_entry(self.query, &mut self.sink);
        let torn = self.dies(random);
        let rival = self.chaos.deaths > 0 && random.random_bool(0.01);
        match self.journal.append((owner.epoch, &mut owner.last), entry.snapshot, &bytes, random, (torn, rival)) {
            Append::Whole => Ok(()),
            Append::Lost => Err(Died),
        }
    }

    fn send(&mut self, owner: &mut Owner, output: &Output, random: &mut ChaCha8Rng) -> Result<(), Died> {
        owner.way.send(sent(&owner.engine, output));
        if random.random_bool(0.7) {
            owner.way.some_arrive(self.query, &mut self.sink, random);
        }
        if self.dies(random) { Err(Died) } else { Ok(()) }
    }

    /// Fence, restore, and the newest entries' results once more; it may die at each of them.
    fn take_over(&mut self, random: &mut ChaCha8Rng, now: i64) -> Result<Owner, Died> {
        let epoch = self.journal.fence();
        self.takeovers += 1;
        if self.dies(random) {
            return Err(Died);
        }
        let (engine, newest) = self.journal.restore(self.query, self.logs.keys().copied(), epoch);
        if self.dies(random) {
            return Err(Died);
        }
        let quiet = self.logs.keys().map(|partition| (*partition, now)).collect();
        let mut owner = Owner { engine, epoch, last: epoch, quiet, way: Way::default() };
        owner.way.send(given_again(&mut owner.engine, newest));
        if self.dies(random) {
            owner.way.some_arrive(self.query, &mut self.sink, random);
            return Err(Died);
        }
        owner.way.before_entry(self.query, &mut self.sink);
        self.check_progress(&owner.engine);
        Ok(owner)
    }

    /// A former owner goes on where it was stopped: it sends what it had, writes an entry, and learns that it is one no more.
    fn wake_former(&mut self, random: &mut ChaCha8Rng) {
        if self.former.is_empty() || random.random_bool(0.7) {
            return;
        }
        let mut owner = self.former.swap_remove(random.random_range(0..self.former.len()));
        owner.way.all_arrive(self.query, &mut self.sink);
        let entry = owner.engine.snapshot();
        let bytes = codec::encode(&self.query.compiled, &Entry { snapshot: random.random_bool(0.5), ..entry }).unwrap();
        if self.journal.is_fenced(owner.epoch) {
            self.journal.stale(owner.epoch, &bytes, random);
        }
    }

    fn check_progress(&mut self, engine: &Engine) {
        let delay = self.query.delay;
        for (number, partition) in engine.partitions() {
            let watermark = partition.time.watermark(delay).unwrap_or(i64::MIN);
            let now = (partition.position.unwrap_or(0), watermark);
            let before = self.furthest.insert(*number, now).unwrap_or((0, i64::MIN));
            assert!(before.0 <= now.0, "the position of partition {number} went back: {before:?} to {now:?}");
            assert!(before.1 <= now.1, "the watermark of partition {number} went back: {before:?} to {now:?}");
            assert_eq!(partition.ledger.imbalance(), 0, "the ledger of partition {number}: {:?}", partition.ledger);
            assert_eq!(partition.ledger.read, now.0.unsigned_abs(), "partition {number} has read what it has not, or twice");
        }
    }
}

pub(super) fn position(engine: &Engine, partition: i32) -> usize {
    usize::try_from(engine.partitions()[&partition].position.unwrap_or(0)).unwrap()
}
