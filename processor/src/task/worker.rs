//! One shard: restore, then step after step until it is told to stop.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use common::Settings;

use super::checkpoint::{self, Checkpoint, CheckpointDir, Directory};
use super::clients::{Clients, Spare};
use super::error::TaskError;
use super::journal::{Journal, Log, Restored, restore};
use super::output::{self, Delivery};
use super::owner::Owner;
use super::points::Point;
use super::repartition::{Merges, Role};
use super::source::{self, Filled, Partials, Source};
use super::standby::Standby;
use super::status::{QueryStatus, now_ms};
use super::step::Running;
use super::trigger::Pace;
use crate::engine::{Engine, Entry};
use crate::query::StreamQuery;
use crate::query::file::Trigger;

/// Which journal partition a worker owns, and which input partitions it reads.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) journal_partition: i32,
    /// One that merges reads what others have made of them.
    pub(crate) input_partitions: Vec<i32>,
    pub(crate) role: Role,
    /// How many shards read the input.
    pub(crate) readers: u32,
}

pub(crate) struct Worker {
    pub(crate) settings: Arc<Settings>,
    pub(crate) query: Arc<StreamQuery>,
    pub(crate) shard: Shard,
    pub(crate) owner: Owner,
    pub(crate) status: Arc<QueryStatus>,
    /// `None`: the journal is a topic.
    pub(crate) checkpoint: Option<Arc<CheckpointDir>>,
    /// Who has followed the journal until now; the restore goes on from there.
    pub(crate) standby: Cell<Option<Standby>>,
    /// Of a journal that is a topic.
    pub(crate) clients: Arc<Spare>,
}

impl Worker {
    /// Runs until stopped, fenced, broken, or, with a bounded trigger, done.
    pub(crate) fn run(&self) -> Result<(), TaskError> {
        let mut running = self.start()?;
        // Whoever merges follows the pace of those who read.
        let trigger = if self.shard.role.merges() { Trigger::AsSoonAsPossible } else { self.query.file.query.trigger };
        let mut pace = Pace::new(trigger);
        while !self.owner.stop.is_set() {
            self.owner.beat();
            let now = Instant::now();
            let due = pace.due(now, now_ms());
            let filled = running.reader.fill(pace.patience(now), due, &self.owner)?;
            let now = Instant::now();
            // In a backlog a step does not wait for its tick: the tick is for fresh rows.
            let full = filled == Filled::Full;
            if running.reader.rows() > 0 && (full || !pace.waits(now)) {
                // Nobody waits for the first results of a bounded run.
                let more = full || trigger.is_bounded() || running.reader.lags();
                running.step(self, more)?;
            } else if trigger.is_bounded() {
                // A bounded run has an end instead of a clock.
                if running.reader.is_done() {
                    break;
                }
                running.hear(self)?;
            } else {
                running.hear(self)?;
                running.settle(self)?;
                running.close_idle(self)?;
                self.status.turned(&self.shard, &running.engine, running.reader.as_ref());
            }
            running.tell(self);
            self.status.asked().answer(self.shard.journal_partition, &running.engine);
            running.check_catch_up(self)?;
            if pace.commits(now, running.is_open()) {
                running.commit_open(self)?;
            }
            pace.stepped(now);
        }
        running.end(self)
    }

    /// Takes the journal over, restores the state from it, and delivers its newest entries' results again.
    fn start(&self) -> Result<Running, TaskError> {
        let (started, owner) = (Instant::now(), &self.owner);
        let Taken { journal, mut engine, newest, read, mut deliverer, checkpoint, merges } = match &self.checkpoint {
            Some(directory) => self.take_directory(directory)?,
            None => self.take_topic()?,
        };
        if !self.shard.role.gives_results() {
            newest.iter().try_for_each(|entry| engine.absorb_quietly(entry))?;
        } else if !newest.is_empty() {
            owner.at(Point::BeforeRedelivery);
            engine.give_again(newest, |part, revision| deliverer.results(&self.query, part, revision, owner))?;
            deliverer.committed(journal.last(), owner)?;
            // As if one more entry were there: the next one waits for all of these.
            deliverer.before_entry(owner)?;
            owner.at(Point::AfterRedelivery);
        }
        self.status.restored(&self.shard, &engine);
        self.status.metrics().restore_seconds.set(started.elapsed().as_secs_f64());
        let positions: BTreeMap<i32, Option<i64>> =
            engine.partitions().iter().map(|(number, partition)| (*number, partition.position)).collect();
        let place = match &self.checkpoint {
            Some(directory) => directory.path().display().to_string(),
            None => format!("{}-{}", common::topics::journal(&self.query.file.name), self.shard.journal_partition),
        };
        tracing::info!(
            query = self.query.file.name,
            journal = place,
            newest = journal.last(),
            groups = engine.state_rows(),
            ?positions,
            read_bytes = read,
            took = ?started.elapsed(),
            "restored"
        );
        let reader: Box<dyn Source> = match self.shard.role {
            Role::Merges(share) => Box::new(Partials::open(&self.settings, &self.query, &self.shard, share, owner)?),
            Role::Whole | Role::Reads => {
                source::open(&self.settings, &self.query, &positions, checkpoint.as_ref(), &self.status.metrics().dropped, owner)?
            }
        };
        self.status.set_goal(reader.goal());
        Running::new(self, journal, engine, deliverer, reader, merges)
    }

    fn take_topic(&self) -> Result<Taken, TaskError> {
        let owner = &self.owner;
        let topic = common::topics::journal(&self.query.file.name);
        let Clients { deliverer, writer } = self.clients.take(&self.settings, &self.query)?;
        let mut journal = Journal::take_over(&self.settings, writer, (&topic, self.shard.journal_partition), owner)?;
        owner.at(Point::AfterFence);
        // Until now it followed.
        let standby = self.standby.take().and_then(Standby::end);
        let restored = restore(&self.settings, &self.query, &self.shard, journal.epoch(), standby, owner)?;
        let Restored { engine, newest, bytes, snapshot_bytes, snapshot_at, read } = restored;
        (journal.bytes, journal.snapshot_bytes) = (bytes, snapshot_bytes);
        if self.shard.role == Role::Reads {
            let (partition, all) = (self.shard.journal_partition, self.shard.readers);
            journal.merges = Some(Rc::new(Merges::of(&self.settings, &self.query, partition, all, snapshot_at)?));
        }
        let merges = journal.merges.clone();
        Ok(Taken { journal: Box::new(journal), engine, newest, read, deliverer: Box::new(deliverer), checkpoint: None, merges })
    }

    fn take_directory(&self, directory: &CheckpointDir) -> Result<Taken, TaskError> {
        let mut engine = Engine::new(Arc::clone(&self.query), self.shard.input_partitions.iter().copied());
        let checkpoint = Arc::new(directory.open()?);
        self.owner.at(Point::AfterFence);
        let restored = checkpoint::restore(&checkpoint, &self.query, &mut engine, &self.owner)?;
        let deliverer = output::open(&self.settings, &self.query, &checkpoint, (restored.last, restored.fresh))?;
        let (newest, read) = (restored.newest.into_iter().collect(), restored.bytes);
        let journal = Box::new(Directory::new(Arc::clone(&checkpoint), restored.last, restored.entries, read));
        Ok(Taken { journal, engine, newest, read, deliverer, checkpoint: Some(checkpoint), merges: None })
    }
}

/// What a worker has when the shard is its own.
struct Taken {
    journal: Box<dyn Log>,
    engine: Engine,
    /// *Not* applied yet.
    newest: VecDeque<Entry>,
    /// Bytes that the restore has read.
    read: u64,
    deliverer: Box<dyn Delivery>,
    checkpoint: Option<Arc<Checkpoint>>,
    /// Those that merge what the shard reads.
    merges: Option<Rc<Merges>>,
}
