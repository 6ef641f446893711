//! Wiring: for each output a database, a consumer group, a thread.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::kafka::{LogError, TopicSpec, ensure_topics};
use common::settings::Output;
use common::telemetry::Part;
use common::{Settings, Shutdown, Telemetry};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::SinkError;
use crate::ahead::Ahead;
use crate::dead::KafkaDeadLane;
use crate::delivery::Delivery;
use crate::disk::Disk;
use crate::filler::Filler;
use crate::guard::Guard;
use crate::intake::Intake;
use crate::mapping::Mapper;
use crate::metrics::{Family, Metrics};
use crate::outputs;
use crate::status::Status;
use crate::writer::Writer;

/// What a sink did from start to stop, over all outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows taken from the log.
    pub rows: u64,
    /// Points that the databases have confirmed.
    pub points: u64,
    /// Rows left out because the database held a larger revision.
    pub stale: u64,
}

/// Leaving the consumer group waits for answers of the log; beyond this it is left to the end of the process.
const CLOSE: Duration = Duration::from_millis(500);

/// Writes results into every output of the settings until `shutdown`; then finishes the batches, commits and closes within
/// `sink.drain_timeout`. An output that cannot go on ends alone: the others go on, and the error is returned when they have ended.
///
/// # Errors
/// When a database cannot be opened, the log does not answer within `kafka.request_timeout` at the start, or an output has failed for
/// good. A log or database that goes away later is waited for.
pub async fn run(settings: Settings, telemetry: Telemetry, shutdown: Shutdown) -> Result<Summary, SinkError> {
    let mut opened = Vec::new();
    for output in settings.sink.all_outputs() {
        opened.push((outputs::open(&output)?, output));
    }
    run_all(opened, settings, telemetry, shutdown).await
}

/// As [`run`], with one output, into any database.
///
/// # Errors
/// As [`run`].
pub async fn run_with(writer: Box<dyn Writer>, settings: Settings, telemetry: Telemetry, shutdown: Shutdown) -> Result<Summary, SinkError> {
    let mut output = settings.sink.all_outputs().into_iter().next().unwrap_or_default();
    output.name.get_or_insert_with(|| writer.name().to_owned());
    run_all(vec![(writer, output)], settings, telemetry, shutdown).await
}

/// An output that is set up.
struct Ready {
    intake: Intake,
    part: Part,
    status: Arc<Status>,
}

async fn run_all(
    outputs: Vec<(Box<dyn Writer>, Output)>,
    settings: Settings,
    telemetry: Telemetry,
    shutdown: Shutdown,
) -> Result<Summary, SinkError> {
    let family = Family::register(telemetry.registry())?;
    telemetry.registry().register(Box::new(Disk::new(settings.sink.state_path.clone())?))?;
    let metrics: Vec<Metrics> = outputs.iter().map(|(_, output)| family.of(output.name())).collect();
    let mut ready = Vec::new();
    for (at, (writer, output)) in outputs.into_iter().enumerate() {
        // The first one is the sink as the page knows it.
        let name = if at == 0 { "sink".to_owned() } else { format!("sink-{}", output.name()) };
        ready.push(set_up(writer, &output, &settings, metrics[at].clone(), &name, &telemetry)?);
    }
    let summary = || {
        metrics.iter().fold(Summary::default(), |all, one| Summary {
            rows: all.rows + one.rows.get(),
            points: all.points + one.written.get(),
            stale: all.stale + one.stale.get(),
        })
    };
    match ensure_topics(&settings.kafka, &[dead_lane(&settings)], &shutdown).await {
        Ok(_) => {}
        Err(LogError::Stopped { .. }) => return Ok(summary()),
        Err(error) => return Err(error.into()),
    }
    let mut running = JoinSet::new();
    for one in ready {
        running.spawn(run_one(one, shutdown.clone(), settings.sink.drain_timeout.duration()));
    }
    let mut result = Ok(());
    while let Some(ended) = running.join_next().await {
        result = result.and(ended.unwrap_or(Err(SinkError::Panicked)));
    }
    result.map(|()| summary())
}

fn set_up(
    writer: Box<dyn Writer>,
    output: &Output,
    settings: &Settings,
    metrics: Metrics,
    name: &str,
    telemetry: &Telemetry,
) -> Result<Ready, SinkError> {
    let status = Arc::new(Status::new(metrics, writer.name()));
    let part = telemetry.part(name, {
        let status = Arc::clone(&status);
        move || status.json()
    });
    let guard = Guard::open(&settings.sink.state_path, output)?.map(|guard| Arc::new(Mutex::new(guard)));
    let ahead = Ahead::new(guard.clone(), writer.preparer(), Arc::clone(&status));
    let lane = Box::new(KafkaDeadLane::new(settings));
    let delivery = Delivery::new(writer, guard, lane, Arc::clone(&status));
    let filler = Filler::new(Mapper::new(&output.mapping), Arc::clone(&status));
    let intake = Intake::new(settings, output, (filler, ahead, delivery), Arc::clone(&status), part.clone())?;
    Ok(Ready { intake, part, status })
}

async fn run_one(ready: Ready, shutdown: Shutdown, drain: Duration) -> Result<(), SinkError> {
    let Ready { intake, part, status } = ready;
    let result = on_thread(intake, &shutdown, drain).await;
    part.set_ready(false);
    part.ended();
    if let Err(error) = &result {
        status.ended(&error.to_string());
    }
    result
}

/// Runs the loop on a thread of its own: its calls into the database and librdkafka block.
async fn on_thread(mut intake: Intake, shutdown: &Shutdown, drain: Duration) -> Result<(), SinkError> {
    let (done, ended) = oneshot::channel();
    let (closing, closed) = oneshot::channel::<()>();
    let stop = shutdown.clone();
    let work = move || {
        // The receiver is gone only when the drain has taken too long, and then nobody waits for the result.
        if done.send(intake.run(&stop)).is_err() {
            tracing::debug!("the sink's thread ended late");
        }
        // Leaves the group; the result does not wait for it.
        drop(intake);
        drop(closing);
    };
    std::thread::Builder::new().name("sink".into()).spawn(work).map_err(SinkError::Thread)?;
    let late = async {
        shutdown.wait().await;
        tokio::time::sleep(drain).await;
    };
    let result = tokio::select! {
        result = ended => result.map_err(|_| SinkError::Panicked)?,
        () = late => {
            tracing::warn!("the sink did not drain in time; rows that are not committed are written again after the next start");
            return Ok(());
        }
    };
    if tokio::time::timeout(CLOSE, closed).await.is_err() {
        tracing::debug!("the consumer group does not answer; the log ends this member's session by itself");
    }
    result
}

fn dead_lane(settings: &Settings) -> TopicSpec {
    TopicSpec {
        name: settings.topics.dead.clone(),
        partitions: settings.topics.partitions,
        replication: settings.topics.replication_factor,
        properties: Vec::new(),
    }
}
