//! Runs a log through the engine as a worker does, without Kafka: cut anywhere, killed and restored anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::ProptestConfig;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::engine::{Engine, Entry, Input, Ledger, Output, PlainRows, codec};
use crate::format::encode::{JsonRows, key_text};
use crate::query::{QueryFile, Scope, StreamQuery};

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) partition: i32,
    pub(super) received: i64,
    pub(super) value: Option<Vec<u8>>,
}

/// How a run treats the log.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// Each partition in one step.
    Straight,
    /// In steps of random size.
    Cut { seed: u64 },
    /// The same, with random deaths: the engine is thrown away and restored from its journal, and snapshots are taken.
    Killed { seed: u64 },
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Outcome {
    /// By window start and key: the row that a sink ends with.
    pub(super) rows: BTreeMap<(i64, String), String>,
    pub(super) ledger: Ledger,
    /// (partition, offset)
    pub(super) late: BTreeSet<(i32, i64)>,
    /// (partition, offset, reason)
    pub(super) dead: BTreeSet<(i32, i64, &'static str)>,
    /// How many rows ended with the final flag.
    pub(super) finals: usize,
}

/// How many random logs a property sees: `PROPTEST_CASES`, or fewer for the daily run.
pub(super) fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

pub(super) fn compile(text: &str) -> Arc<StreamQuery> {
    compile_at(text, Path::new("case.toml"))
}

/// Compiles the text of a query file; its lookup tables lie beside `path`.
pub(super) fn compile_at(text: &str, path: &Path) -> Arc<StreamQuery> {
    let file = QueryFile::parse(text, path).unwrap();
    Arc::new(StreamQuery::compile(file).unwrap_or_else(|error| panic!("{error}")))
}

/// A query over the readings' schema with the given SQL.
pub(super) fn readings_query(sql: &str) -> Arc<StreamQuery> {
    compile(&query_file(sql))
}

pub(super) fn query_file(sql: &str) -> String {
    format!(
        "name = 'case'\n[source]\ntopic = 'iot'\nschema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING, seq BIGINT'\n\
         event_time = 'ts'\nwatermark = '5 seconds'\n[query]\nsql = '''{sql}'''\n"
    )
}

pub(super) fn run(query: &Arc<StreamQuery>, log: &[Record], way: Way) -> Outcome {
    let partitions: BTreeSet<i32> = log.iter().map(|record| record.partition).collect();
    let shards: Vec<Vec<i32>> = match query.scope {
        Scope::Partition => partitions.iter().map(|partition| vec![*partition]).collect(),
        Scope::Topic => vec![partitions.into_iter().collect()],
    };
    let mut outcome = Outcome::default();
    let mut finals = BTreeMap::new();
    for shard in shards {
        Shard::new(query, &shard, log).run(way, &mut outcome, &mut finals);
    }
    outcome.finals = finals.values().filter(|is_final| **is_final).count();
    outcome
}

/// Records of one partition, the first of them at offset `from`, as the task hands them to the engine.
pub(super) fn input(query: &StreamQuery, partition: i32, from: usize, records: &[&Record]) -> Input {
    let mut decoder = query.decoder();
    let decoded = decoder.decode(records.iter().map(|record| record.value.as_deref())).unwrap();
    let from = i64::try_from(from).unwrap();
    let to = from + i64::try_from(records.len()).unwrap();
    Input { partition, from, to, received: records.iter().map(|record| record.received).collect(), decoded }
}

/// The rows as JSON, in their order.
pub(super) fn texts(batch: &arrow::array::RecordBatch) -> Vec<String> {
    let rows = JsonRows::new(batch).unwrap();
    let text = |row| {
        let mut text = Vec::new();
        rows.write_row(row, &mut text);
        String::from_utf8(text).unwrap()
    };
    (0..batch.num_rows()).map(text).collect()
}

type Finals = BTreeMap<(i64, String), bool>;

struct Shard<'a> {
    query: &'a Arc<StreamQuery>,
    logs: BTreeMap<i32, Vec<&'a Record>>,
    engine: Engine,
    journal: Vec<Vec<u8>>,
    /// Revision of each row that the sink has.
    revisions: BTreeMap<(i64, String), i64>,
}

impl<'a> Shard<'a> {
    fn new(query: &'a Arc<StreamQuery>, partitions: &[i32], log: &'a [Record]) -> Self {
        let logs = partitions.iter().map(|number| (*number, log.iter().filter(|record| record.partition == *number).collect())).collect();
        let engine = Engine::new(Arc::clone(query), partitions.iter().copied());
        Self { query, logs, engine, journal: Vec::new(), revisions: BTreeMap::new() }
    }

    fn position(&self, partition: i32) -> usize {
        usize::try_from(self.engine.partitions()[&partition].position.unwrap_or(0)).unwrap()
    }

    fn run(&mut self, way: Way, outcome: &mut Outcome, finals: &mut Finals) {
        let mut random = match way {
            Way::Straight => None,
            Way::Cut { seed } | Way::Killed { seed } => Some(ChaCha8Rng::seed_from_u64(seed)),
        };
        while self.logs.iter().any(|(partition, log)| self.position(*partition) < log.len()) {
            let inputs = self.take(random.as_mut());
            if inputs.is_empty() {
                continue;
            }
            let offsets: Vec<(i32, i64)> = inputs.iter().map(|input| (input.partition, input.from)).collect();
            let prepared = self.engine.prepare(inputs).unwrap();
            for ((partition, from), plain) in offsets.iter().zip(&prepared.rows) {
                deliver_plain(*partition, *from, plain, outcome, finals);
            }
            for ((partition, from), (late, dead)) in offsets.iter().zip(prepared.late.iter().zip(&prepared.dead)) {
                outcome.late.extend(late.iter().map(|row| (*partition, from + i64::from(row.index))));
                outcome.dead.extend(dead.iter().map(|row| (*partition, from + i64::from(row.index), row.reason)));
            }
            // A step that dies before its entry leaves no trace: its rows are taken again, and what it sent is sent again.
            if random.as_mut().is_some_and(|random| matches!(way, Way::Killed { .. }) && random.random_bool(0.1)) {
                continue;
            }
            // What the journal keeps is what is applied: a codec that loses anything shows here.
            let bytes = codec::encode(self.query, &prepared.entry).unwrap();
            let entry = codec::decode(self.query, &bytes).unwrap();
            assert_eq!(entry, prepared.entry);
            self.journal.push(bytes);
            let dies = |random: &mut ChaCha8Rng| matches!(way, Way::Killed { .. }) && random.random_bool(0.3);
            if random.as_mut().is_some_and(dies) {
                self.restore(outcome, finals);
            } else {
                let output = self.engine.apply(&entry).unwrap();
                self.deliver(&output, outcome, finals);
            }
            if random.as_mut().is_some_and(|random| matches!(way, Way::Killed { .. }) && random.random_bool(0.2)) {
                self.journal = vec![codec::encode(self.query, &self.engine.snapshot()).unwrap()];
            }
        }
        outcome.ledger = self.engine.partitions().values().fold(outcome.ledger, |sum, partition| sum + partition.ledger);
    }

    fn take(&self, mut random: Option<&mut ChaCha8Rng>) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (partition, log) in &self.logs {
            let from = self.position(*partition);
            let left = log.len() - from;
            let rows = random.as_mut().map_or(left, |random| random.random_range(0..=left.min(17)));
            if rows > 0 {
                inputs.push(input(self.query, *partition, from, &log[from..from + rows]));
            }
        }
        inputs
    }

    /// A new owner: everything from the journal, and the newest entry's results once more.
    fn restore(&mut self, outcome: &mut Outcome, finals: &mut Finals) {
        self.engine = Engine::new(Arc::clone(self.query), self.logs.keys().copied());
        let entries: Vec<Entry> = self.journal.iter().map(|bytes| codec::decode(self.query, bytes).unwrap()).collect();
        let (newest, before) = entries.split_last().unwrap();
        for entry in before {
            assert!(entry.snapshot || self.engine.follows(entry));
            self.engine.absorb_quietly(entry).unwrap();
        }
        let output = self.engine.apply(newest).unwrap();
        self.deliver(&output, outcome, finals);
    }

    fn deliver(&mut self, output: &Output, outcome: &mut Outcome, finals: &mut Finals) {
        let rows = JsonRows::new(&output.rows).unwrap();
        let (revision, mut given) = (self.engine.revision(), BTreeSet::new());
        for row in 0..output.gone.count {
            let mut key = Vec::new();
            key_text(&output.gone.keys, row, &mut key);
            let id = (output.gone.windows.get(row).map_or(0, |window| window.0), String::from_utf8(key).unwrap());
            outcome.rows.remove(&id).unwrap_or_else(|| panic!("{id:?} goes and was not there"));
            finals.remove(&id);
        }
        for row in 0..output.rows.num_rows() {
            let (mut value, mut key) = (Vec::new(), Vec::new());
            rows.write_row(row, &mut value);
            if output.ranked {
                value.extend(format!(" #{row}").into_bytes());
            }
            key_text(&output.keys, row, &mut key);
            let start = output.windows.get(row).map_or(0, |window| window.0);
            let id = (start, String::from_utf8(key).unwrap());
            assert!(given.insert(id.clone()), "{id:?} is given twice");
            let newest = self.revisions.insert(id.clone(), revision);
            assert!(newest.is_none_or(|newest| newest <= revision), "a revision went back");
            finals.insert(id.clone(), output.finals[row]);
            outcome.rows.insert(id, String::from_utf8(value).unwrap());
        }
    }
}

/// A row that stands for a record is told from others by the record.
fn deliver_plain(partition: i32, from: i64, plain: &PlainRows, outcome: &mut Outcome, finals: &mut Finals) {
    let rows = JsonRows::new(&plain.rows).unwrap();
    for (row, (index, time)) in plain.sources.iter().enumerate() {
        let mut value = Vec::new();
        rows.write_row(row, &mut value);
        let id = (*time, format!("{partition}@{}", from + i64::from(*index)));
        finals.insert(id.clone(), true);
        let value = String::from_utf8(value).unwrap();
        let before = outcome.rows.insert(id, value.clone());
        assert!(before.is_none_or(|before| before == value), "a row that stands for a record changed");
    }
}
