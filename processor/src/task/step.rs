//! One step, and the ways into the journal.
//!
//! ```text
//! write ahead   step ─▶ lanes ─▶ journal ─▶ results      as soon as possible, processing_time, available_now; every decision of the clock
//!                      step ─▶ lanes ─▶ journal ─▶ …     the next one, while the results are on their way
//! in a backlog  step ─▶ lanes ┐                          the same triggers: one entry of many steps
//!               step ─▶ lanes ┴▶ journal ─▶ results
//! once          step ─▶ lanes ┐
//!               step ─▶ lanes ┴▶ journal ─▶ results      one entry of all steps
//! continuous    step ─▶ lanes, results ┐
//!               step ─▶ lanes, results ┴▶ journal        one entry at each interval
//! ```
//! With `continuous` results leave before their entry. They are right for their prefix of the log and carry their revision, so what a crash
//! leaves uncovered is replaced by equal or newer rows. That holds when the new owner says nothing before it has read as far as its
//! predecessor may have: it absorbs the steps up to there, and sends their results together ([`CatchUp`]).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::error::TaskError;
use super::journal::Log;
use super::keys::refuse_wrong_keys;
use super::output::Delivery;
use super::points::Point;
use super::progress::Tally;
use super::repartition::Merges;
use super::source::{Partial, Partials, Source};
use super::status::now_ms;
use super::worker::Worker;
use crate::engine::{Engine, EngineError, Entry, Input, Merged, Moved, Prepared, Takes};
use crate::format::decode::Decoder;
use crate::query::file::Trigger;

/// Most offsets of one partition whose results may be ahead of the journal: what a new owner must read before it speaks.
const MOST_AHEAD: i64 = 100_000;

/// In a backlog: the longest that results wait for more steps, and the most bytes of states that the steps may have changed.
const LONGEST_OPEN: Duration = Duration::from_secs(5);
const MOST_OPEN: u64 = 64 * 1024 * 1024;

/// A log that takes so long for what is on its way, and for an entry of few bytes, may have been away; large entries take their time.
const DEAF: Duration = Duration::from_secs(1);
const BYTES_PER_SECOND: u64 = 8 * 1024 * 1024;

/// The offsets that a new owner must have read before its first results leave.
type CatchUp = BTreeMap<i32, i64>;

/// What a worker holds while it owns its shard. After any error it is thrown away: the journal knows where to go on.
pub(super) struct Running {
    journal: Box<dyn Log>,
    pub(super) engine: Engine,
    deliverer: Box<dyn Delivery>,
    pub(super) reader: Box<dyn Source>,
    decoder: Decoder,
    /// Absorbed steps that are not in the journal, and when the first of them came.
    open: Merged,
    opened: Instant,
    catch_up: Option<CatchUp>,
    tally: Tally,
    /// Results may go ahead of the journal for this long after it was last written; then somebody else may own the shard.
    lease: Duration,
    /// Those that merge what this shard reads.
    merges: Option<Rc<Merges>>,
}

impl Running {
    pub(super) fn new(
        worker: &Worker,
        journal: Box<dyn Log>,
        engine: Engine,
        deliverer: Box<dyn Delivery>,
        reader: Box<dyn Source>,
        merges: Option<Rc<Merges>>,
    ) -> Result<Self, TaskError> {
        let decoder = worker.query.decoder();
        let lease = worker.settings.processor.session_timeout.duration() / 2;
        let (open, opened) = (Merged::default(), Instant::now());
        let (catch_up, tally) = (None, Tally::start());
        let mut running = Self { journal, engine, deliverer, reader, decoder, open, opened, catch_up, tally, lease, merges };
        if matches!(worker.query.file.query.trigger, Trigger::Continuous(_)) {
            running.catch_up = Some(running.reader.ends_within(MOST_AHEAD, &worker.owner)?);
        }
        Ok(running)
    }

    /// Whether there are steps that the journal does not have.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty() && self.catch_up.is_none()
    }

    /// Decodes, decides, folds, hands over the lanes' rows, and goes on as the trigger wants it. `more`: the next step's rows are there already.
    pub(super) fn step(&mut self, worker: &Worker, more: bool) -> Result<(), TaskError> {
        if self.reader.partials().is_some() {
            return self.merge(worker, more);
        }
        let (started, rows) = (Instant::now(), self.reader.rows() as u64);
        let mut inputs: Vec<Input> = Vec::new();
        for records in self.reader.taken() {
            let mut input = self.reader.decode(records, &mut self.decoder)?;
            refuse_wrong_keys(&worker.query, records, &mut input)?;
            self.tally.input(&worker.query, &input);
            inputs.push(input);
        }
        self.tally.spent.decode += started.elapsed();
        let prepared = Instant::now();
        let Prepared { entry, late, dead, rows: plain } = self.engine.prepare(inputs)?;
        self.tally.spent.fold += prepared.elapsed();
        for (records, (late, dead)) in self.reader.taken().into_iter().zip(late.iter().zip(&dead)) {
            self.tally.refused(late, dead);
            self.deliverer.lanes(records, late, dead, &worker.owner)?;
        }
        // These follow from the log alone, so they wait for nothing.
        for (records, plain) in self.reader.taken().into_iter().zip(&plain) {
            self.deliverer.plain_rows(records, plain, self.engine.base(), &worker.owner)?;
        }
        let plain = plain.iter().map(|plain| plain.rows.num_rows() as u64).sum();
        self.tally.plain(plain);
        self.check_size(worker, &entry)?;
        match worker.query.file.query.trigger {
            Trigger::Once => self.absorb(entry)?,
            Trigger::Continuous(_) => self.step_ahead(worker, entry)?,
            _ => self.gather(worker, entry, more)?,
        }
        self.reader.clear();
        worker.status.update(&worker.shard, &self.engine, rows);
        if plain > 0 {
            worker.status.metrics().results.with_label_values(&[&worker.query.file.name]).inc_by(plain);
            worker.status.sent(&worker.shard, &self.engine, plain);
        }
        worker.status.turned(&worker.shard, &self.engine, self.reader.as_ref());
        worker.status.metrics().step_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Takes what others have made of their input partitions, entry by entry, as it would take steps of its own.
    fn merge(&mut self, worker: &Worker, more: bool) -> Result<(), TaskError> {
        let started = Instant::now();
        while let Some(Partial { partition, entry, next }) = self.reader.partials().and_then(Partials::pop) {
            match self.engine.takes(&entry) {
                Takes::Seen => {}
                Takes::Gap => {
                    return Err(TaskError::Fatal(format!(
                        "the journal {}-{partition} does not go on where shard {} of query '{}' has read it (offset {next}): was it deleted by \
                         hand or by retention? Give the query another name",
                        common::topics::journal(&worker.query.file.name),
                        worker.shard.journal_partition,
                        worker.query.file.name
                    )));
                }
                Takes::Next => {
                    self.check_size(worker, &entry)?;
                    if entry.decisions.is_empty() {
                        self.gather(worker, entry, true)?;
                    } else {
                        // A decision has an entry of its own.
                        self.commit_open(worker)?;
                        self.commit(worker, &entry)?;
                    }
                }
            }
            // After its step: what that has committed are the ones before it.
            if let Some(partials) = self.reader.partials() {
                partials.absorbed(partition, next);
            }
        }
        if !more {
            self.commit_open(worker)?;
        }
        self.reader.clear();
        worker.status.update(&worker.shard, &self.engine, 0);
        worker.status.turned(&worker.shard, &self.engine, self.reader.as_ref());
        worker.status.metrics().step_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Tells those who read for this shard what they must know of it.
    pub(super) fn tell(&mut self, worker: &Worker) {
        let closes = worker.query.file.source.idle_timeout().is_some();
        if let Some(partials) = self.reader.partials().filter(|partials| partials.may_tell()) {
            partials.tell(self.engine.waits_for(now_ms()).filter(|_| closes));
        }
    }

    /// Commits a step; in a backlog together with the steps that follow, so that a group is written once for many of its rows.
    fn gather(&mut self, worker: &Worker, entry: Entry, more: bool) -> Result<(), TaskError> {
        // Elsewhere than in a topic an entry is a batch, and what a sink stages of a batch is that of one step.
        let more = more && worker.query.file.has_journal_topic();
        if self.open.is_empty() && !more {
            return self.commit(worker, &entry);
        }
        self.absorb(entry)?;
        let full = self.open.rows() >= worker.settings.processor.max_rows_per_step as u64 || self.open.bytes() >= MOST_OPEN;
        if full || !more || self.opened.elapsed() >= LONGEST_OPEN {
            return self.commit_open(worker);
        }
        Ok(())
    }

    /// The backlog has ended: what it has gathered waits no longer.
    pub(super) fn settle(&mut self, worker: &Worker) -> Result<(), TaskError> {
        match worker.query.file.query.trigger {
            Trigger::Once | Trigger::Continuous(_) => Ok(()),
            _ => self.commit_open(worker),
        }
    }

    /// Puts a step into the state; results and journal come later.
    fn absorb(&mut self, entry: Entry) -> Result<(), TaskError> {
        if self.open.is_empty() {
            self.opened = Instant::now();
        }
        let moved = self.put(&entry)?;
        self.open.extend(entry, moved);
        Ok(())
    }

    fn put(&mut self, entry: &Entry) -> Result<Moved, TaskError> {
        let rows = self.engine.state_rows();
        let moved = self.engine.absorb_step(entry)?;
        self.tally.absorbed(entry, self.engine.state_rows().saturating_sub(rows));
        Ok(moved)
    }

    /// A step whose results leave before its entry, as far as that is allowed.
    fn step_ahead(&mut self, worker: &Worker, entry: Entry) -> Result<(), TaskError> {
        if self.catch_up.is_some() {
            return self.absorb(entry);
        }
        // Whoever stood still may have lost the shard: the journal tells before anything leaves.
        let stood_still = self.journal.written().elapsed() > self.lease;
        if stood_still || self.open.span_with(&entry) > MOST_AHEAD {
            self.commit_open(worker)?;
        }
        if self.journal.written().elapsed() > self.lease || self.open.span_with(&entry) > MOST_AHEAD {
            return self.commit(worker, &entry);
        }
        let moved = self.put(&entry)?;
        self.send(worker, Some((&entry, moved)))?;
        self.open.extend(entry, moved);
        Ok(())
    }

    /// Sends what was held back, once everything is read that the owner before may have sent results of.
    pub(super) fn check_catch_up(&mut self, worker: &Worker) -> Result<(), TaskError> {
        let Some(targets) = &self.catch_up else { return Ok(()) };
        if !targets.iter().all(|(partition, target)| self.reader.has_passed(*partition, *target)) {
            return Ok(());
        }
        self.catch_up = None;
        if self.open.is_empty() {
            return Ok(());
        }
        self.send(worker, None)
    }

    /// Takes in what the clients have to say, and lets go of what they hold: nothing else is to be done.
    pub(super) fn hear(&mut self, worker: &Worker) -> Result<(), TaskError> {
        self.deliverer.hear(&worker.owner)?;
        self.journal.hear();
        Ok(())
    }

    /// Lets the wall clock close what idle partitions hold open.
    pub(super) fn close_idle(&mut self, worker: &Worker) -> Result<(), TaskError> {
        let Some(timeout) = worker.query.file.source.idle_timeout() else { return Ok(()) };
        let idle = self.reader.idle(timeout.duration());
        if idle.is_empty() || self.catch_up.is_some() {
            return Ok(());
        }
        let wanted = self.merges.as_ref().and_then(|merges| merges.wait_for());
        let Some(entry) = self.engine.close_idle_for(now_ms(), &idle, wanted) else { return Ok(()) };
        // Quiet may also be a log that is away, or this process having slept: the log is asked before the clock may decide.
        if entry.progress.iter().all(|progress| self.reader.stands_at_end(progress.partition, progress.to)) {
            // A decision has an entry of its own.
            self.commit_open(worker)?;
            self.commit(worker, &entry)?;
        }
        Ok(())
    }

    /// Journal, then state and results: a step, or a decision of the clock. No step may be open.
    fn commit(&mut self, worker: &Worker, entry: &Entry) -> Result<(), TaskError> {
        self.append(worker, Some(entry))?;
        let moved = self.put(entry)?;
        if worker.shard.role.gives_results() {
            self.send(worker, Some((entry, moved)))?;
        }
        self.evict(Some((entry, moved)));
        self.committed(worker)
    }

    /// Writes the open steps as one entry. Their results come then; with `continuous` they have gone before.
    pub(super) fn commit_open(&mut self, worker: &Worker) -> Result<(), TaskError> {
        if self.open.is_empty() || self.catch_up.is_some() {
            return Ok(());
        }
        self.append(worker, None)?;
        if worker.shard.role.gives_results() && !matches!(worker.query.file.query.trigger, Trigger::Continuous(_)) {
            self.send(worker, None)?;
        }
        self.evict(None);
        self.open = Merged::default();
        self.committed(worker)
    }

    /// Gives up what an entry, or the open steps, have closed.
    fn evict(&mut self, entry: Option<(&Entry, Moved)>) {
        let rows = self.engine.state_rows();
        let moved = self.open.moved();
        let (entry, moved) = entry.unwrap_or_else(|| (self.open.entry(), moved));
        self.engine.evict(entry, moved);
        self.tally.removed += rows.saturating_sub(self.engine.state_rows());
    }

    /// Appends `entry`, or the open steps.
    fn append(&mut self, worker: &Worker, entry: Option<&Entry>) -> Result<(), TaskError> {
        let (begun, started) = (Instant::now(), Instant::now());
        // The lanes' rows are in no entry, so they go first; and the results must be there that recovery would not deliver with this entry
        // in the journal.
        if self.journal.gives_two_again() {
            self.deliverer.before_entry(&worker.owner)?;
        } else {
            self.deliverer.flush(&worker.owner)?;
        }
        self.reader.settle()?;
        self.tally.spent.deliver += started.elapsed();
        worker.owner.at(Point::AfterLanes);
        let started = Instant::now();
        let entry = entry.unwrap_or_else(|| self.open.entry());
        let bytes = self.journal.append(&worker.query, entry, &worker.owner)?;
        self.tally.spent.journal += started.elapsed();
        if begun.elapsed() > DEAF + Duration::from_secs(bytes / BYTES_PER_SECOND) {
            self.reader.was_deaf()?;
        }
        worker.owner.at(Point::AfterJournal);
        worker.status.metrics().journal_bytes.with_label_values(&[&worker.query.file.name]).inc_by(bytes);
        Ok(())
    }

    /// Sends the results of `entry`, or of all open steps together.
    fn send(&mut self, worker: &Worker, entry: Option<(&Entry, Moved)>) -> Result<(), TaskError> {
        let (query, started) = (&worker.query, Instant::now());
        worker.owner.at(Point::BeforeResults);
        let moved = self.open.moved();
        let (entry, moved) = entry.unwrap_or_else(|| (self.open.entry(), moved));
        let (revision, deliverer) = (self.engine.revision(), &mut self.deliverer);
        let (mut rows, mut failed, mut first) = (0, 0, None);
        self.engine.give_each(entry, moved, |part| {
            rows += part.rows.num_rows() as u64;
            failed += part.failed.len() as u64;
            first = first.take().or_else(|| part.failed.first().cloned());
            deliverer.results(query, part, revision, &worker.owner)
        })?;
        worker.owner.at(Point::AfterResults);
        self.tally.results(rows, started.elapsed());
        worker.status.sent(&worker.shard, &self.engine, rows);
        let (name, metrics) = (&[query.file.name.as_str()], worker.status.metrics());
        metrics.results.with_label_values(name).inc_by(rows);
        if let Some(first) = first {
            metrics.failed_results.with_label_values(name).inc_by(failed);
            tracing::warn!(query = query.file.name, rows = failed, first, "results that could not be computed are left out");
        }
        Ok(())
    }

    /// After an entry and its results: tells, and starts the journal anew when it has grown.
    fn committed(&mut self, worker: &Worker) -> Result<(), TaskError> {
        let (query, owner) = (&worker.query, &worker.owner);
        self.deliverer.committed(self.journal.last(), owner)?;
        let positions = self.engine.partitions().iter().filter_map(|(number, partition)| Some((*number, partition.position?))).collect();
        self.reader.committed(&positions)?;
        worker.status.metrics().steps.with_label_values(&[query.file.name.as_str()]).inc();
        worker.status.committed(&worker.shard, &self.engine);
        let tally = std::mem::replace(&mut self.tally, Tally::start());
        worker.status.report(tally.report(worker.shard.journal_partition, self.journal.last(), &self.engine));
        if self.journal.wants_snapshot(worker.settings.processor.snapshot_every.bytes()) {
            // A snapshot has no results of its own: those before it must have arrived.
            self.deliverer.flush(owner)?;
            owner.at(Point::BeforeSnapshot);
            self.journal.snapshot(query, &self.engine.snapshot(), owner)?;
        }
        Ok(())
    }

    /// The end of a run, by its own or on demand: what is open is committed, but for a `once` that has not read everything.
    pub(super) fn end(&mut self, worker: &Worker) -> Result<(), TaskError> {
        if worker.query.file.query.trigger != Trigger::Once || self.reader.is_done() {
            self.commit_open(worker)?;
        }
        self.deliverer.flush(&worker.owner)?;
        // Who is told to stop has no time for what may as well be left undone.
        if !worker.owner.stop.is_set() {
            self.journal.end();
        }
        Ok(())
    }

    fn check_size(&mut self, worker: &Worker, entry: &Entry) -> Result<(), TaskError> {
        let limit = worker.settings.processor.max_state.bytes();
        // Nothing is looked up while even the most that it can be is little.
        if self.engine.state_bytes() + entry.bytes() <= limit {
            return Ok(());
        }
        // What a backlog holds open may be given up first.
        self.settle(worker)?;
        let found = self.engine.bytes_with(entry);
        if found > limit {
            return Err(EngineError::StateFull { query: worker.query.file.name.clone(), found, limit }.into());
        }
        Ok(())
    }
}
