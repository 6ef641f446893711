//! The simulated fleet as MQTT devices: each sensor has a connection of its own, goes away and comes back, and sends what it measured
//! meanwhile as a burst.
//!
//! ```text
//! simulator ─▶ one task that keeps the time ─▶ a queue for each device ─▶ device.rs ─▶ MQTT broker
//! ```

mod device;
mod ledger;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::mqtt::options::check_files;
use common::{Settings, Shutdown, Telemetry};
use serde_json::json;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;

use self::device::Device;
use self::ledger::Ledger;
use crate::error::ProducerError;
use crate::settings_check::check;
use crate::simulator::Simulator;
use crate::source::{Content, Delivery, Next, Source as _};
use crate::summary::Summary;

/// Readings that wait in a device; the fleet stops measuring when one is full.
const MEMORY: usize = 100_000;
/// How long the devices may take for their last acknowledgements after a stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the fleet did so far.
#[derive(Debug, Default)]
struct Counts {
    connected: AtomicU64,
    connections: AtomicU64,
    measured: AtomicU64,
    acknowledged: AtomicU64,
}

/// Simulates the fleet until its count is acknowledged or `shutdown` is set. `published` of the summary counts acknowledged readings.
///
/// # Errors
/// Faults of the settings, and a ledger that cannot be written. A broker that is away is waited for.
pub async fn run(settings: Settings, telemetry: Telemetry, shutdown: Shutdown) -> Result<Summary, ProducerError> {
    check(&settings)?;
    let connection = &settings.producer.simulator.mqtt.connection;
    check_files(connection).map_err(|fault| ProducerError::Door(format!("producer.simulator.mqtt.{fault}")))?;
    let counts = Arc::new(Counts::default());
    let ledger = settings.producer.simulator.mqtt.ledger_file.as_deref().map(Ledger::create).transpose().map_err(ProducerError::Door)?;
    let part = telemetry.part("devices", status(&counts));
    part.set_ready(true);
    let started = Instant::now();
    let mut simulator = Simulator::new(&settings.producer.simulator);
    let mut fleet = Fleet {
        settings: &settings,
        counts: counts.clone(),
        ledger,
        devices: HashMap::new(),
        tasks: JoinSet::new(),
        stop: shutdown.clone(),
    };
    let complete = tokio::select! {
        complete = fleet.measure(&mut simulator) => complete,
        () = shutdown.wait() => false,
    };
    // A device whose queue is closed ends when all it has is acknowledged.
    fleet.devices.clear();
    let all = async { while fleet.tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        () = async { shutdown.wait().await; tokio::time::sleep(FAREWELL).await } => tracing::warn!("some readings have no acknowledgement"),
    }
    part.ended();
    let published = counts.acknowledged.load(Ordering::Relaxed);
    Ok(Summary { published, dead: 0, tally: simulator.tally(), complete, duration: started.elapsed() })
}

fn status(counts: &Arc<Counts>) -> impl Fn() -> serde_json::Value + Send + Sync + 'static {
    let counts = counts.clone();
    move || {
        json!({
            "connected": counts.connected.load(Ordering::Relaxed),
            "connections": counts.connections.load(Ordering::Relaxed),
            "measured": counts.measured.load(Ordering::Relaxed),
            "acknowledged": counts.acknowledged.load(Ordering::Relaxed),
        })
    }
}

struct Fleet<'a> {
    settings: &'a Settings,
    counts: Arc<Counts>,
    ledger: Option<Ledger>,
    devices: HashMap<String, Sender<common::reading::Reading>>,
    tasks: JoinSet<()>,
    stop: Shutdown,
}

impl Fleet<'_> {
    /// Returns when the simulator has ended.
    async fn measure(&mut self, simulator: &mut Simulator) -> bool {
        simulator.start(chrono::Utc::now().timestamp_millis());
        let started = Instant::now();
        let mut due = Vec::new();
        loop {
            let next = simulator.next(started.elapsed(), &mut due);
            for Delivery { content, .. } in due.drain(..) {
                let Content::Reading(reading) = content else { continue };
                self.counts.measured.fetch_add(1, Ordering::Relaxed);
                if self.device(&reading.sensor_id).send(reading).await.is_err() {
                    tracing::debug!("a device has ended");
                }
            }
            match next {
                Ok(Next::More) => tokio::task::yield_now().await,
                Ok(Next::Wait(time)) => tokio::time::sleep(time).await,
                Ok(Next::End) => return true,
                Err(error) => {
                    tracing::error!(%error, "the simulator broke");
                    return false;
                }
            }
        }
    }

    /// The device of a sensor; it is switched on at its first reading.
    fn device(&mut self, sensor_id: &str) -> Sender<common::reading::Reading> {
        if let Some(device) = self.devices.get(sensor_id) {
            return device.clone();
        }
        let (memory, readings) = channel(MEMORY);
        let settings = self.settings.producer.simulator.mqtt.clone();
        let device = Device::new(sensor_id, settings, readings, self.counts.clone(), self.ledger.clone());
        self.tasks.spawn(device.run(self.stop.clone()));
        self.devices.insert(sensor_id.to_owned(), memory.clone());
        memory
    }
}
