//! Questions in SQL to the real programs: what they answer is what the queries, the memory tables and the database have.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use harness::appliance::Appliance;
use harness::oracle::{self, Cell, CellKey, Cells};
use harness::process::Process;
use harness::readings::{Reading, of_file};
use harness::wait::{wait_for, wait_until};
use harness::{binaries, http, points};
use rusqlite::Connection;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap()
}

/// `sql STATEMENT --url ...` of a program.
fn sql(program: &str, address: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = binaries::command(program);
    command.arg("sql").args(arguments).args(["--url", &format!("http://{address}")]);
    command.output().unwrap()
}

/// The rows that the command prints as JSON.
#[track_caller]
fn rows(program: &str, address: SocketAddr, statement: &str) -> Vec<Vec<Value>> {
    let output = sql(program, address, &[statement, "--output", "json"]);
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["truncated"], false, "{answer}");
    serde_json::from_value(answer["rows"].clone()).unwrap()
}

/// Exit code and standard error of a question that has no answer.
#[track_caller]
fn refused(program: &str, address: SocketAddr, statement: &str) -> (Option<i32>, String) {
    let output = sql(program, address, &[statement]);
    assert!(output.stdout.is_empty(), "{statement}: {}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
}

/// Rows of `window_start, sensor_id, n, avg, min, max`.
fn cells(rows: &[Vec<Value>]) -> Cells {
    let cell = |row: &Vec<Value>| {
        let key = CellKey { start: oracle::millis(row[0].as_str().unwrap()), sensor: row[1].as_str().unwrap().to_owned() };
        let number = |place: usize| row[place].as_f64().unwrap();
        (key, Cell { n: row[2].as_u64().unwrap(), avg: number(3), min: number(4), max: number(5) })
    };
    rows.iter().map(cell).collect()
}

/// The windows that the database has and that are not final.
fn open_windows(database: &Path) -> BTreeSet<CellKey> {
    let connection = Connection::open(database).unwrap();
    let sql = "SELECT time, json_extract(tags, '$.sensor_id') FROM point JOIN series ON id = series_id WHERE measurement = 'iot-10s' AND NOT final";
    let mut statement = connection.prepare(sql).unwrap();
    let key = statement.query_map([], |row| Ok(CellKey { start: row.get(0)?, sensor: row.get(1)? })).unwrap();
    key.map(Result::unwrap).collect()
}

/// Number of readings and the greatest of each sensor.
fn by_sensor(readings: &[Reading]) -> BTreeMap<String, (u64, f64)> {
    readings.iter().fold(BTreeMap::new(), |mut sensors, reading| {
        let (n, max) = sensors.entry(reading.sensor.clone()).or_insert((0, f64::NEG_INFINITY));
        (*n, *max) = (*n + 1, max.max(reading.value));
        sensors
    })
}

const COLUMNS: &str = "window_start, sensor_id, n, avg, min, max";

/// The default query, whose windows stay open when the files end; and a whole result in memory.
fn query_files(dir: &Path) -> [PathBuf; 2] {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("queries/iot-10s.toml")).unwrap();
    let update = dir.join("update.toml");
    std::fs::write(&update, text.replace("watermark = ", "idle_timeout = \"1 hour\"\nwatermark = ")).unwrap();
    let whole = dir.join("whole.toml");
    let text = "name = \"by-sensor\"\n[source]\ntopic = \"iot\"\nschema = \"sensor_id STRING, ts TIMESTAMP, value DOUBLE\"\nevent_time = \"ts\"\n\
                watermark = \"5 seconds\"\n[query]\nsql = \"SELECT sensor_id, count(*) AS n, max(value) AS top FROM iot GROUP BY sensor_id \
                ORDER BY n DESC, sensor_id\"\noutput_mode = \"complete\"\n[sink]\nformat = \"memory\"\n";
    std::fs::write(&whole, text).unwrap();
    [update, whole]
}

#[test]
fn the_appliance_answers_over_queries_memory_tables_and_database() {
    let dir = temp_dir();
    let [update, whole] = query_files(dir.path());
    let files = ["boiler.csv", "cellar.csv"].map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name));
    let [boiler, cellar] = files.each_ref().map(|file| file.to_str().unwrap());
    let (update, whole) = (update.to_str().unwrap(), whole.to_str().unwrap());
    let data = dir.path().join("data");
    let mut appliance = Appliance::start(&data, &["--query", update, whole, "--replay", boiler, cellar, "--speed", "max"]);
    let readings: Vec<Reading> = files.iter().flat_map(|file| of_file(file)).collect();
    let want = oracle::fold(&readings, 10_000);
    wait_until("every window of the files", LIMIT, || points::read(&appliance.database(), "iot-10s") == want);
    let page = appliance.page;
    let ask = |statement: &str| rows("tidemark", page, statement);

    // The database, as it is.
    assert_eq!(cells(&ask(&format!("SELECT {COLUMNS} FROM iot_10s_history"))), want);
    assert_eq!(ask("SELECT count(*) FROM store.point"), [[json!(want.len())]]);
    // The live rows are the windows that are not final in the database, and hold what it holds.
    let live = || cells(&ask(&format!("SELECT {COLUMNS} FROM iot_10s")));
    let open = || -> Cells { open_windows(&appliance.database()).into_iter().map(|key| (key.clone(), want[&key])).collect() };
    wait_until("which windows are final to be written", LIMIT, || live().keys().eq(open().keys()));
    let (live, open) = (live(), open());
    assert!(live.keys().any(|key| key.sensor == "boiler") && live.len() < 10, "{live:?}");
    oracle::assert_equal("the open windows", &live, &open);
    let joined =
        "SELECT count(*) FROM iot_10s AS l JOIN iot_10s_history AS h USING (window_start, sensor_id) WHERE l.avg = h.avg AND NOT h.final";
    assert_eq!(ask(joined), [[json!(live.len())]]);

    // The memory table of the whole result, the same as `/tables` shows it, and as the query has it.
    let sensors = by_sensor(&readings);
    wait_until("the whole result", LIMIT, || {
        let held = ask("SELECT sensor_id, n, top FROM by_sensor");
        held.iter()
            .map(|row| (row[0].as_str().unwrap().to_owned(), (row[1].as_u64().unwrap(), row[2].as_f64().unwrap())))
            .collect::<BTreeMap<_, _>>()
            == sensors
    });
    let shown = http::get_json(page, "/tables/by-sensor").unwrap();
    let shown: Vec<Vec<Value>> =
        shown["rows"].as_array().unwrap().iter().map(|row| vec![row["sensor_id"].clone(), row["n"].clone()]).collect();
    for table in ["by_sensor", "\"by-sensor\"", "live.by_sensor"] {
        assert_eq!(ask(&format!("SELECT sensor_id, n FROM {table} ORDER BY n DESC, sensor_id")), shown, "{table}");
    }

    the_command_prints(page, live.len());
    nothing_is_changed(page, &appliance.database(), want.len());
    appliance.stop();
    let (code, sentence) = refused("tidemark", page, "SELECT 1");
    assert!(code == Some(1) && sentence.contains("no program answers at"), "{sentence}");
}

/// Tables, CSV, standard input, and a sentence for each mistake.
fn the_command_prints(page: SocketAddr, live: usize) {
    let text = |arguments: &[&str]| {
        let output = sql("tidemark", page, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = text(&["SELECT sensor_id, n FROM by_sensor ORDER BY sensor_id"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[..4], ["sensor_id    n", "---------  ---", "boiler     900", "cellar     700"]);
    assert!(lines[4].starts_with("(2 rows, "), "{table}");
    assert_eq!(
        text(&["SELECT sensor_id, n, NULL AS z FROM by_sensor", "--output", "csv"]),
        "sensor_id,n,z\r\nboiler,900,\r\ncellar,700,\r\n"
    );

    let mut command = binaries::command("tidemark");
    command.args(["sql", "-", "--output", "csv", "--url", &format!("http://{page}")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT count(*) AS n\nFROM iot_10s;\n").unwrap();
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), format!("n\r\n{live}\r\n"));

    let listed: Value = serde_json::from_str(&text(&["--tables", "--output", "json"])).unwrap();
    let listed: Vec<(String, u64)> = listed["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| (table["name"].as_str().unwrap().to_owned(), table["rows"].as_u64().unwrap()))
        .collect();
    let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["by_sensor", "live.by_sensor", "iot_10s", "iot_10s_history", "store.point", "store.series"]);
    assert_eq!((listed[0].1, listed[1].1, listed[2].1), (2, 2, live as u64));
    assert!(text(&["--tables"]).contains("sensor_id STRING, n BIGINT, top DOUBLE"));

    let (code, sentence) = refused("tidemark", page, "SELECT * FROM iot");
    assert_eq!(code, Some(1));
    assert!(sentence.starts_with("error: no such table: iot; there are: by_sensor, live.by_sensor, iot_10s, "), "{sentence}");
    assert_eq!(refused("tidemark", page, "SELECT top FROM iot_10s LIMIT 1").1.lines().count(), 1);
    let usage = binaries::command("tidemark").arg("sql").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

fn nothing_is_changed(page: SocketAddr, database: &Path, points: usize) {
    for statement in ["DELETE FROM store.point", "DROP TABLE store.point", "PRAGMA store.journal_mode = DELETE", "ATTACH '/tmp/x' AS x"] {
        let (code, sentence) = refused("tidemark", page, statement);
        assert!(code == Some(1) && sentence.contains("write a SELECT"), "{statement}: {sentence}");
    }
    assert_eq!(points::count(database, "iot-10s"), points);
}

/// Without any log: files in, a table in memory, and the open windows of the same rows.
#[test]
fn a_processor_alone_answers_over_its_queries_and_memory_tables() {
    let dir = temp_dir();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    let rows_of =
        "sensor_id,ts,value\na,2026-01-01T00:00:01Z,2\na,2026-01-01T00:00:02Z,4\nb,2026-01-01T00:00:12Z,7\na,2026-01-01T00:00:13Z,1\n";
    std::fs::write(dir.path().join("in/1.csv"), rows_of).unwrap();
    let query = |name: &str, sql: &str, mode: &str| {
        let text = format!(
            "name = '{name}'\n[source]\nformat = 'csv'\nname = 'stream'\npath = 'in'\nschema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE'\n\
             event_time = 'ts'\nwatermark = '2 seconds'\n[query]\nsql = \"{sql}\"\noutput_mode = '{mode}'\n[sink]\nformat = 'memory'\n"
        );
        let path = dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let windows = "SELECT window.start AS s, sensor_id, sum(value) AS v, array_agg(value) AS all_values FROM stream GROUP BY window(ts, '10 seconds'), sensor_id";
    let closed = query("closed", windows, "append");
    let rows_kept = query("rows", "SELECT sensor_id, ts, value > 3 AS high FROM stream WHERE value > 1", "append");
    let mut command: Command = binaries::command("processor");
    command.env("TIDEMARK_HTTP__LISTEN", "127.0.0.1:0").current_dir(dir.path());
    let mut process = Process::start("processor", command.arg("--query").arg(closed).arg("--query").arg(rows_kept));
    let address = process.wait_line("its address", LIMIT, http::address_in);
    let ask = |statement: &str| {
        let output = sql("processor", address, &[statement, "--output", "json"]);
        let answer: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        answer.map(|answer| answer["rows"].clone())
    };
    // In append mode a window that has closed is in the table, and one that is open is in the state, and never are both.
    let in_memory = json!([["2026-01-01T00:00:00.000Z", "a", 6.0, "[2.0,4.0]"]]);
    wait_until("the window that has closed", LIMIT, || ask("SELECT * FROM closed").as_ref() == Some(&in_memory));
    let live = json!([["2026-01-01T00:00:10.000Z", "a", 1.0, "[1.0]"], ["2026-01-01T00:00:10.000Z", "b", 7.0, "[7.0]"]]);
    assert_eq!(ask("SELECT * FROM live.closed ORDER BY sensor_id"), Some(live));
    // A query without a grouping has its rows in memory, and no state.
    let plain =
        json!([["a", "2026-01-01T00:00:01.000Z", false], ["a", "2026-01-01T00:00:02.000Z", true], ["b", "2026-01-01T00:00:12.000Z", true]]);
    let got = wait_for("the rows", LIMIT, || {
        ask("SELECT * FROM \"rows\" ORDER BY ts").filter(|rows| rows.as_array().is_some_and(|rows| rows.len() == 3))
    });
    assert_eq!(got, plain);
    let (code, sentence) = refused("processor", address, "SELECT * FROM store.point");
    assert_eq!((code, sentence.as_str()), (Some(1), "error: no such table: store.point; there are: closed, rows, live.closed"));
    process.signal("INT");
    assert_eq!(process.wait_exit(LIMIT), Some(0), "{}", process.output());
}
