#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

const MAX: usize = 1 << 20;

fn connect(version: Version) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    match version {
        Version::V3 => {
            let mut connect = v3::v4::Connect::new("p");
            connect.last_will = Some(v3::v4::LastWill::new("w", "gone", v3::QoS::AtLeastOnce, true));
            v3::v4::Packet::Connect(connect).write(&mut buffer, MAX).unwrap();
        }
        Version::V5 => {
            let connect = v5::v5::Connect { keep_alive: 10, client_id: "p".into(), clean_start: true, properties: None };
            v5::v5::Packet::Connect(connect, None, None).write(&mut buffer, None).unwrap();
        }
    }
    buffer.to_vec()
}

#[test]
fn the_version_is_known_as_soon_as_it_can_be() {
    for expected in [Version::V3, Version::V5] {
        let bytes = connect(expected);
        for end in 0..9 {
            assert_eq!(version(&bytes[..end]), Ok(None), "{end}");
        }
        assert_eq!(version(&bytes[..9]), Ok(Some(expected)));
        let mut buffer = BytesMut::from(&bytes[..]);
        assert!(matches!(read(expected, &mut buffer, MAX), Ok(Some(Incoming::Connect(_)))));
        assert!(buffer.is_empty());
    }
    assert_eq!(version(b"\x10\x12\x00\x06MQIsdp\x03"), Err(Malformed::Version));
    assert!(matches!(version(b"GET / HTTP/1.1"), Err(Malformed::Packet(_))));
    assert!(matches!(version(b"\x10\xff\xff\xff\xff\xff"), Err(Malformed::Packet(_))));
}

#[test]
fn a_packet_is_read_when_it_is_whole_and_refused_before_it_has_come_when_too_large() {
    let publish =
        Publish { topic: "a/ä".into(), payload: Bytes::from_static(b"21.5"), qos: Qos::AtLeastOnce, retain: true, dup: false, id: 7 };
    for version in [Version::V3, Version::V5] {
        let mut whole = BytesMut::new();
        assert!(write(version, Outgoing::Publish(publish.clone()), &mut whole));
        for end in 0..whole.len() {
            assert_eq!(read(version, &mut BytesMut::from(&whole[..end]), MAX), Ok(None), "{end}");
        }
        assert_eq!(read(version, &mut whole.clone(), MAX), Ok(Some(Incoming::Publish(publish.clone()))));
        assert_eq!(read(version, &mut BytesMut::from(&whole[..2]), 3), Err(Malformed::TooLarge));
    }
}

#[test]
fn the_empty_farewell_of_mqtt_5_is_a_farewell() {
    let mut buffer = BytesMut::from(&[0xE0, 0, 0xC0, 0][..]);
    assert_eq!(read(Version::V5, &mut buffer, MAX), Ok(Some(Incoming::Disconnect { will: false })));
    assert_eq!(read(Version::V5, &mut buffer, MAX), Ok(Some(Incoming::Ping)));
    let mut with_will = BytesMut::from(&[0xE0, 1, 4][..]);
    assert_eq!(read(Version::V5, &mut with_will, MAX), Ok(Some(Incoming::Disconnect { will: true })));
}

#[test]
fn every_answer_can_be_written() {
    let answers = [
        Outgoing::ConnAck {
            session_present: true,
            receive_maximum: 10,
            max_packet: 100,
            assigned: Some("x".into()),
            session_expiry: Some(5),
        },
        Outgoing::Refused(Refusal::NotAuthorized),
        Outgoing::Refused(Refusal::BadClientId),
        Outgoing::PubAck(1),
        Outgoing::PubRec(1),
        Outgoing::PubComp(1),
        Outgoing::SubAck { id: 1, granted: vec![Some(Qos::AtLeastOnce), None] },
        Outgoing::UnsubAck { id: 1, count: 2 },
        Outgoing::Pong,
    ];
    for answer in answers {
        for version in [Version::V3, Version::V5] {
            let mut buffer = BytesMut::new();
            assert!(write(version, answer.clone(), &mut buffer) && !buffer.is_empty(), "{answer:?}");
        }
    }
    for farewell in
        [Farewell::Protocol, Farewell::TakenOver, Farewell::Stopping, Farewell::TooLarge, Farewell::KeepAlive, Farewell::TooMany]
    {
        let mut buffer = BytesMut::new();
        assert!(write(Version::V5, Outgoing::Disconnect(farewell), &mut buffer));
        assert!(!write(Version::V3, Outgoing::Disconnect(farewell), &mut buffer));
    }
}

/// Reads to the end or the first fault; every turn takes bytes, or it would go round for ever.
fn read_all(version: Version, bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    loop {
        let before = buffer.len();
        match read(version, &mut buffer, MAX) {
            Ok(Some(_)) => assert!(buffer.len() < before),
            Ok(None) | Err(_) => return,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), five: bool) {
        let _known = version(&bytes);
        read_all(if five { Version::V5 } else { Version::V3 }, &bytes);
    }

    /// Packets with a true length and a wild body reach further into the codec.
    #[test]
    fn no_packet_makes_it_panic(first: u8, body in prop::collection::vec(any::<u8>(), 0..120), five: bool) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(body);
        read_all(if five { Version::V5 } else { Version::V3 }, &bytes);
    }

    /// Real packets with some bytes changed reach furthest.
    #[test]
    fn no_change_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), five: bool) {
        let version = if five { Version::V5 } else { Version::V3 };
        let mut bytes = connect(version);
        let mut more = BytesMut::new();
        write(version, Outgoing::Publish(Publish { topic: "a".into(), payload: Bytes::from_static(b"1"), qos: Qos::ExactlyOnce, retain: false, dup: true, id: 1 }), &mut more);
        bytes.extend(more);
        bytes.extend([0x82, 8, 0, 1, 0, 0, 2, b'a', b'#', 1, 0xA2, 7, 0, 2, 0, 0, 2, b'a', b'b', 0x62, 2, 0, 1]);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        read_all(version, &bytes);
    }
}
