use std::path::Path;

use super::*;
use crate::point::FieldValue;
use crate::point::tests::point;
use crate::store::{Store, StoredPoint};

fn settings(path: &Path) -> Sqlite {
    Sqlite { path: path.to_owned(), retention: None }
}

fn outcome(written: u64, stale: u64) -> WriteOutcome {
    WriteOutcome { written, stale, left_out: vec![] }
}

fn stored(path: &Path, sensor: &str) -> Vec<StoredPoint> {
    let mut store = Store::open(path);
    let all = store.series(None, None, 100).unwrap();
    let ids: Vec<i64> = all.iter().filter(|series| series.tags.values().any(|value| value == sensor)).map(|series| series.id).collect();
    store.points(&ids, i64::MIN, i64::MAX, 1_000_000).unwrap().into_iter().flat_map(|series| series.points).collect()
}

fn avg(point: &StoredPoint) -> f64 {
    point.fields["avg"].as_f64().unwrap()
}

#[test]
fn the_larger_revision_stays_across_batches_and_within_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/points.sqlite");
    let mut writer = SqliteWriter::open(&settings(&path)).unwrap();
    let first = writer.write(&[point("s", 0, 1.0, Some(5)), point("s", 0, 2.0, Some(7)), point("s", 0, 9.0, Some(6))]).unwrap();
    assert_eq!(first, outcome(2, 1));
    // A paused former owner writes late: dropped and counted.
    assert_eq!(writer.write(&[point("s", 0, 8.0, Some(6))]).unwrap(), outcome(0, 1));
    assert_eq!(avg(&stored(&path, "s")[0]), 2.0);
    // The same revision again, as recovery writes it, overwrites.
    assert_eq!(writer.write(&[point("s", 0, 3.0, Some(7))]).unwrap(), outcome(1, 0));
    assert_eq!(avg(&stored(&path, "s")[0]), 3.0);
    // A row without a revision always does.
    writer.write(&[point("s", 0, 4.0, None)]).unwrap();
    assert_eq!(avg(&stored(&path, "s")[0]), 4.0);
    writer.write(&[point("s", 0, 5.0, Some(1))]).unwrap();
    assert_eq!(avg(&stored(&path, "s")[0]), 5.0);
}

#[test]
fn a_row_that_left_the_result_is_deleted_unless_it_came_back_since() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("points.sqlite");
    let mut writer = SqliteWriter::open(&settings(&path)).unwrap();
    let gone = |revision| Point { deleted: true, fields: vec![], ..point("s", 0, 0.0, Some(revision)) };
    writer.write(&[point("s", 0, 1.0, Some(5)), gone(4)]).unwrap();
    writer.write(&[gone(4)]).unwrap();
    assert_eq!(stored(&path, "s").len(), 1);
    writer.write(&[gone(5)]).unwrap();
    assert_eq!(stored(&path, "s").len(), 0);
    writer.write(&[point("s", 0, 1.0, Some(6)), gone(7), point("s", 0, 2.0, Some(8))]).unwrap();
    assert_eq!(avg(&stored(&path, "s")[0]), 2.0);
}

#[test]
fn a_restart_goes_on_with_the_same_series() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let name = "Zürich \"roof\", 🌡=\\";
    SqliteWriter::open(&settings(&path)).unwrap().write(&[point(name, 0, 1.0, None)]).unwrap();
    SqliteWriter::open(&settings(&path)).unwrap().write(&[point(name, 0, 2.0, None), point(name, 10_000, 3.0, None)]).unwrap();
    let points = stored(&path, name);
    assert_eq!(points.iter().map(|p| (p.time_ms, avg(p))).collect::<Vec<_>>(), [(0, 2.0), (10_000, 3.0)]);
    assert_eq!(Store::open(&path).series(None, None, 10).unwrap().len(), 1);
}

#[test]
fn retention_counts_from_the_newest_point_and_deletes_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let mut writer = SqliteWriter::open(&Sqlite { path: path.clone(), retention: Some(Span::from_secs(100)) }).unwrap();
    let mut points: Vec<Point> = (0..20).map(|i| point("old", i * 10_000, 0.0, None)).collect();
    points.push(point("new", 1_000_000, 0.0, None));
    let mut other = point("other", 0, 0.0, None);
    other.measurement = "slow".into();
    points.push(other);
    writer.write(&points).unwrap();
    assert_eq!(writer.apply_retention(15).unwrap(), 15);
    assert_eq!(stored(&path, "old").len(), 5);
    assert_eq!(writer.apply_retention(15).unwrap(), 5);
    assert_eq!(writer.apply_retention(15).unwrap(), 0);
    assert_eq!((stored(&path, "new").len(), stored(&path, "other").len()), (1, 1));
}

#[test]
fn a_point_of_the_future_makes_no_other_old() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let mut writer = SqliteWriter::open(&Sqlite { path: path.clone(), retention: Some(Span::from_secs(100)) }).unwrap();
    let now = chrono::Utc::now().timestamp_millis();
    let points =
        [point("old", now - 200_000, 0.0, None), point("new", now - 1_000, 0.0, None), point("ahead", now + 10_000_000, 0.0, None)];
    writer.write(&points).unwrap();
    assert_eq!(writer.apply_retention(15).unwrap(), 1);
    assert_eq!(["old", "new", "ahead"].map(|sensor| stored(&path, sensor).len()), [0, 1, 1]);
}

#[test]
fn a_newer_format_and_foreign_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    drop(SqliteWriter::open(&settings(&path)).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = SqliteWriter::open(&settings(&path)).unwrap_err().to_string();
    assert!(refused.contains("format version 99"), "{refused}");
    assert!(Store::open(&path).measurements().unwrap_err().to_string().contains("format version 99"));

    let foreign = dir.path().join("foreign.sqlite");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    assert!(SqliteWriter::open(&settings(&foreign)).unwrap_err().to_string().contains("something else"));

    let text = dir.path().join("text");
    std::fs::write(&text, "this is not a database, but a text of some length").unwrap();
    assert!(SqliteWriter::open(&settings(&text)).unwrap_err().to_string().contains("not an SQLite database"));
    assert!(SqliteWriter::open(&settings(dir.path())).unwrap_err().to_string().contains("cannot be opened"));
    assert!(SqliteWriter::open(&settings(&text.join("below/p"))).unwrap_err().to_string().contains("cannot be created"));
}

#[test]
fn a_lock_is_worth_another_try_and_leaves_no_half_known_series() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let mut writer = SqliteWriter::open(&settings(&path)).unwrap();
    writer.connection.busy_timeout(Duration::from_millis(10)).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let fault = writer.write(&[point("s", 0, 1.0, None)]).unwrap_err();
    assert!(matches!(&fault, WriteError::Retry { detail, .. } if detail.contains("locked")), "{fault}");
    other.execute_batch("ROLLBACK").unwrap();
    writer.write(&[point("s", 0, 1.0, None)]).unwrap();
    assert_eq!(stored(&path, "s").len(), 1);
}

#[test]
fn a_deleted_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let mut writer = SqliteWriter::open(&settings(&path)).unwrap();
    std::fs::remove_file(&path).unwrap();
    let fault = writer.write(&[point("s", 0, 1.0, None)]).unwrap_err();
    assert!(matches!(&fault, WriteError::Fatal(text) if text.contains("deleted")), "{fault}");
}

#[test]
fn a_full_disk_is_worth_another_try() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sqlite");
    let mut writer = SqliteWriter::open(&settings(&path)).unwrap();
    let pages: i64 = writer.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    // A limit on the database's pages looks to SQLite like a full disk.
    writer.connection.pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(())).unwrap();
    let many: Vec<Point> = (0..1000).map(|i| point(&format!("s{i}"), 0, 1.0, None)).collect();
    let fault = writer.write(&many).unwrap_err();
    assert!(matches!(&fault, WriteError::Retry { detail, .. } if detail.contains("full")), "{fault}");
    writer.connection.pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(())).unwrap();
    assert_eq!(writer.write(&many).unwrap().written, 1000);
}

/// `cargo test --release -p sink -- --ignored --nocapture throughput` prints points per second.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SqliteWriter::open(&settings(&dir.path().join("p.sqlite"))).unwrap();
    let (sensors, windows) = (1_000_i64, 500_i64);
    let fresh = |i: i64| Point {
        fields: [("n", 10.0), ("avg", 21.123_456), ("min", 20.5), ("max", 22.25)]
            .map(|(name, value)| (name.into(), FieldValue::Float(value + (i % 7) as f64)))
            .to_vec(),
        ..point(&format!("s-{:04}", i % sensors), (i / sensors) * 10_000, 0.0, Some(i))
    };
    let points: Vec<Point> = (0..sensors * windows).map(fresh).collect();
    for round in ["new", "overwritten"] {
        let started = Instant::now();
        for batch in points.chunks(5_000) {
            writer.write(batch).unwrap();
        }
        println!("{round}: {:.0} points/s", points.len() as f64 / started.elapsed().as_secs_f64());
    }
}
