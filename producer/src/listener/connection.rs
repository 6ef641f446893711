//! One device's connection.
//!
//! The reader takes packets, the writer sends them; they share a queue. The acknowledgement of a reading comes into that queue when the log
//! has it, from whichever thread knows it first, and in the order in which the readings came. A device that is ahead by more than it may
//! be, or a log that is behind, stops the reader: the device's own socket then holds what it sends. A packet takes its share of the
//! buffer when its header is known, before the rest of it is read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Shared;
use super::hub::{Arrival, Backlog, Inbound};
use super::wire::{self, Connect, Farewell, Incoming, Malformed, Outgoing, Publish, Qos, Refusal, Version};
use crate::intake::{Feeder, Hold};
use crate::mqtt::window::Window;
use crate::source::Content;

/// A device that connects says who it is within this time.
const CONNECT: Duration = Duration::from_secs(10);
/// A device takes what is written to it within this time.
const WRITE: Duration = Duration::from_secs(30);
/// A will that is a reading waits for room in the buffer for this long.
const WILL: Duration = Duration::from_secs(1);
/// Packets are written together up to about this many bytes.
const WRITE_AT_ONCE: usize = 64 * 1024;
/// The rest of a packet that has its share of the buffer does not stop coming for longer than this: others wait for that share.
const REST: Duration = Duration::from_secs(30);
/// Bytes that a connection reads without a share, and the largest packet other than a message that needs none.
const READ: usize = 4096;
/// Bytes that are read at a time into a packet that has its share.
const READ_MORE: usize = 64 * 1024;
/// What a message with one reading takes beside its packet: seldom does it have to ask for more when it is taken apart.
const ONE_READING: usize = 512;
/// A first packet is not larger than this.
const MAX_CONNECT: usize = 128 * 1024;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The device said farewell; its will is not published.
    Farewell,
    /// The device is gone, or asked for its will.
    Gone,
    /// We ended it.
    Ours(Farewell),
}

/// A message that is to be acknowledged; how depends on its quality of service.
type Owed = (u16, Qos);

type Acks = Window<Box<dyn Fn(Owed) -> bool + Send + Sync>, Owed>;

struct Session<'a> {
    shared: &'a Arc<Shared>,
    client_id: String,
    connection: u64,
    version: Version,
    packets: UnboundedSender<Outgoing>,
    backlog: Arc<Backlog>,
    window: Arc<Acks>,
    /// Messages of quality of service 2 on their way to the log.
    on_their_way: Vec<u16>,
}

/// Serves one connection to its end. `user` is what the device's certificate says.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    shared: Arc<Shared>,
    stream: S,
    user: Option<String>,
    stop: Shutdown,
) {
    let (mut reader, writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::with_capacity(READ);
    let (packets, queue) = unbounded_channel();
    let backlog = shared.hub.backlog();
    let begin = async {
        let version = loop {
            match wire::version(&buffer) {
                Ok(Some(version)) => break version,
                Ok(None) => fill(&mut reader, &mut buffer, READ).await?,
                Err(Malformed::Version) => return Err("version"),
                Err(_) => return Err("malformed"),
            }
        };
        loop {
            match wire::read(version, &mut buffer, MAX_CONNECT) {
                Ok(Some(Incoming::Connect(connect))) => return Ok((version, connect)),
                Ok(Some(_)) | Err(_) => return Err("malformed"),
                Ok(None) => fill(&mut reader, &mut buffer, READ).await?,
            }
        }
    };
    let begun = tokio::select! {
        begun = timeout(CONNECT, begin) => begun.unwrap_or(Err("connect_timeout")),
        () = stop.wait() => return,
    };
    let (version, connect) = match begun {
        Ok(begun) => begun,
        Err(reason) => return shared.metrics.refused.with_label_values(&[reason]).inc(),
    };
    let writing = tokio::spawn(write_all(writer, queue, version, backlog.clone()));
    if let Some(refusal) = refusal(&shared, &connect, user.as_deref()) {
        shared.metrics.refused.with_label_values(&["not_authorized"]).inc();
        tracing::warn!(client_id = connect.client_id, "a device was refused: its name or password is wrong");
        backlog.queue(&packets, Outgoing::Refused(refusal));
    } else {
        run(&shared, &mut reader, &mut buffer, (version, connect), (packets.clone(), backlog.clone()), &stop).await;
    }
    end_writer(writing, packets, &backlog, WRITE).await;
}

/// Waits for the writer, which ends when everything is written and nobody can queue any more. A message on its way to the log still can,
/// and the writer would keep the socket open for it: after `patience` its acknowledgement is not waited for.
async fn end_writer(writing: JoinHandle<()>, packets: UnboundedSender<Outgoing>, backlog: &Backlog, patience: Duration) {
    let late = packets.downgrade();
    drop(packets);
    if timeout(patience, writing).await.is_ok() {
        return;
    }
    tracing::debug!("a device did not take its last packets");
    if let Some(packets) = late.upgrade() {
        // Nothing is written after it.
        backlog.queue(&packets, Outgoing::Disconnect(Farewell::Stopping));
    }
}

fn refusal(shared: &Shared, connect: &Connect, user: Option<&str>) -> Option<Refusal> {
    if connect.client_id.is_empty() && !connect.clean && connect.session_expiry.is_none() {
        return Some(Refusal::BadClientId);
    }
    if connect.client_id.len() > 1024 {
        return Some(Refusal::BadClientId);
    }
    let Some(users) = &shared.users else { return None };
    let known = match &connect.login {
        Some((name, password)) => users.allows(name, password),
        // A certificate that our authority signed says enough.
        None => user.is_some(),
    };
    (!known).then_some(Refusal::NotAuthorized)
}

async fn fill<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut BytesMut, most: usize) -> Result<(), &'static str> {
    buffer.reserve(most);
    // The buffer may have more room than it was asked for, and TLS clears all of the room that it sees.
    match reader.take(most.min(READ_MORE) as u64).read_buf(buffer).await {
        Ok(0) | Err(_) => Err("gone"),
        Ok(_) => Ok(()),
    }
}

/// Writes what is queued, as much at a time as there is; ends with the queue, or when the device takes nothing.
async fn write_all<W: AsyncWrite + Unpin>(mut writer: W, mut queue: UnboundedReceiver<Outgoing>, version: Version, backlog: Arc<Backlog>) {
    let mut batch = Vec::new();
    let mut waiting = VecDeque::new();
    'connection: while queue.recv_many(&mut batch, 1_000).await > 0 {
        waiting.extend(batch.drain(..));
        while !waiting.is_empty() {
            let mut buffer = BytesMut::new();
            let (mut packets, mut bytes, mut last) = (0, 0, false);
            // Not all at once: what is written is there twice.
            while buffer.len() < WRITE_AT_ONCE
                && !last
                && let Some(packet) = waiting.pop_front()
            {
                (packets, bytes) = (packets + 1, bytes + Backlog::bytes_of(&packet));
                last = matches!(packet, Outgoing::Disconnect(_) | Outgoing::Refused(_));
                wire::write(version, packet, &mut buffer);
            }
            let written = timeout(WRITE, async {
                writer.write_all(&buffer).await?;
                writer.flush().await
            });
            let written = matches!(written.await, Ok(Ok(())));
            backlog.done(packets, bytes);
            if last || !written {
                break 'connection;
            }
        }
    }
    // What is left is given up, and counts no more.
    queue.close();
    while let Ok(packet) = queue.try_recv() {
        waiting.push_back(packet);
    }
    backlog.done(waiting.len() as u64, waiting.iter().map(Backlog::bytes_of).sum());
    drop(waiting);
    // Also tells the reader.
    if writer.shutdown().await.is_err() {
        tracing::trace!("the connection was gone already");
    }
}

async fn run<R: AsyncRead + Unpin>(
    shared: &Arc<Shared>,
    reader: &mut R,
    buffer: &mut BytesMut,
    (version, connect): (Version, Connect),
    (packets, backlog): (UnboundedSender<Outgoing>, Arc<Backlog>),
    stop: &Shutdown,
) {
    let assigned = connect.client_id.is_empty().then(|| shared.new_client_id());
    let client_id = assigned.clone().unwrap_or_else(|| connect.client_id.clone());
    let longest = shared.settings.session_expiry.duration();
    let expiry = match connect.session_expiry {
        Some(seconds) => Duration::from_secs(seconds.into()).min(longest),
        None if connect.clean => Duration::ZERO,
        None => longest,
    };
    let arrival = Arrival {
        client_id: client_id.clone(),
        clean: connect.clean,
        expiry,
        receive_maximum: connect.receive_maximum,
        packets: packets.clone(),
        backlog: backlog.clone(),
    };
    let entry = shared.hub.enter(arrival, Instant::now());
    let receive_maximum = shared.settings.receive_maximum;
    backlog.queue(
        &packets,
        Outgoing::ConnAck {
            session_present: entry.session_present,
            receive_maximum,
            max_packet: u32::try_from(shared.settings.max_packet.bytes()).unwrap_or(u32::MAX),
            assigned,
            session_expiry: connect.session_expiry.map(|_| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX)),
        },
    );
    shared.hub.resume(&client_id);
    shared.metrics.devices.inc();
    tracing::debug!(client_id, session_present = entry.session_present, "a device is connected");
    let (acks, pending) = (packets.clone(), backlog.clone());
    let window = Arc::new(Window::new(Box::new(move |(id, qos)| {
        let packet = if qos == Qos::ExactlyOnce { Outgoing::PubRec(id) } else { Outgoing::PubAck(id) };
        pending.queue(&acks, packet);
        true
    }) as Box<dyn Fn(Owed) -> bool + Send + Sync>));
    let connection = entry.connection;
    let mut session = Session { shared, client_id, connection, version, packets, backlog, window, on_their_way: Vec::new() };
    let end = session.read(reader, buffer, connect.keep_alive, stop).await;
    tracing::debug!(client_id = session.client_id, ?end, "a device is gone");
    if let End::Ours(farewell) = end {
        session.backlog.queue(&session.packets, Outgoing::Disconnect(farewell));
    }
    shared.metrics.devices.dec();
    shared.hub.leave(&session.client_id, connection, Instant::now());
    if end != End::Farewell
        && let Some(will) = connect.will
    {
        session.will(will, stop).await;
    }
}

impl Session<'_> {
    async fn read<R: AsyncRead + Unpin>(&mut self, reader: &mut R, buffer: &mut BytesMut, keep_alive: u16, stop: &Shutdown) -> End {
        // One and a half times what the device said, and a year for one that said nothing.
        let patience =
            if keep_alive == 0 { Duration::from_secs(365 * 24 * 3600) } else { Duration::from_millis(u64::from(keep_alive) * 1500) };
        let max = usize::try_from(self.shared.settings.max_packet.bytes()).unwrap_or(usize::MAX);
        let (packets, mut share) = (self.packets.clone(), None);
        loop {
            let announced = match wire::announced(buffer, max) {
                Ok(announced) => announced,
                Err(fault) => return self.malformed(fault),
            };
            if let Some(announced) = announced
                && share.is_none()
                && (announced.publish || announced.whole() > READ)
            {
                share = match self.share(announced.whole() + ONE_READING, stop).await {
                    Ok(share) => Some(share),
                    Err(end) => return end,
                };
            }
            match wire::read(self.version, buffer, max) {
                Ok(Some(packet)) => {
                    if announced.is_some_and(|announced| announced.whole() > READ) {
                        // Or the connection would keep the room of its largest packet.
                        *buffer = BytesMut::from(&buffer[..]);
                    }
                    let at_most_once = matches!(&packet, Incoming::Publish(publish) if publish.qos == Qos::AtMostOnce);
                    let handled = tokio::select! {
                        // What needs no wait is done also when the connection is closed already: a farewell, above all.
                        biased;
                        handled = self.handle(packet, share.take()) => handled,
                        // A message that was not acknowledged comes again, in a connection that may need this one's place.
                        () = packets.closed() => {
                            if at_most_once {
                                self.count_dropped();
                            }
                            return End::Gone;
                        }
                        () = stop.wait() => return End::Ours(Farewell::Stopping),
                    };
                    if let Some(end) = handled {
                        return end;
                    }
                }
                Ok(None) => {
                    let missing = announced.map_or(0, |announced| announced.whole().saturating_sub(buffer.len()));
                    let (most, patience) = if share.is_some() { (missing.max(READ), patience.min(REST)) } else { (READ, patience) };
                    tokio::select! {
                        filled = timeout(patience, fill(reader, buffer, most)) => match filled {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) => return End::Gone,
                            Err(_elapsed) => return self.end("keep_alive", Farewell::KeepAlive),
                        },
                        () = self.window.changed.notified() => if self.window.has_lost() {
                            // The log did not take a message: the device has to send it again.
                            return self.end("not_taken", Farewell::Stopping);
                        },
                        () = self.packets.closed() => return End::Gone,
                        () = stop.wait() => return End::Ours(Farewell::Stopping),
                    }
                }
                Err(fault) => return self.malformed(fault),
            }
        }
    }

    /// Waits for a packet's share of the buffer. Meanwhile nothing is read, so no sign of life is expected either.
    async fn share(&self, bytes: usize, stop: &Shutdown) -> Result<Hold, End> {
        if let Some(share) = self.shared.feeder.try_hold(bytes) {
            return Ok(share);
        }
        // One future, or each change would lose the place in the queue.
        let share = self.shared.feeder.hold(bytes);
        tokio::pin!(share);
        loop {
            tokio::select! {
                share = &mut share => return share.ok_or(End::Ours(Farewell::Stopping)),
                () = self.window.changed.notified() => if self.window.has_lost() {
                    return Err(self.end("not_taken", Farewell::Stopping));
                },
                () = self.packets.closed() => return Err(End::Gone),
                () = stop.wait() => return Err(End::Ours(Farewell::Stopping)),
            }
        }
    }

    fn malformed(&self, fault: Malformed) -> End {
        if fault == Malformed::TooLarge {
            return self.end("too_large", Farewell::TooLarge);
        }
        tracing::warn!(client_id = self.client_id, ?fault, "a device sent what is no MQTT packet");
        self.end("malformed", Farewell::Protocol)
    }

    fn end(&self, reason: &str, farewell: Farewell) -> End {
        self.shared.metrics.refused.with_label_values(&[reason]).inc();
        End::Ours(farewell)
    }

    fn send(&self, packet: Outgoing) {
        self.backlog.queue(&self.packets, packet);
    }

    /// `share`: of the buffer, for the packet; a message keeps it until the log has it.
    async fn handle(&mut self, packet: Incoming, share: Option<Hold>) -> Option<End> {
        let hub = &self.shared.hub;
        match packet {
            Incoming::Publish(publish) => return self.publish(publish, share).await,
            Incoming::PubRel(id) => {
                hub.released(&self.client_id, self.connection, id);
                self.on_their_way.retain(|other| *other != id);
                self.send(Outgoing::PubComp(id));
            }
            Incoming::PubAck(id) => hub.acknowledged(&self.client_id, self.connection, id),
            Incoming::Subscribe { id, filters } => {
                let new: Vec<bool> = filters.iter().map(|filter| !hub.is_subscribed(&self.client_id, &filter.path)).collect();
                let granted = hub.subscribe(&self.client_id, &filters);
                self.send(Outgoing::SubAck { id, granted: granted.clone() });
                hub.send_retained(&self.client_id, &filters, &granted, &new);
            }
            Incoming::Unsubscribe { id, filters } => {
                hub.unsubscribe(&self.client_id, &filters);
                self.send(Outgoing::UnsubAck { id, count: filters.len() });
            }
            Incoming::Ping => self.send(Outgoing::Pong),
            Incoming::Disconnect { will } => return Some(if will { End::Gone } else { End::Farewell }),
            Incoming::Connect(_) => return Some(self.end("malformed", Farewell::Protocol)),
            Incoming::Ignored => {}
        }
        None
    }

    async fn publish(&mut self, publish: Publish, share: Option<Hold>) -> Option<End> {
        let bad = publish.topic.is_empty() || publish.topic.starts_with('$') || publish.topic.contains(['+', '#', '\0']);
        if bad || (publish.qos != Qos::AtMostOnce && publish.id == 0) {
            return Some(self.end("malformed", Farewell::Protocol));
        }
        let mut number = None;
        if publish.qos == Qos::ExactlyOnce {
            // What came in this connection is acknowledged here, when the log has it.
            if self.on_their_way.contains(&publish.id) {
                return None;
            }
            match self.shared.hub.inbound(&self.client_id, self.connection, publish.id) {
                Some(Inbound::OnItsWay(new)) => number = Some(new),
                Some(Inbound::Received) => {
                    self.send(Outgoing::PubRec(publish.id));
                    return None;
                }
                None => return Some(End::Gone),
            }
            self.on_their_way.push(publish.id);
        }
        // One that may send so many ahead and sends more breaks the protocol in MQTT 5; in 3.1.1 nobody has told it.
        let most = usize::from(self.shared.settings.receive_maximum);
        while publish.qos != Qos::AtMostOnce && self.window.len() >= most {
            if self.version == Version::V5 {
                return Some(self.end("receive_maximum", Farewell::TooMany));
            }
            self.window.changed_below(most).await;
            if self.window.has_lost() {
                return Some(self.end("not_taken", Farewell::Stopping));
            }
        }
        self.shared.hub.route(&self.client_id, &publish);
        self.take(publish, number, share).await
    }

    /// A reading goes to the log; anything else has reached its subscribers, and that is all. `number`: the hub's, for quality of service 2.
    async fn take(&mut self, publish: Publish, number: Option<u64>, share: Option<Hold>) -> Option<End> {
        let ticket = (publish.qos != Qos::AtMostOnce).then(|| self.window.open((publish.id, publish.qos)));
        let contents = self.contents(&publish);
        let (id, announced, needed) = (publish.id, publish.payload.len() + ONE_READING, Feeder::weight(publish.payload.len(), &contents));
        drop(publish);
        let feeder = &self.shared.feeder;
        let share = match share {
            Some(share) => share,
            None => feeder.hold(announced).await?,
        };
        // Who waited for more with a share in hand could wait for ever, for others that do the same.
        let more = needed.saturating_sub(announced);
        let more = if more == 0 { None } else { Some(feeder.try_hold(more)) };
        let beyond = match more {
            Some(None) => Some(self.shared.beyond.clone().acquire_owned().await.ok()?),
            _ => None,
        };
        let (window, shared, client_id) = (self.window.clone(), self.shared.clone(), self.client_id.clone());
        self.shared.feeder.push(contents, share, move |whole| {
            drop((more, beyond));
            let Some(ticket) = ticket else { return };
            if whole && let Some(number) = number {
                shared.hub.received(&client_id, id, number);
            }
            window.settle(ticket, whole);
        });
        None
    }

    /// What a message is for the log; nothing when it is no reading.
    fn contents(&self, publish: &Publish) -> Vec<Content> {
        if !self.shared.reader.takes(&publish.topic) {
            return Vec::new();
        }
        self.shared.metrics.messages.with_label_values(&["listener"]).inc();
        let now = chrono::Utc::now().timestamp_millis();
        let outcome = self.shared.reader.read(&publish.topic, &publish.payload, now);
        self.shared.metrics.no_numbers(outcome.no_numbers);
        self.shared.ask(outcome.rebirths, now);
        outcome.contents
    }

    /// A device that is gone keeps its place as long as its will waits: a will for the log gets what room there is soon, or is dropped.
    async fn will(&self, will: Publish, stop: &Shutdown) {
        self.shared.hub.route(&self.client_id, &will);
        let contents = self.contents(&will);
        if contents.is_empty() {
            return;
        }
        let (feeder, needed) = (&self.shared.feeder, Feeder::weight(will.payload.len(), &contents));
        let share = tokio::select! {
            share = timeout(WILL, feeder.hold(needed)) => share.ok().flatten(),
            () = stop.wait() => feeder.try_hold(needed),
        };
        match share {
            Some(share) => feeder.push(contents, share, |_| {}),
            None => self.count_dropped(),
        }
    }

    /// A message that nobody sends again found no room.
    fn count_dropped(&self) {
        self.shared.metrics.dropped.with_label_values(&["qos0_full"]).inc();
    }
}

#[cfg(test)]
mod tests;
