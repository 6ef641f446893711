use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::settings::Sqlite;
use common::{Shutdown, telemetry};
use serde_json::{Value, json};
use sink::point::{FieldValue, Point};
use sink::sqlite::SqliteWriter;
use sink::writer::Writer as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

struct Page {
    dir: tempfile::TempDir,
    address: SocketAddr,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

impl Page {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::default();
        telemetry.part("processor", || json!({ "queries": [] })).set_ready(true);
        let state = PageState { sqlite: dir.path().join("p.sqlite"), telemetry };
        let shutdown = Shutdown::manual();
        let (address, task) = telemetry::serve("127.0.0.1:0".parse().unwrap(), router(state), shutdown.clone()).await.unwrap();
        Self { dir, address, shutdown, task }
    }

    fn writer(&self) -> SqliteWriter {
        SqliteWriter::open(&Sqlite { path: self.dir.path().join("p.sqlite"), retention: None }).unwrap()
    }

    async fn open(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Head and body of an answer.
    async fn get(&self, path: &str, headers: &str) -> (String, Vec<u8>) {
        let mut answer = Vec::new();
        self.open(path, headers).await.read_to_end(&mut answer).await.unwrap();
        let cut = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&answer[..cut]).to_ascii_lowercase(), answer[cut + 4..].to_vec())
    }

    async fn json(&self, path: &str) -> Value {
        let (head, body) = self.get(path, "").await;
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        serde_json::from_slice(&body).unwrap()
    }

    async fn stop(self) {
        self.shutdown.trigger();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap();
    }
}

fn point(measurement: &str, sensor: &str, time_ms: i64, avg: f64) -> Point {
    Point {
        measurement: measurement.into(),
        tags: vec![("sensor_id".into(), sensor.into())],
        time_ms,
        end_ms: Some(time_ms + 10_000),
        fields: vec![("avg".into(), FieldValue::Float(avg)), ("n".into(), FieldValue::Int(3))],
        revision: None,
        is_final: false,
        restated: false,
        nulls: Vec::new(),
        null_tag: false,
        place: sink::point::Place::default(),
        deleted: false,
    }
}

fn unzip(body: &[u8]) -> String {
    use std::io::Read as _;
    let mut text = String::new();
    flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn the_page_and_all_it_names_are_served_from_here() {
    let page = Page::start().await;
    const GZIP: &str = "Accept-Encoding: br, gzip;q=0.8\r\n";
    let (head, body) = page.get("/", GZIP).await;
    assert!(head.contains("text/html") && head.contains("content-security-policy: default-src 'none'"), "{head}");
    let html = unzip(&body);
    let names: Vec<&str> = html.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert!(names.len() > 8);
    for name in names {
        let (head, body) = page.get(name, GZIP).await;
        assert!(head.starts_with("http/1.1 200") && head.contains("content-encoding: gzip"), "{name}: {head}");
        let (head, plain) = page.get(name, "Accept-Encoding: gzip;q=0\r\n").await;
        assert!(!head.contains("content-encoding"), "{name}: {head}");
        assert!(!plain.is_empty() && unzip(&body).as_bytes() == plain, "{name}");
    }
    let library = String::from_utf8(page.get("/assets/plotly.js", "").await.1).unwrap();
    assert!(library.len() > 1_000_000 && library.starts_with("/**") && library.trim_end().ends_with(';'), "not plotly.js as a whole");
    assert!(!library.contains("MathJax.loader"), "more than plotly.js");
    let outside = html.matches("http").count() - html.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(outside, 0, "nothing is fetched from elsewhere");
    assert!(page.get("/assets/other.js", "").await.0.starts_with("http/1.1 404"));
    page.stop().await;
}

#[tokio::test]
async fn a_file_that_is_known_is_not_sent_again() {
    let page = Page::start().await;
    let (head, _) = page.get("/assets/plotly.js", "").await;
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let (head, body) = page.get("/assets/plotly.js", &format!("If-None-Match: {tag}\r\n")).await;
    assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{head}");
    page.stop().await;
}

#[tokio::test]
async fn an_appliance_without_results_has_an_empty_overview() {
    let page = Page::start().await;
    let overview = page.json("/api/overview").await;
    assert_eq!((&overview["measurements"], &overview["series"]), (&json!([]), &json!([])));
    assert_eq!(page.json("/api/points?series=1").await, json!({ "series": [] }));
    page.stop().await;
}

#[tokio::test]
async fn overview_and_points_tell_what_the_store_holds() {
    let page = Page::start().await;
    let mut points: Vec<Point> = (0..50).map(|i| point("q", "A-1", i * 10_000, i as f64)).collect();
    points.extend([point("q", "Zürich 🌡", 0, 7.0), point("other", "x", 0, 1.0)]);
    page.writer().write(&points).unwrap();

    let overview = page.json("/api/overview").await;
    assert_eq!(overview["measurement"], "q", "the one with the most series");
    let first = &overview["series"][0];
    assert_eq!((&first["tags"]["sensor_id"], &first["latest"]["f"]["avg"], &first["field"]), (&json!("A-1"), &json!(49.0), &json!("avg")));
    assert_eq!(first["spark"].as_array().unwrap().len(), 30);
    assert_eq!(page.json("/api/overview?filter=z%C3%BCr").await["series"].as_array().unwrap().len(), 1);
    let cut = page.json("/api/overview?limit=1").await;
    assert_eq!((cut["series"].as_array().unwrap().len(), &cut["more"]), (1, &json!(true)));
    assert_eq!(page.json("/api/overview?measurement=other").await["series"][0]["tags"]["sensor_id"], "x");

    let id = first["id"].as_i64().unwrap();
    let some = page.json(&format!("/api/points?measurement=q&series={id}&from=100000&to=130000")).await;
    let times: Vec<i64> = some["series"][0]["points"].as_array().unwrap().iter().map(|point| point["t"].as_i64().unwrap()).collect();
    assert_eq!(times, [100_000, 110_000, 120_000]);
    let folded = page.json(&format!("/api/points?series={id}&max=10")).await;
    assert!(folded["series"][0]["bucket_ms"].as_i64().unwrap() > 10_000);
    assert_eq!(page.json(&format!("/api/points?measurement=other&series={id}")).await["series"], json!([]));
    page.stop().await;
}

/// Reads an event stream until it holds `wanted`.
async fn read_until(stream: &mut TcpStream, held: &mut String, wanted: &str) {
    let started = Instant::now();
    while !held.contains(wanted) {
        assert!(started.elapsed() < Duration::from_secs(60), "no '{wanted}' in:\n{held}");
        let mut piece = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(read > 0, "the stream ended:\n{held}");
        held.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
}

#[tokio::test]
async fn events_tell_changes_and_only_changes() {
    let page = Page::start().await;
    let mut writer = page.writer();
    writer.write(&[point("q", "s", 0, 1.0), point("q", "s", 10_000, 2.0)]).unwrap();
    let mut stream = page.open("/api/events?series=1", "").await;
    let mut held = String::new();
    read_until(&mut stream, &mut held, r#""avg":2.0"#).await;
    read_until(&mut stream, &mut held, "event: pipeline").await;
    assert!(held.contains("text/event-stream") && held.contains(r#""processor":{"ready":true"#), "{held}");

    held.clear();
    writer.write(&[point("q", "s", 10_000, 2.5)]).unwrap();
    read_until(&mut stream, &mut held, r#""avg":2.5"#).await;
    assert!(!held.contains(r#""avg":1.0"#), "what has not changed is not sent again: {held}");
    page.stop().await;
}

#[tokio::test]
async fn an_unreadable_database_is_told_and_not_hidden() {
    let page = Page::start().await;
    std::fs::write(page.dir.path().join("p.sqlite"), "this is no database, whatever it is called").unwrap();
    let (head, body) = page.get("/api/overview", "").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("cannot be read"));
    let mut held = String::new();
    read_until(&mut page.open("/api/events", "").await, &mut held, "event: fault").await;
    page.stop().await;
}
