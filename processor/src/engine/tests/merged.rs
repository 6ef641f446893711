//! Steps that are written to the journal as one entry: the same final rows, however they are merged, killed and restored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::harness::{Outcome, Record, Way, cases, compile, input, query_file, run};
use super::property::{readings, record};
use crate::engine::{Engine, Entry, Merged, Output, codec};
use crate::format::encode::{JsonRows, key_text};
use crate::query::{Scope, StreamQuery};

/// When the results of the steps are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Results {
    /// After their entry, of all its steps together: the trigger `once`.
    AfterEntry,
    /// With each step, before its entry: the trigger `continuous`.
    AtOnce,
}

/// One owner after another over one shard.
struct Shard<'a> {
    query: &'a Arc<StreamQuery>,
    logs: BTreeMap<i32, Vec<&'a Record>>,
    results: Results,
    random: ChaCha8Rng,
    engine: Engine,
    merged: Merged,
    journal: Vec<Vec<u8>>,
    /// Up to where results may have gone before the entry that covers them; a new owner sends nothing before it has passed it.
    catch_up: BTreeMap<i32, usize>,
    sink: &'a mut Sink,
}

/// Keeps the largest revision of each row, as every reader does.
#[derive(Default)]
struct Sink {
    rows: BTreeMap<(i64, String), (i64, bool, String)>,
}

impl Sink {
    fn take(&mut self, output: &Output, revision: i64) {
        let (rows, mut given) = (JsonRows::new(&output.rows).unwrap(), BTreeSet::new());
        for row in 0..output.gone.count {
            let mut key = Vec::new();
            key_text(&output.gone.keys, row, &mut key);
            let id = (output.gone.windows.get(row).map_or(0, |window| window.0), String::from_utf8(key).unwrap());
            self.rows.remove(&id);
        }
        for row in 0..output.rows.num_rows() {
            let (mut value, mut key) = (Vec::new(), Vec::new());
            rows.write_row(row, &mut value);
            if output.ranked {
                value.extend(format!(" #{row}").into_bytes());
            }
            key_text(&output.keys, row, &mut key);
            let id = (output.windows.get(row).map_or(0, |window| window.0), String::from_utf8(key).unwrap());
            assert!(given.insert(id.clone()), "{id:?} is given twice");
            let new = (revision, output.finals[row], String::from_utf8(value).unwrap());
            if let Some(old) = self.rows.get(&id) {
                if revision < old.0 {
                    continue;
                }
                assert!(!old.1 || (new.1 && new.2 == old.2), "a final row was taken back: {new:?} after {old:?}");
            }
            self.rows.insert(id, new);
        }
    }
}

impl Shard<'_> {
    fn position(&self, partition: i32) -> usize {
        usize::try_from(self.engine.partitions()[&partition].position.unwrap_or(0)).unwrap()
    }

    fn run(&mut self, outcome: &mut Outcome) {
        loop {
            let left: Vec<i32> = self.logs.keys().copied().filter(|number| self.position(*number) < self.logs[number].len()).collect();
            if left.is_empty() {
                self.commit();
                break;
            }
            self.step(&left, outcome);
            if self.random.random_bool(0.2) {
                self.commit();
            }
            if self.random.random_bool(0.15) {
                self.die();
            }
            if self.merged.is_empty() && !self.journal.is_empty() && self.random.random_bool(0.2) {
                self.journal = vec![codec::encode(self.query, &self.engine.snapshot()).unwrap()];
            }
        }
        outcome.ledger = self.engine.partitions().values().fold(outcome.ledger, |sum, partition| sum + partition.ledger);
    }

    fn step(&mut self, left: &[i32], outcome: &mut Outcome) {
        let mut inputs = Vec::new();
        for number in left {
            let (from, log) = (self.position(*number), &self.logs[number]);
            let rows = self.random.random_range(0..=(log.len() - from).min(9));
            if rows > 0 {
                inputs.push(input(self.query, *number, from, &log[from..from + rows]));
            }
        }
        let offsets: Vec<(i32, i64)> = inputs.iter().map(|input| (input.partition, input.from)).collect();
        let prepared = self.engine.prepare(inputs).unwrap();
        for ((partition, from), (late, dead)) in offsets.iter().zip(prepared.late.iter().zip(&prepared.dead)) {
            outcome.late.extend(late.iter().map(|row| (*partition, from + i64::from(row.index))));
            outcome.dead.extend(dead.iter().map(|row| (*partition, from + i64::from(row.index), row.reason)));
        }
        let moved = self.engine.absorb_step(&prepared.entry).unwrap();
        if self.results == Results::AtOnce && self.catch_up.is_empty() {
            let output = self.engine.give(&prepared.entry, moved).unwrap();
            self.sink.take(&output, self.engine.revision());
        }
        self.merged.extend(prepared.entry, moved);
        self.check_catch_up();
    }

    /// Past the place where results may have gone: those of all steps so far.
    fn check_catch_up(&mut self) {
        if !self.catch_up.is_empty() && self.catch_up.iter().all(|(number, target)| self.position(*number) >= *target) {
            self.catch_up.clear();
            self.results_of_merged();
        }
    }

    fn results_of_merged(&mut self) {
        if self.merged.is_empty() {
            return;
        }
        let moved = self.merged.moved();
        let output = self.engine.give(self.merged.entry(), moved).unwrap();
        self.sink.take(&output, self.engine.revision());
    }

    fn commit(&mut self) {
        if self.merged.is_empty() || !self.catch_up.is_empty() {
            return;
        }
        let bytes = codec::encode(self.query, self.merged.entry()).unwrap();
        assert_eq!(&codec::decode(self.query, &bytes).unwrap(), self.merged.entry());
        let moved = self.merged.moved();
        self.journal.push(bytes);
        if self.results == Results::AfterEntry {
            // Between the entry and its results is where it hurts most.
            if self.random.random_bool(0.2) {
                return self.die();
            }
            self.results_of_merged();
        }
        self.engine.evict(self.merged.entry(), moved);
        self.merged = Merged::default();
    }

    /// A new owner: the entries of the journal, and the newest one's results once more.
    fn die(&mut self) {
        self.merged = Merged::default();
        self.engine = Engine::new(Arc::clone(self.query), self.logs.keys().copied());
        let entries: Vec<Entry> = self.journal.iter().map(|bytes| codec::decode(self.query, bytes).unwrap()).collect();
        if let Some((newest, before)) = entries.split_last() {
            for entry in before {
                assert!(entry.snapshot || self.engine.follows(entry));
                self.engine.absorb_quietly(entry).unwrap();
            }
            assert!(newest.snapshot || self.engine.follows(newest));
            let output = self.engine.apply(newest).unwrap();
            self.sink.take(&output, self.engine.revision());
        }
        if self.results == Results::AtOnce {
            self.catch_up = self.logs.iter().map(|(number, log)| (*number, log.len())).collect();
            self.check_catch_up();
        }
    }
}

fn run_merged(query: &Arc<StreamQuery>, log: &[Record], seed: u64, results: Results) -> Outcome {
    let partitions: BTreeSet<i32> = log.iter().map(|record| record.partition).collect();
    let shards: Vec<Vec<i32>> = match query.scope {
        Scope::Partition => partitions.iter().map(|partition| vec![*partition]).collect(),
        Scope::Topic => vec![partitions.into_iter().collect()],
    };
    let (mut outcome, mut sink) = (Outcome::default(), Sink::default());
    for (number, partitions) in (0..).zip(shards) {
        let logs = partitions.iter().map(|number| (*number, log.iter().filter(|record| record.partition == *number).collect())).collect();
        let mut shard = Shard {
            query,
            logs,
            results,
            random: ChaCha8Rng::seed_from_u64(seed ^ number),
            engine: Engine::new(Arc::clone(query), partitions.iter().copied()),
            merged: Merged::default(),
            journal: Vec::new(),
            catch_up: BTreeMap::new(),
            sink: &mut sink,
        };
        shard.run(&mut outcome);
    }
    outcome.finals = sink.rows.values().filter(|row| row.1).count();
    outcome.rows = sink.rows.into_iter().map(|(id, (_, _, value))| (id, value)).collect();
    outcome
}

/// Straight, and merged in both ways: the same.
fn same_in_all_ways(query: &Arc<StreamQuery>, log: &[Record], seed: u64, ways: &[Results]) -> Result<(), TestCaseError> {
    let straight = run(query, log, Way::Straight);
    prop_assert_eq!(straight.ledger.imbalance(), 0);
    for results in ways {
        prop_assert_eq!(&run_merged(query, log, seed, *results), &straight);
    }
    Ok(())
}

fn with(sql: &str, source: &str, mode: &str) -> Arc<StreamQuery> {
    compile(&(query_file(sql).replace("[query]\n", &format!("{source}[query]\n")) + &format!("output_mode = '{mode}'\n")))
}

const BOTH: [Results; 2] = [Results::AfterEntry, Results::AtOnce];

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn final_rows_do_not_depend_on_how_steps_are_merged(seed: u64, keyed: bool, hopping: bool, append: bool, devices: bool) {
        let keys = if keyed { ", sensor_id" } else { "" };
        let window = if hopping { "window(ts, '10 seconds', '4 seconds')" } else { "window(ts, '10 seconds')" };
        let sql = format!(
            "SELECT window.start AS s, count(*) AS n, sum(value) AS sum, stddev(value) AS sd, median(value) AS m \
             FROM iot WHERE value > -900000 GROUP BY {window}{keys} HAVING count(*) > 0"
        );
        let source = if devices && keyed { "watermark_by = 'sensor_id'\n" } else { "" };
        let query = with(&sql, source, if append { "append" } else { "update" });
        let log: Vec<Record> = readings(seed).iter().map(record).collect();
        same_in_all_ways(&query, &log, seed, &BOTH)?;
    }

    #[test]
    fn sessions_do_not_depend_on_how_steps_are_merged(seed: u64, keyed: bool, devices: bool) {
        let keys = if keyed { ", sensor_id" } else { "" };
        let sql = format!(
            "SELECT session_window.start AS s, session_window.end AS e, count(*) AS n, sum(value) AS sum FROM iot \
             GROUP BY session_window(ts, '4 seconds'){keys}"
        );
        let query = with(&sql, if devices && keyed { "watermark_by = 'sensor_id'\n" } else { "" }, "append");
        let log: Vec<Record> = readings(seed).iter().map(record).collect();
        same_in_all_ways(&query, &log, seed, &BOTH)?;
    }

    #[test]
    fn an_aggregate_over_an_aggregate_does_not_depend_on_how_steps_are_merged(seed: u64, fleet: bool, session: bool) {
        let keys = if fleet { "" } else { ", sensor_id" };
        let window = if session { "session_window(ts, '2 seconds')" } else { "window(ts, '5 seconds')" };
        let sql = format!(
            "SELECT window.start AS s{keys}, sum(n) AS n, sum(sum) AS total FROM (SELECT {window} AS w, sensor_id, count(*) AS n, \
             sum(value) AS sum FROM iot GROUP BY {window}, sensor_id) GROUP BY window(w, '20 seconds'){keys}"
        );
        // Over sessions it may be refused; then there is nothing to compare.
        let text = query_file(&sql) + "output_mode = 'append'\n";
        let file = crate::query::QueryFile::parse(&text, std::path::Path::new("case.toml")).unwrap();
        let Ok(query) = StreamQuery::compile(file) else { return Ok(()) };
        let log: Vec<Record> = readings(seed).iter().map(record).collect();
        same_in_all_ways(&Arc::new(query), &log, seed, &BOTH)?;
    }

    #[test]
    fn distinct_rows_and_duplicates_do_not_depend_on_how_steps_are_merged(seed: u64, distinct: bool) {
        let query = if distinct {
            with("SELECT DISTINCT sensor_id, kind FROM iot", "", "append")
        } else {
            let sql = "SELECT window.start AS s, sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id";
            with(sql, "drop_duplicates_within_watermark = ['sensor_id', 'ts']\n", "update")
        };
        let mut log: Vec<Record> = readings(seed).iter().map(record).collect();
        let again: Vec<Record> = log.iter().skip(3).step_by(4).cloned().collect();
        log.extend(again);
        same_in_all_ways(&query, &log, seed, &BOTH)?;
    }

    #[test]
    fn a_whole_result_does_not_depend_on_how_steps_are_merged(seed: u64) {
        let sql = "SELECT sensor_id, count(*) AS n, sum(value) AS sum FROM iot GROUP BY sensor_id ORDER BY n DESC, sensor_id LIMIT 3";
        let log: Vec<Record> = readings(seed).iter().map(record).collect();
        same_in_all_ways(&with(sql, "", "complete"), &log, seed, &[Results::AfterEntry])?;
    }
}
