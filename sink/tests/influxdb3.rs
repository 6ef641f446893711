//! InfluxDB 3's own way to be written. There is no server of it here: the receiver is a part of this test, made after its documentation.
#![allow(clippy::unwrap_used, dead_code)]

mod log;
mod rows;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use common::Settings;
use common::settings::{Database as To, Gzip, InfluxApi};
use common::topics::result_header;
use log::Log;
use rows::{row, start, with_value};

const TOPIC: &str = "iot.agg.q";

/// The one path that is there takes lines, all or none, and says which one is bad.
fn receiver() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&lines);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut client = BufReader::new(stream.unwrap());
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") && client.read_line(&mut head).unwrap_or(0) > 0 {}
                    let lower = head.to_ascii_lowercase();
                    let Some(length) = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()) else { return };
                    let mut body = String::new();
                    client.by_ref().take(length).read_to_string(&mut body).unwrap();
                    let bad = body.lines().position(|line| line.contains("s-13"));
                    let known =
                        head.starts_with("POST /api/v3/write_lp?db=plant%20b&precision=millisecond&accept_partial=false HTTP/1.1\r\n");
                    let (code, answer) = match bad {
                        _ if !known => ("404 Not Found", String::new()),
                        _ if !lower.contains("authorization: bearer secret") => ("401 Unauthorized", String::new()),
                        Some(at) => (
                            "400 Bad Request",
                            format!(
                                r#"{{"error":"parsing failed for write_lp endpoint","data":{{"original_line":"q","line_number":{},"error_message":"unlucky"}}}}"#,
                                at + 1
                            ),
                        ),
                        None => {
                            shared.lock().unwrap().extend(body.lines().map(str::to_owned));
                            ("204 No Content", String::new())
                        }
                    };
                    let answer = format!("HTTP/1.1 {code}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
                    client.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    (url, lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_way_is_taken_bad_lines_are_dead_and_nothing_is_deleted() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let dir = tempfile::tempdir().unwrap();
    let (url, lines) = receiver();
    let mut settings = Settings::default();
    settings.kafka.bootstrap_servers = log.servers();
    settings.sink.to = vec![To::Influxdb];
    settings.sink.state_path = dir.path().join("state");
    settings.sink.influxdb.url = url;
    settings.sink.influxdb.api = InfluxApi::V3;
    settings.sink.influxdb.bucket = "plant b".into();
    settings.sink.influxdb.token = Some("secret".into());
    settings.sink.influxdb.gzip = Gzip::Off;
    log.produce(TOPIC, &(0..30).map(|i| row(&format!("s-{i:02}"), 1_000, i as f64, i, true)).collect::<Vec<_>>()).await;
    let running = start(&settings);
    running.done(30).await;
    assert_eq!((running.status("points"), running.status("rejected")), (29.into(), 1.into()));
    // A value that becomes a null, and a row that leaves the result.
    let mut gone = row("s-02", 1_000, 1.0, 50, false);
    gone.headers.push((result_header::KEY, r#"{"sensor_id":"s-02"}"#.into()));
    log.produce_nulls(TOPIC, &[gone]).await;
    log.produce(TOPIC, &[with_value("s-01", 1_000, 50, true, r#"{"sensor_id":"s-01","avg":null,"max":1.0}"#.into())]).await;
    running.done(32).await;
    assert_eq!(running.status("left_out"), 2, "it has no way to delete");
    running.stop().await;
    let dead = log.read("iot.dead", 1).await.remove(0);
    let headers = format!("{dead:?}");
    assert!(rdkafka::message::Message::payload(&dead).unwrap().starts_with(br#"{"sensor_id":"s-13""#), "{headers}");
    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), 30);
    assert!(
        lines.contains(&"q,sensor_id=s-07 avg=7.0 1000".to_owned()) && lines.contains(&"q,sensor_id=s-01 max=1.0 1000".to_owned()),
        "{lines:?}"
    );
}
