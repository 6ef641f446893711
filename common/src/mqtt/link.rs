//! The seam over rumqttc: one connection of either version, never more than one.
//!
//! rumqttc would go on by itself after a broken connection, with acknowledgements of the old one still queued; they would then tell the
//! broker about messages that they are not for. So a [`Link`] is used for one connection and thrown away at its first error, and a
//! [`Client`] (which acknowledges) is of no use to any other connection.

use std::fmt;
use std::time::Duration;

use crate::settings::{MqttConnection, MqttVersion};
use bytes::Bytes;
use rumqttc::v5::mqttbytes as v5bytes;
use rumqttc::{TlsConfiguration, Transport, v5};

use super::options::{Url, credentials, tls};

/// The protocol's own limit. rumqttc's is 10 KiB, and a larger message would come again for ever.
const MAX_PACKET: u32 = 268_435_460;
const CONNECT_SECONDS: u64 = 10;
/// How long the broker may take to close the connection after our farewell.
const FAREWELL: Duration = Duration::from_secs(10);
/// Requests beside acknowledgements: subscriptions, rebirths, the end.
const OTHER_REQUESTS: usize = 1_024;

/// What a connection is to be.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    pub connection: &'a MqttConnection,
    pub client_id: &'a str,
    /// Most messages without our acknowledgement.
    pub receive_maximum: u16,
    /// Most of our own messages without the broker's.
    pub send_maximum: u16,
    pub session_seconds: u32,
    pub clean: bool,
    /// Topic and payload, retained.
    pub will: Option<(String, Bytes)>,
}

pub struct Link(Loop);

enum Loop {
    V3(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// Speaks over one connection. Clones are the same.
#[derive(Debug, Clone)]
pub enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// A message of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: Bytes,
    pub payload: Bytes,
    /// `None`: quality of service 0, nothing to acknowledge.
    pub id: Option<u16>,
    pub retained: bool,
}

#[derive(Debug)]
pub enum Event {
    Connected {
        session_present: bool,
    },
    /// Filters that the broker refused.
    Subscribed {
        refused: usize,
    },
    Message(Message),
    /// The broker has a message of ours.
    Acknowledged(u16),
    /// The number that a message of ours got.
    Sent(u16),
    /// Our own farewell is said, and the broker has closed the connection or had time to.
    Closed,
    Other,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Loop::V3(_) => "Link(3.1.1)",
            Loop::V5(_) => "Link(5)",
        })
    }
}

impl Link {
    /// Opens nothing yet: the connection is made by the first [`Link::next`].
    ///
    /// # Errors
    /// What is wrong with the settings or their files.
    pub fn open(plan: &Plan<'_>) -> Result<(Self, Client), String> {
        let url: Url = plan.connection.url.as_deref().unwrap_or_default().parse()?;
        let login = credentials(plan.connection)?;
        let transport = if url.tls { Transport::tls_with_config(TlsConfiguration::Rustls(tls(plan.connection)?)) } else { Transport::Tcp };
        // A broker may send more than it may: Mosquitto 2.0 does, after a session was resumed.
        let capacity = usize::from(u16::MAX) + usize::from(plan.send_maximum) + OTHER_REQUESTS;
        let keep_alive = plan.connection.keep_alive.duration();
        Ok(match plan.connection.version {
            MqttVersion::V3 => {
                let mut options = rumqttc::MqttOptions::new(plan.client_id, url.host, url.port);
                options.set_keep_alive(keep_alive).set_clean_session(plan.clean).set_manual_acks(true);
                options.set_transport(transport).set_inflight(plan.send_maximum.max(1));
                options.set_max_packet_size(MAX_PACKET as usize, MAX_PACKET as usize);
                if let Some((user, password)) = login {
                    options.set_credentials(user, password);
                }
                if let Some((topic, payload)) = &plan.will {
                    options.set_last_will(rumqttc::LastWill::new(topic, payload.to_vec(), rumqttc::QoS::AtLeastOnce, true));
                }
                let (client, mut events) = rumqttc::AsyncClient::new(options, capacity);
                events.network_options.set_connection_timeout(CONNECT_SECONDS).set_tcp_nodelay(true);
                (Self(Loop::V3(Box::new(events))), Client::V3(client))
            }
            MqttVersion::V5 => {
                let mut options = v5::MqttOptions::new(plan.client_id, url.host, url.port);
                options.set_keep_alive(keep_alive).set_clean_start(plan.clean).set_manual_acks(true);
                options.set_transport(transport).set_connection_timeout(CONNECT_SECONDS);
                options.set_outgoing_inflight_upper_limit(plan.send_maximum.max(1));
                options.set_max_packet_size(Some(MAX_PACKET)).set_receive_maximum(Some(plan.receive_maximum));
                options.set_session_expiry_interval(Some(plan.session_seconds));
                if let Some((user, password)) = login {
                    options.set_credentials(user, password);
                }
                if let Some((topic, payload)) = &plan.will {
                    let qos = v5bytes::QoS::AtLeastOnce;
                    options.set_last_will(v5bytes::v5::LastWill::new(topic.as_str(), payload.to_vec(), qos, true, None));
                }
                let (client, events) = v5::AsyncClient::new(options, capacity);
                (Self(Loop::V5(Box::new(events))), Client::V5(client))
            }
        })
    }

    /// The next event. Not to be dropped half-way: an acknowledgement would be lost.
    ///
    /// # Errors
    /// Why the connection is over, in a sentence; the link is of no more use.
    pub async fn next(&mut self) -> Result<Event, String> {
        let event = self.event().await?;
        if matches!(event, Event::Closed) {
            self.listen_to_the_end().await;
        }
        Ok(event)
    }

    /// A socket that is closed with something unread is reset by the kernel, and the broker then loses what it has not read of ours: the last
    /// acknowledgements. So whatever it still sends is read and thrown away until it closes the connection itself.
    async fn listen_to_the_end(&mut self) {
        let end = async { while self.event().await.is_ok() {} };
        if tokio::time::timeout(FAREWELL, end).await.is_err() {
            tracing::debug!("the MQTT broker has not closed the connection after our farewell");
        }
    }

    async fn event(&mut self) -> Result<Event, String> {
        match &mut self.0 {
            Loop::V3(events) => match events.poll().await {
                Ok(event) => Ok(from_v3(event)),
                Err(rumqttc::ConnectionError::ConnectionRefused(code)) => Err(refused(&format!("{code:?}"))),
                Err(error) => Err(error.to_string()),
            },
            Loop::V5(events) => match events.poll().await {
                Ok(event) => Ok(from_v5(event)),
                Err(v5::ConnectionError::ConnectionRefused(code)) => Err(refused(&format!("{code:?}"))),
                Err(v5::ConnectionError::MqttState(v5::StateError::ServerDisconnect { reason_code, reason_string })) => {
                    let said = reason_string.map_or_else(String::new, |said| format!(" ({said})"));
                    let taken = reason_code == v5bytes::v5::DisconnectReasonCode::SessionTakenOver;
                    let advice = if taken { ": another client has the same client_id; give each its own" } else { "" };
                    Err(format!("the broker ended the connection: {reason_code:?}{said}{advice}"))
                }
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

fn refused(code: &str) -> String {
    format!("the broker refused the connection: {code}; check username, password_file, certificates and client_id")
}

fn from_v3(event: rumqttc::Event) -> Event {
    use rumqttc::{Outgoing, Packet, QoS, SubscribeReasonCode};
    match event {
        rumqttc::Event::Incoming(Packet::ConnAck(ack)) => Event::Connected { session_present: ack.session_present },
        rumqttc::Event::Incoming(Packet::SubAck(ack)) => {
            Event::Subscribed { refused: ack.return_codes.iter().filter(|code| **code == SubscribeReasonCode::Failure).count() }
        }
        rumqttc::Event::Incoming(Packet::Publish(publish)) => Event::Message(Message {
            id: (publish.qos != QoS::AtMostOnce).then_some(publish.pkid),
            topic: publish.topic.into(),
            payload: publish.payload,
            retained: publish.retain,
        }),
        rumqttc::Event::Incoming(Packet::PubAck(ack)) => Event::Acknowledged(ack.pkid),
        rumqttc::Event::Outgoing(Outgoing::Publish(id)) => Event::Sent(id),
        rumqttc::Event::Outgoing(Outgoing::Disconnect) => Event::Closed,
        _ => Event::Other,
    }
}

fn from_v5(event: v5::Event) -> Event {
    use v5bytes::QoS;
    use v5bytes::v5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(Packet::ConnAck(ack)) => Event::Connected { session_present: ack.session_present },
        v5::Event::Incoming(Packet::SubAck(ack)) => {
            Event::Subscribed { refused: ack.return_codes.iter().filter(|code| !matches!(code, SubscribeReasonCode::Success(_))).count() }
        }
        v5::Event::Incoming(Packet::Publish(publish)) => Event::Message(Message {
            id: (publish.qos != QoS::AtMostOnce).then_some(publish.pkid),
            topic: publish.topic,
            payload: publish.payload,
            retained: publish.retain,
        }),
        v5::Event::Incoming(Packet::PubAck(ack)) => Event::Acknowledged(ack.pkid),
        v5::Event::Outgoing(rumqttc::Outgoing::Publish(id)) => Event::Sent(id),
        v5::Event::Outgoing(rumqttc::Outgoing::Disconnect) => Event::Closed,
        _ => Event::Other,
    }
}

impl Client {
    /// Acknowledges a message of this connection. `false`: the queue is full, or the connection is over.
    pub fn ack(&self, id: u16) -> bool {
        match self {
            Self::V3(client) => {
                let mut publish = rumqttc::Publish::from_bytes("", rumqttc::QoS::AtLeastOnce, Bytes::new());
                publish.pkid = id;
                client.try_ack(&publish).is_ok()
            }
            Self::V5(client) => {
                let mut publish = v5bytes::v5::Publish::new("", v5bytes::QoS::AtLeastOnce, Bytes::new(), None);
                publish.pkid = id;
                client.try_ack(&publish).is_ok()
            }
        }
    }

    /// Subscribes with quality of service 1. `false`: the queue is full.
    pub fn subscribe(&self, filters: &[String], retained: bool) -> bool {
        match self {
            Self::V3(client) => {
                let filters = filters.iter().map(|filter| rumqttc::SubscribeFilter::new(filter.clone(), rumqttc::QoS::AtLeastOnce));
                client.try_subscribe_many(filters).is_ok()
            }
            Self::V5(client) => {
                use v5bytes::v5::{Filter, RetainForwardRule};
                let rule = || if retained { RetainForwardRule::OnEverySubscribe } else { RetainForwardRule::Never };
                let filters = filters.iter().map(|filter| {
                    let mut filter = Filter::new(filter.clone(), v5bytes::QoS::AtLeastOnce);
                    filter.retain_forward_rule = rule();
                    filter
                });
                client.try_subscribe_many(filters).is_ok()
            }
        }
    }

    /// `false`: the queue is full, or the connection is gone.
    pub fn publish(&self, topic: &str, payload: Bytes, at_least_once: bool, retain: bool) -> bool {
        match self {
            Self::V3(client) => {
                let qos = if at_least_once { rumqttc::QoS::AtLeastOnce } else { rumqttc::QoS::AtMostOnce };
                client.try_publish(topic, qos, retain, payload).is_ok()
            }
            Self::V5(client) => {
                let qos = if at_least_once { v5bytes::QoS::AtLeastOnce } else { v5bytes::QoS::AtMostOnce };
                client.try_publish(topic, qos, retain, payload).is_ok()
            }
        }
    }

    /// Says farewell after all that was queued before.
    pub fn disconnect(&self) {
        let gone = match self {
            Self::V3(client) => client.try_disconnect().is_err(),
            Self::V5(client) => client.try_disconnect().is_err(),
        };
        if gone {
            tracing::trace!("the connection is gone already");
        }
    }
}
