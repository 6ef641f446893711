//! What devices have to do with each other: sessions, subscriptions, retained messages.
//!
//! All of it lives in memory and is bounded. Readings do not: they are in the log before their sender hears of it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::mqttbytes::valid_filter;
use tokio::sync::mpsc::UnboundedSender;

use super::wire::{Farewell, Filter, Outgoing, Publish, Qos, Retained};

/// Messages that wait for one subscriber; beyond it the oldest goes.
const MAX_QUEUE: usize = 1_000;
/// Bytes of the messages that wait for one subscriber.
const MAX_QUEUE_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of the messages that wait for all subscribers.
const MAX_QUEUES_BYTES: u64 = 64 * 1024 * 1024;
/// What a waiting message takes beside its topic and payload.
const OVERHEAD: usize = 128;
/// Messages of quality of service 1 that a subscriber may have without having acknowledged them.
const MAX_IN_FLIGHT: usize = 100;
const MAX_RETAINED: usize = 10_000;
const MAX_RETAINED_BYTES: usize = 64 * 1024 * 1024;
const MAX_SUBSCRIPTIONS: usize = 1_000;
/// Sessions of devices that are away.
const MAX_SESSIONS: usize = 100_000;

/// Shared by all connections.
#[derive(Debug, Default)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// Messages for subscribers that were given up because their queue was full.
    dropped: AtomicU64,
    /// Bytes that wait for all subscribers.
    all: Arc<AtomicU64>,
}

/// Bytes of some of a subscriber's messages; they are counted for all of them, too, until they or the session are gone.
#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl Held {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a connection has not written yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    packets: AtomicU64,
    bytes: AtomicU64,
    all: Arc<AtomicU64>,
}

impl Backlog {
    /// Queues a packet for the connection's writer, which takes it off with [`Backlog::done`].
    pub(super) fn queue(&self, packets: &UnboundedSender<Outgoing>, packet: Outgoing) {
        let bytes = Self::bytes_of(&packet);
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_add(bytes, Ordering::Relaxed);
        if packets.send(packet).is_err() {
            tracing::trace!("a packet for a connection that is gone");
            self.done(1, bytes);
        }
    }

    /// So many packets are written, or given up with their connection.
    pub(super) fn done(&self, packets: u64, bytes: u64) {
        self.packets.fetch_sub(packets, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes_of(packet: &Outgoing) -> u64 {
        if let Outgoing::Publish(publish) = packet { weight(publish) } else { 0 }
    }
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<String, Session>,
    /// Filters without wildcards, and who has them.
    exact: HashMap<String, HashSet<String>>,
    /// Clients that have a filter with wildcards.
    wild: HashSet<String>,
    retained: BTreeMap<String, (Bytes, Qos)>,
    retained_bytes: usize,
    /// Counts the connections.
    connections: u64,
    /// Counts the messages of quality of service 2.
    messages: u64,
}

#[derive(Debug, Default)]
struct Session {
    filters: HashMap<String, (Qos, bool)>,
    link: Option<Link>,
    queue: VecDeque<Publish>,
    queued: Held,
    in_flight: BTreeMap<u16, Publish>,
    unacknowledged: Held,
    last_id: u16,
    receive_maximum: usize,
    /// Messages of quality of service 2 that are not yet released.
    inbound: HashMap<u16, Inbound>,
    expiry: Duration,
    /// When the session of a device that is away ends.
    ends: Option<Instant>,
}

/// What became of a message of quality of service 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inbound {
    /// On its way to the log. The number tells it from others with the same identifier: of a session that is over, or of a connection
    /// whose message came again.
    OnItsWay(u64),
    /// In the log.
    Received,
}

/// A session's connection.
#[derive(Debug)]
struct Link {
    connection: u64,
    packets: UnboundedSender<Outgoing>,
    backlog: Arc<Backlog>,
}

/// What a connection gets when it begins.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) connection: u64,
    pub(super) session_present: bool,
}

/// How a connection begins.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) client_id: String,
    pub(super) clean: bool,
    pub(super) expiry: Duration,
    pub(super) receive_maximum: u16,
    pub(super) packets: UnboundedSender<Outgoing>,
    pub(super) backlog: Arc<Backlog>,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Bytes that wait for subscribers.
    pub(super) fn waiting(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// For a new connection.
    pub(super) fn backlog(&self) -> Arc<Backlog> {
        Arc::new(Backlog { all: self.all.clone(), ..Backlog::default() })
    }

    /// A connection begins. An older one of the same client is told to go.
    pub(super) fn enter(&self, arrival: Arrival, now: Instant) -> Entry {
        let mut state = self.state();
        state.connections += 1;
        let connection = state.connections;
        state.tidy(now);
        let Arrival { client_id, clean, expiry, receive_maximum, packets, backlog } = arrival;
        if let Some(link) = state.sessions.get_mut(&client_id).and_then(|session| session.link.take()) {
            send(&link, Outgoing::Disconnect(Farewell::TakenOver));
        }
        let expired = state.sessions.get(&client_id).is_some_and(|session| session.ends.is_some_and(|ends| ends <= now));
        if clean || expired {
            state.forget(&client_id);
        }
        let session_present = state.sessions.contains_key(&client_id);
        let session = state.sessions.entry(client_id).or_insert_with(|| Session::new(&self.all));
        session.link = Some(Link { connection, packets, backlog });
        session.expiry = expiry;
        session.ends = None;
        session.receive_maximum = usize::from(receive_maximum).min(MAX_IN_FLIGHT);
        Entry { connection, session_present }
    }

    /// Sends again what the session's earlier connection had not acknowledged, and what has come since; after the CONNACK.
    pub(super) fn resume(&self, client_id: &str) {
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(client_id) else { return };
        if let Some(link) = &session.link {
            for publish in session.in_flight.values() {
                send(link, Outgoing::Publish(Publish { dup: true, ..publish.clone() }));
            }
        }
        session.flow();
    }

    /// A connection is over.
    pub(super) fn leave(&self, client_id: &str, connection: u64, now: Instant) {
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(client_id) else { return };
        if session.link.as_ref().is_none_or(|link| link.connection != connection) {
            return;
        }
        session.link = None;
        session.ends = now.checked_add(session.expiry);
        if session.expiry.is_zero() || state.sessions.len() > MAX_SESSIONS {
            state.forget(client_id);
        }
    }

    /// Returns what was granted, at most quality of service 1.
    pub(super) fn subscribe(&self, client_id: &str, filters: &[Filter]) -> Vec<Option<Qos>> {
        let mut state = self.state();
        filters.iter().map(|filter| state.subscribe(client_id, filter)).collect()
    }

    /// Sends what is retained for new subscriptions; after the SUBACK.
    pub(super) fn send_retained(&self, client_id: &str, filters: &[Filter], granted: &[Option<Qos>], new: &[bool]) {
        let mut state = self.state();
        for ((filter, granted), new) in filters.iter().zip(granted).zip(new) {
            let wanted = match filter.retained {
                Retained::Always => true,
                Retained::WhenNew => *new,
                Retained::Never => false,
            };
            let Some(granted) = granted.filter(|_| wanted) else { continue };
            let found: Vec<Publish> = state
                .retained
                .iter()
                .filter(|(topic, _)| fits(topic, &filter.path))
                .map(|(topic, (payload, qos))| Publish {
                    topic: topic.clone(),
                    payload: payload.clone(),
                    qos: (*qos).min(granted),
                    retain: true,
                    dup: false,
                    id: 0,
                })
                .collect();
            if let Some(session) = state.sessions.get_mut(client_id) {
                for publish in found {
                    session.offer(publish, &self.dropped);
                }
            }
        }
    }

    pub(super) fn is_subscribed(&self, client_id: &str, filter: &str) -> bool {
        self.state().sessions.get(client_id).is_some_and(|session| session.filters.contains_key(filter))
    }

    pub(super) fn unsubscribe(&self, client_id: &str, filters: &[String]) {
        let mut state = self.state();
        for filter in filters {
            state.unsubscribe(client_id, filter);
        }
    }

    /// Hands a message to its subscribers, and keeps it when it is to be retained.
    pub(super) fn route(&self, from: &str, publish: &Publish) {
        let mut state = self.state();
        if publish.retain {
            state.retain(publish);
        }
        if state.exact.is_empty() && state.wild.is_empty() {
            return;
        }
        let mut to: Vec<(String, Qos)> = Vec::new();
        let exact = state.exact.get(&publish.topic).into_iter().flatten();
        let wild = state.wild.iter();
        let mut seen = HashSet::new();
        for client in exact.chain(wild) {
            if !seen.insert(client) {
                continue;
            }
            let Some(session) = state.sessions.get(client) else { continue };
            let best = session
                .filters
                .iter()
                .filter(|(filter, (_, no_local))| fits(&publish.topic, filter) && !(*no_local && client == from))
                .map(|(_, (qos, _))| *qos)
                .max();
            if let Some(qos) = best {
                to.push((client.clone(), qos));
            }
        }
        if to.is_empty() {
            return;
        }
        // A copy, once for all: the payload is a piece of a larger read buffer.
        let payload = Bytes::copy_from_slice(&publish.payload);
        for (client, qos) in to {
            if let Some(session) = state.sessions.get_mut(&client) {
                let (topic, payload) = (publish.topic.clone(), payload.clone());
                let publish = Publish { topic, payload, qos: qos.min(publish.qos).min(Qos::AtLeastOnce), retain: false, dup: false, id: 0 };
                session.offer(publish, &self.dropped);
            }
        }
    }

    /// A subscriber has a message.
    pub(super) fn acknowledged(&self, client_id: &str, connection: u64, id: u16) {
        if let Some(session) = self.state().linked(client_id, connection) {
            if let Some(publish) = session.in_flight.remove(&id) {
                session.unacknowledged.sub(weight(&publish));
            }
            session.flow();
        }
    }

    /// A message of quality of service 2 comes: whether the log has it already and only its release is missing, else its number for
    /// [`Hub::received`]. `None`: the session is another connection's by now, or over.
    pub(super) fn inbound(&self, client_id: &str, connection: u64, id: u16) -> Option<Inbound> {
        let mut state = self.state();
        state.messages += 1;
        let number = state.messages;
        let session = state.linked(client_id, connection)?;
        if session.inbound.get(&id) == Some(&Inbound::Received) {
            return Some(Inbound::Received);
        }
        session.inbound.insert(id, Inbound::OnItsWay(number));
        Some(Inbound::OnItsWay(number))
    }

    /// The log has a message of quality of service 2. Only the session that it came in may know of it: another message of the same
    /// identifier would be acknowledged and never read.
    pub(super) fn received(&self, client_id: &str, id: u16, number: u64) {
        if let Some(inbound) = self.state().sessions.get_mut(client_id).and_then(|session| session.inbound.get_mut(&id))
            && *inbound == Inbound::OnItsWay(number)
        {
            *inbound = Inbound::Received;
        }
    }

    pub(super) fn released(&self, client_id: &str, connection: u64, id: u16) {
        if let Some(session) = self.state().linked(client_id, connection) {
            session.inbound.remove(&id);
        }
    }
}

impl State {
    /// A client's session, when it is still this connection's.
    fn linked(&mut self, client_id: &str, connection: u64) -> Option<&mut Session> {
        let session = self.sessions.get_mut(client_id)?;
        session.link.as_ref().is_some_and(|link| link.connection == connection).then_some(session)
    }

    /// Ends the sessions whose time is up; looked for when there are many.
    fn tidy(&mut self, now: Instant) {
        if !self.connections.is_multiple_of(256) {
            return;
        }
        let over: Vec<String> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.link.is_none() && session.ends.is_some_and(|ends| ends <= now))
            .map(|(client, _)| client.clone())
            .collect();
        for client in over {
            self.forget(&client);
        }
    }

    fn forget(&mut self, client_id: &str) {
        if let Some(session) = self.sessions.remove(client_id) {
            for filter in session.filters.keys() {
                if let Some(clients) = self.exact.get_mut(filter) {
                    clients.remove(client_id);
                    if clients.is_empty() {
                        self.exact.remove(filter);
                    }
                }
            }
            self.wild.remove(client_id);
        }
    }

    fn subscribe(&mut self, client_id: &str, filter: &Filter) -> Option<Qos> {
        // A shared subscription would have to divide what is in flight between its members.
        if !valid_filter(&filter.path) || filter.path.starts_with("$share/") {
            return None;
        }
        let session = self.sessions.get_mut(client_id)?;
        if session.filters.len() >= MAX_SUBSCRIPTIONS && !session.filters.contains_key(&filter.path) {
            return None;
        }
        let granted = filter.qos.min(Qos::AtLeastOnce);
        session.filters.insert(filter.path.clone(), (granted, filter.no_local));
        if filter.path.contains(['+', '#']) {
            self.wild.insert(client_id.to_owned());
        } else {
            self.exact.entry(filter.path.clone()).or_default().insert(client_id.to_owned());
        }
        Some(granted)
    }

    fn unsubscribe(&mut self, client_id: &str, filter: &str) {
        let Some(session) = self.sessions.get_mut(client_id) else { return };
        session.filters.remove(filter);
        if !session.filters.keys().any(|filter| filter.contains(['+', '#'])) {
            self.wild.remove(client_id);
        }
        if let Some(clients) = self.exact.get_mut(filter) {
            clients.remove(client_id);
            if clients.is_empty() {
                self.exact.remove(filter);
            }
        }
    }

    fn retain(&mut self, publish: &Publish) {
        if let Some((old, _)) = self.retained.remove(&publish.topic) {
            self.retained_bytes -= old.len();
        }
        let room = self.retained.len() < MAX_RETAINED && self.retained_bytes + publish.payload.len() <= MAX_RETAINED_BYTES;
        // An empty payload takes the retained message back.
        if publish.payload.is_empty() {
            return;
        }
        if !room {
            tracing::warn!(topic = publish.topic, "no room for another retained message");
            return;
        }
        self.retained_bytes += publish.payload.len();
        // A copy: the payload is a piece of a larger read buffer.
        self.retained.insert(publish.topic.clone(), (Bytes::copy_from_slice(&publish.payload), publish.qos));
    }
}

impl Session {
    fn new(all: &Arc<AtomicU64>) -> Self {
        let held = || Held { bytes: 0, all: all.clone() };
        Self { queued: held(), unacknowledged: held(), ..Self::default() }
    }

    fn offer(&mut self, publish: Publish, dropped: &AtomicU64) {
        let away = self.link.is_none();
        let bytes = weight(&publish);
        let (packets, unwritten) = self
            .link
            .as_ref()
            .map_or((0, 0), |link| (link.backlog.packets.load(Ordering::Relaxed), link.backlog.bytes.load(Ordering::Relaxed)));
        // What is not acknowledged may be what is not written, and is the same memory then.
        let sent = self.unacknowledged.bytes.max(unwritten) + bytes;
        let all = self.queued.all.load(Ordering::Relaxed) + bytes;
        if publish.qos == Qos::AtMostOnce {
            let room = packets <= MAX_QUEUE as u64 && self.queued.bytes + sent <= MAX_QUEUE_BYTES && all <= MAX_QUEUES_BYTES;
            match &self.link {
                Some(link) if room => send(link, Outgoing::Publish(publish)),
                Some(_) => {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
                None => {}
            }
            return;
        }
        if away && self.expiry.is_zero() {
            return;
        }
        // Older messages go only where that makes room for this one.
        if sent > MAX_QUEUE_BYTES || all.saturating_sub(self.queued.bytes) > MAX_QUEUES_BYTES {
            dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = self.queued.bytes;
        while self.queue.len() >= MAX_QUEUE
            || self.queued.bytes + sent > MAX_QUEUE_BYTES
            || all.saturating_sub(before - self.queued.bytes) > MAX_QUEUES_BYTES
        {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.queued.sub(weight(&oldest));
            dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.queued.add(bytes);
        self.queue.push_back(publish);
        self.flow();
    }

    /// Sends what waits, as far as the subscriber allows.
    fn flow(&mut self) {
        while self.in_flight.len() < self.receive_maximum.max(1)
            && self.link.is_some()
            && let Some(mut publish) = self.queue.pop_front()
        {
            publish.id = self.free_id();
            self.queued.sub(weight(&publish));
            self.unacknowledged.add(weight(&publish));
            if let Some(link) = &self.link {
                send(link, Outgoing::Publish(publish.clone()));
            }
            self.in_flight.insert(publish.id, publish);
        }
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1).max(1);
            if !self.in_flight.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

/// Whether a topic fits a filter; a wildcard at the beginning does not take topics that begin with `$`.
fn fits(topic: &str, filter: &str) -> bool {
    // The codec's own function takes the first byte of a topic for a letter, and panics at others.
    let mut levels = topic.split('/');
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    for level in filter.split('/') {
        match (level, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(text)) if level == text => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

fn weight(publish: &Publish) -> u64 {
    (publish.topic.len() + publish.payload.len() + OVERHEAD) as u64
}

fn send(link: &Link, packet: Outgoing) {
    link.backlog.queue(&link.packets, packet);
}

#[cfg(test)]
mod tests;
