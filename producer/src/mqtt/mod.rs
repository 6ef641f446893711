//! Readings from the devices of an MQTT broker.
//!
//! ```text
//! broker ─▶ common::mqtt (rumqttc) ─▶ payload/ ─▶ intake.rs ─▶ publisher ─▶ log
//!    ▲                                                                 │
//!    └────────── window.rs: in the order of receipt ◀── acknowledged ──┘
//! ```
//!
//! The session is the broker's memory of what we have not acknowledged. A connection ends at its first fault and a new one begins; the
//! broker sends again what is open. What is true of a message is true of its connection only, so nothing is carried over.

pub(crate) mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use common::Shutdown;
use common::mqtt::keep::{Reader as Reading, keep};
use common::mqtt::link::{Client, Link, Message, Plan};
use common::mqtt::session::Session;
use common::settings::{Mqtt, MqttConnection};
use serde_json::json;
use tokio::sync::Notify;

use self::window::Window;
use crate::intake::Feeder;
use crate::metrics::Doors;
use crate::payload::{Reader, sparkplug};
use crate::source::Content;

/// The door: connects, and connects again, until it is told to stop.
pub(crate) struct MqttDoor {
    settings: Mqtt,
    reader: Arc<Reader>,
    feeder: Feeder,
    metrics: Doors,
    state: Arc<State>,
}

/// What people want to know of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    connected: AtomicBool,
    /// Counts the connections.
    generation: AtomicU64,
    sessions_lost: AtomicU64,
    unacknowledged: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl State {
    pub(crate) fn status(&self) -> serde_json::Value {
        json!({
            "connected": self.connected.load(Ordering::Relaxed),
            "generation": self.generation.load(Ordering::Relaxed),
            "sessions_lost": self.sessions_lost.load(Ordering::Relaxed),
            "unacknowledged": self.unacknowledged.load(Ordering::Relaxed),
            "trouble": *self.trouble.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }
}

type Give = Box<dyn Fn(u16) -> bool + Send + Sync>;
type Acks = Window<Give>;

/// What one connection leaves to the next, and the connection.
struct Visitor {
    door: MqttDoor,
    session: Session,
    /// Messages that the broker may send ahead of our acknowledgements.
    ahead: u16,
    /// The broker has answered our subscription.
    subscribed: bool,
    /// A message of the connection was acknowledged.
    acknowledged: Arc<AtomicBool>,
    window: Arc<Acks>,
    /// The budget is used up: what comes is left to the broker, which sends it again to the next connection.
    overflowed: bool,
    /// What the connection's messages cost together, and how many they are.
    cost: (usize, usize),
}

impl MqttDoor {
    pub(crate) fn new(settings: Mqtt, reader: Arc<Reader>, feeder: Feeder, metrics: Doors) -> Self {
        Self { settings, reader, feeder, metrics, state: Arc::default() }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.state.clone()
    }

    /// Serves until `stop`, then says farewell after the last acknowledgement.
    pub(crate) async fn run(self, stop: Shutdown) {
        keep(&mut Visitor::new(self), &stop).await;
    }

    fn filters(&self) -> Vec<String> {
        let filters = self.reader.filters();
        match &self.settings.share {
            Some(share) => filters.into_iter().map(|filter| format!("$share/{share}/{filter}")).collect(),
            None => filters,
        }
    }
}

impl Reading for Visitor {
    fn query(&self) -> Option<&str> {
        None
    }

    fn settings(&self) -> &MqttConnection {
        &self.door.settings.connection
    }

    fn topics(&self) -> (Vec<String>, bool) {
        (self.door.filters(), self.door.settings.keep_retained)
    }

    fn open(&mut self) -> Result<(Link, Client), String> {
        let settings = &self.door.settings;
        self.subscribed = false;
        self.acknowledged = Arc::default();
        let plan = Plan {
            connection: &settings.connection,
            client_id: &settings.connection.client_id,
            receive_maximum: self.ahead,
            send_maximum: 16,
            session_seconds: u32::try_from(settings.session_expiry.duration().as_secs()).unwrap_or(u32::MAX),
            clean: false,
            will: None,
        };
        let (link, client) = Link::open(&plan)?;
        // A connection that overflows holds fewer next time; one that does not is followed by one that may hold all.
        self.ahead = settings.receive_maximum;
        let (give, acknowledged) = (client.clone(), self.acknowledged.clone());
        let acknowledge = move |id| {
            let given = give.ack(id);
            acknowledged.fetch_or(given, Ordering::Relaxed);
            given
        };
        self.window = Arc::new(Window::new(Box::new(acknowledge) as Give));
        (self.overflowed, self.cost) = (false, (0, 0));
        self.door.state.generation.fetch_add(1, Ordering::Relaxed);
        Ok((link, client))
    }

    fn connected(&mut self, session_present: bool) {
        let door = &self.door;
        let generation = door.state.generation.load(Ordering::Relaxed);
        if self.session.connected(&door.settings.connection, generation, session_present) {
            door.state.sessions_lost.fetch_add(1, Ordering::Relaxed);
            door.metrics.sessions_lost.inc();
        }
    }

    fn subscribed(&mut self) {
        self.subscribed = true;
        self.door.state.connected.store(true, Ordering::Relaxed);
        self.door.metrics.connected.set(1);
    }

    fn troubled(&mut self, trouble: Option<&str>) {
        *self.door.state.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble.map(str::to_owned);
    }

    fn take(&mut self, message: Message, client: &Client) {
        let overflowed = self.overflowed;
        self.read(message, client);
        if self.overflowed && !overflowed {
            self.ahead = self.fitting();
            tracing::warn!(
                ahead = self.ahead,
                "producer.max_buffer is used up: the MQTT broker keeps what comes until the log has taken what is here"
            );
        }
    }

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.window.changed)
    }

    /// A message was given up, or all is acknowledged after the budget was used up: the broker has to send again.
    fn is_through(&self) -> bool {
        self.window.has_lost() || (self.overflowed && self.window.len() == 0)
    }

    fn turned(&mut self) {
        self.window.retry();
        self.door.state.unacknowledged.store(self.window.len() as u64, Ordering::Relaxed);
    }

    /// A backlog may overflow before the subscription is answered: what was acknowledged until then is progress all the same. A connection
    /// whose messages were all left to the broker is none: without a pause that grows, the broker would send all of them again at once, for
    /// as long as the log takes nothing.
    fn ended(&mut self) -> bool {
        self.door.state.connected.store(false, Ordering::Relaxed);
        self.door.metrics.connected.set(0);
        self.acknowledged.load(Ordering::Relaxed) || (self.subscribed && !self.is_through())
    }
}

impl Visitor {
    fn new(door: MqttDoor) -> Self {
        let nobody = Window::new(Box::new(|_| true) as Give);
        Self {
            ahead: door.settings.receive_maximum,
            door,
            session: Session::default(),
            subscribed: false,
            acknowledged: Arc::default(),
            window: Arc::new(nobody),
            overflowed: false,
            cost: (0, 0),
        }
    }

    fn read(&mut self, message: Message, client: &Client) {
        let metrics = &self.door.metrics;
        metrics.messages.with_label_values(&["mqtt"]).inc();
        if self.overflowed && message.id.is_some() {
            return;
        }
        let ticket = message.id.map(|id| self.window.open(id));
        if message.retained && !self.door.settings.keep_retained {
            metrics.dropped.with_label_values(&["retained"]).inc();
            self.settle(ticket);
            return;
        }
        let now = chrono::Utc::now().timestamp_millis();
        let outcome = match std::str::from_utf8(&message.topic) {
            Ok(topic) => self.door.reader.read(topic, &message.payload, now),
            Err(_) => crate::payload::bad_topic(&message.topic, &message.payload),
        };
        metrics.no_numbers(outcome.no_numbers);
        for topic in outcome.rebirths {
            tracing::info!(topic, "asking a Sparkplug node for its births");
            if !client.publish(&topic, Bytes::from(sparkplug::rebirth(now)), false, false) {
                tracing::debug!(topic, "the request for births could not be queued");
            }
        }
        self.feed(message.payload.len(), outcome.contents, ticket);
    }

    fn feed(&mut self, payload: usize, contents: Vec<Content>, ticket: Option<u64>) {
        let weight = Feeder::weight(payload, &contents);
        self.cost = (self.cost.0 + weight, self.cost.1 + 1);
        let Some(hold) = self.door.feeder.try_hold(weight) else {
            self.door.metrics.dropped.with_label_values(&[if ticket.is_some() { "deferred" } else { "qos0_full" }]).inc();
            if ticket.is_some() {
                // Its slot is never settled; those before it are, and then a new connection brings it again.
                self.overflow();
            }
            return;
        };
        let window = self.window.clone();
        self.door.feeder.push(contents, hold, move |whole| {
            if let Some(ticket) = ticket {
                window.settle(ticket, whole);
            }
        });
    }

    fn settle(&self, ticket: Option<u64>) {
        if let Some(ticket) = ticket {
            self.window.settle(ticket, true);
        }
    }

    /// How many messages like those of this connection the budget has room for: a broker that keeps to it (MQTT 5) causes no more overflows.
    fn fitting(&self) -> u16 {
        let room = self.door.feeder.room_for(self.cost.0 / self.cost.1.max(1));
        u16::try_from(room).unwrap_or(u16::MAX).clamp(1, self.door.settings.receive_maximum.max(1))
    }

    fn overflow(&mut self) {
        self.overflowed = true;
        self.window.forget_last();
        if self.window.len() == 0 {
            self.window.changed.notify_one();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use common::settings::Payload;
    use prometheus::Registry;

    use super::*;
    use crate::intake::Intake;
    use crate::source::Source as _;

    /// A visitor before a log that takes nothing unless told to; no broker is asked.
    fn visitor(max_buffer: u64) -> (Intake, Visitor) {
        let (intake, feeder) = Intake::new(max_buffer, "test".into());
        let mut settings = Mqtt::default();
        settings.connection.url = Some("mqtt://127.0.0.1:1883".into());
        let reader = Arc::new(Reader::new(&Payload::default()).unwrap());
        let metrics = Doors::register(&Registry::new()).unwrap();
        (intake, Visitor::new(MqttDoor::new(settings, reader, feeder, metrics)))
    }

    fn message(id: u16) -> Message {
        Message { topic: Bytes::from_static(b"sensors/p"), payload: Bytes::from_static(b"1"), id: Some(id), retained: false }
    }

    #[test]
    fn a_connection_whose_messages_were_all_given_up_was_of_no_use() {
        let (mut intake, mut visitor) = visitor(1 << 20);
        intake.close();
        let (_link, client) = visitor.open().unwrap();
        visitor.subscribed();
        visitor.take(message(1), &client);
        assert!(visitor.is_through() && !visitor.ended());

        intake.reopen();
        let (_link, client) = visitor.open().unwrap();
        visitor.subscribed();
        visitor.take(message(1), &client);
        let mut taken = Vec::new();
        intake.next(Duration::ZERO, &mut taken).unwrap();
        taken.remove(0).ack.unwrap().give();
        // One that got something into the log was of use, also when what came after it was given up.
        intake.close();
        visitor.take(message(2), &client);
        assert!(visitor.is_through() && visitor.ended());
    }

    #[test]
    fn a_connection_without_messages_was_of_use_when_it_was_subscribed() {
        let (_intake, mut visitor) = visitor(1 << 20);
        let _open = visitor.open().unwrap();
        assert!(!visitor.ended());
        visitor.subscribed();
        assert!(visitor.ended());
        let _open = visitor.open().unwrap();
        assert!(!visitor.ended());
    }

    #[test]
    fn a_connection_that_found_no_room_at_all_was_of_no_use() {
        let (_intake, mut visitor) = visitor(1 << 20);
        let all = visitor.door.feeder.try_hold(1 << 20).unwrap();
        let (_link, client) = visitor.open().unwrap();
        visitor.subscribed();
        visitor.take(message(1), &client);
        assert!(visitor.is_through() && !visitor.ended());
        drop(all);
    }
}
