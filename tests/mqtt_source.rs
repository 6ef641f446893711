//! Queries that read an MQTT broker directly, without any log: what the broker has acknowledged to a device is in the result, whatever is
//! killed and restarted on the way, and only what had no acknowledgement is there twice.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::certificates::Certificates;
use harness::mosquitto::Mosquitto;
use harness::place::{LIMIT, Place, stop};
use harness::process::Process;
use harness::random::Random;
use harness::wait::wait_until;
use harness::{http, ledger, mosquitto};
use serde_json::Value;

/// Messages that may be without an acknowledgement at a time.
const IN_FLIGHT: usize = 100;

/// A query that copies readings into files; `keys` are further ones of its source, `mqtt` of its broker.
fn copy(name: &str, url: &str, keys: &str, mqtt: &str) -> String {
    format!(
        "name = '{name}'\n[source]\nformat = 'mqtt'\nschema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE, seq BIGINT'\nevent_time = 'ts'\n\
         watermark = '1 hour'\nmax_future = '36500 days'\n{keys}\n[source.mqtt]\nurl = '{url}'\ntopics = ['sensors/#']\nreceive_maximum = \
         {IN_FLIGHT}\n{mqtt}\n[query]\nsql = 'SELECT sensor_id, seq, topic FROM mqtt'\noutput_mode = 'append'\ncheckpoint = \
         'state-{name}'\n[sink]\nformat = 'json'\npath = 'out-{name}'\n"
    )
}

/// `mosquitto_pub -l`: a message for each line, from a device of its own.
fn publish_readings(broker: &Mosquitto, place: &Place, sensor: &str, seqs: std::ops::Range<u64>) -> Process {
    let mut lines = String::new();
    for seq in seqs {
        writeln!(lines, r#"{{"sensor_id":"{sensor}","ts":{},"value":1.5,"seq":{seq}}}"#, 1_700_000_000_000 + seq * 10).unwrap();
    }
    let file = format!("{sensor}.lines");
    place.write(&file, &lines);
    // The shell gives it its input.
    let mut command = Command::new("sh");
    command.args(["-c", "exec mosquitto_pub -h 127.0.0.1 -p \"$0\" -q 1 -l -t \"$1\" <\"$2\""]);
    command.arg(broker.address.port().to_string()).arg(format!("sensors/{sensor}")).arg(place.path(&file));
    Process::start("mosquitto_pub", &mut command)
}

/// One message whose payload is these bytes.
fn publish_bytes(broker: &Mosquitto, place: &Place, topic: &str, payload: &[u8]) {
    let file = place.path("payload");
    std::fs::write(&file, payload).unwrap();
    let mut command = broker.publish();
    match payload {
        [] => command.arg("-n"),
        _ => command.arg("-f").arg(file),
    };
    let status = command.args(["-t", topic]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
}

/// How often each reading is in a result.
fn readings(place: &Place, folder: &str) -> BTreeMap<(String, u64), usize> {
    let mut found = BTreeMap::new();
    if place.path(folder).exists() {
        for row in place.rows(folder) {
            let row: Value = serde_json::from_str(&row).unwrap();
            let sensor = row["sensor_id"].as_str().unwrap().to_owned();
            assert_eq!(row["topic"], format!("sensors/{sensor}"));
            *found.entry((sensor, row["seq"].as_u64().unwrap())).or_default() += 1;
        }
    }
    found
}

fn wanted(sensors: &[&str], seqs: std::ops::Range<u64>) -> BTreeSet<(String, u64)> {
    sensors.iter().flat_map(|sensor| seqs.clone().map(|seq| ((*sensor).to_owned(), seq))).collect()
}

#[track_caller]
fn wait_subscribed(process: &mut Process, query: &str) {
    let name = format!("query=\"{query}\"");
    process.wait_line("the subscription", LIMIT, |line| (line.contains("subscribed") && line.contains(&name)).then_some(()));
}

/// The ledger of a query; it balances.
fn counts(address: SocketAddr, query: &str) -> Option<(u64, u64)> {
    let status = http::get_json(address, "/status")?;
    let queries = status.pointer("/parts/processor/status/queries")?.as_array()?;
    let partition = &queries.iter().find(|found| found["name"] == query)?["partitions"][0];
    let count = |name: &str| partition[name].as_u64();
    let (read, dead) = (count("read")?, count("dead")?);
    assert_eq!(read, count("used")? + count("late")? + dead + count("filtered")?, "{partition}");
    Some((read, dead))
}

const POISON: [(&str, &[u8]); 3] = [("{\"sensor_id\":", b"{\"sensor_id\":"), ("", b""), ("bad", b"\xff\xfe{}")];

fn a_crash_loses_nothing(test: &str, version: &str) {
    let Some(mut broker) = Mosquitto::start(test, &format!("allow_anonymous true\nmax_inflight_messages {IN_FLIGHT}")) else { return };
    let (mut random, place) = (Random::seeded(1), Place::new());
    let version = format!("version = '{version}'");
    place.write("q.toml", &copy("plain", &broker.url(), "", &version));
    let distinct = "drop_duplicates_within_watermark = ['sensor_id', 'seq']";
    place.write("distinct.toml", &copy("distinct", &broker.url(), distinct, &version));
    let start = || Process::start("processor", place.command().arg("--query").arg(place.path("distinct.toml")));

    // The first run makes the sessions, for which the broker keeps what comes while nobody is there.
    let mut process = start();
    wait_subscribed(&mut process, "plain");
    wait_subscribed(&mut process, "distinct");
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
    let sensors = ["a", "b", "c"];
    for sensor in sensors {
        publish_readings(&broker, &place, sensor, 0..1_500).wait_success(LIMIT);
    }
    for (_, payload) in POISON {
        publish_bytes(&broker, &place, "sensors/poison", payload);
    }
    publish_bytes(&broker, &place, "sensors/poison", &vec![b'x'; 1024 * 1024]);
    let large = format!(r#"{{"sensor_id":"large","ts":1700000000000,"seq":0,"pad":"{}"}}"#, "x".repeat(1024 * 1024));
    publish_bytes(&broker, &place, "sensors/large", large.as_bytes());

    let mut all = wanted(&sensors, 0..1_500);
    all.insert(("large".into(), 0));
    let mut faults = 0;
    let rows = || readings(&place, "out-plain").values().sum::<usize>();
    // A fast machine may have taken everything before the last round.
    let has_come = |more: usize| rows() >= more || readings(&place, "out-plain").len() == all.len();
    for round in 0..6 {
        let mut process = start();
        let more = rows() + 1 + usize::try_from(random.between(0, 400)).unwrap();
        wait_until("rows to be written", LIMIT, || has_come(more));
        if round == 3 {
            broker.restart(true);
            faults += 1;
            let more = rows() + 1;
            wait_until("rows after the broker's restart", LIMIT, || has_come(more));
        }
        process.kill();
        faults += 1;
    }
    let mut process = start();
    // And now live, with a device that does not stop for any of it.
    let mut live = publish_readings(&broker, &place, "live", 0..1_500);
    all.extend(wanted(&["live"], 0..1_500));
    live.wait_success(LIMIT);
    for folder in ["out-plain", "out-distinct"] {
        wait_until("all readings", LIMIT, || readings(&place, folder).len() >= all.len());
        assert_eq!(readings(&place, folder).into_keys().collect::<BTreeSet<_>>(), all, "{folder}");
    }
    let found = readings(&place, "out-plain");
    // A fault brings again what had no acknowledgement, once. How much that is is the broker's: Mosquitto 2.0 sends more than it may when a
    // session was resumed.
    assert!(found.values().all(|count| *count <= faults + 1), "{found:?}");
    assert!(readings(&place, "out-distinct").values().all(|count| *count == 1));

    // What cannot be read is set aside whole, with its topic, and stops nobody.
    let address = ledger::address(&mut process);
    let set_aside: Vec<Value> = place.lanes_of("state-plain").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (used, dead) = (found.values().sum::<usize>() as u64, set_aside.len() as u64);
    wait_until("the ledger to say so", LIMIT, || counts(address, "plain") == Some((used + dead, dead)));
    for row in &set_aside {
        assert_eq!(row["key"], "sensors/poison");
    }
    let has = |found: &dyn Fn(&Value) -> bool| assert!(set_aside.iter().any(found), "{set_aside:?}");
    has(&|row| row["payload"] == POISON[0].0 && row["reason"] == "not_json");
    has(&|row| row["payload"] == "" && row["reason"] == "empty");
    has(&|row| row["payload_base64"] == "//57fQ==");
    has(&|row| row["payload"].as_str().unwrap().len() == 1024 * 1024);

    // A run that ends in good order leaves nothing without its acknowledgement.
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
    let before = rows();
    let mut process = start();
    wait_subscribed(&mut process, "plain");
    publish_readings(&broker, &place, "last", 0..1).wait_success(LIMIT);
    wait_until("the last reading", LIMIT, || readings(&place, "out-plain").contains_key(&("last".into(), 0)));
    assert_eq!(rows(), before + 1);
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
}

#[test]
fn a_crash_loses_nothing_with_mqtt_5() {
    a_crash_loses_nothing("a_crash_loses_nothing_with_mqtt_5", "5");
}

#[test]
fn a_crash_loses_nothing_with_mqtt_3() {
    a_crash_loses_nothing("a_crash_loses_nothing_with_mqtt_3", "3.1.1");
}

/// More waits at the broker than there is room for: it is taken in turns, each message once.
#[test]
fn what_has_no_room_is_left_to_the_broker() {
    let test = "what_has_no_room_is_left_to_the_broker";
    let Some(broker) = Mosquitto::start(test, "allow_anonymous true") else { return };
    let place = Place::new();
    // The first batch is not taken before there is a file `go`.
    let script = "until test -e go; do sleep 0.05; done; cat >> got";
    let text = format!(
        "name = 'q'\n[source]\nformat = 'mqtt'\nwatermark = '1 second'\n[source.mqtt]\nurl = '{}'\ntopics = ['large']\npayload = \
         'text'\n[query]\nsql = 'SELECT substr(value, 1, 4) AS head FROM mqtt'\noutput_mode = 'append'\ncheckpoint = 'state'\n[sink]\nformat = \
         'foreach'\ncommand = ['sh', '-c', '{script}']\n",
        broker.url()
    );
    place.write("q.toml", &text);
    let mut process = Process::start("processor", place.command().current_dir(place.path("")));
    wait_subscribed(&mut process, "q");
    let heads: Vec<String> = (0..100).map(|number| format!("{number:04}")).collect();
    for head in &heads {
        publish_bytes(&broker, &place, "large", format!("{head}{}", "x".repeat(1024 * 1024)).as_bytes());
    }
    process.wait_line("that there is no room", LIMIT, |line| line.contains("too much waits for the query").then_some(()));
    place.write("go", "");
    let got = || std::fs::read_to_string(place.path("got")).unwrap_or_default();
    wait_until("all messages", LIMIT, || got().lines().count() >= heads.len());
    let found: Vec<String> =
        got().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["head"].as_str().unwrap().into()).collect();
    assert_eq!(found, heads);
    assert!(process.output().contains("connecting to the MQTT broker anew"), "{}", process.output());
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
}

/// The example's page, with the broker of this test.
#[test]
fn the_example_counts_messages_by_topic() {
    let test = "the_example_counts_messages_by_topic";
    if !mosquitto::is_installed(test) {
        return;
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mqtt");
    let read = |name: &str| std::fs::read_to_string(example.join(name)).unwrap();
    let place = Place::new();
    let address = harness::log::free_address();
    place.write("q.toml", &read("mqtt.toml").replace("mqtt://127.0.0.1:1883", &format!("mqtt://{address}")));
    // Before there is a broker, the query waits for it and says so.
    let mut process = place.start();
    process.wait_line("that nobody is there", LIMIT, |line| line.contains("no connection to the MQTT broker; trying again").then_some(()));
    // Of yesterday: it must not come while the query is there.
    process.signal("STOP");
    let mut broker = Mosquitto::start_at(test, "allow_anonymous true", address).unwrap();
    publish_retained(&broker, "hall/pump-9/temperature", "99");
    process.signal("CONT");
    wait_subscribed(&mut process, "mqtt");
    let page = read("README.md");
    let send = |broker: &Mosquitto| {
        for line in page.lines().filter(|line| line.starts_with("mosquitto_pub ")) {
            let line = line.replace("mosquitto_pub", &format!("mosquitto_pub -h 127.0.0.1 -p {}", broker.address.port()));
            assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
        }
    };
    send(&broker);
    for row in page.lines().filter(|line| line.starts_with("|hall")) {
        process.wait_line(row, LIMIT, |line| (line == row).then_some(()));
    }
    broker.restart(true);
    wait_until("the second subscription", LIMIT, || process.output().matches("subscribed").count() >= 2);
    send(&broker);
    let twice = "|hall/pump-1/temperature|4  |";
    process.wait_line(twice, LIMIT, |line| line.starts_with(twice).then_some(()));
    assert!(!process.output().contains("pump-9"), "{}", process.output());
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
}

fn publish_retained(broker: &Mosquitto, topic: &str, payload: &str) {
    assert!(broker.publish().args(["-r", "-t", topic, "-m", payload]).status().unwrap().success());
}

#[test]
fn a_query_shows_a_broker_who_it_is() {
    let test = "a_query_shows_a_broker_who_it_is";
    if !mosquitto::is_installed(test) {
        return;
    }
    let Some(certificates) = Certificates::make(test) else { return };
    let file = |name: &str| certificates.path(name).display().to_string();
    let lines = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nallow_anonymous false\npassword_file {}",
        file("ca.pem"),
        file("server.pem"),
        file("server.key"),
        certificates.users().display()
    );
    let Some(broker) = Mosquitto::start(test, &lines) else { return };
    let place = Place::new();
    std::fs::copy(certificates.path("ca.pem"), place.path("ca.pem")).unwrap();
    let login = "username = 'pump'\npassword_file = 'password'\ntls_ca_file = 'ca.pem'";
    place.write("q.toml", &copy("q", &broker.url().replace("mqtt://", "mqtts://"), "", login));
    // A file that is not there is said at once.
    let mut process = place.start();
    assert_eq!(process.wait_exit(LIMIT), Some(1));
    assert!(process.output().contains("source.mqtt.password_file: cannot read"), "{}", process.output());
    place.write("password", "Secret\n");
    let mut process = place.start();
    process.wait_line("the refusal", LIMIT, |line| line.contains("the broker refused the connection").then_some(()));
    // The file is read at each connection.
    place.write("password", "secret\n");
    wait_subscribed(&mut process, "q");
    let mut publish = broker.publish();
    publish.args(["-u", "pump", "-P", "secret", "-t", "sensors/a", "-m", r#"{"sensor_id":"a","ts":1,"seq":1}"#, "--cafile"]);
    assert!(publish.arg(certificates.path("ca.pem")).status().unwrap().success());
    wait_until("the reading", LIMIT, || readings(&place, "out-q").len() == 1);
    assert!(!process.output().contains("ecret"), "{}", process.output());
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
}
