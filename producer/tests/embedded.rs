//! The real binary against the embedded log.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod read_back;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use broker::{Broker, BrokerConfig};
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
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
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
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for reading in readings(&messages) {
        let seq = last.entry(reading.sensor_id).or_insert(0);
        assert_eq!(reading.seq, Some(*seq + 1));
        *seq += 1;
    }
    assert_eq!(last.len(), 7);
    broker.shutdown().await.unwrap();
}
