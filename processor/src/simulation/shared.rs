//! A query that is shared by shards that read and shards that merge: the same owners that die and come back, on both sides.
//!
//! Readers are the shards of `shard.rs` with one partition each; nobody looks at their results. What those who merge give out must be what one
//! engine gives that has read all partitions, under the same decisions of the wall clock.

use std::sync::Arc;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::journal::{Append, Journal};
use super::query::{Query, query};
use super::shard::{Chaos, Shard};
use super::sink::{Sink, given_again, sent};
use super::way::Way;
use super::world::world;
use super::{check, check_windows_are_out, straight};
use crate::engine::{Engine, Entry, Ledger, Merged, Takes, codec};
use crate::task::journal::Pieces;
use crate::task::repartition::Share;

/// Who merges, or thinks so.
struct Owner {
    engine: Engine,
    epoch: i64,
    last: i64,
    /// The journal of each reader, as far as it is read.
    followed: Vec<(Pieces, usize)>,
    /// Up to where each of them is in the state.
    absorbed: Vec<usize>,
    way: Way,
}

struct Merger<'a> {
    query: &'a Query,
    share: Share,
    partitions: Vec<i32>,
    journal: Journal,
    owner: Option<Owner>,
    former: Vec<Owner>,
    chaos: Chaos,
    /// What is told to the readers.
    committed: Vec<usize>,
    waits_for: Option<i64>,
}

/// The owner is no more.
struct Died;

impl<'a> Merger<'a> {
    fn new(query: &'a Query, share: Share, partitions: &[i32], chaos: Chaos) -> Self {
        Self {
            query,
            share,
            partitions: partitions.to_vec(),
            journal: Journal::default(),
            owner: None,
            former: Vec::new(),
            chaos,
            committed: vec![0; partitions.len()],
            waits_for: None,
        }
    }

    fn dies(&self, random: &mut ChaCha8Rng) -> bool {
        random.random_range(0..1000) < self.chaos.deaths
    }

    /// One thing happens at `now`.
    fn tick(&mut self, readers: &[Shard<'_>], sink: &mut Sink, random: &mut ChaCha8Rng, now: i64) {
        self.wake_former(sink, random);
        self.journal.follow(self.query, self.partitions.iter().copied(), random);
        let Some(mut owner) = self.owner.take() else {
            self.owner = self.take_over(readers, sink, random).ok();
            return;
        };
        owner.way.some_arrive(self.query, sink, random);
        if random.random_range(0..1000) < self.chaos.deaths / 3 {
            if random.random_bool(0.5) {
                self.former.push(owner);
            }
            return;
        }
        match self.follow(&mut owner, readers, sink, random) {
            Ok(()) => {
                self.waits_for = owner.engine.waits_for(now);
                self.owner = Some(owner);
            }
            Err(Died) if !owner.way.is_empty() && random.random_bool(0.5) => self.former.push(owner),
            Err(Died) => {}
        }
    }

    /// Reads on in each journal, and commits what has come.
    fn follow(&mut self, owner: &mut Owner, readers: &[Shard<'_>], sink: &mut Sink, random: &mut ChaCha8Rng) -> Result<(), Died> {
        let mut open = Merged::default();
        for (number, reader) in readers.iter().enumerate() {
            // What it has seen before costs nothing.
            let mut left = random.random_range(0..12);
            while left > 0 {
                let (pieces, next) = &mut owner.followed[number];
                if *next < reader.journal.first() {
                    *next = reader.journal.first();
                    *pieces = begin(*next);
                }
                let Some(record) = reader.journal.record(*next) else { break };
                let whole = pieces.record(i64::try_from(*next).unwrap(), record).unwrap_or_else(|error| panic!("{error}"));
                *next += 1;
                let next = *next;
                if let Some(bytes) = whole {
                    let mut entry = codec::decode(&self.query.compiled, &bytes).unwrap();
                    self.share.cut(&self.query.compiled, &mut entry).unwrap();
                    left -= i32::from(self.take(owner, &mut open, entry, sink, random)?);
                }
                owner.absorbed[number] = next;
            }
            if random.random_bool(0.3) {
                self.commit(owner, &mut open, sink, random)?;
            }
        }
        self.commit(owner, &mut open, sink, random)
    }

    /// Whether the entry was new.
    fn take(&mut self, owner: &mut Owner, open: &mut Merged, entry: Entry, sink: &mut Sink, random: &mut ChaCha8Rng) -> Result<bool, Died> {
        match owner.engine.takes(&entry) {
            Takes::Seen => return Ok(false),
            Takes::Gap => panic!("a journal was cut before it was read\n{}", self.query.text),
            Takes::Next => {}
        }
        let decides = !entry.decisions.is_empty();
        if decides {
            self.commit(owner, open, sink, random)?;
        }
        let moved = owner.engine.absorb_step(&entry).unwrap();
        open.extend(entry, moved);
        if decides {
            self.commit(owner, open, sink, random)?;
        }
        Ok(true)
    }

    fn commit(&mut self, owner: &mut Owner, open: &mut Merged, sink: &mut Sink, random: &mut ChaCha8Rng) -> Result<(), Died> {
        if open.is_empty() {
            return Ok(());
        }
        if self.dies(random) {
            return Err(Died);
        }
        let moved = open.moved();
        owner.way.before_entry(self.query, sink);
        self.append(owner, open.entry(), random)?;
        let output = owner.engine.give(open.entry(), moved).unwrap();
        owner.engine.evict(open.entry(), moved);
        *open = Merged::default();
        owner.way.send(sent(&owner.engine, &output));
        if random.random_bool(0.7) {
            owner.way.some_arrive(self.query, sink, random);
        }
        if self.dies(random) {
            return Err(Died);
        }
        self.committed.clone_from(&owner.absorbed);
        if random.random_range(0..1000) < self.chaos.snapshots {
            let first = self.journal.len();
            owner.way.all_arrive(self.query, sink);
            let snapshot = owner.engine.snapshot();
            self.append(owner, &snapshot, random)?;
            self.journal.cut(first);
        }
        Ok(())
    }

    fn append(&mut self, owner: &mut Owner, entry: &Entry, random: &mut ChaCha8Rng) -> Result<(), Died> {
        let bytes = codec::encode(&self.query.compiled, entry).unwrap();
        let torn = self.dies(random);
        let rival = self.chaos.deaths > 0 && random.random_bool(0.01);
        match self.journal.append((owner.epoch, &mut owner.last), entry.snapshot, &bytes, random, (torn, rival)) {
            Append::Whole => Ok(()),
            Append::Lost => Err(Died),
        }
    }

    fn take_over(&mut self, readers: &[Shard<'_>], sink: &mut Sink, random: &mut ChaCha8Rng) -> Result<Owner, Died> {
        let epoch = self.journal.fence();
        if self.dies(random) {
            return Err(Died);
        }
        let (engine, newest) = self.journal.restore(self.query, self.partitions.iter().copied(), epoch);
        let first = |reader: &Shard<'_>| (begin(reader.journal.first()), reader.journal.first());
        let followed: Vec<_> = readers.iter().map(first).collect();
        let absorbed = followed.iter().map(|(_, next)| *next).collect();
        let mut owner = Owner { engine, epoch, last: epoch, followed, absorbed, way: Way::default() };
        owner.way.send(given_again(&mut owner.engine, newest));
        owner.way.before_entry(self.query, sink);
        if self.dies(random) { Err(Died) } else { Ok(owner) }
    }

    fn wake_former(&mut self, sink: &mut Sink, random: &mut ChaCha8Rng) {
        if self.former.is_empty() || random.random_bool(0.7) {
            return;
        }
        let mut owner = self.former.swap_remove(random.random_range(0..self.former.len()));
        owner.way.all_arrive(self.query, sink);
        let bytes = codec::encode(&self.query.compiled, &owner.engine.snapshot()).unwrap();
        if self.journal.is_fenced(owner.epoch) {
            self.journal.stale(owner.epoch, &bytes, random);
        }
    }

    /// Whether it has all that the readers have written.
    fn is_drained(&self, readers: &[Shard<'_>]) -> bool {
        let all = |owner: &Owner| {
            owner.followed.iter().zip(readers).all(|((_, next), reader)| *next == reader.journal.len()) && owner.way.is_empty()
        };
        self.former.is_empty() && self.owner.as_ref().is_some_and(all)
    }
}

fn begin(first: usize) -> Pieces {
    Pieces::new("simulated", "journal".to_owned(), i64::try_from(first).unwrap())
}

/// Whether the seed has a query that can be shared.
pub(super) fn simulate(seed: u64) -> bool {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let query = query(&mut random);
    let world = world(&mut random, query.delay);
    let Some(query) = query.shared(random.random_range(1..=3)) else { return false };
    let chaos = Chaos {
        deaths: [0, 10, 60, 200][random.random_range(0..4)],
        snapshots: [0, 50, 300][random.random_range(0..3)],
        batch: [1, 10, 50, 1000][random.random_range(0..4)],
    };
    let partitions: Vec<i32> = (0..world.partitions).collect();
    let mut readers: Vec<Shard<'_>> = partitions.iter().map(|number| Shard::new(&query, &[*number], &world.log, chaos)).collect();
    let of = query.compiled.merges();
    let mut mergers: Vec<Merger<'_>> = (0..of).map(|number| Merger::new(&query, Share { number, of }, &partitions, chaos)).collect();
    let mut sink = Sink::default();
    // Nobody has read anything yet, so nothing may be cut away.
    tell(&mut readers, &mergers);

    let mut now = world.start;
    let newest = world.log.iter().map(|delivery| delivery.arrival).max().unwrap_or(now);
    let steps = [10_000, 300_000, 3_600_000][random.random_range(0..3)];
    let mut drained = false;
    for _ in 0..100_000 {
        turn(&mut readers, &mut mergers, &mut sink, &mut random, now);
        if now < newest {
            now += random.random_range(0..steps);
        } else if readers.iter().all(Shard::is_drained) && mergers.iter().all(|merger| merger.is_drained(&readers)) {
            drained = true;
            break;
        }
    }
    assert!(drained, "the log was never read to its end\n{}", query.text);
    if random.random_bool(0.6) {
        // All input has stopped, and nobody dies: what has ended is out.
        now += query.idle + 1_000;
        mergers.iter_mut().for_each(|merger| merger.chaos.deaths = 0);
        let written = |readers: &[Shard<'_>]| readers.iter().map(|reader| reader.journal.len()).sum::<usize>();
        loop {
            let before = written(&readers);
            while !mergers.iter().all(|merger| merger.is_drained(&readers)) {
                mergers.iter_mut().for_each(|merger| merger.tick(&readers, &mut sink, &mut random, now));
            }
            mergers.iter_mut().for_each(|merger| merger.tick(&readers, &mut sink, &mut random, now));
            tell(&mut readers, &mergers);
            readers.iter_mut().for_each(|reader| reader.settle(now));
            if written(&readers) == before {
                break;
            }
        }
        check_windows_are_out(&query, &sink, now - query.delay);
    }

    readers.iter().for_each(|reader| check(reader, &world));
    let decisions: Vec<_> = readers.iter().flat_map(|reader| reader.journal.decisions(&query)).collect();
    let all = Shard::new(&query, &partitions, &world.log, chaos);
    let (engine, calm) = straight(&query, &partitions, &all, &decisions);
    let (rows, wanted) = (sink.rows(), calm.rows());
    let other = rows.iter().find(|(identity, row)| wanted.get(*identity) != Some(row));
    let missing = wanted.iter().find(|(identity, _)| !rows.contains_key(*identity));
    let same = other.map(|(identity, _)| wanted.get(identity));
    assert!(other.is_none() && missing.is_none(), "one owner has {same:?} for {other:?}, and alone {missing:?}\n{}", query.text);
    for merger in &mergers {
        for (number, partition) in merger.owner.as_ref().unwrap().engine.partitions() {
            let other = &engine.partitions()[number];
            assert_eq!((partition.ledger, partition.position), (other.ledger, other.position), "partition {number}\n{}", query.text);
            assert_eq!(partition.time, other.time, "partition {number}\n{}", query.text);
        }
    }
    let ledger = engine.partitions().values().fold(Ledger::default(), |sum, partition| sum + partition.ledger);
    assert_eq!(ledger.imbalance(), 0);
    true
}

fn turn(readers: &mut [Shard<'_>], mergers: &mut [Merger<'_>], sink: &mut Sink, random: &mut ChaCha8Rng, now: i64) {
    for reader in readers.iter_mut() {
        if random.random_bool(0.8) {
            reader.tick(random, now);
        }
    }
    for merger in mergers.iter_mut() {
        if random.random_bool(0.6) {
            merger.tick(readers, sink, random, now);
        }
    }
    if random.random_bool(0.5) {
        tell(readers, mergers);
    }
}

/// What those who merge tell the readers.
fn tell(readers: &mut [Shard<'_>], mergers: &[Merger<'_>]) {
    for (number, reader) in readers.iter_mut().enumerate() {
        let read = mergers.iter().map(|merger| merger.committed[number]).min().unwrap_or(0);
        reader.is_told(mergers.iter().filter_map(|merger| merger.waits_for).max(), read);
    }
}

impl Query {
    /// The same query with its groups merged by so many; `None` when it is not of a form that allows it.
    fn shared(mut self, merges: u32) -> Option<Self> {
        self.text = self.text.replace("[query]\n", &format!("[query]\nrepartition = {merges}\n"));
        let file = crate::query::QueryFile::parse(&self.text, std::path::Path::new("simulated.toml")).unwrap();
        self.compiled = Arc::new(crate::query::StreamQuery::compile(file).ok()?);
        Some(self)
    }
}
