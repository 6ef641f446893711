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
