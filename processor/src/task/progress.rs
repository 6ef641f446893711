//! What one trigger did, in the words of Spark's `StreamingQueryProgress`.
//!
//! A trigger here is one entry of the journal: with `continuous` all steps of an interval, with `once` all of the run. Each shard has its
//! own, so a report says which one it is of.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::TimestampMillisecondType;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use super::status::now_ms;
use crate::engine::{Engine, Entry, Input, Ledger, Refused};
use crate::query::StreamQuery;

/// Where the time of a trigger went.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    pub(crate) decode: Duration,
    pub(crate) fold: Duration,
    pub(crate) journal: Duration,
    pub(crate) results: Duration,
    /// Waiting for the acknowledgement of lanes and results.
    pub(crate) deliver: Duration,
}

/// Event times of the rows that have a usable one, milliseconds.
#[derive(Debug, Default, Clone, Copy)]
struct EventTimes {
    count: u64,
    sum: i128,
    range: Option<(i64, i64)>,
}

impl EventTimes {
    fn observe(&mut self, time: i64) {
        self.count += 1;
        self.sum += i128::from(time);
        let (min, max) = self.range.unwrap_or((time, time));
        self.range = Some((min.min(time), max.max(time)));
    }
}

/// Counts of the trigger that is going on.
#[derive(Debug)]
pub(crate) struct Tally {
    begun: Option<(Instant, i64)>,
    rows: u64,
    times: EventTimes,
    late: u64,
    reasons: BTreeMap<&'static str, u64>,
    updated: u64,
    added: u64,
    pub(crate) removed: u64,
    results: u64,
    sources: BTreeMap<i32, (i64, i64)>,
    pub(crate) spent: Spent,
}

impl Tally {
    pub(crate) fn start() -> Self {
        Self {
            begun: None,
            rows: 0,
            times: EventTimes::default(),
            late: 0,
            reasons: BTreeMap::new(),
            updated: 0,
            added: 0,
            removed: 0,
            results: 0,
            sources: BTreeMap::new(),
            spent: Spent::default(),
        }
    }

    fn begin(&mut self) {
        self.begun.get_or_insert_with(|| (Instant::now(), now_ms()));
    }

    pub(crate) fn input(&mut self, query: &StreamQuery, input: &Input) {
        self.begin();
        self.rows += input.received.len() as u64;
        let max_future = query.file.source.max_future.millis();
        let Some(column) = input.decoded.batch.column(query.event_time).as_primitive_opt::<TimestampMillisecondType>() else { return };
        for (row, index) in input.decoded.rows.iter().enumerate().filter(|(row, _)| !column.is_null(*row)) {
            let (time, received) = (column.value(row), input.received[*index as usize]);
            // A clock that is ahead would show as the newest reading of all.
            if received < 0 || time <= received.saturating_add(max_future) {
                self.times.observe(time);
            }
        }
    }

    pub(crate) fn refused(&mut self, late: &[Refused], dead: &[Refused]) {
        self.late += late.len() as u64;
        for row in late.iter().chain(dead) {
            *self.reasons.entry(row.reason).or_default() += 1;
        }
    }

    /// A step is in the state, which has `added` rows more.
    pub(crate) fn absorbed(&mut self, entry: &Entry, added: u64) {
        self.begin();
        self.updated += (entry.groups.len() + entry.sessions.len() + entry.seen.len()) as u64;
        self.added += added;
        for progress in &entry.progress {
            self.sources.entry(progress.partition).or_insert((progress.from, progress.to)).1 = progress.to;
        }
    }

    /// Results that stand for one row each.
    pub(crate) fn plain(&mut self, rows: u64) {
        self.results += rows;
    }

    pub(crate) fn results(&mut self, rows: u64, took: Duration) {
        self.results += rows;
        self.spent.results += took;
    }

    /// The report of the trigger that ends with the journal record `batch`.
    pub(crate) fn report(self, shard: i32, batch: i64, engine: &Engine) -> Report {
        let (begun, started_ms) = self.begun.unwrap_or_else(|| (Instant::now(), now_ms()));
        let ledger = engine.partitions().values().fold(Ledger::default(), |sum, partition| sum + partition.ledger);
        Report {
            shard,
            batch,
            started_ms,
            took: begun.elapsed(),
            watermark: engine.horizon(),
            state_rows: engine.state_rows(),
            state_bytes: engine.state_bytes(),
            ledger,
            since_last: Duration::ZERO,
            tally: self,
        }
    }
}

/// One trigger, as it is shown.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) shard: i32,
    batch: i64,
    started_ms: i64,
    took: Duration,
    watermark: Option<i64>,
    state_rows: u64,
    state_bytes: u64,
    /// Since the query began.
    ledger: Ledger,
    /// Since the report before.
    pub(crate) since_last: Duration,
    tally: Tally,
}

/// Which query, and which run of it, the reports are of.
#[derive(Debug)]
pub(crate) struct Identity {
    /// From the name: a query's name is its identity, in every run.
    id: String,
    run_id: String,
    name: String,
    /// The topic, or the stream's name.
    topic: String,
    source: String,
    sink: String,
}

impl Identity {
    pub(crate) fn new(query: &StreamQuery) -> Self {
        let random = || std::hash::RandomState::new().build_hasher().finish();
        Self {
            id: uuid(fnv(&query.file.name, 0xcbf2_9ce4_8422_2325), fnv(&query.file.name, 0x8422_2325_cbf2_9ce4), 8),
            run_id: uuid(random(), random(), 4),
            name: query.file.name.clone(),
            topic: query.file.source.topic.clone(),
            source: place(query.file.source.format.name(), &query.file.source.place()),
            sink: match query.file.sink.is_kafka() {
                true => place("kafka", &query.file.output_topic()),
                false => place(query.file.sink.format.name(), &query.file.sink.place()),
            },
        }
    }
}

/// `Kafka[iot]`: the format with a capital, and what it reads or writes.
fn place(format: &str, place: &str) -> String {
    let (first, rest) = format.split_at(1);
    format!("{}{rest}[{place}]", first.to_uppercase())
}

fn fnv(text: &str, basis: u64) -> u64 {
    text.bytes().fold(basis, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn uuid(high: u64, low: u64, version: u64) -> String {
    let (high, low) = ((high & !0xf000) | (version << 12), (low & (u64::MAX >> 2)) | (1 << 63));
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xffff, high & 0xffff, low >> 48, low & 0xffff_ffff_ffff)
}

/// A time as Spark writes it; `null` when there is none.
pub(crate) fn instant(ms: Option<i64>) -> Value {
    let text = ms.and_then(DateTime::from_timestamp_millis).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
    text.map_or(Value::Null, Value::String)
}

fn per_second(rows: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { (rows as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

impl Report {
    pub(crate) fn results(&self) -> u64 {
        self.tally.results
    }

    /// The rows that were late or dead, by reason.
    pub(crate) fn reasons(&self) -> &BTreeMap<&'static str, u64> {
        &self.tally.reasons
    }

    /// `ends`: the newest offsets of the input partitions, as far as the log was asked.
    pub(crate) fn to_json(&self, identity: &Identity, ends: &BTreeMap<i32, i64>) -> Value {
        let (tally, spent) = (&self.tally, &self.tally.spent);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let by_partition = |offsets: Vec<(i32, i64)>| -> Value {
            let offsets: Map<String, Value> =
                offsets.into_iter().map(|(partition, offset)| (partition.to_string(), offset.into())).collect();
            json!({ &identity.topic: offsets })
        };
        let mean = i64::try_from(tally.times.sum.checked_div(i128::from(tally.times.count)).unwrap_or(0)).ok();
        let ends: Vec<(i32, i64)> =
            tally.sources.iter().map(|(partition, (_, to))| (*partition, ends.get(partition).map_or(*to, |end| *end.max(to)))).collect();
        let (input_rate, rate) = (per_second(tally.rows, self.since_last), per_second(tally.rows, self.took));
        let Ledger { read, used, late, dead, filtered, duplicates } = self.ledger;
        json!({
            "id": identity.id,
            "runId": identity.run_id,
            "name": identity.name,
            "shard": self.shard,
            "timestamp": instant(Some(self.started_ms)),
            "batchId": self.batch,
            "numInputRows": tally.rows,
            "inputRowsPerSecond": input_rate,
            "processedRowsPerSecond": rate,
            "durationMs": {
                "triggerExecution": millis(self.took),
                "getBatch": millis(spent.decode),
                "addBatch": millis(spent.fold + spent.results),
                "walCommit": millis(spent.journal),
                "commitOffsets": millis(spent.deliver),
            },
            "eventTime": {
                "avg": instant(mean.filter(|_| tally.times.count > 0)),
                "max": instant(tally.times.range.map(|range| range.1)),
                "min": instant(tally.times.range.map(|range| range.0)),
                "watermark": instant(self.watermark),
            },
            "stateOperators": [{
                "operatorName": "stateStoreSave",
                "numRowsTotal": self.state_rows,
                "numRowsUpdated": tally.updated,
                "numRowsRemoved": tally.removed,
                "memoryUsedBytes": self.state_bytes,
                "numRowsDroppedByWatermark": tally.late,
            }],
            "sources": [{
                "description": identity.source,
                "startOffset": by_partition(tally.sources.iter().map(|(partition, (from, _))| (*partition, *from)).collect()),
                "endOffset": by_partition(tally.sources.iter().map(|(partition, (_, to))| (*partition, *to)).collect()),
                "latestOffset": by_partition(ends),
                "numInputRows": tally.rows,
                "inputRowsPerSecond": input_rate,
                "processedRowsPerSecond": rate,
            }],
            "sink": { "description": identity.sink, "numOutputRows": tally.results },
            "refused": tally.reasons,
            "ledger": {
                "read": read,
                "used": used,
                "late": late,
                "dead": dead,
                "filtered": filtered,
                "duplicates": duplicates,
                "imbalance": self.ledger.imbalance(),
            },
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_the_name_alone() {
        let query = |name: &str| {
            let text = format!(
                "name='{name}'\n[source]\ntopic='iot'\nschema='ts TIMESTAMP'\nevent_time='ts'\nwatermark='5s'\npartition_key=''\n\
                 [query]\nsql=\"SELECT count(*) AS n FROM iot GROUP BY window(ts, '1s')\"\n"
            );
            StreamQuery::compile(crate::query::QueryFile::parse(&text, std::path::Path::new("q.toml")).unwrap()).unwrap()
        };
        let (first, again, other) = (Identity::new(&query("a")), Identity::new(&query("a")), Identity::new(&query("b")));
        assert_eq!(first.id, again.id);
        assert_ne!(first.id, other.id);
        assert_ne!(first.run_id, again.run_id);
        for id in [&first.id, &first.run_id] {
            let lengths: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
        }
        assert_eq!((&first.id[14..15], &first.run_id[14..15]), ("8", "4"));
    }

    #[test]
    fn times_are_spark_s() {
        assert_eq!(instant(Some(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(instant(None), Value::Null);
    }
}
