//! One run: settings in, summary out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::kafka::{LogError, TopicSpec, ensure_topics};
use common::telemetry::Part;
use common::{Settings, Shutdown, Telemetry};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::doors::{self, Doors};
use crate::error::ProducerError;
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::publisher::{Counts, Publisher, Surroundings, fit_batches};
use crate::replay::Replay;
use crate::settings_check::check;
use crate::simulator::Simulator;
use crate::source::Source;
use crate::summary::Summary;

/// Pauses between attempts grow from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Streams readings from the source that the settings name into `topics.input` until the source ends or `shutdown` is set; then waits for
/// what is in flight. After a stop it waits for `producer.drain_timeout` at most.
///
/// The publishing runs on a plain thread; the caller's runtime only waits. A future that is dropped stops that thread.
///
/// # Errors
/// Faults of the settings and of the source before anything is sent; a log that stays away; records that the log did not take or
/// acknowledge in time. Devices wait for a log that is away, and what it did not take they send again: there a fault is said, and the
/// run goes on.
pub async fn run(settings: Settings, telemetry: Telemetry, shutdown: Shutdown) -> Result<Summary, ProducerError> {
    run_with(settings, telemetry, shutdown, Ingest::default()).await
}

/// The same, with the HTTP door whose route the caller's listener has.
///
/// # Errors
/// Those of [`run`].
pub async fn run_with(mut settings: Settings, telemetry: Telemetry, shutdown: Shutdown, ingest: Ingest) -> Result<Summary, ProducerError> {
    check(&settings)?;
    let metrics = Metrics::register(telemetry.registry())?;
    let counts = Arc::new(Counts::default());
    // Doors open before the log is there: a session that begins now misses nothing later.
    let mut doors = None;
    let source: Box<dyn Source> = if doors::wanted(&settings) {
        let (open, intake) = Doors::open(&settings, telemetry.registry(), &ingest).await?;
        doors = Some(open);
        Box::new(intake)
    } else {
        open_source(&settings)?
    };
    let more = doors.as_mut().map(Doors::status);
    let part = telemetry.part("producer", status(source.describe(), &metrics, &counts, more));
    let patient = doors.is_some();
    if !log_is_there(&settings, &shutdown, patient, &part).await? {
        // Told to stop before anything began: that is no fault.
        return Ok(Summary::default());
    }
    fit_batches(&mut settings).await;
    tracing::info!(source = source.describe(), topic = settings.topics.input, servers = settings.kafka.bootstrap_servers, "publishing");
    // Dropped with this future.
    let waiting = Arc::new(());
    let ended = counts.clone();
    let around = Surroundings { shutdown: shutdown.clone(), part: part.clone(), metrics, counts, waiting: Arc::downgrade(&waiting) };
    let result = publish(settings, source, around, &shutdown, patient).await;
    drop(waiting);
    if let Some(doors) = doors {
        doors.close().await;
    }
    part.ended();
    // A run that came to a good end leaves nothing undone: an appliance whose replay is over is still ready.
    part.set_ready(result.is_ok());
    ended.end();
    result
}

/// Whether the topics are there; `false`: stopped before. Devices wait for a log as long as it takes.
async fn log_is_there(settings: &Settings, shutdown: &Shutdown, patient: bool, part: &Part) -> Result<bool, ProducerError> {
    loop {
        match ensure_topics(&settings.kafka, &topics(settings), shutdown).await {
            Ok(_) => {
                part.set_ready(true);
                return Ok(true);
            }
            Err(LogError::Stopped { .. }) => return Ok(false),
            Err(error) if patient => tracing::error!(%error, "devices wait until the log is there; trying again"),
            Err(error) => return Err(error.into()),
        }
        if tokio::time::timeout(FIRST_PAUSE, shutdown.wait()).await.is_ok() {
            return Ok(false);
        }
    }
}

/// Publishes to the end. What the log did not take from devices is dropped without acknowledgement, so that they send it again, to a new
/// Kafka client, and to topics that are made anew where they are gone.
async fn publish(
    settings: Settings,
    mut source: Box<dyn Source>,
    around: Surroundings,
    shutdown: &Shutdown,
    patient: bool,
) -> Result<Summary, ProducerError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let (back, result) = on_thread(settings.clone(), source, around.clone()).await;
        let error = match result {
            Err(error) if patient && !shutdown.is_set() => error,
            result => return result,
        };
        let Some(kept) = back else { return Err(error) };
        source = kept;
        around.part.set_ready(false);
        pause = if started.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tracing::error!(%error, again_in = ?pause, "what the log has not acknowledged is taken from the devices again");
        if tokio::time::timeout(pause, shutdown.wait()).await.is_ok() {
            return Ok(around.counts.summary());
        }
        around.counts.forget_failure();
        // A topic that was deleted meanwhile may be what it failed of.
        if !log_is_there(&settings, shutdown, patient, &around.part).await? {
            return Ok(around.counts.summary());
        }
        source.reopen();
    }
}

fn open_source(settings: &Settings) -> Result<Box<dyn Source>, ProducerError> {
    let producer = &settings.producer;
    if producer.replay.files.is_empty() {
        Ok(Box::new(Simulator::new(&producer.simulator)))
    } else {
        Ok(Box::new(Replay::open(&producer.replay)?))
    }
}

fn topics(settings: &Settings) -> Vec<TopicSpec> {
    let topics = &settings.topics;
    let spec = |name: &String| TopicSpec {
        name: name.clone(),
        partitions: topics.partitions,
        replication: topics.replication_factor,
        properties: Vec::new(),
    };
    [&topics.input, &topics.late, &topics.dead].map(spec).to_vec()
}

fn status(
    source: String,
    metrics: &Metrics,
    counts: &Arc<Counts>,
    doors: Option<impl Fn() -> Map<String, Value> + Send + Sync + 'static>,
) -> impl Fn() -> Value + Send + Sync + 'static {
    let (metrics, counts) = (metrics.clone(), counts.clone());
    move || {
        let mut status = json!({
            "source": source,
            "rate": counts.rate(),
            "published": counts.published.load(Ordering::Relaxed),
            "in_flight": metrics.in_flight.get(),
            "dead": counts.dead.load(Ordering::Relaxed),
            "failed": counts.failed.load(Ordering::Relaxed),
            "ended": counts.has_ended(),
            "log_away": counts.away.load(Ordering::Relaxed),
        });
        if let (Some(status), Some(doors)) = (status.as_object_mut(), &doors) {
            status.extend(doors());
        }
        status
    }
}

type Ended = (Option<Box<dyn Source>>, Result<Summary, ProducerError>);

/// Runs the publisher on a thread of its own and waits for it without blocking the runtime. The source comes back, for another try.
async fn on_thread(settings: Settings, mut source: Box<dyn Source>, around: Surroundings) -> Ended {
    let (done, result) = oneshot::channel();
    let work = move || {
        let summary = Publisher::new(settings, around, source.waker()).and_then(|publisher| publisher.run(source.as_mut()));
        // Nobody listens when the future was dropped; the thread ends all the same.
        if done.send((Some(source), summary)).is_err() {
            tracing::debug!("the producer's run was dropped");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("producer".into()).spawn(work) {
        return (None, Err(ProducerError::Thread(error)));
    }
    // A panic drops the sender.
    result.await.unwrap_or((None, Err(ProducerError::Broken)))
}
