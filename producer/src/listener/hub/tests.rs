#![allow(clippy::unwrap_used, clippy::expect_used)]

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

struct Client {
    id: &'static str,
    connection: u64,
    packets: UnboundedReceiver<Outgoing>,
    session_present: bool,
}

impl Client {
    fn enter(hub: &Hub, id: &'static str, clean: bool, now: Instant) -> Self {
        let (sender, packets) = unbounded_channel();
        let expiry = if clean { Duration::ZERO } else { Duration::from_secs(60) };
        let arrival = Arrival { client_id: id.into(), clean, expiry, receive_maximum: 2, packets: sender, backlog: hub.backlog() };
        let Entry { connection, session_present } = hub.enter(arrival, now);
        hub.resume(id);
        Self { id, connection, packets, session_present }
    }

    fn subscribe(&self, hub: &Hub, path: &str, qos: Qos) -> Option<Qos> {
        let filters = [Filter { path: path.into(), qos, no_local: false, retained: Retained::Always }];
        let granted = hub.subscribe(self.id, &filters);
        hub.send_retained(self.id, &filters, &granted, &[true]);
        granted[0]
    }

    fn got(&mut self) -> Vec<Outgoing> {
        std::iter::from_fn(|| self.packets.try_recv().ok()).collect()
    }

    fn messages(&mut self) -> Vec<(u16, String, bool, bool)> {
        let message = |packet| match packet {
            Outgoing::Publish(publish) => {
                Some((publish.id, String::from_utf8(publish.payload.to_vec()).unwrap(), publish.retain, publish.dup))
            }
            _ => None,
        };
        self.got().into_iter().filter_map(message).collect()
    }
}

fn message(topic: &str, payload: &'static str, qos: Qos, retain: bool) -> Publish {
    Publish { topic: topic.into(), payload: Bytes::from_static(payload.as_bytes()), qos, retain, dup: false, id: 9 }
}

#[test]
fn filters_and_topics() {
    for (topic, filter, expected) in [
        ("a/b", "a/b", true),
        ("a/b", "a/+", true),
        ("a/b", "#", true),
        ("a", "a/#", true),
        ("a/b/c", "a/+", false),
        ("a", "a/+", false),
        ("äö/b", "+/b", true),
        ("$SYS/x", "#", false),
        ("$SYS/x", "+/x", false),
        ("$SYS/x", "$SYS/#", true),
        ("/a", "+/a", true),
    ] {
        assert_eq!(fits(topic, filter), expected, "{topic} {filter}");
    }
}

#[test]
fn subscribers_get_what_they_asked_for_and_no_more_than_they_can_take() {
    let hub = Hub::default();
    let mut client = Client::enter(&hub, "a", false, Instant::now());
    assert_eq!(client.subscribe(&hub, "cmd/+", Qos::ExactlyOnce), Some(Qos::AtLeastOnce));
    assert_eq!(client.subscribe(&hub, "$share/g/x", Qos::AtLeastOnce), None);
    assert_eq!(client.subscribe(&hub, "a/#/b", Qos::AtLeastOnce), None);
    for payload in ["1", "2", "3"] {
        hub.route("b", &message("cmd/a", payload, Qos::AtLeastOnce, false));
    }
    hub.route("b", &message("other", "x", Qos::AtLeastOnce, false));
    hub.route("b", &message("cmd/a", "0", Qos::AtMostOnce, false));
    assert_eq!(client.messages(), [(1, "1".into(), false, false), (2, "2".into(), false, false), (0, "0".into(), false, false)]);
    hub.acknowledged("a", client.connection, 1);
    assert_eq!(client.messages(), [(3, "3".into(), false, false)]);
    hub.unsubscribe("a", &["cmd/+".into()]);
    hub.route("b", &message("cmd/a", "4", Qos::AtLeastOnce, false));
    assert_eq!(client.messages(), []);
}

#[test]
fn a_session_keeps_what_comes_while_its_device_is_away() {
    let (hub, now) = (Hub::default(), Instant::now());
    let mut client = Client::enter(&hub, "a", false, now);
    client.subscribe(&hub, "cmd", Qos::AtLeastOnce);
    hub.route("b", &message("cmd", "1", Qos::AtLeastOnce, false));
    let Some(Inbound::OnItsWay(number)) = hub.inbound("a", client.connection, 5) else { panic!("it is new") };
    hub.received("a", 5, number);
    hub.leave("a", client.connection, now);
    hub.route("b", &message("cmd", "2", Qos::AtLeastOnce, false));
    hub.route("b", &message("cmd", "lost", Qos::AtMostOnce, false));
    let mut back = Client::enter(&hub, "a", false, now + Duration::from_secs(59));
    assert!(back.session_present && hub.inbound("a", back.connection, 5) == Some(Inbound::Received));
    assert_eq!(back.messages(), [(1, "1".into(), false, true), (2, "2".into(), false, false)]);
    hub.leave("a", back.connection, now);
    let late = Client::enter(&hub, "a", false, now + Duration::from_secs(61));
    assert!(!late.session_present && hub.inbound("a", late.connection, 5) != Some(Inbound::Received));
    assert_eq!(client.messages().len(), 1);
}

#[test]
fn one_client_has_one_connection() {
    let (hub, now) = (Hub::default(), Instant::now());
    let mut first = Client::enter(&hub, "a", false, now);
    let mut second = Client::enter(&hub, "a", false, now);
    assert_eq!(first.got(), [Outgoing::Disconnect(Farewell::TakenOver)]);
    // The first one's end does not take the second one's place.
    hub.leave("a", first.connection, now);
    second.subscribe(&hub, "cmd", Qos::AtLeastOnce);
    hub.route("b", &message("cmd", "1", Qos::AtLeastOnce, false));
    assert_eq!(second.messages().len(), 1);
}

#[test]
fn a_retained_message_greets_subscribers_until_it_is_taken_back() {
    let hub = Hub::default();
    hub.route("b", &message("state/a", "online", Qos::AtLeastOnce, true));
    hub.route("b", &message("state/a", "offline", Qos::AtLeastOnce, true));
    let mut client = Client::enter(&hub, "a", true, Instant::now());
    client.subscribe(&hub, "state/#", Qos::AtLeastOnce);
    assert_eq!(client.messages(), [(1, "offline".into(), true, false)]);
    hub.route("b", &message("state/a", "", Qos::AtLeastOnce, true));
    assert_eq!(hub.state().retained_bytes, 0);
    let mut other = Client::enter(&hub, "c", true, Instant::now());
    other.subscribe(&hub, "state/#", Qos::AtLeastOnce);
    assert_eq!(other.messages(), []);
}

#[test]
fn a_full_queue_drops_the_oldest_and_counts() {
    let (hub, now) = (Hub::default(), Instant::now());
    let client = Client::enter(&hub, "a", false, now);
    client.subscribe(&hub, "cmd", Qos::AtLeastOnce);
    hub.leave("a", client.connection, now);
    for _ in 0..MAX_QUEUE + 3 {
        hub.route("b", &message("cmd", "1", Qos::AtLeastOnce, false));
    }
    assert_eq!(hub.dropped(), 3);
}

#[test]
fn what_the_log_says_late_is_for_the_message_that_it_had() {
    let (hub, now) = (Hub::default(), Instant::now());
    let first = Client::enter(&hub, "a", true, now);
    let Some(Inbound::OnItsWay(late)) = hub.inbound("a", first.connection, 1) else { panic!("it is new") };
    let second = Client::enter(&hub, "a", true, now);
    hub.received("a", 1, late);
    let Some(Inbound::OnItsWay(number)) = hub.inbound("a", second.connection, 1) else { panic!("the log has another session's") };
    hub.received("a", 1, late);
    assert!(matches!(hub.inbound("a", second.connection, 1), Some(Inbound::OnItsWay(_))));
    // The message came again meanwhile: the newest counts.
    hub.received("a", 1, number);
    assert!(matches!(hub.inbound("a", second.connection, 1), Some(Inbound::OnItsWay(_))));
    // The connection that was thrown out says nothing about its successor's session.
    assert_eq!(hub.inbound("a", first.connection, 1), None);
    hub.released("a", first.connection, 1);
}

const MIB: usize = 1024 * 1024;

fn large(topic: &str, bytes: usize, qos: Qos) -> Publish {
    Publish { payload: Bytes::from(vec![b'x'; bytes]), ..message(topic, "", qos, false) }
}

#[test]
fn what_waits_for_a_subscriber_that_is_away_is_bounded_in_bytes() {
    let (hub, now) = (Hub::default(), Instant::now());
    let client = Client::enter(&hub, "a", false, now);
    client.subscribe(&hub, "cmd", Qos::AtLeastOnce);
    hub.leave("a", client.connection, now);
    hub.route("b", &message("cmd", "old", Qos::AtLeastOnce, false));
    for _ in 0..5 {
        hub.route("b", &large("cmd", 5 * MIB, Qos::AtLeastOnce));
    }
    // The oldest went: the small one, and two of the large ones.
    assert_eq!(hub.dropped(), 3);
    hub.route("b", &large("cmd", 17 * MIB, Qos::AtLeastOnce));
    assert_eq!(hub.dropped(), 4);
    assert_eq!(hub.all.load(Ordering::Relaxed) / MIB as u64, 15);
    // They are sent when it is back, and count until they are written and acknowledged.
    let mut back = Client::enter(&hub, "a", false, now);
    let got = back.messages();
    assert_eq!(got.iter().map(|message| message.1.len()).collect::<Vec<_>>(), [5 * MIB; 2]);
    hub.acknowledged("a", back.connection, 1);
    assert_eq!(back.messages().len(), 1);
    drop(hub.state().sessions.remove("a"));
    assert_eq!(hub.all.load(Ordering::Relaxed) / MIB as u64, 15, "the connection has not written them");
}

#[test]
fn what_waits_for_all_subscribers_is_bounded_in_bytes() {
    let (hub, now) = (Hub::default(), Instant::now());
    for id in ["a", "b", "c", "d", "e", "f"] {
        let client = Client::enter(&hub, id, false, now);
        client.subscribe(&hub, "cmd", Qos::AtLeastOnce);
        hub.leave(id, client.connection, now);
    }
    hub.route("x", &large("cmd", 12 * MIB, Qos::AtLeastOnce));
    assert_eq!(hub.dropped(), 1);
    assert_eq!(hub.all.load(Ordering::Relaxed) / MIB as u64, 60);
    for id in ["a", "b", "c", "d", "e", "f"] {
        hub.state().forget(id);
    }
    assert_eq!(hub.all.load(Ordering::Relaxed), 0);
}

#[test]
fn a_subscriber_that_does_not_read_is_sent_no_more_than_it_may_have() {
    let hub = Hub::default();
    let mut client = Client::enter(&hub, "a", true, Instant::now());
    client.subscribe(&hub, "cmd", Qos::AtMostOnce);
    for _ in 0..10 {
        hub.route("b", &large("cmd", 5 * MIB, Qos::AtMostOnce));
    }
    assert_eq!((client.messages().len(), hub.dropped()), (3, 7));
}
