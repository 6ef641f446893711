//! Who owns which journal partition, and a worker for each that we own.
//!
//! Several processors share a query through a consumer group over its *journal* topic; nothing is read through it. A journal partition
//! stands for a shard, so whatever the group decides, a shard has one owner; and where the group is slow to notice, the fence decides.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::client_log::{self, Quiet};
use common::lifeline::Lifeline;
use common::presence::Presence;
use common::progress::{Show, Unit};
use common::telemetry::Part;
use common::{Settings, Shutdown};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::checkpoint::CheckpointDir;
use super::clients::Spare;
use super::error::{ProcessorError, TaskError};
use super::owner::{Heartbeat, Owner};
use super::repartition::{Role, Share};
use super::standby::{Follower, Standby};
use super::status::QueryStatus;
use super::worker::{Shard, Worker};
use crate::query::{Scope, StreamQuery};

/// How often positions are shown to the group and ends are asked for.
const REPORT: Duration = Duration::from_secs(1);
/// Positions that have not moved are shown again after this long: the log may not have taken them while partitions moved.
const SHOW_AGAIN: Duration = Duration::from_secs(10);
/// How often the log is asked how many partitions the input has.
const COUNT: Duration = Duration::from_secs(10);
/// A worker that has not turned for this long holds the query's sign of life back.
const STALLED: Duration = Duration::from_secs(60);
/// Who is put out of the group twice within this time shares the instance id with another processor.
const RIVALRY: Duration = Duration::from_secs(60);
/// Pause before a broken worker is started again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a log that was away may take to answer that it is back.
const PROBE: Duration = Duration::from_millis(200);
/// Longest wait for news of the group without looking after the workers, and whether to stop.
const TURN: Duration = Duration::from_millis(200);

/// The consumer group of a query.
pub(crate) fn group(query: &StreamQuery) -> String {
    format!("tidemark.processor.{}", query.file.name)
}

/// The workers of one query in this process.
pub(crate) struct Workers {
    settings: Arc<Settings>,
    query: Arc<StreamQuery>,
    input_partitions: u32,
    runtime: tokio::runtime::Handle,
    part: Part,
    status: Arc<QueryStatus>,
    running: Mutex<BTreeMap<i32, Running>>,
    /// By journal partition: those that follow it, where others are the owners.
    standbys: Mutex<BTreeMap<i32, Standby>>,
    /// Where state and positions are when they are in no topic.
    checkpoint: Option<Arc<CheckpointDir>>,
    /// For workers whose journal is a topic.
    clients: Arc<Spare>,
    /// Why a worker could not be started when the group gave us its shard.
    start_fault: Mutex<Option<TaskError>>,
}

/// How a worker ended.
type Ended = Result<(), TaskError>;

struct Running {
    stop: Shutdown,
    heartbeat: Heartbeat,
    shard: Shard,
    thread: JoinHandle<Ended>,
}

impl Workers {
    pub(crate) fn new(
        settings: Arc<Settings>,
        query: Arc<StreamQuery>,
        input_partitions: u32,
        part: Part,
        status: Arc<QueryStatus>,
        clients: Arc<Spare>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        status.set_input_partitions(input_partitions);
        let file = &query.file;
        let checkpoint = (!file.has_journal_topic()).then(|| {
            let kept = file.query.checkpoint.as_deref().map(CheckpointDir::at);
            Arc::new(kept.unwrap_or_else(|| CheckpointDir::temporary(&file.name)))
        });
        Arc::new(Self {
            checkpoint,
            settings,
            query,
            input_partitions,
            runtime,
            part,
            status,
            running: Mutex::default(),
            standbys: Mutex::default(),
            clients,
            start_fault: Mutex::default(),
        })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standbys(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, Standby>> {
        self.standbys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many journal partitions the query has.
    pub(crate) fn shards(query: &StreamQuery, input_partitions: u32) -> u32 {
        match query.scope {
            _ if query.merges() > 0 => input_partitions + query.merges(),
            Scope::Partition if query.file.has_journal_topic() => input_partitions,
            Scope::Partition | Scope::Topic => 1,
        }
    }

    fn shard(&self, journal_partition: i32) -> Shard {
        let (readers, merges) = (self.input_partitions, self.query.merges());
        let role = match u32::try_from(journal_partition).unwrap_or(0) {
            _ if merges == 0 => Role::Whole,
            number if number < readers => Role::Reads,
            number => Role::Merges(Share { number: number - readers, of: merges }),
        };
        let input_partitions = match self.query.scope {
            _ if role == Role::Reads => vec![journal_partition],
            Scope::Partition if self.checkpoint.is_none() => vec![journal_partition],
            Scope::Partition | Scope::Topic => (0..i32::try_from(self.input_partitions).unwrap_or(i32::MAX)).collect(),
        };
        Shard { journal_partition, input_partitions, role, readers }
    }

    fn start(&self, journal_partition: i32) -> Result<(), TaskError> {
        let shard = self.shard(journal_partition);
        let (stop, heartbeat) = (Shutdown::manual(), Heartbeat::new());
        let drain = self.settings.processor.drain_timeout.duration();
        let owner = Owner::new(&self.query.file.name, stop.clone(), self.runtime.clone(), heartbeat.clone(), drain);
        let worker = Worker {
            settings: Arc::clone(&self.settings),
            query: Arc::clone(&self.query),
            shard: shard.clone(),
            owner,
            status: Arc::clone(&self.status),
            checkpoint: self.checkpoint.clone(),
            standby: Cell::new(self.standbys().remove(&journal_partition)),
            clients: Arc::clone(&self.clients),
        };
        self.status.worker_started(&shard, heartbeat.clone());
        let thread = std::thread::Builder::new()
            .name(format!("{}-{journal_partition}", self.query.file.name))
            .spawn(move || worker.run())
            .map_err(|error| TaskError::Fatal(format!("a thread for a worker cannot be started: {error}")))?;
        self.running().insert(journal_partition, Running { stop, heartbeat, shard, thread });
        Ok(())
    }

    /// Stops the workers of these partitions and waits for them; each is bounded by the drain timeout.
    fn stop(&self, journal_partitions: impl Iterator<Item = i32>) -> Vec<Ended> {
        let stopping: Vec<Running> = {
            let mut running = self.running();
            journal_partitions.filter_map(|partition| running.remove(&partition)).collect()
        };
        stopping.iter().for_each(|worker| worker.stop.trigger());
        stopping.into_iter().map(|worker| self.join(worker)).collect()
    }

    fn join(&self, worker: Running) -> Result<(), TaskError> {
        let result = worker.thread.join().unwrap_or_else(|_| Err(TaskError::Fatal("a worker ended by a fault of the program".into())));
        self.status.forget(&worker.shard);
        result
    }

    pub(crate) fn stop_all(&self) -> Vec<Ended> {
        let all: Vec<i32> = self.running().keys().copied().collect();
        self.stop(all.into_iter())
    }

    /// Lets somebody follow each journal partition that has no worker here, when that is wanted.
    fn follow(&self) -> Result<(), TaskError> {
        if !self.settings.processor.standby {
            return Ok(());
        }
        for partition in 0..i32::try_from(Self::shards(&self.query, self.input_partitions)).unwrap_or(i32::MAX) {
            if self.running().contains_key(&partition) || self.standbys().contains_key(&partition) {
                continue;
            }
            let (stop, shard) = (Shutdown::manual(), self.shard(partition));
            let follower = Follower {
                settings: Arc::clone(&self.settings),
                query: Arc::clone(&self.query),
                shard,
                owner: Owner::onlooker(stop.clone(), self.runtime.clone()),
                status: Arc::clone(&self.status),
            };
            self.standbys().insert(partition, Standby::start(follower, stop)?);
        }
        Ok(())
    }

    fn end_standbys(&self) {
        let standbys = std::mem::take(&mut *self.standbys());
        standbys.values().for_each(Standby::stop);
        for standby in standbys.into_values() {
            drop(standby.end());
        }
    }

    /// Looks after workers that have ended on their own, and says that the query is alive when all others are. Gives how many run.
    fn tend(&self, stop: &Shutdown) -> Result<usize, TaskError> {
        if let Some(fault) = self.start_fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(fault);
        }
        if self.running().values().all(|worker| worker.heartbeat.last().0 < STALLED) {
            self.part.beat();
        }
        let ended: Vec<i32> = self.running().iter().filter(|(_, worker)| worker.thread.is_finished()).map(|(number, _)| *number).collect();
        for number in ended {
            let Some(worker) = self.running().remove(&number) else { continue };
            let bounded = self.query.file.query.trigger.is_bounded();
            let done = worker.thread.join().unwrap_or_else(|_| Err(TaskError::Fatal("a worker ended by a fault of the program".into())));
            match done {
                Ok(()) | Err(TaskError::Stopped) => {}
                Err(TaskError::Fatal(cause)) => return Err(TaskError::Fatal(cause)),
                Err(TaskError::Fenced) if bounded => {
                    return Err(TaskError::Fatal(format!(
                        "another processor runs query '{}' at the same time; end it first, or wait for it",
                        self.query.file.name
                    )));
                }
                Err(error) => {
                    tracing::warn!(query = self.query.file.name, shard = number, %error, "taking over anew");
                    self.status.worker_broke(error.to_string());
                    if !stop.wait_timeout(RETRY) {
                        self.start(number)?;
                    }
                }
            }
        }
        Ok(self.running().len())
    }
}

/// Hears the group's decisions and starts and stops workers by them.
struct Group {
    workers: Arc<Workers>,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // The positions are shown while partitions move, too; nothing depends on them, and the next ones come in a second.
        match facility {
            "COMMITFAIL" => tracing::debug!(message, "positions were not taken"),
            _ => client_log::log(level, facility, message),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let ended = self.workers.stop(partitions.elements().iter().map(|element| element.partition()));
            for error in ended.into_iter().filter_map(Result::err) {
                tracing::debug!(%error, "a worker ended with its partition");
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            // The group is for ownership; the journal is read by the workers.
            if let Err(error) = consumer.pause(partitions) {
                tracing::debug!(%error, "the journal topic could not be paused");
            }
            for element in partitions.elements() {
                if let Err(fault) = self.workers.start(element.partition()) {
                    *self.workers.start_fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
                }
            }
        }
    }
}

/// Runs one query until `shutdown`, or until it is done. Blocks its thread.
pub(crate) fn run_query(workers: &Arc<Workers>, shutdown: &Shutdown) -> Result<(), ProcessorError> {
    let fault = |error: TaskError| ProcessorError::Task(error.to_string());
    let alone = workers.query.file.query.trigger.is_bounded() || workers.checkpoint.is_some();
    let result = if alone { run_alone(workers, shutdown) } else { run_group(workers, shutdown) };
    // After a fault some may still run.
    let left = workers.stop_all();
    workers.end_standbys();
    for error in result.map_err(fault)?.into_iter().chain(left).filter_map(Result::err) {
        match error {
            TaskError::Fatal(_) => return Err(fault(error)),
            // What was not delivered in time is delivered at the next start: the journal knows.
            error => tracing::info!(query = workers.query.file.name, %error, "a worker ended before it had delivered everything"),
        }
    }
    Ok(())
}

/// All shards, here, until all are done, or for as long as nobody stops them.
fn run_alone(workers: &Arc<Workers>, shutdown: &Shutdown) -> Result<Vec<Ended>, TaskError> {
    let reporter: Option<BaseConsumer<Quiet>> = match workers.query.file.source.is_kafka() {
        true => Some(group_config(workers).create_with_context(Quiet)?),
        false => None,
    };
    for shard in 0..Workers::shards(&workers.query, workers.input_partitions) {
        workers.start(i32::try_from(shard).unwrap_or(i32::MAX))?;
    }
    let (mut reported, mut shown) = (Instant::now(), Shown::default());
    let mut show = Show::new(&workers.query.file.name, Unit::Rows);
    while !shutdown.wait_timeout(Duration::from_millis(20)) {
        let running = workers.tend(shutdown)?;
        if let Some((done, total)) = workers.status.done() {
            show.update(done, total, || format!("{:.0} rows/s", workers.status.rows_per_second()));
        }
        if running == 0 {
            break;
        }
        if let Some(reporter) = reporter.as_ref().filter(|_| reported.elapsed() >= REPORT) {
            report(workers, reporter, &mut shown);
            reported = Instant::now();
        }
    }
    drop(show);
    reporter.iter().for_each(|reporter| report(workers, reporter, &mut Shown::default()));
    workers.status.log_last();
    Ok(workers.stop_all())
}

/// In the group until `shutdown`. Who is put out of it joins anew: mostly another member of the same `instance_id` is this processor itself.
/// After it or the log stood still, librdkafka has joined again while requests of before were still on their way, and it uses a client that was
/// put out no more. If it is another processor, it does the same, and whoever is put out again soon gives up.
fn run_group(workers: &Arc<Workers>, shutdown: &Shutdown) -> Result<Vec<Ended>, TaskError> {
    let query = &workers.query.file.name;
    let mut joined_anew: Option<Instant> = None;
    loop {
        let (put_out, ended) = take_part(workers, shutdown)?;
        let Some(cause) = put_out else { return Ok(ended) };
        for error in ended.into_iter().filter_map(Result::err) {
            match error {
                TaskError::Fatal(_) => return Err(error),
                error => tracing::debug!(query, %error, "a worker ended with its place in the group"),
            }
        }
        if joined_anew.is_some_and(|at| at.elapsed() < RIVALRY) {
            return Err(TaskError::Fatal(format!(
                "the consumer group of query '{query}' has put this processor out twice ({cause}); give each processor its own \
                 processor.instance_id"
            )));
        }
        tracing::warn!(query, cause, "the consumer group has put this processor out, most likely after a standstill; it joins anew");
        joined_anew = Some(Instant::now());
    }
}

/// A member of the group until `shutdown`, or until the group puts it out for good, and then why; with how the workers ended.
fn take_part(workers: &Arc<Workers>, shutdown: &Shutdown) -> Result<(Option<String>, Vec<Ended>), TaskError> {
    let consumer: BaseConsumer<Group> = group_config(workers).create_with_context(Group { workers: Arc::clone(workers) })?;
    let journal = common::topics::journal(&workers.query.file.name);
    consumer.subscribe(&[&journal])?;
    let (mut reported, mut counted, mut said, mut shown) = (Instant::now(), Instant::now(), false, Shown::default());
    // The client is mostly silent: that its connections are down may be old news, so the log is asked before anybody is told.
    let servers = &workers.settings.kafka.bootstrap_servers;
    let (mut lifeline, mut away, mut presence) = (Lifeline::new(servers), false, Presence::new(servers));
    while !shutdown.is_set() {
        match consumer.poll(TURN) {
            None | Some(Ok(_)) => {}
            Some(Err(error)) => {
                away |= error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
                if is_fatal(&error) {
                    let cause = consumer.client().fatal_error().map_or_else(|| error.to_string(), |(_, cause)| cause);
                    return Ok((Some(cause), workers.stop_all()));
                }
                hear(workers, &error, &mut said);
            }
        }
        if lifeline.is_due(away, Instant::now()) {
            let answer = consumer.fetch_metadata(Some(&journal), PROBE);
            away = answer.is_err();
            if let Err(error) = answer {
                presence.lost(&error);
                lifeline.throw(consumer.client());
            } else {
                presence.found();
            }
        }
        workers.tend(shutdown)?;
        workers.follow()?;
        if reported.elapsed() >= REPORT {
            // Whoever has had no shard by now shares them with others.
            workers.clients.close();
            report(workers, &consumer, &mut shown);
            reported = Instant::now();
        }
        if counted.elapsed() >= COUNT {
            count_partitions(workers, &consumer);
            counted = Instant::now();
        }
    }
    let ended = workers.stop_all();
    // Leaving gives the partitions to others at once; a static member stays in the group, so that its restart finds them.
    consumer.unsubscribe();
    Ok((None, ended))
}

/// Whether the client is of no use any more.
fn is_fatal(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_)) || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
}

/// What the group's client says. `said`: whether a word was given about members that do not go together.
fn hear(workers: &Workers, error: &KafkaError, said: &mut bool) {
    let query = &workers.query.file.name;
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::InconsistentGroupProtocol) if !std::mem::replace(said, true) => {
            tracing::warn!(
                query,
                "the group has members that share partitions in another way, such as processors of an earlier release; waiting until they end"
            );
        }
        _ => tracing::debug!(%error, "the group"),
    }
}

fn group_config(workers: &Workers) -> rdkafka::ClientConfig {
    let mut config = common::kafka::client(&workers.settings.kafka, "processor");
    let session = workers.settings.processor.session_timeout.millis();
    config
        .set("group.id", group(&workers.query))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        // A partition that stays with its owner is worked on while the others move.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session.to_string())
        // A member learns with its heartbeat that partitions move: until then the one that moves stands still.
        .set("heartbeat.interval.ms", (session / 10).clamp(100, 500).to_string());
    if let Some(id) = &workers.settings.processor.instance_id {
        config.set("group.instance.id", id);
    }
    config
}

/// The positions that the group was shown last, and when.
#[derive(Default)]
struct Shown(Option<(BTreeMap<i32, i64>, Instant)>);

impl Shown {
    /// Whether these are worth a write in the log.
    fn is_news(&mut self, positions: BTreeMap<i32, i64>) -> bool {
        let old = self.0.as_ref().is_some_and(|(shown, since)| *shown == positions && since.elapsed() < SHOW_AGAIN);
        if !old {
            self.0 = Some((positions, Instant::now()));
        }
        !old
    }
}

/// Shows the positions to the group, for the usual tools, and asks for the ends of the input. Nothing depends on either.
fn report<C: ConsumerContext>(workers: &Workers, consumer: &BaseConsumer<C>, shown: &mut Shown) {
    let positions = workers.status.positions();
    let ends = of_input(workers, positions.iter().map(|(partition, _)| (*partition, Offset::End)));
    let answers = ask_ends(workers, consumer, ends);
    workers.status.set_answers(answers.unwrap_or_default());
    if answers.is_none() {
        // What is asked of a log that is away would be on its way when it is back, in the name of a member that it may have forgotten.
        return;
    }
    let known: BTreeMap<i32, i64> = positions.into_iter().filter_map(|(partition, position)| Some((partition, position?))).collect();
    let offsets = of_input(workers, known.iter().map(|(partition, position)| (*partition, Offset::Offset(*position))));
    if offsets.count() > 0
        && shown.is_news(known)
        && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
    {
        tracing::debug!(%error, "positions could not be shown to the group");
    }
}

/// Asks for the ends of all partitions at once: with `Offset::End` for a time, Kafka's `ListOffsets` gives the end. Gives whether it has
/// told them all; `None` when the log does not answer.
fn ask_ends<C: ConsumerContext>(workers: &Workers, consumer: &BaseConsumer<C>, asked: TopicPartitionList) -> Option<bool> {
    if asked.count() == 0 {
        return Some(true);
    }
    let ends = consumer.offsets_for_times(asked, Duration::from_millis(500)).ok()?;
    let mut answers = true;
    for end in ends.elements() {
        match (end.error(), end.offset()) {
            (Ok(()), Offset::Offset(offset)) => workers.status.set_end(end.partition(), offset),
            _ => answers = false,
        }
    }
    Some(answers)
}

/// Partitions of the input with an offset each.
fn of_input(workers: &Workers, offsets: impl Iterator<Item = (i32, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        if let Err(error) = list.add_partition_offset(&workers.query.file.source.topic, partition, offset) {
            tracing::debug!(%error, "a partition's offset cannot be asked for or shown");
        }
    }
    list
}

/// Asks how many partitions the input has now.
fn count_partitions<C: ConsumerContext>(workers: &Workers, consumer: &BaseConsumer<C>) {
    let topic = workers.query.file.source.topic.as_str();
    let Ok(metadata) = consumer.fetch_metadata(Some(topic), Duration::from_millis(500)) else { return };
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    if let Some(found) = found {
        workers.status.set_input_partitions(u32::try_from(found.partitions().len()).unwrap_or(u32::MAX));
    }
}
