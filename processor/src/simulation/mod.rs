//! A seeded simulation of the engine: hours of event time of a fleet in a fraction of a second, one seed one run.
//!
//! ```text
//! world.rs       devices and their clocks ─▶ the log, by partition and wall clock
//! query.rs       a query at random
//! shard.rs       owners that step, die, come back, take over; journal.rs what they leave; sink.rs who reads their results
//! shared.rs      the same of a query that is shared by shards that read and shards that merge
//! definition.rs  what must become of every row, by a loop; batch.rs the result rows by plain DataFusion
//! clocks.rs      devices that lie about the time, and honest ones beside them
//! ```
//! `TIDEMARK_SIM_SEEDS=10000 cargo test --release -p processor simulation` runs so many seeds (200 otherwise), from `TIDEMARK_SIM_FROM` on.
//! A failing seed is printed with the command that repeats it.

mod batch;
mod clocks;
mod definition;
mod journal;
mod query;
mod shard;
mod shared;
mod sink;
mod way;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use self::definition::{Outcome, define, late};
use self::query::{Form, Mode, Query, Window, query};
use self::shard::{Chaos, Shard, input, position};
use self::sink::{Sink, sent, sent_plain};
use self::world::{World, world};
use crate::engine::{Engine, Entry, Ledger, Progress};
use crate::query::Scope;

/// Of the usual run.
const SEEDS: u64 = 200;
/// Few queries are of a form that can be shared.
const SEEDS_OF_SHARED: u64 = 600;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not '{text}'")))
}

#[test]
fn every_seed_gives_the_defined_rows() {
    every_seed(SEEDS, simulate);
}

#[test]
fn every_seed_gives_the_rows_of_one_owner() {
    let shared = AtomicU64::new(0);
    every_seed(SEEDS_OF_SHARED, |seed| {
        shared.fetch_add(u64::from(shared::simulate(seed)), Ordering::Relaxed);
    });
    println!("{} of the queries can be shared", shared.into_inner());
}

fn every_seed(usual: u64, simulate: impl Fn(u64) + Sync) {
    let from = number("TIDEMARK_SIM_FROM").unwrap_or(0);
    let end = from + number("TIDEMARK_SIM_SEEDS").unwrap_or(usual);
    let next = AtomicU64::new(from);
    let failed = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            if catch_unwind(AssertUnwindSafe(|| simulate(seed))).is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
                eprintln!(
                    "seed {seed} failed; repeat it with\n  TIDEMARK_SIM_FROM={seed} TIDEMARK_SIM_SEEDS=1 cargo test --release -p processor simulation"
                );
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner();
    assert_eq!(failed, 0, "{failed} of the seeds {from}..{end} failed");
}

fn simulate(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let query = query(&mut random);
    let world = world(&mut random, query.delay);
    let partitions: Vec<i32> = (0..world.partitions).collect();
    let shards: Vec<Vec<i32>> = match query.compiled.scope {
        Scope::Partition => partitions.iter().map(|partition| vec![*partition]).collect(),
        Scope::Topic => vec![partitions],
    };
    let chaos = Chaos {
        deaths: [0, 10, 60, 200][random.random_range(0..4)],
        snapshots: [0, 50, 300][random.random_range(0..3)],
        batch: [1, 10, 50, 1000][random.random_range(0..4)],
    };
    let settles = random.random_bool(0.6);
    for shard in shards {
        let mut live = Shard::new(&query, &shard, &world.log, chaos);
        let now = run(&mut live, &mut random, &world);
        if settles {
            live.settle(now + query.idle + 1_000);
            check_last_windows(&live, now + query.idle + 1_000 - query.delay);
        }
        check(&live, &world);
        if settles {
            // Months later nothing is open, so nothing is kept.
            live.settle(now + 100 * 86_400_000);
            check_given_up(&live);
        }
    }
}

/// Lets the wall clock run until everything is read. Gives the time.
fn run(live: &mut Shard<'_>, random: &mut ChaCha8Rng, world: &World) -> i64 {
    let mut now = world.start;
    let steps = [10_000, 300_000, 3_600_000][random.random_range(0..3)];
    let newest = world.log.iter().map(|delivery| delivery.arrival).max().unwrap_or(now);
    for _ in 0..100_000 {
        live.tick(random, now);
        if now < newest {
            now += random.random_range(0..steps);
        } else if live.is_drained() {
            return now;
        }
    }
    panic!("the log was never read to its end\n{}", live.query.text);
}

fn check(live: &Shard<'_>, world: &World) {
    let query = live.query;
    let context = &query.text;
    let decisions = live.journal.decisions(query);
    let (straight, calm) = straight(query, &live.logs.keys().copied().collect::<Vec<_>>(), live, &decisions);
    let live_engine = &live.owner.as_ref().unwrap().engine;
    for (number, partition) in live_engine.partitions() {
        let other = &straight.partitions()[number];
        assert_eq!((partition.ledger, partition.position), (other.ledger, other.position), "partition {number}\n{context}");
        assert_eq!(partition.time, other.time, "partition {number}\n{context}");
    }
    let (rows, wanted) = (live.sink.rows(), calm.rows());
    let other = rows.iter().find(|(identity, row)| wanted.get(*identity) != Some(row));
    let missing = wanted.iter().find(|(identity, _)| !rows.contains_key(*identity));
    let same = other.map(|(identity, _)| wanted.get(identity));
    assert!(other.is_none() && missing.is_none(), "the straight run has {same:?} for {other:?}, and alone {missing:?}\n{context}");
    assert_eq!((&live.sink.late, &live.sink.dead), (&calm.late, &calm.dead), "the straight run has other lanes\n{context}");
    assert_eq!(live_engine.state_rows(), straight.state_rows(), "the straight run keeps another state\n{context}");
    assert_eq!(live_engine.state_bytes(), straight.state_bytes(), "the straight run keeps another state\n{context}");
    if query.is_defined() {
        check_definition(live, world, &decisions, context);
    }
}

/// Each partition on its own, from one decision of the wall clock to the next in one step.
fn straight(query: &Query, shard: &[i32], live: &Shard<'_>, decisions: &[Progress]) -> (Engine, Sink) {
    let mut engine = Engine::new(Arc::clone(&query.compiled), shard.iter().copied());
    let mut sink = Sink::default();
    let apply = |engine: &mut Engine, sink: &mut Sink, entry: &Entry| {
        let output = engine.apply(entry).unwrap();
        sent(engine, &output).iter().for_each(|message| sink.take(query, message));
    };
    for (number, log) in &live.logs {
        let read = |engine: &mut Engine, sink: &mut Sink, to: usize| {
            let from = position(engine, *number);
            if from < to {
                let prepared = engine.prepare(vec![input(query, *number, from, &log[from..to])]).unwrap();
                let place = (*number, i64::try_from(from).unwrap());
                sink.take_lanes(place, &prepared.late[0], &prepared.dead[0]);
                prepared.rows.iter().flat_map(|plain| sent_plain(place, plain)).for_each(|message| sink.take(query, &message));
                apply(engine, sink, &prepared.entry);
            }
        };
        for decision in decisions.iter().filter(|decision| decision.partition == *number) {
            read(&mut engine, &mut sink, usize::try_from(decision.to).unwrap());
            apply(&mut engine, &mut sink, &Entry { progress: vec![*decision], ..Entry::default() });
        }
        read(&mut engine, &mut sink, log.len());
    }
    (engine, sink)
}

fn check_definition(live: &Shard<'_>, world: &World, decisions: &[Progress], context: &str) {
    let query = live.query;
    let defined = define(query, &live.logs, decisions);
    let offsets =
        |rows: BTreeSet<(i32, usize)>| rows.into_iter().map(|(partition, row)| (partition, i64::try_from(row).unwrap())).collect();
    let late_rows: BTreeSet<(i32, i64)> = offsets(late(&defined));
    assert_eq!(live.sink.late, late_rows, "other rows are late than the definition says\n{context}");
    let of = |wanted: Outcome| defined.outcomes.values().filter(|outcome| **outcome == wanted).count() as u64;
    let engine = &live.owner.as_ref().unwrap().engine;
    let ledger = engine.partitions().values().fold(Ledger::default(), |sum, partition| sum + partition.ledger);
    let counts = (of(Outcome::Used), of(Outcome::Late), of(Outcome::Dead), of(Outcome::Filtered));
    assert_eq!((ledger.used, ledger.late, ledger.dead, ledger.filtered), counts, "used, late, dead, filtered\n{context}");

    // No clock moves a time past that of the receipt: an honest row that came within the delay is in time.
    for (partition, row) in &late_rows {
        let delivery = live.logs[partition][usize::try_from(*row).unwrap()];
        let ts = delivery.reading.as_ref().and_then(|reading| reading.ts).unwrap();
        let way = delivery.arrival - ts;
        assert!(!delivery.honest || way >= query.delay, "the honest row {row} of partition {partition} is late after {way} ms\n{context}");
    }
    if query.has_batch_form() {
        let wanted = batch::rows(query, &defined.cells, &live.logs, world.exact);
        let found = live.sink.rows();
        assert_eq!(
            found.keys().copied().collect::<Vec<_>>(),
            wanted.keys().collect::<Vec<_>>(),
            "other rows than the batch has\n{context}"
        );
        wanted.iter().for_each(|(identity, wanted)| wanted.check(identity, found[identity], context));
    }
}

/// All input has stopped: what has ended by `passed` is out.
fn check_last_windows(live: &Shard<'_>, passed: i64) {
    check_windows_are_out(live.query, &live.sink, passed);
}

fn check_windows_are_out(query: &Query, sink: &Sink, passed: i64) {
    if query.form == Form::Groups && query.closes() && query.mode == Mode::Update {
        for (identity, row) in sink.rows() {
            assert!(row.is_final || row.end > passed, "{identity:?} is still open: {row:?}\n{}", query.text);
        }
    }
}

fn check_given_up(live: &Shard<'_>) {
    let query = live.query;
    let windowed = matches!(query.form, Form::Groups | Form::Chained) && query.closes();
    if windowed && query.dedup.is_empty() && query.window != Window::None {
        let engine = &live.owner.as_ref().unwrap().engine;
        assert_eq!(engine.state_rows(), 0, "state of closed windows is kept\n{}", query.text);
        let open = live.sink.rows().values().filter(|row| !row.is_final).count();
        assert_eq!(open, 0, "windows are open for ever\n{}", query.text);
    }
}

/// How many seeds meet what: a simulation that never dies proves nothing.
#[test]
fn the_seeds_meet_what_they_are_for() {
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    let mut meet = |what: &str| *met.entry(what.to_owned()).or_default() += 1;
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let query = query(&mut random);
        let world = world(&mut random, query.delay);
        let chaos = Chaos { deaths: 60, snapshots: 100, batch: 20 };
        let all: Vec<i32> = (0..world.partitions).collect();
        let shard = if query.compiled.scope == Scope::Topic { all } else { vec![0] };
        let mut live = Shard::new(&query, &shard, &world.log, chaos);
        run(&mut live, &mut random, &world);
        let decisions = live.journal.decisions(&query);
        let defined = define(&query, &live.logs, &decisions);
        let has = |wanted: Outcome| query.is_defined() && defined.outcomes.values().any(|outcome| *outcome == wanted);
        let conditions = [
            ("late", has(Outcome::Late)),
            ("dead", has(Outcome::Dead)),
            ("filtered", has(Outcome::Filtered)),
            ("closed by the wall clock", !decisions.is_empty()),
            ("taken over", live.takeovers > 2),
            ("dishonest", world.log.iter().any(|delivery| delivery.reading.is_some() && !delivery.honest)),
            ("by device", query.silence.is_some()),
            ("session", matches!(query.window, Window::Session(_))),
            ("chained", query.form == Form::Chained),
            ("without duplicates", !query.dedup.is_empty()),
        ];
        conditions.iter().filter(|(_, is_met)| *is_met).for_each(|(what, _)| meet(what));
    }
    assert_eq!(met.len(), 10, "{met:?}");
    assert!(met.values().all(|times| *times >= 2), "{met:?}");
}
