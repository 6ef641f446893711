use common::settings::Sqlite;

use super::*;
use crate::point::tests::point;
use crate::point::{FieldValue, Point};
use crate::sqlite::SqliteWriter;
use crate::writer::Writer as _;

fn filled(points: &[Point]) -> (tempfile::TempDir, Store, SqliteWriter) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let mut writer = SqliteWriter::open(&Sqlite { path: path.clone(), retention: None }).unwrap();
    writer.write(points).unwrap();
    (dir, Store::open(path), writer)
}

#[test]
fn a_missing_file_is_empty_and_may_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let mut store = Store::open(&path);
    assert_eq!(store.measurements().unwrap(), []);
    assert_eq!(store.points(&[1], 0, 1, 10).unwrap(), []);
    assert_eq!(store.version().unwrap(), 0);
    assert!(!path.exists(), "a reader creates nothing");
    let mut writer = SqliteWriter::open(&Sqlite { path, retention: None }).unwrap();
    writer.write(&[point("s", 0, 1.0, None)]).unwrap();
    assert_eq!(store.measurements().unwrap(), [Measurement { name: "m".into(), series: 1, newest_ms: Some(0) }]);
}

#[test]
fn series_are_found_by_the_values_of_their_tags() {
    let (_dir, mut store, _writer) = filled(&[point("Alpha", 0, 1.0, None), point("beta", 5, 1.0, None)]);
    let names = |found: Vec<Series>| found.into_iter().map(|series| series.tags["sensor_id"].clone()).collect::<Vec<_>>();
    assert_eq!(names(store.series(None, None, 10).unwrap()), ["Alpha", "beta"]);
    assert_eq!(names(store.series(Some("m"), Some("ALPH"), 10).unwrap()), ["Alpha"]);
    assert_eq!(names(store.series(None, None, 1).unwrap()), ["Alpha"]);
    assert!(store.series(None, Some("sensor"), 10).unwrap().is_empty());
    assert!(store.series(Some("other"), None, 10).unwrap().is_empty());
}

#[test]
fn the_latest_and_the_recent_points_come_oldest_first() {
    let points: Vec<Point> = (0..10).map(|i| point("s", i * 1000, i as f64, None)).collect();
    let (_dir, mut store, _writer) = filled(&points);
    let id = store.series(None, None, 1).unwrap()[0].id;
    let times = |found: Vec<SeriesPoints>| found[0].points.iter().map(|point| point.time_ms).collect::<Vec<_>>();
    assert_eq!(times(store.recent(&[id], 3).unwrap()), [7000, 8000, 9000]);
    assert_eq!(times(store.latest(&[id]).unwrap()), [9000]);
    assert_eq!(times(store.points(&[id], 2000, 4000, 10).unwrap()), [2000, 3000], "the end is exclusive");
}

#[test]
fn too_many_points_become_buckets_that_keep_the_extremes() {
    let row = |i: i64| Point {
        fields: vec![
            ("avg".into(), FieldValue::Float(i as f64)),
            ("min".into(), FieldValue::Float(i as f64 - 1.0)),
            ("max".into(), FieldValue::Float(i as f64 + 1.0)),
            ("n".into(), FieldValue::Int(2)),
        ],
        is_final: i < 990,
        ..point("s", i * 1000 - 500_000, 0.0, Some(i))
    };
    let (_dir, mut store, _writer) = filled(&(0..1000).map(row).collect::<Vec<_>>());
    let id = store.series(None, None, 1).unwrap()[0].id;
    let found = store.points(&[id], i64::MIN, i64::MAX, 100).unwrap().remove(0);
    assert!(found.bucket_ms.is_some());
    assert!((50..=100).contains(&found.points.len()), "{}", found.points.len());
    let number = |point: &StoredPoint, name: &str| point.fields[name].as_f64().unwrap();
    assert_eq!(found.points.iter().map(|point| number(point, "n")).sum::<f64>(), 2000.0);
    assert_eq!(found.points.iter().map(|point| number(point, "min")).fold(f64::MAX, f64::min), -1.0);
    assert_eq!(found.points.iter().map(|point| number(point, "max")).fold(f64::MIN, f64::max), 1000.0);
    assert!(found.points.iter().all(|point| number(point, "min") < number(point, "avg")));
    assert!(found.points[0].is_final && !found.points.last().unwrap().is_final);
}

#[test]
fn the_version_moves_with_each_commit() {
    let (_dir, mut store, mut writer) = filled(&[point("s", 0, 1.0, None)]);
    let before = store.version().unwrap();
    assert_eq!(store.version().unwrap(), before);
    writer.write(&[point("s", 0, 2.0, None)]).unwrap();
    assert_ne!(store.version().unwrap(), before);
}

#[test]
fn a_measurement_is_a_view_with_tags_and_fields_as_columns() {
    let row = |sensor: &str, time_ms: i64, fields: Vec<(&str, FieldValue)>| Point {
        measurement: "it's-10s".into(),
        tags: vec![("sensor_id".into(), sensor.into()), ("a \"b\".c".into(), "x".into())],
        fields: fields.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        end_ms: Some(time_ms + 10_000),
        is_final: time_ms == 0,
        ..point("s", time_ms, 0.0, Some(7))
    };
    let (dir, ..) = filled(&[
        row("s-1", 0, vec![("avg", FieldValue::Float(1.5)), ("n", FieldValue::Int(2))]),
        // Null fields are left out, and a column is there when any of the newest points has it.
        row("s-2", 1_700_000_000_123, vec![("n", FieldValue::Int(3)), ("Sensor_ID", FieldValue::Int(9))]),
    ]);
    let path = dir.path().join("p.sqlite");
    let connection = Connection::open_in_memory().unwrap();
    connection.execute("ATTACH ?1 AS kept", [path.to_str().unwrap()]).unwrap();
    let view = views(&connection, "kept", &path).unwrap().remove(0);
    assert_eq!(view.name, "it_s_10s_history");
    let names: Vec<String> = view.columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
    let wanted = ["window_start TIMESTAMP", "window_end TIMESTAMP", "sensor_id STRING", "a \"b\".c STRING", "avg DOUBLE", "n BIGINT"];
    assert_eq!(names, [&wanted[..], &["revision BIGINT", "final BOOLEAN"]].concat());
    connection.execute_batch(&format!("CREATE TEMP VIEW v AS {}", view.select)).unwrap();
    let sql = "SELECT window_start || ' ' || window_end || ' ' || sensor_id || ' ' || coalesce(avg, 'none') || ' ' || n || ' ' || final || \"a \"\"b\"\".c\" FROM v ORDER BY n";
    let rows: Vec<String> = connection.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let first = "1970-01-01T00:00:00.000Z 1970-01-01T00:00:10.000Z s-1 1.5 2 1x";
    assert_eq!(rows, [first, "2023-11-14T22:13:20.123Z 2023-11-14T22:13:30.123Z s-2 none 3 0x"]);
}

#[test]
fn a_database_without_our_tables_has_no_views_and_a_newer_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let connection = Connection::open_in_memory().unwrap();
    connection.execute("ATTACH ?1 AS kept", [path.to_str().unwrap()]).unwrap();
    assert_eq!(views(&connection, "kept", &path).unwrap(), []);
    connection.execute_batch("PRAGMA kept.user_version = 99").unwrap();
    assert!(views(&connection, "kept", &path).unwrap_err().to_string().contains("format version 99"));
}
