//! The sink as a whole: result rows in a log, points in a database.
#![allow(clippy::unwrap_used, dead_code)]

mod log;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::settings::Sqlite;
use common::topics::{lane_header, result_header};
use common::{Settings, Shutdown, Telemetry};
use log::{Log, Row};
use rdkafka::message::{Headers as _, Message as _};
use rows::{until, verify};
use sink::point::Point;
use sink::sqlite::SqliteWriter;
use sink::store::{SeriesPoints, Store};
use sink::writer::{WriteError, WriteOutcome, Writer};
use sink::{SinkError, Summary};

const TOPIC: &str = "iot.agg.q";

fn settings(log: &Log, path: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.kafka.bootstrap_servers = log.servers();
    settings.sink.sqlite = Sqlite { path: path.to_owned(), retention: None };
    settings
}

fn row(sensor: &str, start: i64, avg: f64, revision: i64) -> Row {
    let headers = [
        (result_header::QUERY, "q".to_owned()),
        (result_header::REVISION, revision.to_string()),
        (result_header::FINAL, "false".to_owned()),
        (result_header::WINDOW_START, start.to_string()),
        (result_header::WINDOW_END, (start + 10_000).to_string()),
        (result_header::KEY_COLUMNS, r#"["sensor_id"]"#.to_owned()),
    ];
    Row { key: sensor.into(), value: format!(r#"{{"sensor_id":"{sensor}","avg":{avg:?}}}"#), headers: headers.to_vec() }
}

/// Every series with its points, in an order that does not depend on who came first. `None` while the sink makes the file: nobody else may
/// look into it then.
fn look(path: &Path) -> Option<Vec<(String, SeriesPoints)>> {
    let mut store = Store::open(path);
    let all = store.series(None, None, 10_000).ok()?;
    let ids: Vec<i64> = all.iter().map(|series| series.id).collect();
    let points = store.points(&ids, i64::MIN, i64::MAX, usize::MAX).ok()?;
    let mut table: Vec<_> = all.iter().map(|series| series.tags["sensor_id"].clone()).zip(points).collect();
    for (_, points) in &mut table {
        points.series_id = 0;
    }
    table.sort_by(|a, b| a.0.cmp(&b.0));
    Some(table)
}

fn table(path: &Path) -> Vec<(String, SeriesPoints)> {
    look(path).unwrap()
}

fn count(path: &Path) -> usize {
    look(path).unwrap_or_default().iter().map(|(_, series)| series.points.len()).sum()
}

struct Running {
    telemetry: Telemetry,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<Summary, SinkError>>,
}

fn start(settings: Settings, writer: Option<Box<dyn Writer>>) -> Running {
    let (telemetry, shutdown) = (Telemetry::default(), Shutdown::manual());
    let (voice, stop) = (telemetry.clone(), shutdown.clone());
    let task = tokio::spawn(async move {
        match writer {
            Some(writer) => sink::run_with(writer, settings, voice, stop).await,
            None => sink::run(settings, voice, stop).await,
        }
    });
    Running { telemetry, shutdown, task }
}

impl Running {
    async fn stop(self) -> Summary {
        self.shutdown.trigger();
        let began = Instant::now();
        let summary = self.task.await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_secs(30), "stopping took {:?}", began.elapsed());
        summary
    }

    fn status(&self, key: &str) -> serde_json::Value {
        self.telemetry.status()["parts"]["sink"]["status"][key].clone()
    }
}

/// The program, with no setting from outside.
fn binary() -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sink"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEMARK_")) {
        command.env_remove(name);
    }
    command
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("points.sqlite");
    (dir, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_become_points_poison_goes_to_the_dead_lane_and_a_restart_goes_on() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let (_dir, path) = folder();
    log.produce(TOPIC, &[row("a", 0, 1.0, 1), row("b", 0, 2.0, 1), row("a", 0, 3.0, 5), row("a", 0, 9.0, 4)]).await;
    log.produce(TOPIC, &[Row { key: "a".into(), value: "poison".into(), headers: vec![("trace", "7".into())] }]).await;
    log.produce(TOPIC, &[row("a", 10_000, 4.0, 6)]).await;

    let running = start(settings(&log, &path), None);
    until("three points are there", || count(&path) == 3).await;
    until("the poison is buried", || running.status("rejected") == 1).await;
    assert_eq!(running.status("topics"), serde_json::json!([TOPIC]));
    let first = table(&path);
    assert_eq!(first[0].1.points[0].fields["avg"], 3.0, "the largest revision stays");
    let summary = running.stop().await;
    assert_eq!((summary.rows, summary.stale), (6, 1));

    let dead = log.read("iot.dead", 1).await.remove(0);
    assert_eq!((dead.key(), dead.payload()), (Some(b"a".as_slice()), Some(b"poison".as_slice())));
    let header = |name: &str| {
        let headers = dead.headers().unwrap();
        headers.iter().find(|header| header.key == name).map(|header| String::from_utf8_lossy(header.value.unwrap()).into_owned())
    };
    assert_eq!(header(lane_header::STAGE).as_deref(), Some("sink"));
    assert_eq!(header(lane_header::REASON).as_deref(), Some("not_json"));
    assert_eq!(header(lane_header::TOPIC).as_deref(), Some(TOPIC));
    assert_eq!(header("trace").as_deref(), Some("7"), "the row's own headers stay");

    // The offsets are committed: a second start reads only what is new.
    log.produce(TOPIC, &[row("c", 0, 5.0, 7)]).await;
    let again = start(settings(&log, &path), None);
    until("the new point is there", || count(&path) == 4).await;
    assert_eq!(again.stop().await.rows, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_whose_names_are_no_text_end_nothing_and_stay_with_a_dead_row() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let (_dir, path) = folder();
    let odd: [(&[u8], &[u8]); 2] = [(b"\xff\xfe", b"odd"), (b"tidemark-\xe9", b"")];
    log.produce_odd(TOPIC, &row("a", 0, 1.0, 1), &odd).await;
    log.produce_odd(TOPIC, &Row { value: "poison".into(), ..row("a", 0, 1.0, 1) }, &odd).await;
    log.produce(TOPIC, &[row("a", 10_000, 2.0, 2)]).await;
    let settings = settings(&log, &path);
    let running = start(settings.clone(), None);
    until("both rows are there", || count(&path) == 2).await;
    until("the poison is buried", || running.status("rejected") == 1).await;
    running.stop().await;
    let dead = log.read("iot.dead", 1).await.remove(0);
    let headers: Vec<_> = common::headers::raw(&dead).collect();
    assert!(odd.iter().all(|(name, value)| headers.contains(&(*name, Some(*value)))), "{headers:?}");
    assert_eq!(common::headers::text(&dead, lane_header::REASON), Some("not_json"));
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 2, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_appears_later_is_read() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let (_dir, path) = folder();
    let running = start(settings(&log, &path), None);
    until("it reads what there is", || running.status("partitions") == 2).await;
    log.create(&["iot.agg.late-query"]).await;
    log.produce("iot.agg.late-query", &[row("a", 0, 1.0, 1)]).await;
    until("its row is there", || count(&path) == 1).await;
    running.stop().await;
}

/// Ends the sink like a kill between the database's commit and that of the offsets: the rows are written, the log does not know.
#[derive(Debug)]
struct DiesAfterWriting(SqliteWriter);

impl Writer for DiesAfterWriting {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        self.0.write(points)?;
        Err(WriteError::Fatal("killed".into()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_database_and_offsets_leaves_the_same_table() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let rows: Vec<Row> = (0..500).map(|i| row(&format!("s{}", i % 7), (i / 70) * 10_000, i as f64, i)).collect();
    log.produce(TOPIC, &rows).await;

    let (_dir, path) = folder();
    let mut settings = settings(&log, &path);
    settings.sink.instance_id = Some("one".into());
    for _ in 0..2 {
        let writer = DiesAfterWriting(SqliteWriter::open(&settings.sink.sqlite).unwrap());
        let dead = start(settings.clone(), Some(Box::new(writer)));
        assert_eq!(dead.task.await.unwrap().unwrap_err().to_string(), "killed");
    }
    let running = start(settings, None);
    until("all rows were read again", || running.status("rows") == 500).await;
    // Some may be there in a newer revision, and count for nothing.
    until("they are written", || running.status("lag") == 0 && running.status("waiting") == 0).await;
    running.stop().await;

    let (_other_dir, straight) = folder();
    SqliteWriter::open(&Sqlite { path: straight.clone(), retention: None })
        .unwrap()
        .write(&rows.iter().map(as_point).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(table(&path), table(&straight));
}

fn as_point(row: &Row) -> Point {
    let number = |name: &str| row.headers.iter().find(|(known, _)| *known == name).unwrap().1.parse::<i64>().unwrap();
    let value: serde_json::Value = serde_json::from_str(&row.value).unwrap();
    Point {
        measurement: "q".into(),
        tags: vec![("sensor_id".into(), row.key.clone().into())],
        time_ms: number(result_header::WINDOW_START),
        end_ms: Some(number(result_header::WINDOW_END)),
        fields: vec![("avg".into(), sink::point::FieldValue::Float(value["avg"].as_f64().unwrap()))],
        revision: Some(number(result_header::REVISION)),
        is_final: false,
        restated: false,
        nulls: vec![],
        null_tag: false,
        place: sink::point::Place::default(),
        deleted: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sinks_share_the_partitions_and_lose_nothing_when_one_goes() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let (_dir, path) = folder();
    let settings = settings(&log, &path);
    let rows = |from: i64| (from..from + 200).map(|i| row(&format!("s{}", i % 9), i * 10_000, 1.0, i)).collect::<Vec<_>>();
    let first = start(settings.clone(), None);
    until("one has both partitions", || first.status("partitions") == 2).await;
    let second = start(settings, None);
    until("each has one", || first.status("partitions") == 1 && second.status("partitions") == 1).await;
    log.produce(TOPIC, &rows(0)).await;
    until("the first half is there", || count(&path) == 200).await;
    log.produce(TOPIC, &rows(200)).await;
    first.stop().await;
    until("the other has taken over", || second.status("partitions") == 2 && count(&path) == 400).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_goes_away_makes_the_sink_unready_and_stopping_stays_quick() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let (_dir, path) = folder();
    log.produce(TOPIC, &[row("a", 0, 1.0, 1)]).await;
    let running = start(settings(&log, &path), None);
    let ready = |wanted: bool| running.telemetry.status()["parts"]["sink"]["ready"] == wanted;
    until("the point is there", || count(&path) == 1 && ready(true)).await;
    log.stop().await;
    until("it is not ready", || ready(false) && running.status("error") == "the Kafka log does not answer").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_writes_and_ends_in_good_order_on_sigterm() {
    let log = Log::start().await;
    log.create(&[TOPIC]).await;
    let (_dir, path) = folder();
    log.produce(TOPIC, &[row("a", 0, 1.0, 1)]).await;
    let mut command = binary();
    command.args(["--http-listen", "127.0.0.1:0", "--bootstrap-servers", &log.servers(), "--sqlite-path"]).arg(&path);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    until("its point is there", || count(&path) == 1).await;
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    until("it ends", || child.try_wait().unwrap().is_some()).await;
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_compares_sqlite_with_the_log_and_says_what_differs() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let (_dir, path) = folder();
    let settings = settings(&log, &path);
    log.produce(TOPIC, &(0..50).map(|i| row(&format!("s{}", i % 5), (i / 10) * 10_000, i as f64, i)).collect::<Vec<_>>()).await;
    log.produce(TOPIC, &[Row { key: "a".into(), value: "poison".into(), headers: vec![] }]).await;
    let running = start(settings.clone(), None);
    until("all is written", || running.status("rows") == 51 && running.status("waiting") == 0).await;
    running.stop().await;
    verify(&settings).await;
    let verify = |more: &[&str]| {
        let mut command = binary();
        let output =
            command.args(["verify", "--bootstrap-servers", &log.servers(), "--sqlite-path"]).arg(&path).args(more).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = verify(&[]);
    assert!(
        code == Some(0) && text.contains("sqlite: 25 equal, 0 missing, 0 different, 0 only in the database, 0 not written yet"),
        "{text}"
    );
    let mut tampered = SqliteWriter::open(&Sqlite { path: path.clone(), retention: None }).unwrap();
    let point = |sensor: &str, time: i64| as_point(&row(sensor, time, -1.0, 1_000));
    tampered.write(&[point("s1", 0), point("nobody", 10_000), Point { deleted: true, ..point("s2", 20_000) }]).unwrap();
    let (code, text) = verify(&[]);
    assert!(code == Some(1) && text.contains("23 equal, 1 missing, 1 different, 1 only in the database"), "{text}");
    let expected = "different: q {\"sensor_id\": \"s1\"} at 1970-01-01T00:00:00+00:00: field 'avg' is -1.0, the log has Float(6.0)";
    assert!(text.lines().any(|line| line == expected), "{text}");
    assert!(verify(&["--limit", "2"]).1.contains("and 1 more"));
    let (code, text) = verify(&["--from", "1970-01-01T00:00:30Z", "--until", "50000"]);
    assert!(code == Some(0) && text.contains("10 equal"), "{text}");

    // A database that is away: a sentence, and no promise to try again.
    let mut command = binary();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    command.envs([("TIDEMARK_SINK__INFLUXDB__URL", format!("http://{dead}")), ("TIDEMARK_SINK__INFLUXDB__BUCKET", "b".into())]);
    let output = command.args(["verify", "--to", "influxdb", "--bootstrap-servers", &log.servers()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with(&format!("error: InfluxDB at http://{dead} does not answer (")), "{said}");
    assert!(said.ends_with("); start it and verify again\n") && said.lines().count() == 1, "{said}");
}

/// A database that is locked until the test opens it.
#[derive(Debug)]
struct Locked(SqliteWriter, Arc<AtomicBool>);

impl Writer for Locked {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(WriteError::Retry { detail: "the database is locked".into(), after: None });
        }
        self.0.write(points)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_pauses_reading_and_loses_nothing() {
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    let (_dir, path) = folder();
    let mut settings = settings(&log, &path);
    settings.sink.batch_rows = 10;
    let rows: Vec<Row> = (0..300).map(|i| row("a", i * 10_000, 1.0, i)).collect();
    log.produce(TOPIC, &rows).await;
    let locked = Arc::new(AtomicBool::new(true));
    let writer = Locked(SqliteWriter::open(&settings.sink.sqlite).unwrap(), locked.clone());
    let running = start(settings, Some(Box::new(writer)));
    until("it says what it waits for", || running.status("error") == "the database is locked").await;
    assert!(running.status("rows").as_u64().unwrap() < 300, "reading pauses");
    until("it is not ready", || running.telemetry.status()["parts"]["sink"]["ready"] == false).await;
    locked.store(false, Ordering::Relaxed);
    until("all points are there", || count(&path) == 300).await;
    until("it is ready again", || running.telemetry.status()["parts"]["sink"]["ready"] == true).await;
    assert_eq!(running.stop().await.points, 300);
}
