use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value as Json, json};

use super::ask::{TableInfo, answer, tables};
use super::*;

/// A program with a live query `iot-10s`, a query `counts` that is live and in memory, and a large table.
#[derive(Default)]
struct Fake {
    /// How often the rows of a table were asked for.
    asked: Mutex<Vec<String>>,
    large: AtomicUsize,
}

fn column(name: &str, kind: Kind) -> Column {
    Column { name: name.into(), kind }
}

impl Tables for Fake {
    fn tables(&self) -> Vec<Table> {
        let iot = vec![
            column("window_start", Kind::Timestamp),
            column("sensor_id", Kind::String),
            column("avg", Kind::Double),
            column("ok", Kind::Boolean),
            column("all", Kind::Json),
        ];
        let table = |schema, name: &str, columns| Table { schema, name: name.into(), columns };
        let n = || vec![column("n", Kind::BigInt), column("N", Kind::BigInt)];
        vec![
            table(Schema::Memory, "counts", n()),
            table(Schema::Live, "counts", n()),
            table(Schema::Live, "iot-10s", iot),
            table(Schema::Live, "large", vec![column("n", Kind::BigInt)]),
            table(Schema::Live, "order", n()),
            table(Schema::Live, "sqlite_odd", n()),
        ]
    }

    fn rows(&self, table: &Table, budget: Budget, put: &mut dyn FnMut(Vec<Value>) -> Result<(), Fault>) -> Result<(), Fault> {
        assert!(budget.until > Instant::now() - Duration::from_secs(60));
        self.asked.lock().unwrap().push(format!("{}.{}", table.schema.name(), table.name));
        let text = |text: &str| Value::Text(text.into());
        match (table.schema, table.name.as_str()) {
            (Schema::Memory, "counts") => put(vec![Value::Integer(1), Value::Null]),
            (Schema::Live, "counts") => put(vec![Value::Integer(2), Value::Integer(3)]),
            (_, "iot-10s") => {
                put(vec![text("2023-11-14T22:13:20.000Z"), text("007"), Value::Real(21.5), Value::Integer(1), text("[1,2]")])?;
                put(vec![text("2023-11-14T22:13:30.000Z"), text("s-2"), Value::Null, Value::Integer(0), Value::Null])
            }
            (_, "large") => (0..self.large.load(Ordering::Relaxed)).try_for_each(|n| put(vec![Value::Integer(i64::try_from(n).unwrap())])),
            _ => Ok(()),
        }
    }
}

struct File(PathBuf);

impl Store for File {
    fn path(&self) -> PathBuf {
        self.0.clone()
    }

    fn views(&self, connection: &Connection, schema: &str) -> Result<Vec<View>, String> {
        connection.query_row(&format!("SELECT count(*) FROM {schema}.point"), [], |_| Ok(())).map_err(|error| error.to_string())?;
        let select = format!("SELECT time AS at FROM {schema}.point WHERE value > 1");
        Ok(vec![View { name: "iot_10s_history".into(), columns: vec![("at".into(), "BIGINT")], select }])
    }
}

/// Memory is SQLite's in the whole process: one question at a time here, too.
static TURN: Mutex<()> = Mutex::new(());

struct Asking {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    program: Program,
    limits: Limits,
    _turn: MutexGuard<'static, ()>,
}

impl Asking {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        // A path may hold what a URI gives a meaning to.
        let path = dir.path().join("a b?c#d%20.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        writer.execute_batch("CREATE TABLE point (time INTEGER, value REAL); INSERT INTO point VALUES (5, 1.5), (6, 0.5)").unwrap();
        let fake = Arc::new(Fake::default());
        let program = Program { tables: fake.clone(), store: Some(Arc::new(File(path))) };
        let limits = Limits { max_time: Duration::from_secs(20), max_rows: 100, max_memory: 32 << 20 };
        Self { dir, fake, program, limits, _turn: turn }
    }

    fn ask(&self, statement: &str) -> Result<Answer, Fault> {
        answer(&self.program, self.limits, statement)
    }

    #[track_caller]
    fn rows(&self, statement: &str) -> Json {
        json!(self.ask(statement).unwrap().rows)
    }

    /// The sentence about a statement that cannot be answered.
    #[track_caller]
    fn refused(&self, statement: &str) -> String {
        match self.ask(statement) {
            Err(Fault::Statement(sentence)) => sentence,
            other => panic!("{statement}: {other:?}"),
        }
    }

    /// All files beside the store, with what is in them.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        // The log of a database and its index are opened by its readers, too; a log that is empty says nothing.
        let says_something = |(path, bytes): &(PathBuf, Vec<u8>)| {
            let path = path.to_string_lossy();
            !(path.ends_with("-shm") || path.ends_with("-wal") && bytes.is_empty())
        };
        let mut files: Vec<_> = files.map(|path| (path.clone(), std::fs::read(path).unwrap())).filter(says_something).collect();
        files.sort();
        files
    }
}

#[test]
fn live_rows_have_their_types_and_nulls() {
    let asking = Asking::new();
    let answer = asking.ask("SELECT *, avg * 2 AS twice, NULL AS none FROM iot_10s ORDER BY sensor_id").unwrap();
    assert_eq!(answer.columns, ["window_start", "sensor_id", "avg", "ok", "all", "twice", "none"]);
    assert_eq!(answer.types, ["TIMESTAMP", "STRING", "DOUBLE", "BOOLEAN", "JSON", "DOUBLE", ""]);
    let first = json!(["2023-11-14T22:13:20.000Z", "007", 21.5, true, "[1,2]", 43.0, null]);
    let second = json!(["2023-11-14T22:13:30.000Z", "s-2", null, false, null, null, null]);
    assert_eq!(json!(answer.rows), json!([first, second]));
    assert!(!answer.truncated);
    assert_eq!(asking.rows("SELECT sensor_id, value FROM iot_10s, json_each(\"all\") ORDER BY value"), json!([["007", 1], ["007", 2]]));
    // Times compare as text, and SQLite's functions know them; members of JSON can be had.
    let sql = "SELECT strftime('%s', window_start), json_extract(\"all\", '$[1]'), typeof(sensor_id) FROM \"iot-10s\" WHERE window_start < '2023-11-14T22:13:25'";
    assert_eq!(asking.rows(sql), json!([["1700000000", 2, "text"]]));
}

#[test]
fn names_are_found_quoted_plain_and_with_their_schema() {
    let asking = Asking::new();
    for name in ["iot_10s", "IOT_10S", "\"iot-10s\"", "live.iot_10s", "live.\"iot-10s\"", "[iot-10s]"] {
        assert_eq!(asking.rows(&format!("SELECT count(*) FROM {name}")), json!([[2]]), "{name}");
        assert_eq!(asking.rows(&format!("WITH t AS (SELECT avg FROM {name}) SELECT count(*) FROM t AS a, t AS b")), json!([[4]]), "{name}");
    }
    // The memory table comes first, as in Spark; a second column of a name has a number.
    assert_eq!(asking.rows("SELECT n, N_2 FROM counts"), json!([[1, null]]));
    assert_eq!(asking.rows("SELECT * FROM live.counts"), json!([[2, 3]]));
    assert_eq!(asking.rows("SELECT time FROM store.point UNION SELECT n FROM counts ORDER BY 1"), json!([[1], [5], [6]]));
    assert_eq!(asking.rows("SELECT at FROM iot_10s_history"), json!([[5]]));
}

#[test]
fn only_what_is_named_is_made() {
    let asking = Asking::new();
    asking.ask("SELECT 1, 'iot_10s' AS large").unwrap();
    asking.ask("SELECT count(*) FROM iot_10s_history").unwrap();
    assert!(asking.fake.asked.lock().unwrap().is_empty());
    asking.ask("SELECT (SELECT count(*) FROM counts) FROM iot_10s").unwrap();
    let mut asked = asking.fake.asked.lock().unwrap().clone();
    asked.sort();
    // SQLite does not say which of the two `count(*)` is about.
    asked.retain(|table| table != "live.counts");
    assert_eq!(asked, ["live.iot-10s", "memory.counts"]);
}

#[test]
fn tables_are_listed_as_a_statement_names_them() {
    let asking = Asking::new();
    let listed = tables(&asking.program, asking.limits).unwrap();
    let row = |info: &TableInfo| (info.name.clone(), info.schema.clone(), info.rows);
    let rows: Vec<_> = listed.iter().map(row).collect();
    let wanted = [
        ("counts", "memory", 1),
        ("live.counts", "live", 1),
        ("iot_10s", "live", 2),
        ("large", "live", 0),
        ("\"order\"", "live", 0),
        ("iot_10s_history", "store", 1),
        ("store.point", "store", 2),
    ];
    assert_eq!(rows, wanted.map(|(name, schema, rows)| (name.to_owned(), schema.to_owned(), Some(rows))));
    let columns = |info: &TableInfo| info.columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect::<Vec<_>>();
    assert_eq!(columns(&listed[2]), ["window_start TIMESTAMP", "sensor_id STRING", "avg DOUBLE", "ok BOOLEAN", "all JSON"]);
    assert_eq!(columns(&listed[6]), ["time BIGINT", "value DOUBLE"]);
}

#[test]
fn nothing_can_be_changed_and_nothing_else_is_read() {
    let asking = Asking::new();
    let before = asking.files();
    let elsewhere = asking.dir.path().join("elsewhere.sqlite");
    let statements = [
        "INSERT INTO store.point VALUES (1, 2)",
        "INSERT INTO iot_10s SELECT * FROM iot_10s",
        "UPDATE store.point SET value = 0",
        "UPDATE counts SET n = 0 RETURNING n",
        "DELETE FROM store.point",
        "DELETE FROM store.point RETURNING time",
        "WITH t AS (SELECT 1) INSERT INTO store.point SELECT 1, 2 FROM t",
        "REPLACE INTO store.point VALUES (1, 2)",
        "CREATE TABLE t (a)",
        "CREATE TABLE store.t (a)",
        "CREATE TEMP TABLE t AS SELECT 1 AS a",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TEMP TRIGGER t AFTER INSERT ON store.point BEGIN SELECT 1; END",
        "CREATE INDEX store.i ON point (time)",
        "CREATE VIRTUAL TABLE temp.f USING fts5(a)",
        "DROP TABLE store.point",
        "DROP VIEW iot_10s_history",
        "ALTER TABLE store.point RENAME TO p",
        "REINDEX",
        "ANALYZE",
        "VACUUM",
        &format!("VACUUM store INTO '{}'", elsewhere.display()),
        &format!("ATTACH '{}' AS e", elsewhere.display()),
        "ATTACH ':memory:' AS e",
        "DETACH store",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "SAVEPOINT s",
        "PRAGMA query_only = 0",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA store.wal_checkpoint(TRUNCATE)",
        "PRAGMA hard_heap_limit = 1",
        "PRAGMA database_list",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_table_info('point')",
        "SELECT load_extension('x')",
        "SELECT writefile('x', 'y')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT * FROM dbstat",
        "SELECT count(*) FROM dbstat('store')",
        "EXPLAIN DELETE FROM store.point",
    ];
    for statement in statements {
        let sentence = asking.refused(statement);
        let known = sentence.contains("write a SELECT") || sentence.contains("no such") || sentence.contains("syntax error");
        assert!(known, "{statement}: {sentence}");
    }
    assert!(asking.files() == before, "the store and the folder are not as they were");
    assert_eq!(asking.rows("SELECT count(*) FROM store.point"), json!([[2]]));
    // The file itself is open for reading only, whatever a statement may do.
    let path = asking.dir.path().join("a b?c#d%20.sqlite");
    assert!(path.exists() && !elsewhere.exists());
}

#[test]
fn one_question_at_a_time_and_a_sentence_about_each_fault() {
    let asking = Asking::new();
    assert!(asking.refused("SELECT 1; SELECT 2").contains("more than one statement"));
    assert!(asking.refused("SELECT 1; DROP TABLE store.point").contains("write a SELECT"));
    assert!(asking.refused("SELECT 1; nonsense").contains("syntax error"));
    assert_eq!(asking.rows("SELECT 1; -- and no more"), json!([[1]]));
    for nothing in ["", "  ", "-- why?", ";"] {
        assert!(asking.refused(nothing).contains("write a SELECT"), "{nothing:?}");
    }
    assert!(asking.refused("SELECT '\0'").contains("nul"));
    assert_eq!(asking.refused("SELEC 1"), "near \"SELEC\": syntax error");
    let unknown = asking.refused("SELECT * FROM iot");
    let wanted = "no such table: iot; there are: counts, live.counts, iot_10s, large, \"order\", iot_10s_history, store.point";
    assert_eq!(unknown, wanted);
    let unknown = asking.refused("SELECT average FROM iot_10s");
    assert_eq!(unknown, "no such column: average; iot_10s has: window_start, sensor_id, avg, ok, all");
    // In double quotes it is a name, and never a text.
    assert!(asking.refused("SELECT \"average\" FROM iot_10s").contains("no such column"));
}

#[test]
fn what_runs_for_ever_is_ended() {
    let mut asking = Asking::new();
    asking.limits.max_time = Duration::from_millis(300);
    asking.fake.large.store(20_000, Ordering::Relaxed);
    for statement in [
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT 1 FROM t) SELECT n FROM t WHERE n = 2",
        "SELECT count(*) FROM large AS a, large AS b, large AS c WHERE a.n + b.n = c.n",
        "SELECT sum(length(hex(zeroblob(100000)))) FROM large AS a, large AS b",
        "SELECT count(*) FROM large AS a, large AS b WHERE printf('%1000d', a.n) LIKE '%' || b.n || '%1%2%3%4'",
    ] {
        let started = Instant::now();
        assert_eq!(asking.ask(statement), Err(Fault::Time(Duration::from_millis(300))), "{statement}");
        assert!(started.elapsed() < Duration::from_secs(60), "{statement}: {:?}", started.elapsed());
    }
}

#[test]
fn what_eats_memory_is_ended() {
    let mut asking = Asking::new();
    asking.limits.max_time = Duration::from_secs(600);
    let numbers = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 100000000)";
    // A text that has become too large is told when it is complete.
    let some = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 300000)";
    for statement in [
        "SELECT count(DISTINCT n || 'a long text that is kept for each of the numbers') FROM t",
        "SELECT n FROM t ORDER BY n || 'a long text', n DESC",
        "SELECT n, count(*) FROM t GROUP BY n || 'x' HAVING count(*) > 1",
        "SELECT n FROM t UNION SELECT -n FROM t",
        "SELECT sum(n) OVER (PARTITION BY 1) FROM t",
        "SELECT count(*) FROM t AS a JOIN t AS b ON a.n = b.n",
        "SELECT count(DISTINCT randomblob(1000)) FROM t",
    ] {
        let before = super::memory::used();
        assert_eq!(asking.ask(&format!("{numbers} {statement}")), Err(Fault::Memory(32 << 20)), "{statement}");
        assert!(super::memory::used().saturating_sub(before) < 1 << 20, "{statement}: all is given back");
    }
    for statement in [
        "SELECT length(zeroblob(1000000000))",
        "SELECT length(randomblob(1000000000))",
        "SELECT length(printf('%1000000000d', 1))",
        "SELECT length(printf('%.*c', 1000000000, 'x'))",
        "SELECT length(replace(hex(zeroblob(500000)), '0', '0123456789'))",
        &format!("{some} SELECT length(group_concat(n)) FROM t"),
        &format!("{some} SELECT json_array_length(json_group_array(n)) FROM t"),
    ] {
        let sentence = asking.refused(statement);
        assert!(sentence.contains("larger than 1 MiB"), "{statement}: {sentence}");
    }
    // A table that is larger than what a question may hold is not held.
    asking.fake.large.store(50_000_000, Ordering::Relaxed);
    assert_eq!(asking.ask("SELECT count(*) FROM large"), Err(Fault::Memory(32 << 20)));
}

#[test]
fn statements_that_are_large_themselves_are_refused() {
    let asking = Asking::new();
    for statement in [
        format!("SELECT {}1", "1 + ".repeat(5_000)),
        format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        vec!["SELECT 1"; 1_000].join(" UNION ALL "),
        format!("SELECT '{}'", "x".repeat(100_000)),
        format!("SELECT 1 LIKE '{}'", "%a".repeat(5_000)),
        format!("SELECT 1 FROM {}", vec!["iot_10s"; 100].join(", ")),
    ] {
        let sentence = asking.refused(&statement);
        assert!(!sentence.is_empty() && sentence.len() < 500, "{sentence}");
    }
}

#[test]
fn a_long_answer_is_cut_and_says_so() {
    let asking = Asking::new();
    asking.fake.large.store(101, Ordering::Relaxed);
    let cut = asking.ask("SELECT n FROM large ORDER BY n DESC").unwrap();
    assert_eq!((cut.rows.len(), cut.truncated, &cut.rows[0]), (100, true, &vec![json!(100)]));
    assert!(!asking.ask("SELECT n FROM large LIMIT 100").unwrap().truncated);
    // By bytes, too.
    let wide = asking.ask("SELECT hex(zeroblob(400000)) FROM large").unwrap();
    assert!(wide.truncated && wide.rows.len() < 20, "{}", wide.rows.len());
}

#[test]
fn without_a_store_or_with_a_damaged_one_the_rest_is_answered() {
    let mut asking = Asking::new();
    let path = asking.dir.path().join("damaged.sqlite");
    asking.program.store = Some(Arc::new(File(path.clone())));
    assert_eq!(asking.rows("SELECT count(*) FROM iot_10s"), json!([[2]]));
    assert!(!path.exists(), "a question makes no file");
    std::fs::write(&path, "this is no database, whatever it is called").unwrap();
    assert_eq!(asking.rows("SELECT count(*) FROM iot_10s"), json!([[2]]));
    let sentence = asking.refused("SELECT * FROM iot_10s_history");
    assert!(sentence.contains("there are: counts") && sentence.contains("damaged.sqlite cannot be read"), "{sentence}");
    asking.program.store = None;
    assert!(asking.refused("SELECT * FROM store.point").contains("no such table"));
    let empty = Program { tables: Arc::new(Nothing), store: None };
    let fault = answer(&empty, asking.limits, "SELECT * FROM t").unwrap_err();
    assert_eq!(fault.to_string(), "no such table: t; there are none yet");
}

struct Nothing;

impl Tables for Nothing {
    fn tables(&self) -> Vec<Table> {
        Vec::new()
    }

    fn rows(&self, _: &Table, _: Budget, _: &mut dyn FnMut(Vec<Value>) -> Result<(), Fault>) -> Result<(), Fault> {
        Ok(())
    }
}

mod over_http {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};

    use common::settings;
    use common::{Shutdown, telemetry};

    use super::*;

    fn exchange(address: SocketAddr, request: &str) -> (u16, Json) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(body).unwrap_or_else(|_| Json::String(body.to_owned())))
    }

    fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, Json) {
        exchange(address, &format!("GET {path} HTTP/1.0\r\n{headers}\r\n"))
    }

    fn post(address: SocketAddr, body: &str) -> (u16, Json) {
        exchange(address, &format!("POST /api/sql HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    async fn with_listener(settings: settings::Sql, ask: impl FnOnce(SocketAddr) + Send + 'static) {
        let asking = Asking::new();
        let stop = Shutdown::manual();
        let router = router(asking.program.clone(), &settings);
        let (address, task) = telemetry::serve("127.0.0.1:0".parse().unwrap(), router, stop.clone()).await.unwrap();
        tokio::task::spawn_blocking(move || ask(address)).await.unwrap();
        stop.trigger();
        task.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn questions_are_asked_in_three_ways() {
        let settings = settings::Sql { max_time: common::units::Span::from_secs(60), ..settings::Sql::default() };
        with_listener(settings, |address| {
            let wanted = json!([["007"], ["s-2"]]);
            let sql = "SELECT sensor_id FROM iot_10s ORDER BY 1";
            let answers = [
                get(address, "/api/sql?q=SELECT%20sensor_id%20FROM%20iot_10s%20ORDER%20BY%201", ""),
                post(address, sql),
                post(address, &json!({ "sql": sql }).to_string()),
            ];
            for (code, answer) in answers {
                assert_eq!(
                    (code, &answer["columns"], &answer["types"], &answer["rows"]),
                    (200, &json!(["sensor_id"]), &json!(["STRING"]), &wanted)
                );
                assert!(answer["truncated"] == false && answer["elapsed_ms"].is_u64());
            }
            let (code, listed) = get(address, "/api/sql/tables", "");
            assert_eq!((code, &listed["tables"][2]["name"], &listed["tables"][2]["rows"]), (200, &json!("iot_10s"), &json!(2)));
            assert_eq!(get(address, "/api/sql", "").0, 400);
            assert_eq!(post(address, "{\"q\": 1}").0, 400);
            assert_eq!(post(address, "DROP TABLE iot_10s").0, 400);
            assert_eq!(post(address, &"x".repeat(70_000)).0, 413);
            // A person who opens the address, and the page itself; but no page from elsewhere.
            for (site, code) in [("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403)] {
                assert_eq!(get(address, "/api/sql?q=SELECT%201", &format!("Sec-Fetch-Site: {site}\r\n")).0, code, "{site}");
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn limits_have_their_codes_and_others_wait_for_their_turn() {
        let settings = settings::Sql { max_time: common::units::Span::from_millis(400), ..settings::Sql::default() };
        with_listener(settings, |address| {
            let long = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t";
            let askers: Vec<_> = (0..8).map(|_| std::thread::spawn(move || post(address, long).0)).collect();
            let mut codes: Vec<u16> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
            codes.sort_unstable();
            assert!(codes[0] == 408 && codes[7] == 503 && codes.iter().all(|code| [408, 503].contains(code)), "{codes:?}");
            // One that was given up may hold its turn a moment longer.
            let began = Instant::now();
            while post(address, "SELECT 1").0 != 200 {
                assert!(began.elapsed() < Duration::from_secs(60), "nobody gets a turn any more");
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_questions_there_is_no_such_place() {
        let settings = settings::Sql { enabled: false, ..settings::Sql::default() };
        with_listener(settings, |address| assert_eq!(get(address, "/api/sql?q=SELECT%201", "").0, 404)).await;
    }
}
