//! The real binary against the embedded log.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod read_back;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use broker::{Broker, BrokerConfig};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::Message as _;

use crate::read_back::{read, readings};

async fn log(folder: &Path) -> (Broker, String) {
    let broker = Broker::start(BrokerConfig::new(folder.join("log"), "127.0.0.1:0".parse().unwrap())).await.unwrap();
    let servers = broker.addr().to_string();
    (broker, servers)
}

fn producer(servers: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_producer"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMARK_")) {
        command.env_remove(name);
    }
    command.args(["--bootstrap-servers", servers, "--http-listen", "127.0.0.1:0"]).args(arguments);
    // However slow the machine is.
    command.env("TIDEMARK_PRODUCER__DRAIN_TIMEOUT", "60s");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A producer with the HTTP door; killed when dropped.
struct Door {
    child: Child,
    address: String,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Door {
    fn open(servers: &str, arguments: &[&str]) -> Self {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--ingest"]).collect();
        let mut child = producer(servers, &arguments);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        // Nobody reads what it says, and it must not wait for that.
        let mut log = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }

    fn ask(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{head}\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        // A refusal may come, and the connection end, before all of the body is written.
        drop(stream.write_all(body));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// `headers` begin with a line break.
    fn post(&self, headers: &str, body: &[u8]) -> (u16, String) {
        self.ask(&format!("POST /ingest HTTP/1.1\r\nContent-Length: {}{headers}", body.len()), body)
    }

    /// Posts until it is taken.
    fn until_taken(&self, headers: &str, body: &[u8]) -> String {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let (code, answer) = self.post(headers, body);
            if code == 202 {
                return answer;
            }
            assert!(code == 503 && std::time::Instant::now() < deadline, "{code} {answer}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

const LINES: &str = "\r\nContent-Type: application/x-ndjson";

fn admin(servers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", servers).create().unwrap()
}

/// Readings that no compression makes small.
fn lines(count: u32) -> String {
    (0..count)
        .map(|seq| {
            let noise: String =
                (1..8_u32).map(|i| format!("{:08x}", (seq * 8 + i).wrapping_mul(2_654_435_761).rotate_left(i * 3) ^ seq)).collect();
            format!("{{\"sensor_id\":\"p\",\"value\":1,\"seq\":{seq},\"note\":\"{noise}\"}}\n")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_a_small_limit_takes_all_readings_that_fit_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, servers) = log(folder.path()).await;
    let topic = NewTopic::new("iot", 2, TopicReplication::Fixed(1)).set("max.message.bytes", "20000");
    admin(&servers).create_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let door = Door::open(&servers, &[]);
    let large = format!("{{\"sensor_id\":\"p\",\"value\":1,\"note\":\"{}\"}}\n", lines(500).replace(['"', '\n'], ""));
    let answer = door.until_taken(LINES, format!("{}{large}{}", lines(1_500), lines(1_500)).as_bytes());
    assert!(answer.starts_with(r#"{"accepted":3000,"dead":1,"#), "{answer}");
    let found = read(&servers, "iot", 3_000);
    assert_eq!(found.len(), 3_000);
    assert!(found.iter().all(|record| record.payload().unwrap().ends_with(b"\"}")), "whole");
    let dead = read(&servers, "iot.dead", 1);
    assert_eq!(dead.iter().map(|row| row.payload().unwrap().len()).collect::<Vec<_>>(), [16 * 1024]);
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, servers) = log(folder.path()).await;
    let door = Door::open(&servers, &[]);
    door.until_taken("", b"{\"sensor_id\":\"p\",\"value\":1}");
    admin(&servers).delete_topics(&["iot"], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    door.until_taken("", b"{\"sensor_id\":\"p\",\"value\":2}");
    assert_eq!(readings(&read(&servers, "iot", 1))[0].value, 2.0);
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_refuses_takes_no_memory_and_leaves_no_dead_row() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, servers) = log(folder.path()).await;
    let token = folder.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let settings = folder.path().join("tidemark.toml");
    std::fs::write(&settings, format!("[producer.ingest]\ntoken_file = {token:?}\n")).unwrap();
    let door = Door::open(&servers, &["--config", settings.to_str().unwrap()]);
    // The scheme's case does not matter.
    let known = "\r\nAuthorization: bearer secret";
    door.until_taken(known, b"{\"sensor_id\":\"p\",\"value\":1}");
    let before = door.peak_memory();

    // Without the token nothing of the body is waited for, also when it is too large.
    for length in [8_000_000, 9_000_000] {
        let (code, answer) = door.ask(&format!("POST /ingest HTTP/1.1\r\nContent-Length: {length}"), b"");
        assert_eq!((code, answer.contains("Bearer TOKEN")), (401, true), "{answer}");
    }
    let (code, answer) = door.ask(&format!("POST /ingest HTTP/1.1\r\nContent-Length: 9000000{known}"), b"");
    assert_eq!((code, answer.contains("producer.ingest.max_body")), (413, true), "{answer}");
    let (code, answer) = door.ask("GET /ingest HTTP/1.1", b"");
    assert_eq!((code, answer.as_str()), (405, r#"{"error":"readings come by POST"}"#));
    let (code, answer) = door.post(&format!("{known}{LINES}"), "x\n".repeat(4_000_000).as_bytes());
    assert_eq!((code, answer.contains("4000000 lines")), (413, true), "{answer}");
    let pack = |plain: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(plain).unwrap();
        packed.finish().unwrap()
    };
    let gzip = format!("{known}\r\nContent-Encoding: gzip");
    assert_eq!(door.post(&gzip, &pack(&vec![b'x'; 1 << 30])).0, 413, "a bomb");
    assert_eq!(door.post(&gzip, b"{\"value\":1}").0, 400, "no gzip");
    let (code, answer) = door.post(&format!("{known}\r\nContent-Encoding: br"), b"x");
    assert_eq!((code, answer.contains("'br'")), (415, true), "{answer}");
    assert!(door.peak_memory() < before + (64 << 20), "{} and before {before}", door.peak_memory());

    let (code, answer) = door.post(&gzip, &pack(b"{\"sensor_id\":\"p\",\"value\":3}"));
    assert_eq!(code, 202, "{answer}");
    assert_eq!(readings(&read(&servers, "iot", 2)).iter().map(|reading| reading.value).sum::<f64>(), 4.0);
    let status = door.ask("GET /status HTTP/1.1", b"").1;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["parts"]["producer"]["status"]["dead"], 0, "{status}");
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_file_can_be_read_back_row_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, servers) = log(folder.path()).await;
    let file = folder.path().join("pump.csv");
    let rows: String = (0..25_000).map(|i| format!("{},{}\n", i * 250, f64::from(i) / 8.0)).collect();
    std::fs::write(&file, format!("timestamp,value\n{rows}oops\n")).unwrap();

    let output = producer(&servers, &["--replay", file.to_str().unwrap(), "--speed", "max"]).wait_with_output().unwrap();
    let (said, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}{log}");
    assert!(said.contains("published 25000 readings") && said.contains("1 lines could not be read"), "{said}");

    let messages = read(&servers, "iot", 25_000);
    let expected = (0..25_000).map(|i| (i * 250, i as f64 / 8.0, Some(i + 1)));
    assert!(readings(&messages).into_iter().map(|r| (r.ts, r.value, r.seq)).eq(expected));
    let dead = read(&servers, "iot.dead", 1);
    assert_eq!((dead.len(), dead[0].payload()), (1, Some(&b"oops"[..])));
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, servers) = log(folder.path()).await;
    let mut child = producer(&servers, &["--rate", "5000", "--sensors", "7"]);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.contains("http://127.0.0.1:"), "{line}");
    // Some readings are there: now it is at work.
    assert!(read(&servers, "iot", 500).len() >= 500);
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");

    let published: u64 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
    let messages = read(&servers, "iot", published);
    assert_eq!(messages.len() as u64, published, "{said}");
    // No gap and no repetition in any sensor's numbers, in the order of the log.
    let mut last: BTreeMap<_, i64> = BTreeMap::new();
    for reading in readings(&messages) {
        let seq = last.entry(reading.sensor_id).or_insert(0);
        assert_eq!(reading.seq, Some(*seq + 1));
        *seq += 1;
    }
    assert_eq!(last.len(), 7);
    broker.shutdown().await.unwrap();
}
