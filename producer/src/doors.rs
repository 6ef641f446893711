//! The doors that the settings open, and the queue behind them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::mqtt::options::check_files;
use common::{Settings, Shutdown};
use prometheus::Registry;
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use crate::error::ProducerError;
use crate::ingest::Ingest;
use crate::intake::Intake;
use crate::listener::Listener;
use crate::metrics::Doors as Metrics;
use crate::mqtt::MqttDoor;
use crate::payload::Reader;

/// How long the doors may take for their farewells.
const FAREWELL: Duration = Duration::from_secs(3);

type Status = Box<dyn Fn() -> Value + Send + Sync>;

/// Open doors; they serve until [`Doors::close`], or until this is dropped.
pub(crate) struct Doors {
    tasks: JoinSet<()>,
    stop: Shutdown,
    status: Vec<(&'static str, Status)>,
}

/// Whether readings come from devices rather than from a simulator or files.
pub fn wanted(settings: &Settings) -> bool {
    let producer = &settings.producer;
    producer.mqtt.connection.url.is_some() || producer.mqtt_listener.listen.is_some() || producer.ingest.enabled
}

impl Doors {
    /// Opens the doors; the intake is the source behind them.
    ///
    /// # Errors
    /// An address that cannot be had, files that cannot be read.
    pub(crate) async fn open(settings: &Settings, registry: &Registry, ingest: &Ingest) -> Result<(Self, Intake), ProducerError> {
        let producer = &settings.producer;
        let metrics = Metrics::register(registry)?;
        let reader = Arc::new(Reader::new(&producer.payload).map_err(common::settings::Faults)?);
        let (intake, feeder) = Intake::new(producer.max_buffer.bytes(), describe(settings));
        let mut doors = Self { tasks: JoinSet::new(), stop: Shutdown::manual(), status: Vec::new() };
        if let Some(address) = producer.mqtt_listener.listen {
            let listener = Listener::bind(address, &producer.mqtt_listener, reader.clone(), feeder.clone(), metrics.clone())
                .await
                .map_err(ProducerError::Door)?;
            tracing::info!(address = %listener.address(), "MQTT devices can connect");
            doors.status.push(("mqtt_listener", Box::new(listener.status())));
            doors.tasks.spawn(listener.run(doors.stop.clone()));
        }
        if producer.mqtt.connection.url.is_some() {
            // They are read again at each connection, when a wrong one is no reason to end any more.
            check_files(&producer.mqtt.connection).map_err(|fault| ProducerError::Door(format!("producer.mqtt.{fault}")))?;
            let door = MqttDoor::new(producer.mqtt.clone(), reader.clone(), feeder.clone(), metrics.clone());
            let state = door.state();
            doors.status.push(("mqtt", Box::new(move || state.status())));
            doors.tasks.spawn(door.run(doors.stop.clone()));
        }
        if producer.ingest.enabled {
            ingest.open(&producer.ingest, reader, feeder, metrics).map_err(ProducerError::Door)?;
        }
        Ok((doors, intake))
    }

    pub(crate) fn status(&mut self) -> impl Fn() -> Map<String, Value> + Send + Sync + 'static {
        let parts = std::mem::take(&mut self.status);
        move || parts.iter().map(|(name, status)| ((*name).to_owned(), status())).collect()
    }

    /// Says farewell to devices and brokers, after the last acknowledgements.
    pub(crate) async fn close(mut self) {
        self.stop.trigger();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            tracing::debug!("some connections were cut without a farewell");
        }
    }
}

/// An address to listen at, as flags take it.
///
/// # Errors
/// A sentence for people when it is none.
pub fn device_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it is an IP address and a port, such as 127.0.0.1:1883, or 0.0.0.0:8883 for devices elsewhere".to_owned())
}

/// The devices that readings come from, for people.
pub fn describe(settings: &Settings) -> String {
    let producer = &settings.producer;
    let mut doors = Vec::new();
    if let Some(url) = &producer.mqtt.connection.url {
        doors.push(format!("devices of the MQTT broker {url}"));
    }
    if let Some(address) = producer.mqtt_listener.listen {
        doors.push(format!("MQTT devices at {address}"));
    }
    if producer.ingest.enabled {
        doors.push("HTTP (POST /ingest)".to_owned());
    }
    doors.join(", ")
}
