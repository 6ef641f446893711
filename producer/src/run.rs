//! One run: settings in, summary out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::kafka::{LogError, TopicSpec, ensure_topics};
use common::{Settings, Shutdown, Telemetry};
use serde_json::json;
use tokio::sync::oneshot;

use crate::error::ProducerError;
use crate::metrics::Metrics;
use crate::publisher::{Counts, Publisher, Surroundings};
use crate::replay::Replay;
use crate::settings_check::check;
use crate::simulator::Simulator;
use crate::source::Source;
use crate::summary::Summary;

/// Streams readings from the source that the settings name into `topics.input` until the source ends or `shutdown` is set; then waits for
/// what is in flight. After a stop it waits for `producer.drain_timeout` at most.
///
/// The publishing runs on a plain thread; the caller's runtime only waits. A future that is dropped stops that thread.
///
/// # Errors
/// Faults of the settings and of the source before anything is sent; a log that stays away; records that the log did not take or
/// acknowledge in time.
pub async fn run(settings: Settings, telemetry: Telemetry, shutdown: Shutdown) -> Result<Summary, ProducerError> {
    check(&settings)?;
    let source = open_source(&settings)?;
    let metrics = Metrics::register(telemetry.registry())?;
    let counts = Arc::new(Counts::default());
    let part = telemetry.part("producer", status(source.describe(), &metrics, &counts));
    match ensure_topics(&settings.kafka, &topics(&settings), &shutdown).await {
        Ok(_) => part.set_ready(true),
        // Told to stop before anything began: that is no fault.
        Err(LogError::Stopped { .. }) => return Ok(Summary::default()),
        Err(error) => return Err(error.into()),
    }
    tracing::info!(source = source.describe(), topic = settings.topics.input, servers = settings.kafka.bootstrap_servers, "publishing");
    // Dropped with this future.
    let waiting = Arc::new(());
    let ended = counts.clone();
    let around = Surroundings { shutdown, part: part.clone(), metrics, counts, waiting: Arc::downgrade(&waiting) };
    let result = on_thread(settings, source, around).await;
    drop(waiting);
    part.ended();
    // A run that came to a good end leaves nothing undone: an appliance whose replay is over is still ready.
    part.set_ready(result.is_ok());
    ended.end();
    result
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

fn status(source: String, metrics: &Metrics, counts: &Arc<Counts>) -> impl Fn() -> serde_json::Value + Send + Sync + 'static {
    let (metrics, counts) = (metrics.clone(), counts.clone());
    move || {
        json!({
            "source": source,
            "rate": counts.rate(),
            "published": counts.published.load(Ordering::Relaxed),
            "in_flight": metrics.in_flight.get(),
            "dead": counts.dead.load(Ordering::Relaxed),
            "failed": counts.failed.load(Ordering::Relaxed),
            "ended": counts.has_ended(),
            "log_away": counts.away.load(Ordering::Relaxed),
        })
    }
}

/// Runs the publisher on a thread of its own and waits for it without blocking the runtime.
async fn on_thread(settings: Settings, mut source: Box<dyn Source>, around: Surroundings) -> Result<Summary, ProducerError> {
    let (done, result) = oneshot::channel();
    let work = move || {
        let summary = Publisher::new(settings, around).and_then(|publisher| publisher.run(source.as_mut()));
        // Nobody listens when the future was dropped; the thread ends all the same.
        if done.send(summary).is_err() {
            tracing::debug!("the producer's run was dropped");
        }
    };
    std::thread::Builder::new().name("producer".into()).spawn(work).map_err(ProducerError::Thread)?;
    // A panic drops the sender.
    result.await.unwrap_or(Err(ProducerError::Broken))
}
