//! One shard: restore, then step after step until it is told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use common::Settings;

use super::deliver::Deliverer;
use super::error::TaskError;
use super::input::{Filled, Reader};
use super::journal::{Journal, Restored, restore};
use super::keys::refuse_wrong_keys;
use super::owner::Owner;
use super::status::{QueryStatus, now_ms};
use super::trigger::Pace;
use crate::engine::{Engine, EngineError, Entry, Input, Prepared};
use crate::format::decode::Decoder;
use crate::query::StreamQuery;
use crate::query::file::Trigger;

/// Which journal partition a worker owns, and which input partitions it reads.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) journal_partition: i32,
    pub(crate) input_partitions: Vec<i32>,
}

pub(crate) struct Worker {
    pub(crate) settings: Arc<Settings>,
    pub(crate) query: Arc<StreamQuery>,
    pub(crate) shard: Shard,
    pub(crate) owner: Owner,
    pub(crate) status: Arc<QueryStatus>,
}

impl Worker {
    /// Runs until stopped, fenced, broken, or, with `available_now`, done.
    pub(crate) fn run(&self) -> Result<(), TaskError> {
        let mut running = self.start()?;
        let mut pace = Pace::new(self.query.file.query.trigger);
        while !self.owner.stop.is_set() {
            self.owner.beat();
            let now = Instant::now();
            let due = pace.due(now, now_ms());
            let filled = running.reader.fill(Pace::patience(due, now), due, &self.owner)?;
            let now = Instant::now();
            // In a backlog a step does not wait for its tick: the tick is for fresh rows.
            if running.reader.rows() > 0 && (filled == Filled::Full || !pace.waits(now)) {
                running.step(self)?;
            } else if self.query.file.query.trigger == Trigger::AvailableNow {
                // A bounded run has an end instead of a clock.
                if running.reader.is_done() {
                    break;
                }
            } else {
                running.close_idle(self)?;
            }
            pace.stepped(now);
        }
        running.deliverer.flush(&self.owner)
    }

    /// Takes the journal over, restores the state from it, and delivers its newest entry's results again.
    fn start(&self) -> Result<Running, TaskError> {
        let started = Instant::now();
        let topic = common::topics::journal(&self.query.file.name);
        let place = (topic.as_str(), self.shard.journal_partition);
        // Both producers need an id from the log, which takes librdkafka half a second: they ask at the same time.
        let deliverer = Deliverer::new(&self.settings, &self.query)?;
        let mut journal = Journal::take_over(&self.settings, place.0, place.1, &self.owner)?;
        let mut engine = Engine::new(Arc::clone(&self.query), self.shard.input_partitions.iter().copied());
        let Restored { newest, bytes } = restore(&self.settings, &self.query, place, journal.epoch(), &mut engine, &self.owner)?;
        journal.bytes = bytes;
        if let Some(entry) = newest {
            let output = engine.apply(&entry)?;
            deliverer.results(&self.query, &output, engine.revision(), &self.owner)?;
        }
        self.status.update(&engine, 0);
        self.status.metrics().restore_seconds.set(started.elapsed().as_secs_f64());
        let positions: BTreeMap<i32, Option<i64>> =
            engine.partitions().iter().map(|(number, partition)| (*number, partition.position)).collect();
        tracing::info!(
            query = self.query.file.name,
            journal = format!("{topic}-{}", self.shard.journal_partition),
            epoch = journal.epoch(),
            groups = engine.state_rows(),
            ?positions,
            took = ?started.elapsed(),
            "restored"
        );
        let reader = Reader::start(&self.settings, &self.query, &positions, &self.owner)?;
        let decoder = Decoder::new(Arc::clone(&self.query.schema));
        Ok(Running { journal, engine, deliverer, reader, decoder })
    }
}

/// What a worker holds while it owns its shard. After any error it is thrown away: the journal knows where to go on.
struct Running {
    journal: Journal,
    engine: Engine,
    deliverer: Deliverer,
    reader: Reader,
    decoder: Decoder,
}

impl Running {
    /// One step, in named parts: decode, prepare, lanes, then the commit: journal, apply, results.
    fn step(&mut self, worker: &Worker) -> Result<(), TaskError> {
        let started = Instant::now();
        let owner = &worker.owner;
        let rows = self.reader.rows() as u64;
        let mut inputs: Vec<Input> = Vec::new();
        for records in self.reader.taken() {
            let mut input = records.decode(&mut self.decoder)?;
            refuse_wrong_keys(&worker.query, records, &mut input)?;
            inputs.push(input);
        }
        let Prepared { entry, late, dead, rows: plain } = self.engine.prepare(inputs)?;
        for (records, (late, dead)) in self.reader.taken().zip(late.iter().zip(&dead)) {
            self.deliverer.lanes(records, late, dead, owner)?;
        }
        for (records, plain) in self.reader.taken().zip(&plain) {
            self.deliverer.plain_rows(records, plain, owner)?;
        }
        self.commit(worker, &entry, rows)?;
        self.reader.clear();
        worker.status.metrics().step_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Lets the wall clock close what idle partitions hold open.
    fn close_idle(&mut self, worker: &Worker) -> Result<(), TaskError> {
        let idle = self.reader.idle(worker.query.file.source.idle_timeout.duration());
        if idle.is_empty() {
            return Ok(());
        }
        let Some(entry) = self.engine.close_idle(now_ms(), &idle) else { return Ok(()) };
        // Quiet may also be a log that is away, or this process having slept: the log is asked before the clock may decide.
        if entry.progress.iter().all(|progress| self.reader.stands_at_end(progress.partition, progress.to)) {
            self.commit(worker, &entry, 0)?;
        }
        Ok(())
    }

    /// Journal, apply, results: what every change of the state goes through.
    fn commit(&mut self, worker: &Worker, entry: &Entry, rows: u64) -> Result<(), TaskError> {
        let (query, owner) = (&worker.query, &worker.owner);
        // The lanes' rows are in no entry, so they go first; and the last entry's results must be there before the next entry is,
        // because recovery delivers those of one entry only.
        self.deliverer.flush(owner)?;
        self.check_size(worker, entry)?;
        let bytes = self.journal.append(query, entry, owner)?;
        let output = self.engine.apply(entry)?;
        self.deliverer.results(query, &output, self.engine.revision(), owner)?;

        let (name, metrics) = (&[query.file.name.as_str()], worker.status.metrics());
        metrics.steps.with_label_values(name).inc();
        metrics.results.with_label_values(name).inc_by(output.rows.num_rows() as u64);
        if let Some(first) = output.failed.first() {
            metrics.failed_results.with_label_values(name).inc_by(output.failed.len() as u64);
            tracing::warn!(query = query.file.name, rows = output.failed.len(), first, "results that could not be computed are left out");
        }
        metrics.journal_bytes.with_label_values(name).inc_by(bytes);
        worker.status.update(&self.engine, rows);
        if self.journal.bytes >= worker.settings.processor.snapshot_every.bytes() {
            // A snapshot has no results of its own: those before it must have arrived.
            self.deliverer.flush(owner)?;
            self.journal.snapshot(query, &self.engine.snapshot(), owner)?;
        }
        Ok(())
    }

    fn check_size(&self, worker: &Worker, entry: &Entry) -> Result<(), TaskError> {
        let (found, limit) = (self.engine.bytes_with(entry), worker.settings.processor.max_state.bytes());
        if found > limit {
            return Err(EngineError::StateFull { query: worker.query.file.name.clone(), found, limit }.into());
        }
        Ok(())
    }
}
