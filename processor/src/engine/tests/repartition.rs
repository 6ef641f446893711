//! Shards that read and shards that merge: the rows, the ledger and the lanes of one owner of all partitions, whoever dies and whatever the
//! order in which the journals are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::harness::{Outcome, Record, Way, cases, compile, input, query_file, run};
use super::property::{readings, record};
use crate::engine::{Engine, Entry, Merged, Output, Takes, codec};
use crate::format::encode::{JsonRows, key_text};
use crate::query::StreamQuery;
use crate::task::repartition::Share;

/// Encoded entries by their offsets; what lies before the first is cut away.
#[derive(Default)]
struct Journal {
    first: usize,
    entries: Vec<Vec<u8>>,
}

impl Journal {
    fn end(&self) -> usize {
        self.first + self.entries.len()
    }

    fn get(&self, offset: usize) -> Option<&Vec<u8>> {
        self.entries.get(offset.checked_sub(self.first)?)
    }

    fn append(&mut self, query: &StreamQuery, entry: &Entry) {
        let bytes = codec::encode(query, entry).unwrap();
        assert_eq!(&codec::decode(query, &bytes).unwrap(), entry);
        self.entries.push(bytes);
    }

    fn cut(&mut self, offset: usize) {
        drop(self.entries.drain(..offset - self.first));
        self.first = offset;
    }

    /// The engine that its entries give, but for the newest.
    fn restore(&self, query: &Arc<StreamQuery>, partitions: &[i32]) -> (Engine, Option<Entry>) {
        let mut engine = Engine::new(Arc::clone(query), partitions.iter().copied());
        let entries: Vec<Entry> = self.entries.iter().map(|bytes| codec::decode(query, bytes).unwrap()).collect();
        let Some((newest, before)) = entries.split_last() else { return (engine, None) };
        for entry in before {
            assert!(entry.snapshot || engine.follows(entry));
            engine.absorb_quietly(entry).unwrap();
        }
        assert!(newest.snapshot || engine.follows(newest));
        (engine, Some(newest.clone()))
    }
}

/// Reads one input partition.
struct Reader<'a> {
    partition: i32,
    log: Vec<&'a Record>,
    engine: Engine,
    journal: Journal,
    open: Merged,
    snapshots: Vec<usize>,
}

/// Merges a share of the groups.
struct Merger {
    share: Share,
    engine: Engine,
    journal: Journal,
    open: Merged,
    /// Of each reader's journal: what comes next, what is absorbed, and what of it is in the own journal.
    next: Vec<usize>,
    absorbed: Vec<usize>,
    committed: Vec<usize>,
    deaths: usize,
}

#[derive(Default)]
struct Sink {
    rows: BTreeMap<(i64, String), (i64, bool, String)>,
    /// Which share each row came from.
    shares: BTreeMap<(i64, String), u32>,
}

impl Sink {
    fn take(&mut self, share: u32, output: &Output, revision: i64) {
        let rows = JsonRows::new(&output.rows).unwrap();
        for row in 0..output.rows.num_rows() {
            let (mut value, mut key) = (Vec::new(), Vec::new());
            rows.write_row(row, &mut value);
            key_text(&output.keys, row, &mut key);
            let id = (output.windows.get(row).map_or(0, |window| window.0), String::from_utf8(key).unwrap());
            assert_eq!(*self.shares.entry(id.clone()).or_insert(share), share, "a group has one owner");
            let new = (revision, output.finals[row], String::from_utf8(value).unwrap());
            if let Some(old) = self.rows.get(&id) {
                if revision < old.0 {
                    continue;
                }
                assert!(!old.1 || (new.1 && new.2 == old.2), "a final row was taken back: {new:?} after {old:?}");
                assert!(revision > old.0 || new.2 == old.2, "one revision says two things: {new:?} after {old:?}");
            }
            self.rows.insert(id, new);
        }
    }
}

struct World<'a> {
    query: &'a Arc<StreamQuery>,
    random: ChaCha8Rng,
    readers: Vec<Reader<'a>>,
    mergers: Vec<Merger>,
    sink: Sink,
    outcome: Outcome,
}

impl<'a> World<'a> {
    fn new(query: &'a Arc<StreamQuery>, log: &'a [Record], seed: u64) -> Self {
        let partitions: Vec<i32> = log.iter().map(|record| record.partition).collect::<BTreeSet<_>>().into_iter().collect();
        let reader = |partition: &i32| Reader {
            partition: *partition,
            log: log.iter().filter(|record| record.partition == *partition).collect(),
            engine: Engine::new(Arc::clone(query), [*partition]),
            journal: Journal::default(),
            open: Merged::default(),
            snapshots: Vec::new(),
        };
        let nothing = || vec![0; partitions.len()];
        let merger = |number| Merger {
            share: Share { number, of: query.merges() },
            engine: Engine::new(Arc::clone(query), partitions.iter().copied()),
            journal: Journal::default(),
            open: Merged::default(),
            next: nothing(),
            absorbed: nothing(),
            committed: nothing(),
            deaths: 0,
        };
        Self {
            query,
            random: ChaCha8Rng::seed_from_u64(seed),
            readers: partitions.iter().map(reader).collect(),
            mergers: (0..query.merges()).map(merger).collect(),
            sink: Sink::default(),
            outcome: Outcome::default(),
        }
    }

    fn run(mut self) -> Outcome {
        while !self.is_done() {
            if self.random.random_bool(0.5) && !self.readers.is_empty() {
                let at = self.random.random_range(0..self.readers.len());
                self.read(at);
            } else {
                let at = self.random.random_range(0..self.mergers.len());
                self.merge(at);
            }
        }
        let ledger = |sum, reader: &Reader<'_>| sum + reader.engine.partitions()[&reader.partition].ledger;
        self.outcome.ledger = self.readers.iter().fold(self.outcome.ledger, ledger);
        for merger in &self.mergers {
            let merged =
                merger.engine.partitions().values().fold(crate::engine::Ledger::default(), |sum, partition| sum + partition.ledger);
            assert_eq!(merged, self.outcome.ledger, "those who merge know the ledger, too");
        }
        self.outcome.finals = self.sink.rows.values().filter(|row| row.1).count();
        self.outcome.rows = self.sink.rows.into_iter().map(|(id, (_, _, value))| (id, value)).collect();
        self.outcome
    }

    fn is_done(&self) -> bool {
        let read = |reader: &Reader<'_>| reader.open.is_empty() && reader.position() == reader.log.len();
        let ends: Vec<usize> = self.readers.iter().map(|reader| reader.journal.end()).collect();
        self.readers.iter().all(read) && self.mergers.iter().all(|merger| merger.open.is_empty() && merger.next == ends)
    }

    fn read(&mut self, at: usize) {
        let (query, random) = (self.query, &mut self.random);
        let reader = &mut self.readers[at];
        let from = reader.position();
        let rows = random.random_range(0..=(reader.log.len() - from).min(9));
        if rows > 0 {
            let prepared = reader.engine.prepare(vec![input(query, reader.partition, from, &reader.log[from..from + rows])]).unwrap();
            let place = |index: u32| (reader.partition, i64::try_from(from).unwrap() + i64::from(index));
            self.outcome.late.extend(prepared.late[0].iter().map(|row| place(row.index)));
            self.outcome.dead.extend(prepared.dead[0].iter().map(|row| (place(row.index).0, place(row.index).1, row.reason)));
            let moved = reader.engine.absorb_step(&prepared.entry).unwrap();
            reader.open.extend(prepared.entry, moved);
        }
        let all_read = reader.position() == reader.log.len();
        if !reader.open.is_empty() && (all_read || random.random_bool(0.5)) {
            let moved = reader.open.moved();
            reader.journal.append(query, reader.open.entry());
            reader.engine.evict(reader.open.entry(), moved);
            reader.open = Merged::default();
        }
        if random.random_bool(0.15) {
            // Whoever follows goes on where the journal ends.
            let (mut engine, newest) = reader.journal.restore(query, &[reader.partition]);
            if let Some(newest) = newest {
                engine.absorb_quietly(&newest).unwrap();
            }
            (reader.engine, reader.open) = (engine, Merged::default());
        }
        if reader.open.is_empty() && reader.journal.end() > 0 && random.random_bool(0.2) {
            reader.snapshots.push(reader.journal.end());
            reader.journal.append(query, &reader.engine.snapshot());
            let read = self.mergers.iter().map(|merger| merger.committed[at]).min().unwrap();
            if let Some(cut) = reader.snapshots.iter().copied().filter(|first| *first <= read && *first >= reader.journal.first).max() {
                reader.journal.cut(cut);
            }
        }
    }

    fn merge(&mut self, at: usize) {
        let (query, random, sink) = (self.query, &mut self.random, &mut self.sink);
        let merger = &mut self.mergers[at];
        for (number, reader) in self.readers.iter().enumerate() {
            // What it has seen before costs nothing.
            let mut left = random.random_range(0..5);
            while left > 0 {
                merger.next[number] = merger.next[number].max(reader.journal.first);
                let Some(bytes) = reader.journal.get(merger.next[number]) else { break };
                let mut entry = codec::decode(query, bytes).unwrap();
                merger.share.cut(query, &mut entry).unwrap();
                match merger.engine.takes(&entry) {
                    Takes::Seen => {}
                    Takes::Gap => panic!("the journal was cut too far"),
                    Takes::Next => {
                        let moved = merger.engine.absorb_step(&entry).unwrap();
                        merger.open.extend(entry, moved);
                        left -= 1;
                    }
                }
                merger.next[number] += 1;
                merger.absorbed[number] = merger.next[number];
            }
        }
        if !merger.open.is_empty() && random.random_bool(0.7) {
            let moved = merger.open.moved();
            merger.journal.append(query, merger.open.entry());
            if merger.deaths < 10 && random.random_bool(0.2) {
                return merger.die(query, sink);
            }
            let output = merger.engine.give(merger.open.entry(), moved).unwrap();
            merger.engine.evict(merger.open.entry(), moved);
            merger.open = Merged::default();
            sink.take(merger.share.number, &output, merger.engine.revision());
            merger.committed = merger.absorbed.clone();
        }
        if merger.deaths < 10 && random.random_bool(0.1) {
            merger.die(query, sink);
        }
        if merger.open.is_empty() && merger.journal.end() > 0 && random.random_bool(0.1) {
            let end = merger.journal.end();
            merger.journal.append(query, &merger.engine.snapshot());
            merger.journal.cut(end);
        }
    }
}

impl Reader<'_> {
    fn position(&self) -> usize {
        usize::try_from(self.engine.partitions()[&self.partition].position.unwrap_or(0)).unwrap()
    }
}

impl Merger {
    /// A new owner: its journal, the newest results once more, and the readers' journals from their beginnings.
    fn die(&mut self, query: &Arc<StreamQuery>, sink: &mut Sink) {
        let partitions: Vec<i32> = self.engine.partitions().keys().copied().collect();
        let (mut engine, newest) = self.journal.restore(query, &partitions);
        if let Some(newest) = newest {
            let output = engine.apply(&newest).unwrap();
            sink.take(self.share.number, &output, engine.revision());
        }
        self.deaths += 1;
        (self.engine, self.open) = (engine, Merged::default());
        self.next.iter_mut().for_each(|next| *next = 0);
        // What the one before has told stays told; what it has absorbed beyond that is gone.
        self.absorbed = self.committed.clone();
    }
}

fn with(sql: &str, mode: &str, query: &str) -> Arc<StreamQuery> {
    compile(&(query_file(sql) + &format!("output_mode = '{mode}'\n{query}\n")))
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn final_rows_are_those_of_one_owner(seed: u64, hopping: bool, append: bool, keyed: bool, merges in 1..4) {
        let (shown, grouped) = if keyed { (", CAST(value AS BIGINT) % 5 AS v", ", CAST(value AS BIGINT) % 5") } else { ("", "") };
        let window = if hopping { "window(ts, '10 seconds', '4 seconds')" } else { "window(ts, '10 seconds')" };
        let sql = format!(
            "SELECT window.start AS s{shown}, count(*) AS n, sum(value) AS sum, avg(value) AS avg, min(value) AS min, max(value) AS max, \
             stddev(value) AS sd, corr(value, seq + value) AS c, count(DISTINCT kind) AS kinds, first_value(value) AS f, median(value) AS m, \
             array_agg(sensor_id) AS ids FROM iot WHERE value > -900000 GROUP BY {window}{grouped} HAVING count(*) > 0"
        );
        let mode = if append { "append" } else { "update" };
        let (one, many) = (with(&sql, mode, ""), with(&sql, mode, &format!("repartition = {merges}")));
        let log: Vec<Record> = readings(seed).iter().map(record).collect();
        let straight = run(&one, &log, Way::Straight);
        prop_assert_eq!(straight.ledger.imbalance(), 0);
        let found = World::new(&many, &log, seed).run();
        prop_assert_eq!(&found, &straight);
    }

    #[test]
    fn duplicates_are_found_where_a_partition_is_read(seed: u64) {
        let sql = "SELECT window.start AS s, count(*) AS n, sum(value) AS sum FROM iot GROUP BY window(ts, '10 seconds')";
        let file = |more: &str| {
            let text = query_file(sql).replace("[query]\n", "drop_duplicates_within_watermark = ['sensor_id', 'ts']\n[query]\n");
            compile(&(text + more))
        };
        let mut log: Vec<Record> = readings(seed).iter().map(record).collect();
        let again: Vec<Record> = log.iter().skip(3).step_by(4).cloned().collect();
        log.extend(again);
        let straight = run(&file(""), &log, Way::Straight);
        prop_assert_eq!(&World::new(&file("repartition = 2\n"), &log, seed).run(), &straight);
    }
}

const T: i64 = 1_700_000_000_000;

fn reading(partition: i32, ts: i64) -> Record {
    let value = format!(r#"{{"sensor_id":"a","ts":{ts},"value":1}}"#);
    Record { partition, received: ts, value: Some(value.into_bytes()) }
}

#[test]
fn an_empty_partition_is_closed_for_those_who_wait() {
    let sql = "SELECT window.start AS s, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds')";
    let query = with(sql, "append", "repartition = 1");
    let engine = |partitions: &[i32]| Engine::new(Arc::clone(&query), partitions.iter().copied());
    let (busy, idle, mut merger) = (engine(&[0]), engine(&[1]), engine(&[0, 1]));
    let records = [reading(0, T), reading(0, T + 60_000)];
    let step = busy.prepare(vec![input(&query, 0, 0, &records.iter().collect::<Vec<_>>())]).unwrap().entry;
    assert_eq!((merger.takes(&step), merger.waits_for(T + 61_000)), (Takes::Next, None));
    assert!(merger.apply(&step).unwrap().windows.is_empty(), "the other partition may still have rows of the window");
    assert_eq!(merger.takes(&step), Takes::Seen);

    // The one that reads the empty partition knows no window.
    assert!(idle.close_idle(T + 61_000, &[(1, 0)]).is_none());
    let waits_for = merger.waits_for(T + 61_000);
    assert_eq!(waits_for, Some(T + 10_000));
    let decision = idle.close_idle_for(T + 61_000, &[(1, 0)], waits_for).unwrap();
    assert_eq!(merger.takes(&decision), Takes::Next);
    assert_eq!(merger.apply(&decision).unwrap().windows, [(T, T + 10_000)]);
    assert_eq!((merger.takes(&decision), merger.waits_for(T + 61_000)), (Takes::Seen, None));
    // Its clock may be behind theirs: it decides nothing that has not passed for it.
    assert!(idle.close_idle_for(T + 14_999, &[(1, 0)], waits_for).is_none());
}

#[test]
fn what_is_missing_is_noticed() {
    let sql = "SELECT window.start AS s, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds')";
    let query = with(sql, "update", "repartition = 1");
    let mut reader = Engine::new(Arc::clone(&query), [0]);
    let mut merger = Engine::new(Arc::clone(&query), [0]);
    let mut steps = Vec::new();
    for from in 0..3 {
        let step = reader.prepare(vec![input(&query, 0, from, &[&reading(0, T)])]).unwrap().entry;
        reader.apply(&step).unwrap();
        steps.push(step);
    }
    assert_eq!(merger.takes(&reader.snapshot()), Takes::Gap, "what a snapshot has given up was never seen");
    merger.apply(&steps[0]).unwrap();
    assert_eq!([0, 1, 2].map(|at| merger.takes(&steps[at])), [Takes::Seen, Takes::Next, Takes::Gap]);
    assert_eq!(merger.takes(&reader.snapshot()), Takes::Gap);
    merger.apply(&steps[1]).unwrap();
    merger.apply(&steps[2]).unwrap();
    assert_eq!(merger.takes(&reader.snapshot()), Takes::Seen);
}
