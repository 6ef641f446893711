//! Lookup tables: which joins are taken, which are refused, and a second opinion on their rows.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use proptest::prelude::*;

use super::harness::{Record, Way, compile_at, run};
use super::property::{readings, record};
use crate::query::ddl::parse_ddl;
use crate::query::{QueryFile, Scope, StreamQuery};

const ROOMS: &str = "sensor_id,room,floor\ns-0,kitchen,0\ns-1,kitchen,0\ns-2,attic,2\ns-3,cellar,\n";
const SCHEMA: &str = "sensor_id STRING, room STRING, floor INT";

fn query_text(tables: &[(&str, &str, &str)], sql: &str) -> String {
    let mut text = String::from(
        "name = 'case'\n[source]\ntopic = 'iot'\nschema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING, seq BIGINT'\n\
         event_time = 'ts'\nwatermark = '5 seconds'\n",
    );
    for (name, file, schema) in tables {
        text.push_str(&format!("[[lookup]]\nname = '{name}'\npath = '{file}'\n"));
        if !schema.is_empty() {
            text.push_str(&format!("schema = '{schema}'\n"));
        }
    }
    text + &format!("[query]\nsql = '''{sql}'''\n")
}

/// A folder with the files of lookup tables.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| fs::write(folder.0.path().join(name), text).unwrap());
        folder
    }

    fn rooms() -> Self {
        Self::with(&[("rooms.csv", ROOMS)])
    }

    fn query_file(&self) -> std::path::PathBuf {
        self.0.path().join("q.toml")
    }

    fn compile(&self, tables: &[(&str, &str, &str)], sql: &str) -> Arc<StreamQuery> {
        compile_at(&query_text(tables, sql), &self.query_file())
    }

    fn refusal(&self, tables: &[(&str, &str, &str)], sql: &str) -> String {
        let file = QueryFile::parse(&query_text(tables, sql), &self.query_file()).unwrap();
        match StreamQuery::compile(file) {
            Ok(query) => panic!("accepted: {sql}: {query}"),
            Err(error) => error.to_string().replace(self.0.path().to_str().unwrap(), "DIR"),
        }
    }
}

const ONE: &[(&str, &str, &str)] = &[("rooms", "rooms.csv", SCHEMA)];
const GROUP: &str = "GROUP BY window(ts, '10 seconds')";

fn joined(join: &str) -> String {
    format!("SELECT count(*) AS n FROM iot {join} {GROUP}")
}

#[test]
fn what_does_not_stream_is_refused_with_what_to_write() {
    let folder = Folder::rooms();
    let on = "ON iot.sensor_id = rooms.sensor_id";
    let cases = [
        (joined(&format!("RIGHT JOIN rooms {on}")), "RIGHT JOIN gives rows of the lookup table that no reading has matched"),
        (joined(&format!("FULL OUTER JOIN rooms {on}")), "write JOIN, or LEFT JOIN"),
        (joined("CROSS JOIN rooms"), "needs an equality"),
        (joined(", rooms"), "needs an equality"),
        (joined("JOIN rooms ON iot.sensor_id < rooms.sensor_id"), "needs an equality"),
        (joined("JOIN rooms ON rooms.room = 'attic'"), "needs an equality"),
        (format!("SELECT count(*) AS n FROM rooms JOIN iot {on} {GROUP}"), "on the left of a join; put the stream first"),
        (
            "SELECT count(*) AS n FROM iot a JOIN iot b ON a.seq = b.seq JOIN rooms r ON a.sensor_id = r.sensor_id GROUP BY a.kind".into(),
            "joins of a stream with a stream",
        ),
        (joined("JOIN (rooms a JOIN rooms b ON a.room = b.room) ON iot.sensor_id = a.sensor_id"), "joins of lookup tables with each other"),
        ("SELECT room, count(*) AS n FROM rooms GROUP BY room".into(), "reads the lookup table 'rooms' and no stream"),
        (joined("JOIN (SELECT room AS sensor_id FROM rooms GROUP BY room) r USING (sensor_id)"), "put it into the file"),
        (joined(""), "does not use the lookup table 'rooms'"),
        (joined("JOIN romos ON iot.sensor_id = romos.sensor_id"), "there is no table 'romos'; select FROM iot"),
        (joined("JOIN rooms ON iot.sensor_id = rooms.sensor"), "rooms.sensor"),
        (
            format!("SELECT count(*) AS n FROM iot JOIN rooms {on} GROUP BY window(to_timestamp(room), '10 seconds')"),
            "must be over the event-time column",
        ),
    ];
    for (sql, part) in cases {
        let message = folder.refusal(ONE, &sql);
        assert!(message.contains(part), "'{part}' is not in: {message}\n  for {sql}");
        assert!(!message.contains('\n'), "more than a sentence: {message}");
    }
}

#[test]
fn a_table_that_cannot_be_used_is_named_with_its_line() {
    let folder = Folder::with(&[
        ("rooms.csv", "sensor_id,room\ns-1,hall\n\ns-2,attic\ns-1,cellar\n"),
        ("short.csv", "sensor_id,room\ns-1\n"),
        ("wrong.csv", "sensor_id,room\ns-1,hall\ns-2,first\n"),
        ("empty.csv", ""),
        ("text.parquet", "sensor_id,room\n"),
    ]);
    let sql = joined("JOIN t ON iot.sensor_id = t.sensor_id AND t.room IS NOT NULL");
    for (file, schema, fault) in [
        (
            "rooms.csv",
            "sensor_id STRING, room STRING",
            "DIR/rooms.csv has the key t.sensor_id = s-1 twice, in line 2 and line 5; a reading must find one row at most, \
             so leave one of them out",
        ),
        (
            "rooms.csv",
            "",
            "a CSV file does not tell the types of its columns; write a schema, such as schema = \"sensor_id STRING, room STRING\"",
        ),
        ("rooms.csv", "sensor_id TEXT", "schema: column 'sensor_id' is TEXT: no such type is read"),
        ("rooms.csv", "id STRING", "DIR/rooms.csv: line 1 names no column 'id' of the schema"),
        ("short.csv", "sensor_id STRING, room STRING", "DIR/short.csv: line 2: 1 column, where line 1 names 2"),
        ("wrong.csv", "sensor_id STRING, room INT", "DIR/wrong.csv: line 2: column 'room' is INT, found \"hall\""),
        ("empty.csv", "sensor_id STRING, room INT", "DIR/empty.csv: the file is empty; its first line must name the columns"),
        ("away.csv", "sensor_id STRING, room INT", "DIR/away.csv cannot be read: No such file or directory"),
        ("text.parquet", "", "DIR/text.parquet: it cannot be read as Parquet"),
    ] {
        let message = folder.refusal(&[("t", file, schema)], &sql);
        assert!(message.starts_with(&format!("query 'case': lookup 't': {fault}")), "{message}\n  is not: {fault}");
        assert!(!message.contains('\n'), "more than a sentence: {message}");
    }
}

#[test]
fn a_key_that_cannot_be_computed_is_named_with_its_line() {
    let folder = Folder::with(&[("t.csv", "code,room\n1,hall\nB2,attic\n")]);
    let tables = &[("t", "t.csv", "code STRING, room STRING")];
    let message = folder.refusal(tables, &joined("JOIN t ON iot.seq = CAST(t.code AS INT)"));
    assert!(message.starts_with("query 'case': lookup 't': DIR/t.csv, line 3: ") && message.contains("B2"), "{message}");
    let message = folder.refusal(tables, &joined("JOIN (SELECT CAST(code AS INT) AS code FROM t) t ON iot.seq = t.code"));
    assert!(message.starts_with("query 'case': lookup 't': DIR/t.csv: ") && message.contains("B2"), "{message}");
}

#[test]
fn a_condition_on_the_table_alone_chooses_among_rows_of_one_key() {
    let folder = Folder::with(&[("t.csv", "sensor_id,room,gone\ns-1,hall,true\ns-1,attic,false\n")]);
    let tables = &[("t", "t.csv", "sensor_id STRING, room STRING, gone BOOLEAN")];
    let query = folder.compile(tables, &joined("JOIN t ON iot.sensor_id = t.sensor_id AND NOT t.gone"));
    assert_eq!(query.lookups[0].to_string(), format!("t: sensor_id Utf8, gone Boolean ({}, 2 rows)", query.lookups[0].path.display()));
    let message = folder.refusal(tables, &joined("JOIN t ON iot.sensor_id = t.sensor_id WHERE NOT t.gone"));
    assert!(message.contains("twice, in line 2 and line 3"), "{message}");
}

#[test]
fn groups_by_the_partition_key_stay_apart_and_groups_by_the_table_do_not() {
    let folder = Folder::rooms();
    let scope = |join: &str, key: &str| {
        let sql = format!("SELECT count(*) AS n FROM iot {join} GROUP BY window(ts, '10 seconds'), {key}");
        folder.compile(ONE, &sql).scope
    };
    let on = "JOIN rooms ON rooms.sensor_id = iot.sensor_id";
    assert_eq!(scope(on, "iot.sensor_id"), Scope::Partition);
    assert_eq!(scope(on, "rooms.sensor_id"), Scope::Partition);
    assert_eq!(scope("JOIN rooms USING (sensor_id)", "sensor_id"), Scope::Partition);
    assert_eq!(scope("LEFT JOIN rooms USING (sensor_id)", "iot.sensor_id, room"), Scope::Partition);
    assert_eq!(scope("LEFT JOIN rooms USING (sensor_id)", "sensor_id"), Scope::Partition);
    assert_eq!(scope("NATURAL JOIN rooms", "sensor_id"), Scope::Partition);
    assert_eq!(scope("JOIN (SELECT sensor_id AS id, room FROM rooms) r ON r.id = iot.sensor_id", "iot.sensor_id"), Scope::Partition);
    assert_eq!(scope(on, "room"), Scope::Topic);
    // Null for all readings without a match, whatever their key.
    assert_eq!(scope("LEFT JOIN rooms ON rooms.sensor_id = iot.sensor_id", "rooms.sensor_id"), Scope::Topic);
    assert_eq!(scope("JOIN rooms ON rooms.sensor_id = iot.kind", "rooms.sensor_id"), Scope::Topic);
}

#[test]
fn the_rows_of_a_table_belong_to_the_query() {
    let sql = joined("JOIN rooms USING (sensor_id) WHERE room <> 'x'");
    let fingerprint = |text: &str| Folder::with(&[("rooms.csv", text)]).compile(ONE, &sql).fingerprint;
    let first = fingerprint(ROOMS);
    let reordered = "room,sensor_id,floor,note\n\nattic,s-2,7,\ncellar,\"s-3\",,x\r\nkitchen,s-1,0,\nkitchen,s-0,0,\n";
    assert_eq!(fingerprint(reordered), first, "the order, and columns that the query does not use, are nothing to it");
    assert_ne!(fingerprint(&ROOMS.replace("attic", "loft")), first);
    assert_ne!(fingerprint(&format!("{ROOMS}s-9,attic,1\n")), first);
}

/// Writes a CSV table as `rooms.parquet`.
fn to_parquet(folder: &Folder, csv: &str) {
    let rows = crate::format::csv::read(csv.as_bytes(), &parse_ddl(SCHEMA).unwrap()).unwrap().batch;
    let file = fs::File::create(folder.0.path().join("rooms.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

/// A log that is not short.
fn log() -> Vec<Record> {
    let readings = (0..).map(readings).find(|readings| readings.len() > 100).unwrap();
    readings.iter().map(record).collect()
}

#[test]
fn csv_and_parquet_of_the_same_rows_are_the_same_query() {
    let folder = Folder::rooms();
    let sql = format!("SELECT room, sum(floor) AS f, sum(value) AS v FROM iot LEFT JOIN rooms USING (sensor_id) {GROUP}, room");
    let csv = folder.compile(ONE, &sql);
    to_parquet(&folder, ROOMS);
    let tables = &[("rooms", "rooms.parquet", "")];
    let parquet = folder.compile(tables, &sql);
    assert_eq!(parquet.fingerprint, csv.fingerprint);
    let outcome = run(&csv, &log(), Way::Straight);
    assert!(outcome.rows.len() > 4);
    assert_eq!(run(&parquet, &log(), Way::Straight), outcome);

    to_parquet(&folder, &format!("{ROOMS}s-2,loft,3\n"));
    let message = folder.refusal(tables, &sql);
    assert!(message.contains("rooms.sensor_id = s-2 twice, in row 3 and row 5"), "{message}");
}

#[test]
fn names_ignore_case() {
    let folder = Folder::with(&[("rooms.csv", &ROOMS.replace("sensor_id,room", "SENSOR_ID,Room"))]);
    let tables = &[("Rooms", "rooms.csv", "SENSOR_ID STRING, Room STRING")];
    let query = |from: &str| folder.compile(tables, &format!("SELECT R.room, COUNT(*) AS n FROM {from} {GROUP}, r.ROOM"));
    for from in ["IOT JOIN rooms AS r USING (Sensor_Id)", "iot i JOIN ROOMS R ON I.SENSOR_ID = r.sensor_id"] {
        let query = query(from);
        assert_eq!(query.lookups[0].rows.schema().fields().len(), 2);
        assert!(!run(&query, &log(), Way::Straight).rows.is_empty(), "{from}");
    }
}

#[test]
fn floats_and_other_types_match_as_equality_does() {
    let folder = Folder::with(&[("t.csv", "f,n,label\n0.0,1,zero\n2.5,2,half\n")]);
    let matches = |key: &str, values: &[&str]| {
        let sql = format!("SELECT label, count(*) AS n FROM iot JOIN t ON {key} {GROUP}, label");
        let query = folder.compile(&[("t", "t.csv", "f DOUBLE, n INT, label STRING")], &sql);
        let reading = |value: &&str| Record {
            partition: 0,
            received: 100,
            value: Some(format!(r#"{{"sensor_id":"a","ts":1,"value":{value},"kind":"{value}","seq":1}}"#).into_bytes()),
        };
        let outcome = run(&query, &values.iter().map(reading).collect::<Vec<_>>(), Way::Straight);
        assert_eq!(outcome.ledger.imbalance(), 0);
        (outcome.rows.into_values().collect::<Vec<_>>(), outcome.ledger.filtered)
    };
    let zero = |n: u64| vec![format!(r#"{{"label":"zero","n":{n}}}"#)];
    assert_eq!(matches("iot.value = t.f", &["0.0", "-0.0", "0", "3"]), (zero(3), 1));
    // BIGINT with INT, and a key of the reading that is computed.
    assert_eq!(matches("iot.seq = t.n", &["1", "2"]), (zero(2), 0));
    assert_eq!(matches("CAST(iot.value AS INT) + 1 = t.n AND iot.value < 0.5", &["0.2", "0.9"]), (zero(1), 1));
    // A text is compared as a number; 1.5 is no INT, so that reading is dead, and not filtered.
    assert_eq!(matches("iot.kind = t.n", &["1", "7", "1.5"]), (zero(1), 1));
    // A condition that fails is that of a pair: a reading without a match does not come to it.
    assert_eq!(matches("iot.value = t.f AND CAST(iot.kind AS INT) = 0", &["0", "7.5"]), (zero(1), 1));
}

#[test]
fn the_query_files_of_the_project_compile() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let queries: Vec<_> = files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
    assert!(queries.len() >= 4);
    for path in queries {
        StreamQuery::compile(QueryFile::read(path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same rows as from the table written into the SQL.
    #[test]
    fn a_table_gives_what_case_gives(seed: u64, left: bool, by_sensor: bool) {
        let folder = Folder::rooms();
        let (key, join) = (if by_sensor { ", iot.sensor_id" } else { "" }, if left { "LEFT JOIN" } else { "JOIN" });
        let results = "count(*) AS n, sum(value) AS sum, stddev(value) AS sd, count(floor) AS f";
        let looked_up = format!(
            "SELECT window.start AS s, room, {results} FROM iot {join} rooms ON iot.sensor_id = rooms.sensor_id \
             WHERE value > -900000 {GROUP}, room{key}"
        );
        let outer = if left { "" } else { "WHERE room IS NOT NULL" };
        let written = format!(
            "SELECT window.start AS s, room, {results} FROM (SELECT *, \
             CASE sensor_id WHEN 's-0' THEN 'kitchen' WHEN 's-1' THEN 'kitchen' WHEN 's-2' THEN 'attic' WHEN 's-3' THEN 'cellar' END AS room, \
             CASE sensor_id WHEN 's-0' THEN 0 WHEN 's-1' THEN 0 WHEN 's-2' THEN 2 END AS floor \
             FROM iot WHERE value > -900000) AS iot {outer} {GROUP}, room{key}"
        );
        let (looked_up, written) = (folder.compile(ONE, &looked_up), compile_at(&query_text(&[], &written), Path::new("q.toml")));
        prop_assert_eq!(looked_up.scope, if by_sensor { Scope::Partition } else { Scope::Topic });
        let log: Vec<Record> = readings(seed).iter().map(record).collect();
        let outcome = run(&looked_up, &log, Way::Straight);
        prop_assert_eq!(outcome.ledger.imbalance(), 0);
        prop_assert_eq!(&run(&written, &log, Way::Straight), &outcome);
        prop_assert_eq!(&run(&looked_up, &log, Way::Killed { seed }), &outcome);
    }
}
