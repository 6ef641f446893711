//! Rows as NDJSON over HTTP, and on the console; the receiver is a part of this test.
#![allow(clippy::unwrap_used, dead_code)]

mod log;
mod rows;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use common::Settings;
use common::settings::Database as To;
use log::Log;
use rows::{binary, row, start, until};

const TOPIC: &str = "iot.agg.q";

#[derive(Default)]
struct Received {
    heads: Vec<String>,
    rows: Vec<serde_json::Value>,
}

/// Answers 503 to the first request, and takes the others unless a row has the value 13.
fn receiver() -> (String, Arc<Mutex<Received>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/rows/", listener.local_addr().unwrap());
    let received = Arc::new(Mutex::new(Received::default()));
    let shared = Arc::clone(&received);
    std::thread::spawn(move || {
        let mut first = true;
        for stream in listener.incoming() {
            let mut client = BufReader::new(stream.unwrap());
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && client.read_line(&mut head).unwrap_or(0) > 0 {}
                let Some(length) = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                else {
                    break;
                };
                let mut body = String::new();
                client.by_ref().take(length).read_to_string(&mut body).unwrap();
                let rows: Vec<serde_json::Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                let bad = rows.iter().any(|row| row["fields"]["avg"] == 13.0);
                let code = match (std::mem::take(&mut first), bad) {
                    (true, _) => "503 Service Unavailable",
                    (_, true) => "422 Unprocessable Content",
                    _ => {
                        let mut received = shared.lock().unwrap();
                        received.heads.push(head);
                        received.rows.extend(rows);
                        "202 Accepted"
                    }
                };
                client.get_mut().write_all(format!("HTTP/1.1 {code}\r\ncontent-length: 8\r\n\r\nunlucky!").as_bytes()).unwrap();
            }
        }
    });
    (url, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_posted_again_until_they_are_taken_and_bad_ones_are_dead() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let (url, received) = receiver();
    let mut settings = Settings::default();
    settings.kafka.bootstrap_servers = log.servers();
    settings.sink.to = vec![To::Http];
    settings.sink.http.url = url;
    settings.sink.http.token = Some("secret".into());
    log.produce(TOPIC, &(0..100).map(|i| row(&format!("s-{i}"), 0, i as f64, i, false)).collect::<Vec<_>>()).await;
    let running = start(&settings);
    running.done(100).await;
    assert_eq!((running.status("points"), running.status("rejected")), (99.into(), 1.into()));
    running.stop().await;
    assert_eq!(log.read("iot.dead", 1).await.len(), 1);
    let received = received.lock().unwrap();
    assert_eq!(received.rows.len(), 99);
    assert!(received.rows.iter().all(|row| row["measurement"] == "q" && row["end"] == 10_000 && row["revision"].is_i64()));
    let head = &received.heads[0].to_ascii_lowercase();
    assert!(
        head.starts_with("post /rows/ ") && head.contains("authorization: bearer secret") && head.contains("application/x-ndjson"),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_shows_one_row_a_line() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    log.produce(TOPIC, &[row("a b", 0, 1.5, 7, true)]).await;
    let mut command = binary(&log.servers());
    command.args(["--to", "console"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (pipe, shared) = (child.stdout.take().unwrap(), Arc::clone(&lines));
    std::thread::spawn(move || BufReader::new(pipe).lines().for_each(|line| shared.lock().unwrap().push(line.unwrap())));
    until("the row is shown", || !lines.lock().unwrap().is_empty()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let row = r#"{"measurement":"q","tags":{"sensor_id":"a b"},"time":0,"end":10000,"fields":{"avg":1.5},"revision":7,"final":true}"#;
    assert_eq!(lines.lock().unwrap().as_slice(), [row]);
}
