//! The one command: everything in one process, as a user starts, stops and starts it again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::appliance::{Appliance, command};
use harness::process::Process;
use harness::wait::wait_until;
use harness::{binaries, http, points};

const LIMIT: Duration = Duration::from_secs(60);

fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap()
}

#[test]
fn it_starts_stops_and_goes_on() {
    let dir = temp_dir();
    let mut first = Appliance::start(dir.path(), &["--sensors", "5", "--rate", "200"]);
    wait_until("points in the database", LIMIT, || points::count(&first.database(), "iot-10s") >= 10);
    let read = first.rows_read();
    assert!(read > 0);
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(http::get(first.page, path).expect(path).code, 200, "{path}");
    }
    first.stop();
    let before = points::read(&first.database(), "iot-10s");
    drop(first);

    // The second start goes on: the log, the ledger and the points are there.
    let second = Appliance::start(dir.path(), &["--sensors", "5", "--rate", "200"]);
    assert!(before.keys().all(|key| points::read(&second.database(), "iot-10s").contains_key(key)), "earlier points are there");
    wait_until("the ledger to go on", LIMIT, || second.rows_read() > read);
    wait_until("new points beside the old", LIMIT, || points::read(&second.database(), "iot-10s").len() > before.len());
    let now = points::read(&second.database(), "iot-10s");
    // All windows but each sensor's newest were complete or grow; none shrinks.
    assert!(before.iter().all(|(key, cell)| now[key].n >= cell.n), "a point lost readings over the restart");
    let mut second = second;
    second.stop();
}

/// A program that does not say it takes gzip, such as curl, gets text.
#[test]
fn the_page_answers_a_plain_client() {
    let dir = temp_dir();
    let mut appliance = Appliance::start(dir.path(), &["--sensors", "1", "--rate", "1"]);
    let page = http::get(appliance.page, "/").expect("the page");
    assert_eq!(page.code, 200, "{}", page.head);
    assert!(page.head.contains("text/html"), "{}", page.head);
    assert!(page.body.contains("<html"), "not readable: {}", page.head);
    appliance.stop();
}

#[test]
fn ctrl_c_while_it_starts_is_no_fault() {
    let dir = temp_dir();
    // The line that says where to look comes before the parts have found the log.
    Appliance::start(dir.path(), &["--sensors", "1", "--rate", "10"]).stop();
    Appliance::start(dir.path(), &["--sensors", "1", "--rate", "10"]).stop();
}

#[test]
fn replayed_files_instead_of_the_simulator() {
    let dir = temp_dir();
    let files = ["boiler.csv", "cellar.csv"].map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name));
    let [boiler, cellar] = files.each_ref().map(|file| file.to_str().unwrap());
    let mut appliance = Appliance::start(dir.path(), &["--replay", boiler, cellar, "--speed", "max"]);
    let readings = files.iter().flat_map(|file| harness::readings::of_file(file)).collect::<Vec<_>>();
    let want = harness::oracle::fold(&readings, 10_000);
    wait_until("every window of the files", LIMIT, || points::read(&appliance.database(), "iot-10s") == want);
    appliance.stop();
}

/// The table lies beside the query file, wherever the program was started; readings without a row in it are left out.
#[test]
fn a_lookup_table_is_joined() {
    let dir = temp_dir();
    std::fs::write(dir.path().join("rooms.csv"), "device,room\nboiler,kitchen\n").unwrap();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("queries/iot-10s.toml")).unwrap();
    // The harness reads points by the tag `sensor_id`: the room is written under that name.
    let text = text.replace(" sensor_id,\n", " room AS sensor_id,\n").replace("'10 seconds'), sensor_id", "'10 seconds'), room");
    let text = text.replace("FROM iot", "FROM iot JOIN rooms ON iot.sensor_id = rooms.device");
    let lookup = "[[lookup]]\nname = \"rooms\"\npath = \"rooms.csv\"\nschema = \"device STRING, room STRING\"\n";
    let query = dir.path().join("rooms.toml");
    std::fs::write(&query, format!("{text}\n{lookup}")).unwrap();

    let files = ["boiler.csv", "cellar.csv"].map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name));
    let [boiler, cellar] = files.each_ref().map(|file| file.to_str().unwrap());
    let data = dir.path().join("data");
    let mut appliance = Appliance::start(&data, &["--query", query.to_str().unwrap(), "--replay", boiler, cellar, "--speed", "max"]);
    let mut readings = harness::readings::of_file(&files[0]);
    readings.iter_mut().for_each(|reading| "kitchen".clone_into(&mut reading.sensor));
    let want = harness::oracle::fold(&readings, 10_000);
    wait_until("the windows of the one file, under its room", LIMIT, || points::read(&appliance.database(), "iot-10s") == want);
    appliance.stop();
}

/// One sentence, an exit code that is not 0, and nothing else.
fn refused(arguments: &[&str], part: &str) {
    let mut process = Process::start("tidemark", command().args(arguments));
    let code = process.wait_exit(LIMIT);
    let output = process.output();
    assert!(code.is_some_and(|code| code != 0), "{arguments:?} ended with {code:?}:\n{output}");
    assert!(output.to_lowercase().contains(&part.to_lowercase()), "'{part}' in:\n{output}");
    assert!(!output.contains("panicked") && !output.contains("RUST_BACKTRACE"), "{output}");
    let errors = output.lines().filter(|line| line.starts_with("error")).count();
    assert_eq!(errors, 1, "one sentence:\n{output}");
}

#[test]
fn a_busy_port_is_told() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    for (flag, other) in [("--kafka-port", "--http-port"), ("--http-port", "--kafka-port")] {
        let dir = temp_dir();
        refused(&["--data-dir", dir.path().to_str().unwrap(), flag, &port, other, "0"], &port);
    }
}

#[test]
fn a_data_directory_has_one_user() {
    let dir = temp_dir();
    let mut appliance = Appliance::start(dir.path(), &["--sensors", "1", "--rate", "10"]);
    wait_until("it to be ready", LIMIT, || http::get(appliance.page, "/readyz").is_some_and(|answer| answer.code == 200));
    let path = dir.path().to_str().unwrap();
    refused(&["--data-dir", path, "--kafka-port", "0", "--http-port", "0"], path);
    assert_eq!(http::get(appliance.page, "/livez").expect("the first one lives on").code, 200);
    appliance.stop();
}

#[test]
fn a_data_directory_that_cannot_be_is_told() {
    let dir = temp_dir();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let path = file.join("data");
    refused(&["--data-dir", path.to_str().unwrap(), "--kafka-port", "0", "--http-port", "0"], "file");
}

#[test]
fn wrong_flags_and_queries_are_told_before_anything_starts() {
    let dir = temp_dir();
    let path = dir.path().join("data");
    let base = ["--data-dir", path.to_str().unwrap(), "--kafka-port", "0", "--http-port", "0"];
    let query = dir.path().join("q.toml");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("queries/iot-10s.toml")).unwrap();
    std::fs::write(&query, text.replace("GROUP BY window", "ORDER BY sensor_id LIMIT 5 -- ")).unwrap();
    for (arguments, part) in [
        (&["--sensors", "none"][..], "none"),
        (&["--nonsense"], "--nonsense"),
        (&["--sensors", "0"], "sensors"),
        (&["--speed", "quick"], "quick"),
        (&["--query", "/no/such/query.toml"], "/no/such/query.toml"),
        (&["--query", query.to_str().unwrap()], "iot-10s"),
    ] {
        refused(&[&base[..], arguments].concat(), part);
    }
    assert!(!path.exists(), "nothing was started, so nothing was created");
    refused(&[&base[..], &["--replay", "/no/such/file.csv"]].concat(), "/no/such/file.csv");
}

#[test]
fn help_and_version() {
    let version = concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: ");
    for (flag, part) in [("--help", "--data-dir"), ("--help", "--kafka-port"), ("--version", version)] {
        let output = command().arg(flag).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains(part), "{part} in {flag}");
    }
    for binary in ["producer", "processor", "sink"] {
        for (flag, part) in [("--help", "Usage: "), ("--version", version)] {
            let output = binaries::command(binary).arg(flag).output().unwrap();
            assert!(output.status.success(), "{binary} {flag}");
            assert!(String::from_utf8(output.stdout).unwrap().contains(part), "{part} in {binary} {flag}");
        }
    }
}

#[test]
fn the_first_chart_comes_soon() {
    let dir = temp_dir();
    let started = Instant::now();
    let mut appliance = Appliance::start(dir.path(), &[]);
    wait_until("a point of the first run", LIMIT, || points::count(&appliance.database(), "iot-10s") > 0);
    // No limit on the time here, where the machine does other things too; docs/measured.md has it from a quiet one.
    println!("first point after {:?}", started.elapsed());
    appliance.stop();
}

/// One command, and a real device: its reading is acknowledged, in the log, and in a window on the page.
#[test]
fn real_devices_connect_to_the_appliance() {
    let dir = temp_dir();
    let mut appliance = Appliance::start(dir.path(), &["--devices", "127.0.0.1:0"]);
    let listen = wait_until_some("the MQTT listener", || {
        let status = http::get_json(appliance.page, "/status")?;
        status.pointer("/parts/producer/status/mqtt_listener/listen")?.as_str()?.parse().ok()
    });
    if harness::mosquitto::is_installed("real_devices_connect_to_the_appliance") {
        for version in ["mqttv311", "mqttv5"] {
            let mut publish = harness::mosquitto::publish(listen);
            assert!(publish.args(["-V", version, "-t", "sensors/pump-1/temperature", "-m", "21.5"]).status().unwrap().success());
        }
        // Acknowledged is in the log: no waiting.
        let published = http::get_json(appliance.page, "/status").unwrap();
        assert!(published.pointer("/parts/producer/status/published").unwrap().as_u64() >= Some(2), "{published}");
        wait_until("its window", LIMIT, || points::count(&appliance.database(), "iot-10s") >= 1);
    }
    appliance.stop();
}

/// The README's lines of Python, as they stand there, but for the address.
#[test]
fn the_readmes_python_publishes() {
    let ready = std::process::Command::new("python3").args(["-c", "import kafka"]).output();
    if !ready.is_ok_and(|output| output.status.success()) {
        harness::skipped("the_readmes_python_publishes", "kafka-python is missing; python3 -m pip install kafka-python");
        return;
    }
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let script = readme.split("```python").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of Python in the README");
    let log = harness::log::Log::start(harness::log::Kind::Embedded, "python").unwrap();
    harness::topic::create(&log, "iot", 2);
    let script = script.replace("127.0.0.1:9092", &log.servers());
    let output = std::process::Command::new("python3").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records = harness::topic::read(&log, "iot");
    assert_eq!(records.len(), 10);
    for (seq, record) in records.iter().enumerate() {
        let reading: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        assert_eq!((reading["sensor_id"].as_str(), reading["seq"].as_u64()), (Some("py-1"), Some(seq as u64)));
        assert_eq!(record.key.as_deref(), Some(&b"py-1"[..]));
    }
}

fn wait_until_some<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    harness::wait::wait_for(what, LIMIT, condition)
}
