//! What `/status` tells of each query, and the gauges that follow it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::Settings;
use serde_json::{Map, Value, json};

use super::live::Asked;
use super::metrics::Metrics;
use super::owner::Heartbeat;
use super::progress::{Identity, Report};
use super::repartition::Role;
use super::source::Source;
use super::why::{self, Situation};
use super::worker::Shard;
use crate::engine::{Engine, Ledger, NextClose};
use crate::query::StreamQuery;

/// How many progress reports are kept.
const RECENT: usize = 10;
/// How often a worker is asked which window closes next: with many sessions or devices that is no small question.
const LOOK: Duration = Duration::from_millis(500);
/// For how long the end of a worker by a fault is worth a word.
const FRESH: Duration = Duration::from_secs(30);

/// The status of one query; shared by its workers and its membership.
#[derive(Debug)]
pub(crate) struct QueryStatus {
    name: String,
    delay: i64,
    progress_every: Duration,
    query: Arc<StreamQuery>,
    identity: Identity,
    max_state: u64,
    metrics: Metrics,
    asked: Asked,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    partitions: BTreeMap<i32, PartitionStatus>,
    shards: BTreeMap<i32, ShardStatus>,
    /// By journal partition: copies of what other processors own.
    standbys: BTreeMap<i32, StandbyStatus>,
    rate: Rate,
    reports: VecDeque<Report>,
    /// When each shard last made a report.
    reported: BTreeMap<i32, Instant>,
    /// When one was last a line of the log at level `info`.
    logged: Option<Instant>,
    since_result: why::SinceResult,
    fault: Option<(Instant, String)>,
    restarts: u64,
    /// Since when the log has not answered a worker that reads, and one who asks for the ends.
    away: Option<Instant>,
    silent: Option<Instant>,
    /// Partitions of the input: at the start, and as the log last said.
    input_partitions: u32,
    found_partitions: u32,
    /// Of a bounded run: from where to where each partition is read.
    goal: BTreeMap<i32, (i64, i64)>,
}

/// One worker.
#[derive(Debug)]
struct ShardStatus {
    heartbeat: Heartbeat,
    partitions: Vec<i32>,
    role: Role,
    /// Of one that merges what others read.
    merged: MergedStatus,
    restored: bool,
    next_close: Option<NextClose>,
    /// When that was found out; it is not asked at every step.
    looked: Option<Instant>,
}

/// What a shard that merges has of the input, as far as others have read it.
#[derive(Debug, Clone, Default)]
struct MergedStatus {
    /// By input partition: position and watermark.
    partitions: BTreeMap<i32, (Option<i64>, Option<i64>)>,
    watermark: Option<i64>,
    state_rows: u64,
    state_bytes: u64,
}

/// A copy of the state of a shard that another processor owns.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StandbyStatus {
    /// The journal offset that it wants next.
    pub(crate) offset: i64,
    pub(crate) at_end: bool,
    pub(crate) state_rows: u64,
    pub(crate) state_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct PartitionStatus {
    position: Option<i64>,
    /// The part of the position that is in the journal.
    committed: Option<i64>,
    at_end: bool,
    quiet: Duration,
    end: Option<i64>,
    watermark: Option<i64>,
    ledger: Ledger,
    state_rows: u64,
    state_bytes: u64,
}

/// Rows per second over the last seconds.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    rows: u64,
    last: f64,
}

impl Rate {
    fn add(&mut self, rows: u64) {
        self.rows += rows;
        self.roll();
    }

    fn roll(&mut self) -> f64 {
        let since = *self.since.get_or_insert_with(Instant::now);
        let seconds = since.elapsed().as_secs_f64();
        if seconds >= 2.0 {
            self.last = self.rows as f64 / seconds;
            self.rows = 0;
            self.since = Some(Instant::now());
        }
        self.last
    }
}

impl QueryStatus {
    pub(crate) fn new(query: &Arc<StreamQuery>, settings: &Settings, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            name: query.file.name.clone(),
            delay: query.file.source.watermark.millis(),
            progress_every: settings.processor.progress_every.duration(),
            query: Arc::clone(query),
            identity: Identity::new(query),
            max_state: settings.processor.max_state.bytes(),
            metrics,
            asked: Asked::default(),
            inner: Mutex::default(),
        })
    }

    pub(super) fn query(&self) -> &Arc<StreamQuery> {
        &self.query
    }

    /// Questions to its workers.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The journal partitions that have a worker here, of those whose state is of results.
    pub(super) fn owned_shards(&self) -> Vec<i32> {
        self.inner().shards.iter().filter(|(_, shard)| shard.role.gives_results()).map(|(number, _)| *number).collect()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a shard's engine says after a restore.
    pub(crate) fn restored(&self, shard: &Shard, engine: &Engine) {
        self.take_over(shard, engine, false);
        self.committed(shard, engine);
    }

    /// Takes over what a shard's engine says after a step of so many rows.
    pub(crate) fn update(&self, shard: &Shard, engine: &Engine, step_rows: u64) {
        self.inner().rate.add(step_rows);
        self.take_over(shard, engine, true);
    }

    /// `news`: what the ledgers have more than before has just happened here.
    fn take_over(&self, shard: &Shard, engine: &Engine, news: bool) {
        let mut inner = self.inner();
        let merges = shard.role.merges();
        // The rows are counted where they are read.
        for (number, partition) in engine.partitions().iter().filter(|_| !merges) {
            let inner = &mut *inner;
            let status = inner.partitions.entry(*number).or_default();
            let before = status.ledger;
            status.position = partition.position;
            status.watermark = partition.time.watermark(self.delay);
            status.ledger = partition.ledger;
            status.state_rows = partition.rows();
            status.state_bytes = partition.bytes();
            self.gauges(*number, status);
            if news {
                let new = status.ledger.since(before);
                self.count(new);
                inner.since_result.counts = inner.since_result.counts + new;
            }
        }
        if let Some(own) = inner.shards.get_mut(&shard.journal_partition) {
            own.restored = true;
            if merges {
                own.merged = MergedStatus::of(engine, self.delay);
            }
            own.look(engine);
        }
    }

    /// Takes over what a shard's engine says when so many result rows of it have been sent.
    pub(crate) fn sent(&self, shard: &Shard, engine: &Engine, rows: u64) {
        self.take_over(shard, engine, true);
        if rows > 0 {
            self.inner().since_result = why::SinceResult { last_ms: Some(now_ms()), ..why::SinceResult::default() };
        }
    }

    /// How a worker's reader stands after a step, or after waiting in vain.
    pub(crate) fn turned(&self, shard: &Shard, engine: &Engine, reader: &dyn Source) {
        let mut inner = self.inner();
        for (number, at_end, quiet) in reader.quiet() {
            let status = inner.partitions.entry(number).or_default();
            (status.at_end, status.quiet) = (at_end, quiet);
        }
        if let Some(own) = inner.shards.get_mut(&shard.journal_partition) {
            own.look(engine);
        }
        match reader.is_away() {
            true => drop(inner.away.get_or_insert_with(Instant::now)),
            false => inner.away = None,
        }
    }

    /// What the engine has seen is in the journal.
    pub(crate) fn committed(&self, shard: &Shard, engine: &Engine) {
        if shard.role.merges() {
            return;
        }
        let mut inner = self.inner();
        for (number, partition) in engine.partitions() {
            inner.partitions.entry(*number).or_default().committed = partition.position;
        }
    }

    /// A worker begins with a shard.
    pub(crate) fn worker_started(&self, shard: &Shard, heartbeat: Heartbeat) {
        let status = ShardStatus {
            heartbeat,
            partitions: shard.input_partitions.clone(),
            role: shard.role,
            merged: MergedStatus::default(),
            restored: false,
            next_close: None,
            looked: None,
        };
        self.inner().shards.insert(shard.journal_partition, status);
    }

    /// A worker has ended by a fault and another one takes over.
    pub(crate) fn worker_broke(&self, cause: String) {
        let mut inner = self.inner();
        inner.restarts += 1;
        inner.fault = Some((Instant::now(), cause));
    }

    /// How many partitions the input has. Says once that there are more than the query reads.
    pub(crate) fn set_input_partitions(&self, found: u32) {
        let mut inner = self.inner();
        if inner.input_partitions == 0 {
            inner.input_partitions = found;
        }
        if found > inner.found_partitions.max(inner.input_partitions) {
            tracing::warn!(
                query = self.name,
                topic = self.query.file.source.topic,
                found,
                read = inner.input_partitions,
                "the input has got new partitions; their rows are not read before a restart of the processor"
            );
        }
        inner.found_partitions = found;
    }

    /// Of a bounded run: from where to where each partition is read.
    pub(crate) fn set_goal(&self, goal: BTreeMap<i32, (i64, i64)>) {
        self.inner().goal.extend(goal);
    }

    /// Of a bounded run: how many of how many rows are read; `None` before anybody knows.
    pub(crate) fn done(&self) -> Option<(u64, u64)> {
        let inner = self.inner();
        let rows = |from: i64, to: i64| u64::try_from(to - from).unwrap_or(0);
        let total = inner.goal.values().map(|(from, to)| rows(*from, *to)).sum();
        let position = |number: &i32, from: i64| inner.partitions.get(number).and_then(|partition| partition.position).unwrap_or(from);
        let done = inner.goal.iter().map(|(number, (from, to))| rows(*from, position(number, *from).min(*to))).sum();
        (!inner.goal.is_empty()).then_some((done, total))
    }

    /// Keeps the report of a trigger, and writes it to the log when it is time for that.
    pub(crate) fn report(&self, mut report: Report) {
        let now = Instant::now();
        let mut inner = self.inner();
        report.since_last = inner.reported.insert(report.shard, now).map_or(Duration::ZERO, |last| now - last);
        if report.results() == 0 {
            for (reason, rows) in report.reasons() {
                *inner.since_result.reasons.entry(reason).or_default() += rows;
            }
        }
        let logged = *inner.logged.get_or_insert(now);
        let line = || report.to_json(&self.identity, &inner.ends()).to_string();
        if now - logged >= self.progress_every {
            tracing::info!(target: "progress", "{}", line());
            inner.logged = Some(now);
        } else if tracing::enabled!(target: "progress", tracing::Level::DEBUG) {
            tracing::debug!(target: "progress", "{}", line());
        }
        if inner.reports.len() == RECENT {
            inner.reports.pop_front();
        }
        inner.reports.push_back(report);
    }

    /// The last report as a line of the log: the end of a bounded run.
    pub(crate) fn log_last(&self) {
        let inner = self.inner();
        if let Some(report) = inner.reports.back() {
            tracing::info!(target: "progress", "{}", report.to_json(&self.identity, &inner.ends()));
        }
    }

    fn situation(&self, inner: &Inner, rows_per_second: f64) -> Situation {
        let file = &self.query.file;
        let shards = inner.shards.iter().map(|(number, shard)| inner.shard(*number, shard)).collect();
        Situation {
            now_ms: now_ms(),
            topic: file.source.topic.clone(),
            trigger: file.query.trigger,
            output_mode: file.query.output_mode,
            windowed: self.query.top().is_some_and(|grouping| grouping.window.is_some()) && !self.query.is_complete(),
            delay: self.delay,
            idle_timeout: file.source.idle_timeout().map_or(i64::MAX / 4, common::units::Span::millis),
            max_state: self.max_state,
            input_partitions: inner.input_partitions,
            found_partitions: inner.found_partitions,
            gives_results: inner.shards.is_empty() || inner.shards.values().any(|shard| shard.role.gives_results()),
            shards,
            fault: inner.fault.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(at, cause)| (at.elapsed(), cause.clone())),
            away: inner.away.into_iter().chain(inner.silent).min().map(|since| since.elapsed()),
            outside: (!file.source.is_kafka()).then(|| file.source.place()),
            rows_per_second,
            since_result: inner.since_result.clone(),
        }
    }

    /// Whether the log has said where its partitions end, when it was last asked.
    pub(crate) fn set_answers(&self, answers: bool) {
        let mut inner = self.inner();
        inner.silent = if answers { None } else { inner.silent.or_else(|| Some(Instant::now())) };
    }

    /// The ends of the input partitions, as the log says them.
    pub(crate) fn set_end(&self, partition: i32, end: i64) {
        let mut inner = self.inner();
        let status = inner.partitions.entry(partition).or_default();
        status.end = Some(end);
        let lag = status.committed.map_or(end, |committed| (end - committed).max(0));
        self.metrics.lag.with_label_values(&[&self.name, &partition.to_string()]).set(lag);
    }

    /// A shard that is no longer ours, and its partitions.
    pub(crate) fn forget(&self, shard: &Shard) {
        let mut inner = self.inner();
        inner.shards.remove(&shard.journal_partition);
        self.asked.forget(shard.journal_partition);
        for partition in shard.input_partitions.iter().filter(|_| !shard.role.merges()) {
            inner.partitions.remove(partition);
            self.metrics.forget(&self.name, &partition.to_string());
        }
    }

    /// How a copy stands.
    pub(crate) fn set_standby(&self, shard: i32, status: StandbyStatus) {
        self.inner().standbys.insert(shard, status);
        let (shard, gauge) = (shard.to_string(), |value: u64| i64::try_from(value).unwrap_or(i64::MAX));
        let labels = &[self.name.as_str(), shard.as_str()];
        self.metrics.standby_rows.with_label_values(labels).set(gauge(status.state_rows));
        self.metrics.standby_bytes.with_label_values(labels).set(gauge(status.state_bytes));
    }

    /// A copy that is held no more.
    pub(crate) fn forget_standby(&self, shard: i32) {
        self.inner().standbys.remove(&shard);
        self.metrics.forget_standby(&self.name, &shard.to_string());
    }

    /// Of each partition the next offset after what is in the journal; `None` before its first entry.
    pub(crate) fn positions(&self) -> Vec<(i32, Option<i64>)> {
        self.inner().partitions.iter().map(|(number, status)| (*number, status.committed)).collect()
    }

    pub(crate) fn rows_per_second(&self) -> f64 {
        self.inner().rate.roll()
    }

    fn count(&self, new: Ledger) {
        let outcomes = [("used", new.used), ("late", new.late), ("dead", new.dead), ("filtered", new.filtered)];
        for (outcome, rows) in outcomes {
            self.metrics.rows.with_label_values(&[self.name.as_str(), outcome]).inc_by(rows);
        }
    }

    fn gauges(&self, number: i32, status: &PartitionStatus) {
        let partition = number.to_string();
        let labels = &[self.name.as_str(), partition.as_str()];
        if let Some(watermark) = status.watermark {
            self.metrics.watermark.with_label_values(labels).set(watermark as f64 / 1000.0);
            self.metrics.watermark_lag.with_label_values(labels).set((now_ms() - watermark) as f64 / 1000.0);
        }
        self.metrics.state_rows.with_label_values(labels).set(i64::try_from(status.state_rows).unwrap_or(i64::MAX));
        self.metrics.state_bytes.with_label_values(labels).set(i64::try_from(status.state_bytes).unwrap_or(i64::MAX));
        self.metrics.imbalance.with_label_values(labels).set(status.ledger.imbalance());
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut inner = self.inner();
        let rows_per_second = inner.rate.roll();
        let partition = |(number, status): (&i32, &PartitionStatus)| {
            json!({
                "partition": number,
                "offset": status.position,
                "end": status.end,
                "watermark_ms": status.watermark,
                "read": status.ledger.read,
                "used": status.ledger.used,
                "late": status.ledger.late,
                "dead": status.ledger.dead,
                "filtered": status.ledger.filtered,
                "imbalance": status.ledger.imbalance(),
                "state_rows": status.state_rows,
                "state_bytes": status.state_bytes,
            })
        };
        let standby = |(shard, status): (&i32, &StandbyStatus)| {
            json!({
                "shard": shard,
                "journal_offset": status.offset,
                "at_end": status.at_end,
                "state_rows": status.state_rows,
                "state_bytes": status.state_bytes,
            })
        };
        let merges = |(number, shard): (&i32, &ShardStatus)| {
            json!({
                "shard": number,
                "watermark_ms": shard.merged.watermark,
                "offsets": shard.merged.partitions.iter().map(|(partition, (offset, _))| (partition.to_string(), json!(offset))).collect::<Map<_, _>>(),
                "state_rows": shard.merged.state_rows,
                "state_bytes": shard.merged.state_bytes,
            })
        };
        let merges: Vec<Value> = inner.shards.iter().filter(|(_, shard)| shard.role.merges()).map(merges).collect();
        let ends = inner.ends();
        let reports: Vec<Value> = inner.reports.iter().rev().map(|report| report.to_json(&self.identity, &ends)).collect();
        json!({
            "name": self.name,
            "why": why::to_json(&self.situation(&inner, rows_per_second)),
            "restarts": inner.restarts,
            "last_progress": reports.first(),
            "recent_progress": reports,
            "rows_per_second": rows_per_second,
            "state_rows": inner.partitions.values().map(|status| status.state_rows).sum::<u64>()
                + inner.shards.values().map(|shard| shard.merged.state_rows).sum::<u64>(),
            "partitions": inner.partitions.iter().map(partition).collect::<Vec<_>>(),
            "merges": merges,
            "standbys": inner.standbys.iter().map(standby).collect::<Vec<_>>(),
        })
    }
}

impl MergedStatus {
    fn of(engine: &Engine, delay: i64) -> Self {
        let partitions = engine.partitions().iter();
        Self {
            partitions: partitions.map(|(number, partition)| (*number, (partition.position, partition.time.watermark(delay)))).collect(),
            watermark: engine.horizon(),
            state_rows: engine.state_rows(),
            state_bytes: engine.state_bytes(),
        }
    }
}

impl ShardStatus {
    fn look(&mut self, engine: &Engine) {
        // A window that closes for one who reads is still open for those who merge.
        if self.role.gives_results() && self.looked.is_none_or(|looked| looked.elapsed() > LOOK) {
            self.looked = Some(Instant::now());
            self.next_close = engine.next_close();
        }
    }
}

impl Inner {
    fn ends(&self) -> BTreeMap<i32, i64> {
        self.partitions.iter().filter_map(|(number, partition)| Some((*number, partition.end?))).collect()
    }

    fn shard(&self, number: i32, shard: &ShardStatus) -> why::Shard {
        let (turned, point) = shard.heartbeat.last();
        if shard.role.merges() {
            return self.merging(number, shard);
        }
        let known = shard.partitions.iter().filter_map(|number| Some((*number, self.partitions.get(number)?)));
        let partition = |(number, status): (i32, &PartitionStatus)| why::Partition {
            number,
            position: status.position,
            end: status.end,
            at_end: status.at_end,
            quiet: status.quiet,
            watermark: status.watermark,
        };
        why::Shard {
            number,
            turned,
            point,
            restored: shard.restored,
            state_bytes: known.clone().map(|(_, status)| status.state_bytes).sum(),
            next_close: shard.next_close.clone(),
            partitions: known.map(partition).collect(),
        }
    }

    /// One that merges knows of a partition what has come to it; whether it is quiet is known where it is read.
    fn merging(&self, number: i32, shard: &ShardStatus) -> why::Shard {
        let (turned, point) = shard.heartbeat.last();
        let partition = |(number, (position, watermark)): (&i32, &(Option<i64>, Option<i64>))| {
            let read = self.partitions.get(number).copied().unwrap_or_default();
            let (at_end, quiet) = (read.at_end, read.quiet);
            why::Partition { number: *number, position: *position, end: None, at_end, quiet, watermark: *watermark }
        };
        why::Shard {
            number,
            turned,
            point,
            restored: shard.restored,
            state_bytes: shard.merged.state_bytes,
            next_close: shard.next_close.clone(),
            partitions: shard.merged.partitions.iter().map(partition).collect(),
        }
    }
}

/// The wall clock, milliseconds since 1970; for display and triggers only, never for results.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::engine::Input;
    use crate::query::QueryFile;

    fn query() -> Arc<StreamQuery> {
        let text = "name='q'\n[source]\ntopic='iot'\nschema='ts TIMESTAMP, n BIGINT'\nevent_time='ts'\nwatermark='5s'\npartition_key=''\n\
                    [query]\nsql=\"SELECT count(*) AS n FROM iot WHERE n > 0 GROUP BY window(ts, '10s')\"\n";
        Arc::new(StreamQuery::compile(QueryFile::parse(text, Path::new("q.toml")).unwrap()).unwrap())
    }

    fn codes(status: &QueryStatus) -> Vec<String> {
        let status = status.to_json();
        let reasons = status["why"]["reasons"].as_array().unwrap();
        reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect()
    }

    fn step(query: &Arc<StreamQuery>, engine: &mut Engine, records: &[&str]) {
        let decoded = query.decoder().decode(records.iter().map(|record| Some(record.as_bytes()))).unwrap();
        let from = engine.partitions()[&0].position.unwrap_or(0);
        let to = from + i64::try_from(records.len()).unwrap();
        let prepared = engine.prepare(vec![Input { partition: 0, from, to, received: vec![100_000; records.len()], decoded }]).unwrap();
        engine.apply(&prepared.entry).unwrap();
    }

    #[test]
    fn what_came_since_the_last_result_is_counted_once() {
        let query = query();
        let status = QueryStatus::new(&query, &Settings::default(), Metrics::register(&prometheus::Registry::new()).unwrap());
        let mut engine = Engine::new(Arc::clone(&query), [0]);
        let shard = Shard { journal_partition: 0, input_partitions: vec![0], role: Role::Whole, readers: 1 };
        status.worker_started(&shard, Heartbeat::new());
        assert_eq!(codes(&status), ["restoring", "starting"]);
        status.restored(&shard, &engine);
        assert_eq!(codes(&status), ["starting"]);

        step(&query, &mut engine, &[r#"{"ts":20000,"n":0}"#, r#"{"ts":21000,"n":0}"#]);
        status.update(&shard, &engine, 2);
        assert_eq!(codes(&status)[0], "all_refused", "WHERE lets nothing pass");
        step(&query, &mut engine, &[r#"{"ts":22000,"n":1}"#]);
        status.sent(&shard, &engine, 1);
        status.update(&shard, &engine, 1);
        assert_eq!(codes(&status)[0], "flowing");
        assert_eq!(status.metrics().rows.with_label_values(&["q", "filtered"]).get(), 2);
        assert_eq!(status.metrics().rows.with_label_values(&["q", "used"]).get(), 1);
        // A worker that takes over anew begins with what is in the journal: nothing of that is new.
        status.restored(&shard, &engine);
        assert_eq!(status.metrics().rows.with_label_values(&["q", "used"]).get(), 1);
    }

    #[test]
    fn who_merges_counts_no_rows_and_who_reads_gives_no_results() {
        let query = query();
        let status = QueryStatus::new(&query, &Settings::default(), Metrics::register(&prometheus::Registry::new()).unwrap());
        let mut engine = Engine::new(Arc::clone(&query), [0]);
        step(&query, &mut engine, &[r#"{"ts":20000,"n":1}"#]);
        let reads = Shard { journal_partition: 0, input_partitions: vec![0], role: Role::Reads, readers: 1 };
        status.worker_started(&reads, Heartbeat::new());
        status.restored(&reads, &engine);
        assert!(status.owned_shards().is_empty());
        assert!(codes(&status).contains(&"merged_elsewhere".to_owned()) && !codes(&status).contains(&"starting".to_owned()));

        let share = crate::task::repartition::Share { number: 0, of: 1 };
        let merges = Shard { journal_partition: 1, input_partitions: vec![0], role: Role::Merges(share), readers: 1 };
        status.worker_started(&merges, Heartbeat::new());
        status.restored(&merges, &engine);
        assert_eq!(status.owned_shards(), [1]);
        assert!(!codes(&status).contains(&"merged_elsewhere".to_owned()));
        let told = status.to_json();
        assert_eq!(
            (&told["partitions"][0]["read"], &told["merges"][0]["offsets"]["0"], &told["merges"][0]["state_rows"]),
            (&json!(1), &json!(1), &json!(1))
        );
        // Whoever merges takes nothing away from who reads.
        status.forget(&merges);
        assert_eq!(status.positions(), [(0, Some(1))]);
    }

    #[test]
    fn new_partitions_are_told() {
        let status = QueryStatus::new(&query(), &Settings::default(), Metrics::register(&prometheus::Registry::new()).unwrap());
        status.set_input_partitions(2);
        status.set_input_partitions(2);
        assert!(!codes(&status).contains(&"new_partitions".to_owned()));
        status.set_input_partitions(3);
        assert!(codes(&status).contains(&"new_partitions".to_owned()));
    }
}
