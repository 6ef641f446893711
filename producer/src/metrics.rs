//! The producer's metrics; all of its names are here.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Clones are the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Handed to the Kafka client, duplicates included.
    pub(crate) readings: IntCounter,
    /// Acknowledged by the log.
    pub(crate) published: IntCounter,
    /// Lines in the dead lane, acknowledged by the log, by reason.
    pub(crate) dead: IntCounterVec,
    /// Records that the log refused, and faults that the Kafka client reports.
    pub(crate) errors: IntCounterVec,
    pub(crate) in_flight: IntGauge,
    /// Seconds from the hand-over to the acknowledgement.
    pub(crate) latency: Histogram,
}

impl Metrics {
    /// # Errors
    /// When the registry has these names already: one producer a registry.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let latency =
            HistogramOpts::new("tidemark_producer_delivery_seconds", "Time from the hand-over of a record to its acknowledgement.")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0]);
        let metrics = Self {
            readings: IntCounter::new("tidemark_producer_readings_total", "Readings taken from the source, duplicates included.")?,
            published: IntCounter::new("tidemark_producer_published_total", "Readings that the log has acknowledged.")?,
            dead: IntCounterVec::new(Opts::new("tidemark_producer_dead_total", "Lines put into the dead lane, by reason."), &["reason"])?,
            errors: IntCounterVec::new(
                Opts::new("tidemark_producer_errors_total", "Records that failed, and faults of the Kafka client, by kind."),
                &["kind"],
            )?,
            in_flight: IntGauge::new("tidemark_producer_in_flight", "Records that wait for their acknowledgement.")?,
            latency: Histogram::with_opts(latency)?,
        };
        registry.register(Box::new(metrics.readings.clone()))?;
        registry.register(Box::new(metrics.published.clone()))?;
        registry.register(Box::new(metrics.dead.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.latency.clone()))?;
        // So that a dashboard shows 0 rather than nothing.
        for kind in [kind::DELIVERY, kind::CLIENT] {
            metrics.errors.with_label_values(&[kind]);
        }
        Ok(metrics)
    }
}

/// What comes through the doors: MQTT and HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    /// Messages and requests, by door.
    pub(crate) messages: IntCounterVec,
    /// Messages that were not taken, by why; those of quality of service 1 come again.
    pub(crate) dropped: IntCounterVec,
    /// 1 while the MQTT broker has us subscribed.
    pub(crate) connected: IntGauge,
    pub(crate) sessions_lost: IntCounter,
    /// Devices at our own MQTT listener.
    pub(crate) devices: IntGauge,
    /// Connections that it refused or ended, by why.
    pub(crate) refused: IntCounterVec,
}

impl Doors {
    /// # Errors
    /// When the registry has these names already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let by = |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        let doors = Self {
            messages: by("tidemark_producer_messages_total", "Messages from devices, by door.", "door")?,
            dropped: by(
                "tidemark_producer_dropped_total",
                "Messages, or Sparkplug metrics that are no numbers, that were not taken, by reason; deferred ones come again.",
                "reason",
            )?,
            connected: IntGauge::new("tidemark_producer_mqtt_connected", "1 while subscribed at the MQTT broker.")?,
            sessions_lost: IntCounter::new("tidemark_producer_mqtt_sessions_lost_total", "Sessions that the MQTT broker has lost.")?,
            devices: IntGauge::new("tidemark_producer_listener_devices", "Devices connected to the MQTT listener.")?,
            refused: by(
                "tidemark_producer_listener_refused_total",
                "Connections that the MQTT listener refused or ended, by reason.",
                "reason",
            )?,
        };
        registry.register(Box::new(doors.messages.clone()))?;
        registry.register(Box::new(doors.dropped.clone()))?;
        registry.register(Box::new(doors.connected.clone()))?;
        registry.register(Box::new(doors.sessions_lost.clone()))?;
        registry.register(Box::new(doors.devices.clone()))?;
        registry.register(Box::new(doors.refused.clone()))?;
        for reason in ["retained", "deferred", "qos0_full", "no_number"] {
            doors.dropped.with_label_values(&[reason]);
        }
        Ok(doors)
    }

    /// Sparkplug metrics that say themselves that they are no numbers.
    pub(crate) fn no_numbers(&self, count: usize) {
        self.dropped.with_label_values(&["no_number"]).inc_by(count as u64);
    }
}

/// Kinds of `tidemark_producer_errors_total`.
pub(crate) mod kind {
    /// A record that the log did not take.
    pub(crate) const DELIVERY: &str = "delivery";
    /// The client reports trouble, such as a broker that is away; it keeps trying.
    pub(crate) const CLIENT: &str = "client";
}
