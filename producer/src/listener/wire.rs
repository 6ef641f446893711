//! Packets of both versions, as one: the codec is rumqttc's, what differs between MQTT 3.1.1 and 5 ends here.
//!
//! The codec was written for clients. What it does not read as a server must is handled here: the short DISCONNECT of MQTT 5, and the
//! version, which stands inside the first packet.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes as v3;
use rumqttc::v5::mqttbytes as v5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V3,
    V5,
}

/// Quality of service.
#[expect(clippy::enum_variant_names, reason = "the protocol's own names")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Qos {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) dup: bool,
    /// 0 for quality of service 0.
    pub(super) id: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connect {
    pub(super) client_id: String,
    pub(super) clean: bool,
    /// Seconds; 0: none.
    pub(super) keep_alive: u16,
    pub(super) login: Option<(String, String)>,
    pub(super) will: Option<Publish>,
    /// Seconds; `None`: the version has none, or it was not given.
    pub(super) session_expiry: Option<u32>,
    pub(super) receive_maximum: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) path: String,
    pub(super) qos: Qos,
    pub(super) no_local: bool,
    /// Whether retained messages are wanted at all, and only for a new subscription.
    pub(super) retained: Retained,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retained {
    Always,
    WhenNew,
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    Connect(Connect),
    Publish(Publish),
    PubAck(u16),
    PubRel(u16),
    Subscribe {
        id: u16,
        filters: Vec<Filter>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    Ping,
    /// `will`: it is to be published all the same.
    Disconnect {
        will: bool,
    },
    /// Acknowledgements of what we never send.
    Ignored,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NotAuthorized,
    BadClientId,
}

/// Why we end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    Protocol,
    TakenOver,
    Stopping,
    TooLarge,
    KeepAlive,
    TooMany,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outgoing {
    ConnAck {
        session_present: bool,
        receive_maximum: u16,
        max_packet: u32,
        assigned: Option<String>,
        session_expiry: Option<u32>,
    },
    Refused(Refusal),
    Publish(Publish),
    PubAck(u16),
    PubRec(u16),
    PubComp(u16),
    /// `None`: refused.
    SubAck {
        id: u16,
        granted: Vec<Option<Qos>>,
    },
    UnsubAck {
        id: u16,
        count: usize,
    },
    Pong,
    Disconnect(Farewell),
}

/// What cannot be a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Malformed {
    TooLarge,
    /// MQTT 3.1, or something else altogether.
    Version,
    Packet(String),
}

/// The version that the first packet of a connection asks for; `None` while there are too few bytes.
pub(super) fn version(buffer: &[u8]) -> Result<Option<Version>, Malformed> {
    let Some(first) = buffer.first() else { return Ok(None) };
    if *first != 0x10 {
        return Err(Malformed::Packet("the first packet is no CONNECT".into()));
    }
    // One to four bytes of length, the last without the high bit.
    let Some(length) = buffer.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0) else {
        return if buffer.len() > 4 { Err(Malformed::Packet("the length is malformed".into())) } else { Ok(None) };
    };
    let header = &buffer[length + 2..];
    match (header.get(..6), header.get(6)) {
        (Some([0, 4, b'M', b'Q', b'T', b'T']), Some(4)) => Ok(Some(Version::V3)),
        (Some([0, 4, b'M', b'Q', b'T', b'T']), Some(5)) => Ok(Some(Version::V5)),
        (Some(_), Some(_)) => Err(Malformed::Version),
        _ => Ok(None),
    }
}

/// Takes the next packet out of `buffer`; `None` while it is not whole.
pub(super) fn read(version: Version, buffer: &mut BytesMut, max: usize) -> Result<Option<Incoming>, Malformed> {
    let Some(announced) = announced(buffer, max)?.filter(|announced| announced.whole() <= buffer.len()) else { return Ok(None) };
    match version {
        Version::V3 => match v3::v4::Packet::read(buffer, max) {
            Ok(packet) => from_v3(packet).map(Some),
            Err(error) => Err(Malformed::Packet(error.to_string())),
        },
        // Its reason may be missing, and the properties behind it.
        Version::V5 if buffer.first() == Some(&0xE0) => {
            let packet = buffer.split_to(announced.whole());
            Ok(Some(Incoming::Disconnect { will: packet.get(announced.header).is_some_and(|reason| *reason != 0) }))
        }
        Version::V5 => match v5::v5::Packet::read(buffer, u32::try_from(max).ok()) {
            Ok(packet) => from_v5(packet).map(Some),
            Err(error) => Err(Malformed::Packet(error.to_string())),
        },
    }
}

/// What the header of a packet says before the rest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) publish: bool,
    header: usize,
    length: usize,
}

impl Announced {
    /// Bytes of the packet with its header.
    pub(super) fn whole(self) -> usize {
        self.header + self.length
    }
}

/// The first packet's header, as soon as it is there. Its size is checked before its bytes have come.
pub(super) fn announced(buffer: &[u8], max: usize) -> Result<Option<Announced>, Malformed> {
    let mut length = 0_usize;
    for (place, byte) in buffer.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            let publish = buffer.first().is_some_and(|first| first >> 4 == 3);
            return if length > max { Err(Malformed::TooLarge) } else { Ok(Some(Announced { publish, header: place + 2, length })) };
        }
    }
    if buffer.len() > 4 { Err(Malformed::Packet("the length is malformed".into())) } else { Ok(None) }
}

fn from_v3(packet: v3::v4::Packet) -> Result<Incoming, Malformed> {
    use v3::v4::Packet;
    Ok(match packet {
        Packet::Connect(connect) => Incoming::Connect(Connect {
            will: connect.last_will.map(|will| Publish {
                topic: will.topic,
                payload: will.message,
                qos: qos3(will.qos),
                retain: will.retain,
                dup: false,
                id: 0,
            }),
            client_id: connect.client_id,
            clean: connect.clean_session,
            keep_alive: connect.keep_alive,
            login: connect.login.map(|login| (login.username, login.password)),
            session_expiry: None,
            receive_maximum: u16::MAX,
        }),
        Packet::Publish(publish) => Incoming::Publish(Publish {
            topic: publish.topic,
            payload: publish.payload,
            qos: qos3(publish.qos),
            retain: publish.retain,
            dup: publish.dup,
            id: publish.pkid,
        }),
        Packet::PubAck(ack) => Incoming::PubAck(ack.pkid),
        Packet::PubRel(release) => Incoming::PubRel(release.pkid),
        Packet::Subscribe(subscribe) => Incoming::Subscribe {
            id: subscribe.pkid,
            filters: subscribe
                .filters
                .into_iter()
                .map(|filter| Filter { path: filter.path, qos: qos3(filter.qos), no_local: false, retained: Retained::Always })
                .collect(),
        },
        Packet::Unsubscribe(unsubscribe) => Incoming::Unsubscribe { id: unsubscribe.pkid, filters: unsubscribe.topics },
        Packet::PingReq => Incoming::Ping,
        Packet::Disconnect => Incoming::Disconnect { will: false },
        Packet::PubRec(_) | Packet::PubComp(_) => Incoming::Ignored,
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
            return Err(Malformed::Packet("a packet that only a server sends".into()));
        }
    })
}

fn from_v5(packet: v5::v5::Packet) -> Result<Incoming, Malformed> {
    use v5::v5::{Packet, RetainForwardRule};
    let text = |bytes: Bytes| String::from_utf8(bytes.into()).map_err(|_| Malformed::Packet("the topic is not UTF-8".into()));
    Ok(match packet {
        Packet::Connect(connect, will, login) => {
            let properties = connect.properties;
            let will = match will {
                Some(will) => Some(Publish {
                    topic: text(will.topic)?,
                    payload: will.message,
                    qos: qos5(will.qos),
                    retain: will.retain,
                    dup: false,
                    id: 0,
                }),
                None => None,
            };
            let receive_maximum = properties.as_ref().and_then(|properties| properties.receive_maximum).unwrap_or(u16::MAX);
            Incoming::Connect(Connect {
                client_id: connect.client_id,
                clean: connect.clean_start,
                keep_alive: connect.keep_alive,
                login: login.map(|login| (login.username, login.password)),
                will,
                session_expiry: Some(properties.and_then(|properties| properties.session_expiry_interval).unwrap_or(0)),
                receive_maximum: receive_maximum.max(1),
            })
        }
        Packet::Publish(publish) => {
            if publish.properties.as_ref().is_some_and(|properties| properties.topic_alias.is_some()) {
                return Err(Malformed::Packet("a topic alias, where none was allowed".into()));
            }
            Incoming::Publish(Publish {
                topic: text(publish.topic)?,
                payload: publish.payload,
                qos: qos5(publish.qos),
                retain: publish.retain,
                dup: publish.dup,
                id: publish.pkid,
            })
        }
        Packet::PubAck(ack) => Incoming::PubAck(ack.pkid),
        Packet::PubRel(release) => Incoming::PubRel(release.pkid),
        Packet::Subscribe(subscribe) => Incoming::Subscribe {
            id: subscribe.pkid,
            filters: subscribe
                .filters
                .into_iter()
                .map(|filter| Filter {
                    path: filter.path,
                    qos: qos5(filter.qos),
                    no_local: filter.nolocal,
                    retained: match filter.retain_forward_rule {
                        RetainForwardRule::OnEverySubscribe => Retained::Always,
                        RetainForwardRule::OnNewSubscribe => Retained::WhenNew,
                        RetainForwardRule::Never => Retained::Never,
                    },
                })
                .collect(),
        },
        Packet::Unsubscribe(unsubscribe) => Incoming::Unsubscribe { id: unsubscribe.pkid, filters: unsubscribe.filters },
        Packet::PingReq(_) => Incoming::Ping,
        Packet::PubRec(_) | Packet::PubComp(_) => Incoming::Ignored,
        Packet::Auth(_) | Packet::Disconnect(_) | Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp(_) => {
            return Err(Malformed::Packet("a packet that a client does not send here".into()));
        }
    })
}

fn qos3(qos: v3::QoS) -> Qos {
    match qos {
        v3::QoS::AtMostOnce => Qos::AtMostOnce,
        v3::QoS::AtLeastOnce => Qos::AtLeastOnce,
        v3::QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

fn qos5(qos: v5::QoS) -> Qos {
    match qos {
        v5::QoS::AtMostOnce => Qos::AtMostOnce,
        v5::QoS::AtLeastOnce => Qos::AtLeastOnce,
        v5::QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

/// Appends the packet. `false`: the version has no such packet, or it cannot be written.
pub(super) fn write(version: Version, packet: Outgoing, buffer: &mut BytesMut) -> bool {
    match version {
        Version::V3 => to_v3(packet).is_some_and(|packet| packet.write(buffer, usize::MAX).is_ok()),
        Version::V5 => to_v5(packet).write(buffer, None).is_ok(),
    }
}

fn to_v3(packet: Outgoing) -> Option<v3::v4::Packet> {
    use v3::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, PubComp, PubRec, SubAck, SubscribeReasonCode, UnsubAck};
    let qos = |qos| match qos {
        Qos::AtMostOnce => v3::QoS::AtMostOnce,
        Qos::AtLeastOnce => v3::QoS::AtLeastOnce,
        Qos::ExactlyOnce => v3::QoS::ExactlyOnce,
    };
    Some(match packet {
        Outgoing::ConnAck { session_present, .. } => Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, session_present)),
        Outgoing::Refused(refusal) => {
            let code = match refusal {
                Refusal::NotAuthorized => ConnectReturnCode::NotAuthorized,
                Refusal::BadClientId => ConnectReturnCode::BadClientId,
            };
            Packet::ConnAck(ConnAck::new(code, false))
        }
        Outgoing::Publish(publish) => {
            let mut packet = v3::v4::Publish::from_bytes(publish.topic, qos(publish.qos), publish.payload);
            (packet.pkid, packet.retain, packet.dup) = (publish.id, publish.retain, publish.dup);
            Packet::Publish(packet)
        }
        Outgoing::PubAck(id) => Packet::PubAck(PubAck::new(id)),
        Outgoing::PubRec(id) => Packet::PubRec(PubRec::new(id)),
        Outgoing::PubComp(id) => Packet::PubComp(PubComp::new(id)),
        Outgoing::SubAck { id, granted } => {
            let code =
                |granted: Option<Qos>| granted.map_or(SubscribeReasonCode::Failure, |granted| SubscribeReasonCode::Success(qos(granted)));
            Packet::SubAck(SubAck::new(id, granted.into_iter().map(code).collect()))
        }
        Outgoing::UnsubAck { id, .. } => Packet::UnsubAck(UnsubAck::new(id)),
        Outgoing::Pong => Packet::PingResp,
        Outgoing::Disconnect(_) => return None,
    })
}

fn to_v5(packet: Outgoing) -> v5::v5::Packet {
    use v5::v5::{
        ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Packet, PingResp, PubAck, PubComp, PubRec, SubAck,
        SubscribeReasonCode, UnsubAck, UnsubAckReason,
    };
    let qos = |qos| match qos {
        Qos::AtMostOnce => v5::QoS::AtMostOnce,
        Qos::AtLeastOnce => v5::QoS::AtLeastOnce,
        Qos::ExactlyOnce => v5::QoS::ExactlyOnce,
    };
    match packet {
        Outgoing::ConnAck { session_present, receive_maximum, max_packet, assigned, session_expiry } => {
            let properties = ConnAckProperties {
                session_expiry_interval: session_expiry,
                receive_max: Some(receive_maximum),
                max_qos: None,
                retain_available: None,
                max_packet_size: Some(max_packet),
                assigned_client_identifier: assigned,
                topic_alias_max: None,
                reason_string: None,
                user_properties: Vec::new(),
                wildcard_subscription_available: None,
                subscription_identifiers_available: Some(0),
                shared_subscription_available: Some(0),
                server_keep_alive: None,
                response_information: None,
                server_reference: None,
                authentication_method: None,
                authentication_data: None,
            };
            Packet::ConnAck(ConnAck { session_present, code: ConnectReturnCode::Success, properties: Some(properties) })
        }
        Outgoing::Refused(refusal) => {
            let code = match refusal {
                Refusal::NotAuthorized => ConnectReturnCode::NotAuthorized,
                Refusal::BadClientId => ConnectReturnCode::ClientIdentifierNotValid,
            };
            Packet::ConnAck(ConnAck { session_present: false, code, properties: None })
        }
        Outgoing::Publish(publish) => {
            let mut packet = v5::v5::Publish::new(publish.topic, qos(publish.qos), publish.payload, None);
            (packet.pkid, packet.retain, packet.dup) = (publish.id, publish.retain, publish.dup);
            Packet::Publish(packet)
        }
        Outgoing::PubAck(id) => Packet::PubAck(PubAck::new(id, None)),
        Outgoing::PubRec(id) => Packet::PubRec(PubRec::new(id, None)),
        Outgoing::PubComp(id) => Packet::PubComp(PubComp::new(id, None)),
        Outgoing::SubAck { id, granted } => {
            let code = |granted: Option<Qos>| {
                granted.map_or(SubscribeReasonCode::NotAuthorized, |granted| SubscribeReasonCode::Success(qos(granted)))
            };
            Packet::SubAck(SubAck { pkid: id, return_codes: granted.into_iter().map(code).collect(), properties: None })
        }
        Outgoing::UnsubAck { id, count } => {
            Packet::UnsubAck(UnsubAck { pkid: id, reasons: vec![UnsubAckReason::Success; count], properties: None })
        }
        Outgoing::Pong => Packet::PingResp(PingResp),
        Outgoing::Disconnect(farewell) => Packet::Disconnect(Disconnect::new(match farewell {
            Farewell::Protocol => DisconnectReasonCode::ProtocolError,
            Farewell::TakenOver => DisconnectReasonCode::SessionTakenOver,
            Farewell::Stopping => DisconnectReasonCode::ServerShuttingDown,
            Farewell::TooLarge => DisconnectReasonCode::PacketTooLarge,
            Farewell::KeepAlive => DisconnectReasonCode::KeepAliveTimeout,
            Farewell::TooMany => DisconnectReasonCode::ReceiveMaximumExceeded,
        })),
    }
}

#[cfg(test)]
mod tests;
