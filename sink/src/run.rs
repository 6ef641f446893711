//! Wiring: the database, the log, one thread.

use std::sync::Arc;
use std::time::Duration;

use common::kafka::{LogError, TopicSpec, ensure_topics};
use common::{Settings, Shutdown, Telemetry};
use tokio::sync::oneshot;

use crate::SinkError;
use crate::dead::KafkaDeadLane;
use crate::delivery::Delivery;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::sqlite::SqliteWriter;
use crate::status::Status;
use crate::writer::Writer;

/// What a sink did from start to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows taken from the log.
    pub rows: u64,
    /// Points that the database has confirmed.
    pub points: u64,
    /// Rows left out because the database held a larger revision.
    pub stale: u64,
}

/// Leaving the consumer group waits for answers of the log; beyond this it is left to the end of the process.
const CLOSE: Duration = Duration::from_millis(500);

/// Writes results into SQLite until `shutdown`; then finishes the batch, commits and closes within `sink.drain_timeout`.
///
/// # Errors
/// When the database cannot be opened, the log does not answer within `kafka.request_timeout` at the start, or either of them fails for
/// good. A log or database that goes away later is waited for.
pub async fn run(settings: Settings, telemetry: Telemetry, shutdown: Shutdown) -> Result<Summary, SinkError> {
    let writer = SqliteWriter::open(&settings.sink.sqlite)?;
    tracing::info!(path = %writer.path().display(), "writing results into SQLite");
    run_with(Box::new(writer), settings, telemetry, shutdown).await
}

/// As [`run`], into any database.
///
/// # Errors
/// As [`run`].
pub async fn run_with(writer: Box<dyn Writer>, settings: Settings, telemetry: Telemetry, shutdown: Shutdown) -> Result<Summary, SinkError> {
    let database = writer.name();
    let metrics = Metrics::register(telemetry.registry())?;
    let status = Arc::new(Status::new(metrics.clone(), database));
    let part = telemetry.part("sink", {
        let status = Arc::clone(&status);
        move || status.json()
    });
    let summary = || Summary { rows: metrics.rows.get(), points: metrics.written.get(), stale: metrics.stale.get() };
    match ensure_topics(&settings.kafka, &[dead_lane(&settings)], &shutdown).await {
        Ok(_) => {}
        Err(LogError::Stopped { .. }) => return Ok(summary()),
        Err(error) => return Err(error.into()),
    }

    let lane = Box::new(KafkaDeadLane::new(&settings));
    let intake = Intake::new(&settings, database, Delivery::new(writer, lane, Arc::clone(&status)), status, part.clone())?;
    let result = on_thread(intake, &shutdown, settings.sink.drain_timeout.duration()).await;
    part.set_ready(false);
    part.ended();
    result.map(|()| summary())
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
