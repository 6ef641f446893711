use std::path::Path;

use super::*;
use crate::point::tests::point;
use crate::point::{FieldValue, Place};

const DAY_MS: i64 = 86_400_000;

fn row(offset: i64, sensor: &str, time_ms: i64) -> Point {
    let place = Place { topic: "iot.agg.m".into(), partition: 0, offset };
    Point { place, is_final: true, ..point(sensor, time_ms, offset as f64, Some(offset)) }
}

fn open(path: &Path, output: &str, mode: LakeMode) -> Result<LakeWriter, WriteError> {
    LakeWriter::open(&Lake { path: path.to_owned(), mode }, output, output == "delta")
}

/// Every row of the table as its log has it: `(sensor, avg)`.
fn rows(path: &Path) -> Vec<(String, f64)> {
    use arrow::array::AsArray as _;
    let table = Table::open(path.join("m"), "reader", LakeMode::Append).unwrap();
    let mut rows = Vec::new();
    for file in table.state.files.values() {
        for batch in file::read(&table.folder.join(&file.path), &table.state.columns).unwrap() {
            let batch = batch.unwrap();
            let names = batch.column_by_name("sensor_id").unwrap().as_string::<i32>().clone();
            let values = batch.column_by_name("avg").unwrap().as_primitive::<arrow::datatypes::Float64Type>().clone();
            rows.extend((0..batch.num_rows()).map(|at| (names.value(at).to_owned(), values.value(at))));
        }
    }
    rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
    rows
}

#[test]
fn rows_are_there_once_however_often_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<Point> = (0..10).map(|i| row(i, &format!("s{i}"), i * DAY_MS / 4)).collect();
    let mut writer = open(dir.path(), "parquet", LakeMode::Append).unwrap();
    assert_eq!(writer.write(&all[..6]).unwrap().written, 6);
    // Another process, which begins before where the first one was.
    let mut again = open(dir.path(), "parquet", LakeMode::Append).unwrap();
    let outcome = again.write(&all[2..]).unwrap();
    assert_eq!((outcome.written, outcome.stale), (4, 4));
    // The first one has not seen that commit, and its own would have the same number.
    assert_eq!(writer.write(&all[4..]).unwrap().written, 0);
    assert_eq!(rows(dir.path()).len(), 10);
    assert!(dir.path().join("m/day=1970-01-03").is_dir());
}

#[test]
fn files_that_no_commit_has_go_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), "parquet", LakeMode::Append).unwrap().write(&[row(0, "a", 0)]).unwrap();
    let orphan = dir.path().join("m/day=1970-01-01/part-parquet-0.snappy.parquet");
    let foreign = dir.path().join("m/day=1970-01-01/part-other-0.snappy.parquet");
    // A commit that did not come about is none.
    std::fs::write(dir.path().join("m/_delta_log/.00000000000000000001.0"), "half").unwrap();
    let young = dir.path().join("m/day=1970-01-01/part-parquet-1.snappy.parquet");
    for path in [&orphan, &foreign, &young] {
        std::fs::write(path, "half").unwrap();
    }
    let hours_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    for path in [&orphan, &foreign] {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(hours_ago).unwrap();
    }
    open(dir.path(), "parquet", LakeMode::Append).unwrap().write(&[row(1, "b", 0)]).unwrap();
    assert!(!orphan.exists() && foreign.exists() && young.exists());
    assert_eq!(rows(dir.path()).len(), 2);
}

#[test]
fn only_final_rows_are_appended_and_new_columns_may_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), "parquet", LakeMode::Append).unwrap();
    let open = Point { is_final: false, ..row(0, "a", 0) };
    let gone = Point { deleted: true, ..row(1, "a", 0) };
    let outcome = writer.write(&[open, gone, row(2, "a", 0)]).unwrap();
    assert_eq!((outcome.written, outcome.left_out), (1, vec![("undeletable", 1), ("not_final", 1)]));
    let mut more = row(3, "b", 0);
    more.fields.push(("note".into(), FieldValue::Text("x".into())));
    writer.write(&[more]).unwrap();
    assert_eq!(rows(dir.path()).len(), 2);
    let wrong = Point { fields: vec![("note".into(), FieldValue::Float(1.0))], ..row(4, "c", 0) };
    let named = Point { fields: vec![("a b".into(), FieldValue::Float(1.0))], ..row(5, "c", 0) };
    let Err(WriteError::Rejected(rejected)) = writer.write(&[wrong, row(6, "c", 0), named]) else { panic!("both are refused") };
    assert_eq!(rejected.iter().map(|one| (one.index, one.reason)).collect::<Vec<_>>(), [(0, "wrong_type"), (2, "unwritable")]);
}

#[test]
fn small_files_are_put_together_and_no_row_is_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), "delta", LakeMode::Append).unwrap();
    for i in 0..20 {
        let mut one = row(i, "a", i * 1000);
        if i > 10 {
            one.fields.push(("late_column".into(), FieldValue::Bool(true)));
        }
        writer.write(&[one]).unwrap();
    }
    let before = rows(dir.path());
    writer.compact_due = Instant::now();
    writer.upkeep().unwrap();
    assert_eq!(writer.tables["m"].state.files.len(), 1);
    assert_eq!(rows(dir.path()), before);
    writer.write(&[row(20, "a", 20_000), row(19, "a", 19_000)]).unwrap();
    assert_eq!(rows(dir.path()).len(), 21);
}

#[test]
fn a_log_that_is_not_whole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), "delta", LakeMode::Append).unwrap();
    writer.write(&[row(0, "a", 0)]).unwrap();
    writer.write(&[row(1, "a", 0)]).unwrap();
    std::fs::remove_file(dir.path().join("m/_delta_log/00000000000000000000.json")).unwrap();
    let fault = open(dir.path(), "delta", LakeMode::Append).unwrap().write(&[row(2, "a", 0)]).unwrap_err().to_string();
    assert!(fault.contains("does not begin with commit 0"), "{fault}");
    assert_eq!((folder("a b/é"), folder("_x")), ("a%20b%2F%E9".to_owned(), "%_x".to_owned()));
}

/// Windows that are written again and again, in the order of the log; what stays is the newest of each.
#[test]
fn an_upsert_leaves_one_row_of_each_identity_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), "delta", LakeMode::Upsert).unwrap();
    let at = |offset: i64, sensor: &str, time: i64, revision: i64| Point {
        revision: Some(revision),
        is_final: false,
        ..row(offset, sensor, time)
    };
    writer.write(&[at(0, "a", 0, 1), at(1, "b", 0, 1), at(2, "a", 0, 2), at(3, "a", DAY_MS, 3)]).unwrap();
    assert_eq!(rows(dir.path()), [("a".into(), 2.0), ("a".into(), 3.0), ("b".into(), 1.0)]);
    // A newer one, an older one, one of a group whose key is null, which is another identity.
    let null = Point { tags: vec![], null_tag: true, ..at(6, "", 0, 7) };
    let outcome = writer.write(&[at(4, "a", 0, 5), at(5, "b", 0, 0), null.clone()]).unwrap();
    assert_eq!((outcome.written, outcome.stale), (2, 1));
    assert_eq!(rows(dir.path()).len(), 4);
    let outcome =
        writer.write(&[Point { place: Place { offset: 7, ..null.place.clone() }, revision: Some(8), deleted: true, ..null }]).unwrap();
    assert_eq!((outcome.written, outcome.left_out.len()), (1, 0));
    assert_eq!(rows(dir.path()), [("a".into(), 3.0), ("a".into(), 4.0), ("b".into(), 1.0)]);
    // What comes again after a crash, to another process, changes nothing.
    let mut again = open(dir.path(), "delta", LakeMode::Upsert).unwrap();
    assert_eq!(again.write(&[at(4, "a", 0, 5), at(5, "b", 0, 0)]).unwrap().stale, 2);
    let outcome = again.write(&[at(8, "a", 0, 9), Point { deleted: true, fields: vec![], ..at(9, "b", 0, 9) }]).unwrap();
    assert_eq!(outcome.written, 2);
    assert_eq!(rows(dir.path()), [("a".into(), 3.0), ("a".into(), 8.0)]);
}

#[test]
fn random_upserts_come_to_the_newest_rows_and_replaced_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), "delta", LakeMode::Upsert).unwrap();
    let mut newest = std::collections::BTreeMap::new();
    let mut state = 7_u64;
    let mut dice = |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((state >> 33) % sides).unwrap()
    };
    for batch in 0..40 {
        let batch: Vec<Point> = (0..50)
            .map(|i| {
                let offset = batch * 50 + i;
                let (sensor, time) = (format!("s{}", dice(8)), dice(5) * DAY_MS / 3);
                newest.insert((sensor.clone(), time), offset as f64);
                row(offset, &sensor, time)
            })
            .collect();
        writer.write(&batch).unwrap();
    }
    let mut expected: Vec<(String, f64)> = newest.into_iter().map(|((sensor, _), avg)| (sensor, avg)).collect();
    expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(rows(dir.path()), expected);
    let table = writer.tables.get_mut("m").unwrap();
    let replaced = table.state.removed.len();
    assert!(replaced > 30, "{replaced}");
    table.sweep().unwrap();
    assert_eq!(table.state.removed.len(), replaced, "readers have some time");
    table.state.removed.values_mut().for_each(|at| *at -= 7_200_000);
    table.sweep().unwrap();
    let files = |day: std::io::Result<std::fs::DirEntry>| std::fs::read_dir(day.unwrap().path()).unwrap().count();
    let days = std::fs::read_dir(dir.path().join("m")).unwrap().filter(|day| day.as_ref().unwrap().file_name() != "_delta_log");
    assert_eq!(days.map(files).sum::<usize>(), table.state.files.len());
    assert_eq!(rows(dir.path()), expected);
}

/// The data files that the writer knows of.
fn files(path: &Path, writer: &LakeWriter) -> Vec<PathBuf> {
    writer.tables["m"].state.files.keys().map(|file| path.join("m").join(file)).collect()
}

#[test]
fn a_file_that_another_writer_has_replaced_and_deleted_keeps_no_upsert_from_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), "delta", LakeMode::Upsert).unwrap();
    writer.write(&[row(0, "a", 0)]).unwrap();
    let replaced = files(dir.path(), &writer);
    let mut other = open(dir.path(), "delta", LakeMode::Upsert).unwrap();
    other.write(&[row(1, "b", 0), row(2, "a", 0)]).unwrap();
    replaced.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    assert_eq!(writer.write(&[row(3, "a", 0)]).unwrap().written, 1);
    assert_eq!(rows(dir.path()), [("a".into(), 3.0), ("b".into(), 1.0)]);
    // One that no commit has taken out is lost, and no state helps.
    files(dir.path(), &writer).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let Err(WriteError::Retry { detail, .. }) = writer.write(&[row(4, "a", 0)]) else { panic!("a file is missing") };
    assert!(detail.contains("is not there"), "{detail}");
}

#[test]
fn files_that_another_writer_has_put_together_are_not_put_together_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), "delta", LakeMode::Append).unwrap();
    for i in 0..32 {
        writer.write(&[row(i, "a", i % 2 * DAY_MS)]).unwrap();
    }
    let before = rows(dir.path());
    let old = files(dir.path(), &writer);
    // Three more that have the same state; the first one puts both days together.
    let [mut first, mut second, mut third] = [(); 3].map(|()| {
        let mut other = open(dir.path(), "delta", LakeMode::Append).unwrap();
        assert_eq!(other.write(&[row(31, "a", DAY_MS)]).unwrap().written, 0);
        other.compact_due = Instant::now();
        other
    });
    first.upkeep().unwrap();
    assert_eq!(files(dir.path(), &first).len(), 2);
    second.upkeep().unwrap();
    assert_eq!((files(dir.path(), &second).len(), rows(dir.path())), (2, before.clone()));
    old.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    third.upkeep().unwrap();
    assert_eq!((files(dir.path(), &third).len(), rows(dir.path())), (2, before));
}

#[test]
fn a_column_has_one_kind_also_within_the_batch_that_brings_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), "delta", LakeMode::Append).unwrap();
    let with = |offset, name: &str, value| {
        let mut one = row(offset, "a", 0);
        one.fields.push((name.into(), value));
        one
    };
    let text = |text: &str| FieldValue::Text(text.into());
    let mut tagged = row(0, "a", 0);
    tagged.tags.push(("site".into(), "north".into()));
    // What a refused row would have brought does not count.
    let mut refused = with(2, "site", FieldValue::Bool(true));
    refused.fields.push(("note".into(), FieldValue::Float(1.0)));
    let batch = [tagged, with(1, "site", FieldValue::Float(5.0)), refused, with(3, "note", text("x")), with(4, "note", FieldValue::Int(1))];
    let Err(WriteError::Rejected(rejected)) = writer.write(&batch) else { panic!("three are refused") };
    assert_eq!(rejected.iter().map(|one| (one.index, one.reason)).collect::<Vec<_>>(), [1, 2, 4].map(|at| (at, "wrong_type")));
    assert_eq!(writer.write(&[batch[0].clone(), batch[3].clone()]).unwrap().written, 2);
    // A column that another writer brings meanwhile: its kind holds.
    let mut other = open(dir.path(), "other", LakeMode::Append).unwrap();
    other.write(&[with(0, "site", text("south"))]).unwrap();
    writer.write(&[row(5, "a", 0)]).unwrap();
    other.write(&[row(6, "a", 0)]).unwrap();
    other.write(&[with(7, "late", text("x"))]).unwrap();
    let late = [with(8, "late", FieldValue::Float(1.0))];
    assert!(matches!(writer.write(&late), Err(WriteError::Retry { .. })));
    assert!(matches!(writer.write(&late), Err(WriteError::Rejected(_))));
    assert_eq!(rows(dir.path()).len(), 6);
}

#[test]
fn rows_that_the_table_has_had_for_long_are_told_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), "delta", LakeMode::Append).unwrap();
    let batch: Vec<Point> = (0..6).map(|i| row(i, "a", 0)).collect();
    writer.write(&batch).unwrap();
    let warned = |writer: &LakeWriter| writer.tables["m"].warned.len();
    // After a crash: the same batch, or its end.
    for again in [&batch[..], &batch[2..]] {
        assert_eq!((writer.write(again).unwrap().stale, warned(&writer)), (again.len() as u64, 0));
    }
    // The topic was made anew, and has two rows.
    assert_eq!((writer.write(&batch[..2]).unwrap().stale, warned(&writer)), (2, 1));
    writer.write(&[row(6, "a", 0)]).unwrap();
    assert_eq!(warned(&writer), 0);
    writer.write(&[row(50_000, "a", 0)]).unwrap();
    writer.write(&[row(49_000, "a", 0)]).unwrap();
    assert_eq!(warned(&writer), 0);
    writer.write(&[row(20_000, "a", 0)]).unwrap();
    assert_eq!(warned(&writer), 1);
}
