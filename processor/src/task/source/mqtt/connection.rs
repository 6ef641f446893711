//! The task that reads the broker: connects, and connects again, until it is told to stop.

use std::pin::pin;
use std::sync::Arc;

use common::Shutdown;
use common::mqtt::link::{Client, Event, Link, Message, Plan};
use common::mqtt::session::{Backoff, Session, longest_silence};
use common::settings::{MqttConnection, MqttVersion};
use prometheus::IntCounterVec;

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
    leaving: bool,
    trouble: Option<String>,
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
            leaving: false,
            trouble: None,
        }
    }

    /// Serves until `stop`, then says farewell after the last acknowledgement.
    pub(super) async fn run(mut self, stop: &Shutdown) {
        let mut backoff = Backoff::default();
        while !stop.is_set() {
            let ended = self.serve(stop).await;
            let served = self.inbox.is_connected();
            self.inbox.end();
            match ended {
                _ if stop.is_set() => return,
                Ok(()) => tracing::info!(query = self.query, "connecting to the MQTT broker anew, so that it sends again what had no room"),
                Err(trouble) => self.say(trouble),
            }
            if tokio::time::timeout(backoff.after(served), stop.wait()).await.is_ok() {
                return;
            }
        }
    }

    /// The same trouble is said once.
    fn say(&mut self, trouble: String) {
        let url = self.connection.url.as_deref().unwrap_or_default();
        if self.trouble.as_ref() == Some(&trouble) {
            tracing::debug!(query = self.query, url, trouble, "no MQTT broker yet");
        } else {
            tracing::warn!(query = self.query, url, trouble, "no connection to the MQTT broker; trying again");
            self.trouble = Some(trouble);
        }
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

    /// One connection from its beginning to its end.
    async fn serve(&mut self, stop: &Shutdown) -> Result<(), String> {
        let (mut link, client) = Link::open(&self.plan())?;
        self.generation = self.inbox.begin(client.clone());
        (self.overflowed, self.leaving) = (false, false);
        let (inbox, silence) = (Arc::clone(&self.inbox), longest_silence(&self.connection));
        loop {
            let event = {
                let mut next = pin!(tokio::time::timeout(silence, link.next()));
                loop {
                    tokio::select! {
                        biased;
                        event = &mut next => break event,
                        () = stop.wait(), if !self.leaving => self.leave(&client),
                        () = inbox.emptied.notified(), if self.overflowed && !self.leaving => self.look(&client),
                    }
                }
            };
            match event {
                Err(_elapsed) => return Err(format!("no sign of life from the MQTT broker for {silence:?}")),
                Ok(Err(_)) if self.leaving => return Ok(()),
                Ok(Err(trouble)) => return Err(trouble),
                Ok(Ok(Event::Closed)) => return Ok(()),
                Ok(Ok(event)) => self.handle(event, &client)?,
            }
            if self.overflowed && !self.leaving {
                self.look(&client);
            }
        }
    }

    fn leave(&mut self, client: &Client) {
        self.leaving = true;
        client.disconnect();
    }

    /// Everything that had room is acknowledged: a new connection brings the rest.
    fn look(&mut self, client: &Client) {
        if self.inbox.is_settled() {
            self.leave(client);
        }
    }

    fn handle(&mut self, event: Event, client: &Client) -> Result<(), String> {
        match event {
            Event::Connected { session_present } => {
                if session_present {
                    self.inbox.comes_again();
                }
                self.met = true;
                self.session.connected(&self.connection, self.generation, session_present);
                // Also with a session: the query may name other topics than last time.
                if !client.subscribe(&self.settings.topics, self.settings.keep_retained) {
                    return Err("the subscriptions cannot be sent".into());
                }
            }
            Event::Subscribed { refused: 0 } => {
                self.trouble = None;
                self.inbox.subscribed();
                tracing::info!(query = self.query, topics = ?self.settings.topics, "subscribed");
            }
            Event::Subscribed { refused } => {
                return Err(format!(
                    "the broker refused {refused} of the subscriptions {:?}; give this user the right to read them",
                    self.settings.topics
                ));
            }
            Event::Message(message) if !self.leaving => self.take(message, client),
            _ => {}
        }
        Ok(())
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

    fn count_dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[&self.query, reason]).inc();
    }
}
