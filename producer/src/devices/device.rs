//! One simulated device: keeps what is not acknowledged, and sends it again over its next connection.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Shutdown;
use common::mqtt::link::{Client, Event, Link, Plan};
use common::reading::Reading;
use common::settings::SimulatedDevices;
use tokio::sync::mpsc::Receiver;

use super::Counts;
use super::ledger::Ledger;

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Device {
    sensor_id: String,
    client_id: String,
    settings: SimulatedDevices,
    /// Measured and not yet looked at; closed when the fleet ends.
    readings: Receiver<Reading>,
    ended: bool,
    /// What the next connection sends first, in the order of measuring.
    waiting: VecDeque<Reading>,
    counts: Arc<Counts>,
    ledger: Option<Ledger>,
}

/// What one connection has sent.
#[derive(Default)]
struct Sent {
    /// Handed to the connection, without a number yet; `None` is a word of presence.
    queued: VecDeque<Option<Reading>>,
    /// By number.
    in_flight: HashMap<u16, Option<Reading>>,
    /// The numbers in the order of sending.
    order: VecDeque<u16>,
}

/// Why a connection ended.
enum End {
    /// All is sent and acknowledged.
    Done,
    /// By plan, or by a fault.
    Away(Duration),
}

impl Device {
    pub(super) fn new(
        sensor_id: &str,
        settings: SimulatedDevices,
        readings: Receiver<Reading>,
        counts: Arc<Counts>,
        ledger: Option<Ledger>,
    ) -> Self {
        let client_id = format!("{}-{sensor_id}", settings.connection.client_id);
        Self { sensor_id: sensor_id.to_owned(), client_id, settings, readings, ended: false, waiting: VecDeque::new(), counts, ledger }
    }

    /// Until the fleet has ended and all is acknowledged, or until `stop`.
    pub(super) async fn run(mut self, stop: Shutdown) {
        loop {
            let away = match self.connection(&stop).await {
                End::Done => return,
                End::Away(away) => away,
            };
            if stop.is_set() || tokio::time::timeout(away, stop.wait()).await.is_ok() {
                return;
            }
        }
    }

    fn presence(&self) -> Option<String> {
        let topic = &self.settings.presence;
        (!topic.is_empty()).then(|| topic.replace("{sensor_id}", &self.sensor_id))
    }

    async fn connection(&mut self, stop: &Shutdown) -> End {
        let plan = Plan {
            connection: &self.settings.connection,
            client_id: &self.client_id,
            receive_maximum: 16,
            send_maximum: self.settings.in_flight,
            session_seconds: 0,
            clean: true,
            will: self.presence().map(|topic| (topic, Bytes::from_static(b"offline"))),
        };
        let (mut link, client) = match Link::open(&plan) {
            Ok(open) => open,
            Err(fault) => {
                tracing::error!(fault, "a device cannot connect");
                return End::Away(PAUSE);
            }
        };
        let mut sent = Sent::default();
        let mut connected = false;
        let end = self.converse(&mut link, &client, &mut sent, &mut connected, stop).await;
        if connected {
            self.counts.connected.fetch_sub(1, Ordering::Relaxed);
        }
        self.take_back(sent);
        end
    }

    /// What was not acknowledged goes in front of what waits, in its order.
    fn take_back(&mut self, mut sent: Sent) {
        for reading in sent.queued.into_iter().rev().flatten() {
            self.waiting.push_front(reading);
        }
        for id in sent.order.into_iter().rev() {
            if let Some(Some(reading)) = sent.in_flight.remove(&id) {
                self.waiting.push_front(reading);
            }
        }
    }

    async fn converse(&mut self, link: &mut Link, client: &Client, sent: &mut Sent, connected: &mut bool, stop: &Shutdown) -> End {
        let began = Instant::now();
        let online_for = self.settings.online_for.duration();
        let leaves = (!online_for.is_zero()).then(|| began + online_for);
        let silence = self.settings.connection.keep_alive.duration() * 2 + Duration::from_secs(5);
        let mut farewell = false;
        loop {
            let event = {
                // Kept until it gives something: dropped half-way, it would forget a packet.
                let mut next = pin!(tokio::time::timeout(silence, link.next()));
                loop {
                    if *connected && !farewell {
                        self.send(client, sent);
                        farewell = self.has_said_all(client, sent);
                    }
                    let room = *connected && !self.ended && self.waiting.is_empty() && sent.len() < usize::from(self.settings.in_flight);
                    tokio::select! {
                        event = &mut next => break event,
                        reading = self.readings.recv(), if room => match reading {
                            Some(reading) => self.waiting.push_back(reading),
                            None => self.ended = true,
                        },
                        // A plug that is pulled: no farewell, so that the will is published.
                        () = until(leaves) => return End::Away(self.settings.offline_for.duration()),
                        () = stop.wait(), if !farewell => {
                            farewell = true;
                            client.disconnect();
                        }
                    }
                }
            };
            match event {
                Ok(Ok(Event::Closed)) | Ok(Err(_)) if farewell => return End::Done,
                Ok(Ok(event)) => self.handle(event, client, sent, connected),
                Ok(Err(trouble)) => {
                    tracing::debug!(self.sensor_id, trouble, "a device lost its connection");
                    return End::Away(PAUSE);
                }
                Err(_elapsed) => return End::Away(PAUSE),
            }
        }
    }

    /// When all is acknowledged and nothing more will come, the device says farewell.
    fn has_said_all(&self, client: &Client, sent: &Sent) -> bool {
        if !self.ended || !self.waiting.is_empty() || !sent.is_empty() {
            return false;
        }
        if let Some(topic) = self.presence() {
            client.publish(&topic, Bytes::from_static(b"offline"), false, true);
        }
        client.disconnect();
        true
    }

    fn handle(&self, event: Event, client: &Client, sent: &mut Sent, connected: &mut bool) {
        match event {
            Event::Connected { .. } => {
                *connected = true;
                self.counts.connected.fetch_add(1, Ordering::Relaxed);
                self.counts.connections.fetch_add(1, Ordering::Relaxed);
                if let Some(topic) = self.presence()
                    && client.publish(&topic, Bytes::from_static(b"online"), true, true)
                {
                    sent.queued.push_back(None);
                }
            }
            Event::Sent(id) if id > 0 => {
                if let Some(reading) = sent.queued.pop_front() {
                    sent.in_flight.insert(id, reading);
                    sent.order.push_back(id);
                }
            }
            Event::Acknowledged(id) => {
                if let Some(Some(reading)) = sent.acknowledged(id) {
                    self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                    if let (Some(ledger), Some(seq)) = (&self.ledger, reading.seq) {
                        ledger.acknowledged(&reading.sensor_id, seq);
                    }
                }
            }
            _ => {}
        }
    }

    fn send(&mut self, client: &Client, sent: &mut Sent) {
        while sent.len() < usize::from(self.settings.in_flight) {
            let reading = match self.waiting.pop_front() {
                Some(reading) => reading,
                None => match self.readings.try_recv() {
                    Ok(reading) => reading,
                    Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => {
                        self.ended = true;
                        return;
                    }
                    Err(tokio::sync::mpsc::error::TryRecvError::Empty) => return,
                },
            };
            let topic = self.settings.topic.replace("{sensor_id}", &reading.sensor_id);
            let topic = topic.replace("{kind}", reading.kind.as_deref().unwrap_or("value"));
            let mut payload = Vec::with_capacity(128);
            reading.write_json(&mut payload);
            if !client.publish(&topic, payload.into(), true, false) {
                self.waiting.push_front(reading);
                return;
            }
            sent.queued.push_back(Some(reading));
        }
    }
}

impl Sent {
    fn len(&self) -> usize {
        self.queued.len() + self.in_flight.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn acknowledged(&mut self, id: u16) -> Option<Option<Reading>> {
        let reading = self.in_flight.remove(&id);
        if self.order.front() == Some(&id) {
            self.order.pop_front();
        } else {
            self.order.retain(|other| *other != id);
        }
        reading
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
