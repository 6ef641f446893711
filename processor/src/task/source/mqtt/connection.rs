//! The task that reads the broker: connects, and connects again, until it is told to stop.

use std::sync::Arc;

use common::Shutdown;
use common::mqtt::keep::{Reader, keep};
use common::mqtt::link::{Client, Link, Message, Plan};
use common::mqtt::session::Session;
use common::settings::{MqttConnection, MqttVersion};
use prometheus::IntCounterVec;
use tokio::sync::Notify;

use super::super::super::status::now_ms;
use super::inbox::{Arrived, Inbox, Receipt};
use crate::query::file::Mqtt;

/// Seconds for which the broker keeps the session of a query whose state goes with the run: over a broken connection, and not much longer.
const GUEST: u32 = 60;

pub(super) struct Connection {
    query: String,
    settings: Mqtt,
    connection: MqttConnection,
    durable: bool,
    inbox: Arc<Inbox>,
    dropped: IntCounterVec,
    session: Session,
    /// The broker has answered in this run.
    met: bool,
    generation: u64,
    /// There is no room: what comes is left to the broker, which sends it again to the next connection.
    overflowed: bool,
}

impl Connection {
    pub(super) fn new(query: &str, settings: Mqtt, durable: bool, inbox: Arc<Inbox>, dropped: IntCounterVec) -> Self {
        Self {
            query: query.to_owned(),
            connection: settings.connection(),
            settings,
            durable,
            inbox,
            dropped,
            session: Session::default(),
            met: false,
            generation: 0,
            overflowed: false,
        }
    }

    /// Serves until `stop`, then says farewell after the last acknowledgement.
    pub(super) async fn run(mut self, stop: &Shutdown) {
        keep(&mut self, stop).await;
    }

    /// What the next connection is to be.
    fn plan(&self) -> Plan<'_> {
        let expiry = u32::try_from(self.settings.session_expiry.duration().as_secs()).unwrap_or(u32::MAX);
        Plan {
            connection: &self.connection,
            client_id: &self.connection.client_id,
            receive_maximum: self.settings.receive_maximum,
            send_maximum: 1,
            session_seconds: if self.durable { expiry } else { expiry.min(GUEST) },
            // With 3.1.1 a session that is not clean is kept for ever.
            clean: !self.durable && (!self.met || self.connection.version == MqttVersion::V3),
            will: None,
        }
    }

    fn count_dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[&self.query, reason]).inc();
    }
}

impl Reader for Connection {
    fn query(&self) -> Option<&str> {
        Some(&self.query)
    }

    fn settings(&self) -> &MqttConnection {
        &self.connection
    }

    fn topics(&self) -> (Vec<String>, bool) {
        (self.settings.topics.clone(), self.settings.keep_retained)
    }

    fn open(&mut self) -> Result<(Link, Client), String> {
        let (link, client) = Link::open(&self.plan())?;
        self.generation = self.inbox.begin(client.clone());
        self.overflowed = false;
        Ok((link, client))
    }

    fn connected(&mut self, session_present: bool) {
        if session_present {
            self.inbox.comes_again();
        }
        self.met = true;
        self.session.connected(&self.connection, self.generation, session_present);
    }

    fn subscribed(&mut self) {
        self.inbox.subscribed();
        tracing::info!(query = self.query, topics = ?self.settings.topics, "subscribed");
    }

    fn take(&mut self, message: Message, client: &Client) {
        if self.overflowed && message.id.is_some() {
            return;
        }
        if message.retained && !self.settings.keep_retained {
            self.count_dropped("retained");
            if let Some(id) = message.id
                && !client.ack(id)
            {
                tracing::debug!("a retained message could not be acknowledged; it comes again");
            }
            return;
        }
        let generation = self.generation;
        let receipt = message.id.map(|id| Receipt { generation, id });
        let arrived = Arrived { received: now_ms(), topic: message.topic, payload: message.payload, receipt };
        if self.inbox.push(arrived) {
            return;
        }
        match receipt {
            Some(_) => {
                self.overflowed = true;
                self.count_dropped("deferred");
                tracing::warn!(query = self.query, "too much waits for the query: the MQTT broker keeps what comes until it is done");
            }
            None => self.count_dropped("qos0_full"),
        }
    }

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.inbox.emptied)
    }

    /// Everything that had room is acknowledged: a new connection brings the rest.
    fn is_through(&self) -> bool {
        self.overflowed && self.inbox.is_settled()
    }

    fn ended(&mut self) -> bool {
        let served = self.inbox.is_connected();
        self.inbox.end();
        served
    }
}
