//! Real devices: what a device saw acknowledged is in the log, whatever is stopped, killed or filled on the way.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::binaries::House;
use harness::certificates::Certificates;
use harness::log::{Kind, Log, free_address};
use harness::mosquitto::{self, Mosquitto};
use harness::process::Process;
use harness::producer::Producer;
use harness::wait::wait_until;
use harness::{http, topic};

const LIMIT: Duration = Duration::from_secs(90);

fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap()
}

fn house_producer(house: &House<'_>, url: &str, version: &str) -> Command {
    let mut command = house.command("producer");
    command.args(["--mqtt", url]).env("TIDEMARK_PRODUCER__MQTT__VERSION", version).env("TIDEMARK_KAFKA__REQUEST_TIMEOUT", "2s");
    command
}

/// The simulated fleet as devices of a broker; what they saw acknowledged is in `ledger`.
fn devices(dir: &Path, url: &str, count: u64, ledger: &Path) -> Process {
    let mut command = harness::binaries::command("producer");
    command.args(["simulate", "--to", url, "--sensors", "20", "--rate", "3000", "--count", &count.to_string()]);
    command.args(["--http-listen", "127.0.0.1:0"]).current_dir(dir);
    for (key, value) in [
        ("MQTT__LEDGER_FILE", ledger.to_str().unwrap()),
        ("MQTT__ONLINE_FOR", "900ms"),
        ("MQTT__OFFLINE_FOR", "200ms"),
        ("DUPLICATES", "0.02"),
    ] {
        command.env(format!("TIDEMARK_PRODUCER__SIMULATOR__{key}"), value);
    }
    Process::start("devices", &mut command)
}

/// Lines of the ledger: `sensor seq`.
fn acknowledged(ledger: &Path) -> Vec<String> {
    let Ok(file) = std::fs::File::open(ledger) else { return Vec::new() };
    BufReader::new(file).lines().map_while(Result::ok).collect()
}

/// The same of the log.
fn in_the_log(log: &Log) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    topic::scan(log, "iot", |message| {
        use rdkafka::message::Message as _;
        let reading: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        found.insert(format!("{} {}", reading["sensor_id"].as_str().unwrap(), reading["seq"]));
    });
    found
}

fn after(ledger: &Path, count: usize) {
    wait_until(&format!("{count} acknowledged readings"), LIMIT, || acknowledged(ledger).len() >= count);
}

/// All that a device saw acknowledged is in the log; waits for what is still on its way.
fn nothing_is_lost(log: &Log, ledger: &Path) {
    let wanted: BTreeSet<String> = acknowledged(ledger).into_iter().collect();
    let mut missing = wanted.len();
    wait_until("all acknowledged readings to be in the log", LIMIT, || {
        let found = in_the_log(log);
        missing = wanted.difference(&found).count();
        missing == 0
    });
    assert_eq!(missing, 0);
}

/// Most memory that the process ever had, in MiB.
fn peak_memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

fn nothing_is_lost_through_a_broker(test: &str, version: &str, kind: Kind) {
    let Some(mut broker) = Mosquitto::start(test, "allow_anonymous true") else { return };
    let Some(mut log) = Log::start(kind, test) else { return };
    let dir = temp_dir();
    let ledger = dir.path().join("ledger");
    let url = broker.url();
    let start = |log: &Log| Producer::start(&mut house_producer(&House { log, dir: dir.path() }, &url, version));
    let mut producer = start(&log);
    producer.wait_subscribed();

    let mut fleet = devices(dir.path(), &url, 30_000, &ledger);
    after(&ledger, 3_000);
    producer.process.kill();
    producer = start(&log);
    after(&ledger, 7_000);
    // The log hangs: connections stay, nobody answers.
    log.signal("STOP");
    after(&ledger, 11_000);
    producer.process.kill();
    // And comes up while the log hangs.
    producer = start(&log);
    after(&ledger, 14_000);
    log.signal("CONT");
    broker.restart(true);
    after(&ledger, 18_000);
    log.kill_and_restart();
    after(&ledger, 22_000);
    broker.restart(true);
    producer.process.kill();
    producer = start(&log);
    fleet.wait_success(LIMIT);
    nothing_is_lost(&log, &ledger);
    assert_eq!(acknowledged(&ledger).into_iter().collect::<BTreeSet<_>>().len(), 30_000);
    assert_eq!(topic::count(&log, "iot.dead"), 0);
    assert!(peak_memory(&producer.process) < 250, "{} MiB", peak_memory(&producer.process));
    producer.stop();
}

#[test]
fn nothing_is_lost_through_a_broker_with_mqtt_5() {
    nothing_is_lost_through_a_broker("nothing_is_lost_through_a_broker_with_mqtt_5", "5", Kind::Embedded);
}

#[test]
fn nothing_is_lost_through_a_broker_with_mqtt_3() {
    nothing_is_lost_through_a_broker("nothing_is_lost_through_a_broker_with_mqtt_3", "3.1.1", Kind::Embedded);
}

#[test]
fn nothing_is_lost_through_a_broker_on_apache_kafka() {
    nothing_is_lost_through_a_broker("nothing_is_lost_through_a_broker_on_apache_kafka", "5", Kind::Apache);
}

/// The same with our own broker: its acknowledgement waits for the log.
#[test]
fn nothing_is_lost_through_our_own_broker() {
    let mut log = Log::start(Kind::Embedded, "nothing_is_lost_through_our_own_broker").unwrap();
    let dir = temp_dir();
    let ledger = dir.path().join("ledger");
    let address = free_address();
    let start = |log: &Log| {
        let mut command = House { log, dir: dir.path() }.command("producer");
        Producer::start(command.args(["--devices", &address.to_string()]).env("TIDEMARK_KAFKA__REQUEST_TIMEOUT", "2s"))
    };
    let mut producer = start(&log);
    let mut fleet = devices(dir.path(), &format!("mqtt://{address}"), 20_000, &ledger);
    after(&ledger, 3_000);
    producer.process.kill();
    producer = start(&log);
    after(&ledger, 8_000);
    log.signal("STOP");
    // What the devices have sent waits, and none of it is acknowledged.
    wait_until("readings in flight", LIMIT, || producer.metric("tidemark_producer_in_flight ") > 100.0);
    producer.process.kill();
    producer = start(&log);
    log.signal("CONT");
    after(&ledger, 12_000);
    log.kill_and_restart();
    fleet.wait_success(LIMIT);
    // No waiting here: each was in the log before its device heard of it.
    let found = in_the_log(&log);
    let lost: Vec<String> = acknowledged(&ledger).into_iter().filter(|reading| !found.contains(reading)).collect();
    assert!(lost.is_empty(), "{} lost, such as {:?}", lost.len(), lost.first());
    assert_eq!(found.len(), 20_000);
    producer.stop();
}

#[test]
fn a_broker_that_has_lost_the_session_is_said() {
    let Some(mut broker) = Mosquitto::start("a_broker_that_has_lost_the_session_is_said", "allow_anonymous true") else { return };
    let log = Log::start(Kind::Embedded, "session").unwrap();
    let dir = temp_dir();
    let producer = Producer::start(&mut house_producer(&House { log: &log, dir: dir.path() }, &broker.url(), "5"));
    producer.wait_subscribed();
    broker.restart(true);
    wait_until("the second connection", LIMIT, || producer.process.output().contains("it has kept the session"));
    assert_eq!(producer.status("/mqtt/sessions_lost"), 0);
    broker.restart(false);
    wait_until("the loss to be said", LIMIT, || producer.metric("tidemark_producer_mqtt_sessions_lost_total ") > 0.0);
    wait_until("the log's line about it", LIMIT, || producer.process.output().contains("has lost the session"));
    // And the readings go on.
    producer.wait_subscribed();
    assert!(broker.publish().args(["-t", "sensors/p", "-m", "1"]).status().unwrap().success());
    wait_until("the reading", LIMIT, || topic::count(&log, "iot") == 1);
    producer.stop();
}

#[test]
fn several_producers_share_a_subscription() {
    let Some(broker) = Mosquitto::start("several_producers_share_a_subscription", "allow_anonymous true") else { return };
    let log = Log::start(Kind::Embedded, "share").unwrap();
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    let producers: Vec<Producer> = ["one", "two"]
        .iter()
        .map(|id| {
            let mut command = house_producer(&house, &broker.url(), "5");
            Producer::start(command.args(["--client-id", id]).env("TIDEMARK_PRODUCER__MQTT__SHARE", "tidemark"))
        })
        .collect();
    wait_until("both subscriptions", LIMIT, || producers.iter().all(|producer| producer.status("/mqtt/connected") == true));
    let ledger = dir.path().join("ledger");
    devices(dir.path(), &broker.url(), 2_000, &ledger).wait_success(LIMIT);
    nothing_is_lost(&log, &ledger);
    for producer in &producers {
        assert!(producer.status("/published").as_u64().unwrap() > 200, "{}", producer.status(""));
    }
}

/// Payloads that nobody can read: each lands in the dead lane once, and its neighbours pass.
#[test]
fn bad_payloads_do_not_hold_up_their_neighbours() {
    let Some(broker) = Mosquitto::start("bad_payloads_do_not_hold_up_their_neighbours", "allow_anonymous true") else { return };
    let log = Log::start(Kind::Embedded, "bad payloads").unwrap();
    let dir = temp_dir();
    let mut command = house_producer(&House { log: &log, dir: dir.path() }, &broker.url(), "5");
    // Fewer than there are bad payloads: they would fill it if they stayed.
    let producer = Producer::start(command.env("TIDEMARK_PRODUCER__MQTT__RECEIVE_MAXIMUM", "3"));
    producer.wait_subscribed();
    let bad: Vec<Vec<u8>> = vec![
        b"oops".to_vec(),
        b"{\"value\":NaN}".to_vec(),
        b"\xff\xfe\xfd".to_vec(),
        b"[".repeat(100_000),
        vec![b'x'; 10 << 20],
        b"{\"value\":\"warm\"}".to_vec(),
        b"{\"value\":1,\"ts\":\"noon\"}".to_vec(),
        b"{\"sensor_id\":null}".to_vec(),
    ];
    let file = dir.path().join("payload");
    for (index, payload) in bad.iter().enumerate() {
        std::fs::write(&file, payload).unwrap();
        let topic = format!("sensors/bad-{index}");
        assert!(broker.publish().args(["-t", &topic, "-f"]).arg(&file).status().unwrap().success());
        assert!(broker.publish().args(["-t", "sensors/good", "-m", &index.to_string()]).status().unwrap().success());
    }
    assert!(broker.publish().args(["-t", "sensors/empty", "-n"]).status().unwrap().success());
    // One that is retained from before is nobody's news.
    assert!(broker.publish().args(["-t", "sensors/old", "-m", "1", "-r"]).status().unwrap().success());
    wait_until("the readings", LIMIT, || topic::count(&log, "iot") == bad.len() as u64 + 1);
    wait_until("the dead rows", LIMIT, || topic::count(&log, "iot.dead") == bad.len() as u64 + 1);
    producer.stop();
    let dead = topic::read(&log, "iot.dead");
    for (index, payload) in bad.iter().enumerate() {
        let name = format!("sensors/bad-{index}");
        let rows: Vec<_> = dead.iter().filter(|row| row.header("tidemark-topic") == name).collect();
        assert_eq!(rows.len(), 1, "{name}");
        assert!(payload.starts_with(&rows[0].value) && rows[0].value.len() >= payload.len().min(900_000), "{name}");
        assert!(!rows[0].header("tidemark-reason").is_empty() && rows[0].header("tidemark-stage") == "producer");
    }
    // A new session would be greeted by the retained message.
    let mut command = house_producer(&House { log: &log, dir: dir.path() }, &broker.url(), "3.1.1");
    let again = Producer::start(command.args(["--client-id", "another"]));
    wait_until("the retained message", LIMIT, || again.metric("tidemark_producer_dropped_total{reason=\"retained\"} ") == 1.0);
    assert_eq!(topic::count(&log, "iot"), bad.len() as u64 + 1);
}

/// A small budget and a log that stands still: the broker keeps what does not fit, and nothing is lost or grows.
#[test]
fn a_full_buffer_leaves_the_rest_to_the_broker() {
    let Some(broker) = Mosquitto::start("a_full_buffer_leaves_the_rest_to_the_broker", "allow_anonymous true") else { return };
    let log = Log::start(Kind::Embedded, "full buffer").unwrap();
    let dir = temp_dir();
    let mut command = house_producer(&House { log: &log, dir: dir.path() }, &broker.url(), "3.1.1");
    let producer = Producer::start(command.env("TIDEMARK_PRODUCER__MAX_BUFFER", "1MiB"));
    producer.wait_subscribed();
    // Doors open before the log is there; this is about one that hangs later.
    wait_until("the publisher", LIMIT, || producer.process.output().contains("publishing"));
    log.signal("STOP");
    let ledger = dir.path().join("ledger");
    devices(dir.path(), &broker.url(), 9_000, &ledger).wait_success(LIMIT);
    wait_until("the budget to be used up", LIMIT, || producer.metric("tidemark_producer_dropped_total{reason=\"deferred\"} ") > 0.0);
    // A log that hangs is not away, but it is said all the same.
    wait_until("the silence to be said", LIMIT, || producer.process.output().contains("has acknowledged nothing for 10s"));
    wait_until("it not to be ready", LIMIT, || http::get(producer.address, "/readyz").is_some_and(|answer| answer.code == 503));
    log.signal("CONT");
    nothing_is_lost(&log, &ledger);
    assert!(peak_memory(&producer.process) < 120, "{} MiB", peak_memory(&producer.process));
}

/// A session that waits at the broker and is larger than the budget comes piece by piece, each piece acknowledged: no message twice.
#[test]
fn a_backlog_larger_than_the_buffer_comes_once() {
    let Some(broker) = Mosquitto::start("a_backlog_larger_than_the_buffer_comes_once", "allow_anonymous true") else { return };
    let log = Log::start(Kind::Embedded, "large backlog").unwrap();
    let dir = temp_dir();
    let start = || {
        let mut command = house_producer(&House { log: &log, dir: dir.path() }, &broker.url(), "5");
        Producer::start(command.env("TIDEMARK_PRODUCER__MAX_BUFFER", "8MiB"))
    };
    let producer = start();
    producer.wait_subscribed();
    producer.stop();
    let file = dir.path().join("payload");
    for seq in 0..100 {
        std::fs::write(&file, format!(r#"{{"value":1,"seq":{seq},"note":"{}"}}"#, "x".repeat(800_000))).unwrap();
        assert!(broker.publish().args(["-t", "sensors/p", "-f"]).arg(&file).status().unwrap().success());
    }
    // A log that is as fast as the broker would leave nothing over.
    log.signal("STOP");
    let producer = start();
    wait_until("an overflow", LIMIT, || producer.metric("tidemark_producer_dropped_total{reason=\"deferred\"} ") > 0.0);
    log.signal("CONT");
    wait_until("the backlog", LIMIT, || in_the_log(&log).len() == 100);
    producer.stop();
    assert_eq!(topic::count(&log, "iot"), 100);
}

// ---- who may come in

#[test]
fn a_broker_with_tls_certificates_and_passwords() {
    let test = "a_broker_with_tls_certificates_and_passwords";
    if !mosquitto::is_installed(test) {
        return;
    }
    let Some(certificates) = Certificates::make(test) else { return };
    let file = |name: &str| certificates.path(name).display().to_string();
    let lines = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nallow_anonymous false\npassword_file {}",
        file("ca.pem"),
        file("server.pem"),
        file("server.key"),
        certificates.users().display()
    );
    let Some(broker) = Mosquitto::start(test, &lines) else { return };
    let log = Log::start(Kind::Embedded, test).unwrap();
    let dir = temp_dir();
    std::fs::write(certificates.path("password"), "secret\n").unwrap();
    std::fs::write(certificates.path("wrong"), "Secret\n").unwrap();
    let url = format!("mqtts://{}", broker.address);
    let start = |password: &str, certificate: bool| {
        let mut command = house_producer(&House { log: &log, dir: dir.path() }, &url, "5");
        let prefix = "TIDEMARK_PRODUCER__MQTT__";
        command.env(format!("{prefix}USERNAME"), "pump").env(format!("{prefix}PASSWORD_FILE"), certificates.path(password));
        command.env(format!("{prefix}TLS_CA_FILE"), certificates.path("ca.pem"));
        if certificate {
            command.env(format!("{prefix}TLS_CERTIFICATE_FILE"), certificates.path("device.pem"));
            command.env(format!("{prefix}TLS_KEY_FILE"), certificates.path("device.key"));
        }
        Producer::start(&mut command)
    };
    for (password, certificate) in [("wrong", true), ("password", false)] {
        let refused = start(password, certificate);
        wait_until("the refusal to be said", LIMIT, || refused.status("/mqtt/trouble").is_string());
        assert_eq!(refused.status("/mqtt/connected"), false, "{}", refused.status("/mqtt"));
        assert!(!refused.process.output().contains("ecret"));
    }
    let producer = start("password", true);
    producer.wait_subscribed();
    let mut publish = broker.publish();
    publish.args(["-u", "pump", "-P", "secret", "-t", "sensors/p", "-m", "1", "--cafile"]).arg(certificates.path("ca.pem"));
    publish.arg("--cert").arg(certificates.path("device.pem")).arg("--key").arg(certificates.path("device.key"));
    assert!(publish.status().unwrap().success());
    wait_until("the reading", LIMIT, || topic::count(&log, "iot") == 1);
}

#[test]
fn our_own_broker_lets_in_whom_it_knows() {
    let test = "our_own_broker_lets_in_whom_it_knows";
    if !mosquitto::is_installed(test) {
        return;
    }
    let Some(certificates) = Certificates::make(test) else { return };
    let log = Log::start(Kind::Embedded, test).unwrap();
    let dir = temp_dir();
    let address = free_address();
    let mut command = House { log: &log, dir: dir.path() }.command("producer");
    command.args(["--devices", &address.to_string()]);
    for (key, name) in [("TLS_CERTIFICATE_FILE", "server.pem"), ("TLS_KEY_FILE", "server.key")] {
        command.env(format!("TIDEMARK_PRODUCER__MQTT_LISTENER__{key}"), certificates.path(name));
    }
    command.env("TIDEMARK_PRODUCER__MQTT_LISTENER__USERS_FILE", certificates.users());
    let producer = Producer::start(&mut command);
    wait_until("the listener", LIMIT, || TcpStream::connect(address).is_ok());
    let publish = |arguments: &[&str]| {
        let mut publish = mosquitto::publish(address);
        publish.args(["-t", "sensors/p", "-m", "1"]).args(arguments).output().unwrap().status.success()
    };
    let authority = certificates.path("ca.pem").display().to_string();
    assert!(!publish(&["-u", "pump", "-P", "secret"]), "without TLS");
    assert!(!publish(&["--cafile", &authority]), "without a name");
    assert!(!publish(&["--cafile", &authority, "-u", "pump", "-P", "wrong"]), "with a wrong password");
    for version in ["mqttv311", "mqttv5"] {
        assert!(publish(&["--cafile", &authority, "-u", "pump", "-P", "secret", "-V", version]), "{version}");
    }
    assert_eq!(topic::count(&log, "iot"), 2);
    drop(producer);
}

#[test]
fn a_listener_for_everybody_is_refused() {
    let mut command = harness::binaries::command("producer");
    let output = command.args(["--devices", "0.0.0.0:0", "--http-listen", "0.0.0.0:0", "--ingest"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("users_file") && said.contains("token_file"), "{said}");
}

// ---- HTTP

/// `POST /ingest`; status code and body.
fn post(address: SocketAddr, headers: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = format!("POST /ingest HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[test]
fn readings_by_http_are_answered_when_the_log_has_them() {
    let log = Log::start(Kind::Embedded, "http").unwrap();
    let dir = temp_dir();
    std::fs::write(dir.path().join("token"), "sesame\n").unwrap();
    let mut command = House { log: &log, dir: dir.path() }.command("producer");
    command.arg("--ingest").env("TIDEMARK_PRODUCER__INGEST__TOKEN_FILE", dir.path().join("token"));
    let producer = Producer::start(command.env("TIDEMARK_PRODUCER__MAX_BUFFER", "64KiB"));
    wait_until("the door", LIMIT, || post(producer.address, "", b"").0 == 401);
    let token = "Authorization: Bearer sesame\r\n";
    let with = |kind: &str, body: &str| post(producer.address, &format!("{token}Content-Type: {kind}\r\n"), body.as_bytes());
    assert_eq!(post(producer.address, "Authorization: Bearer x\r\n", b"{}").0, 401);
    let mut total = 0;
    for (kind, body, code, accepted) in [
        ("application/json", r#"{"sensor_id":"a","ts":1,"value":1}"#, 202, 1),
        ("application/json", r#"[{"sensor_id":"a","value":1},{"sensor_id":"b","value":2}]"#, 202, 2),
        ("application/x-ndjson", "{\"sensor_id\":\"a\",\"value\":1}\noops\n\n{\"sensor_id\":\"b\",\"value\":2}\n", 202, 2),
        ("text/plain; charset=utf-8", "weather,sensor_id=w temp=1,hum=2 1700000000000000000\n", 202, 2),
        ("application/senml+json", r#"[{"n":"a","v":1}]"#, 202, 1),
        ("application/json", "oops", 422, 0),
        ("application/json", "", 422, 0),
        ("application/xml", "<a/>", 415, 0),
    ] {
        let (got, answer) = with(kind, body);
        assert_eq!(got, code, "{kind} {body}: {answer}");
        total += accepted;
        // At once: 202 says that it is there.
        assert_eq!(topic::count(&log, "iot"), total, "{kind} {body}");
    }
    assert_eq!(topic::count(&log, "iot.dead"), 3);
    // The status looks now and then: what it shows must be of the next request.
    wait_until("the status to show nothing under way", LIMIT, || producer.status("/in_flight") == 0);
    // The log stands still: what fits waits for its answer, what does not is told to come again.
    log.signal("STOP");
    let status = producer.address;
    let large = format!("[{}]", vec![r#"{"sensor_id":"a","value":1}"#; 200].join(","));
    let waiting = std::thread::spawn({
        let large = large.clone();
        move || post(status, token, large.as_bytes())
    });
    wait_until("the first request to be taken", LIMIT, || producer.status("/in_flight").as_u64().unwrap_or(0) > 0);
    let (code, answer) = post(status, token, large.as_bytes());
    assert_eq!(code, 429, "{answer}");
    assert!(answer.to_ascii_lowercase().contains("retry-after: 1"), "{answer}");
    log.signal("CONT");
    assert_eq!(waiting.join().unwrap().0, 202);
    producer.stop();
}
