#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::source::{Content, DeadRow};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

fn open(files: &[PathBuf], speed: &str) -> Result<Replay, SourceError> {
    Replay::open(&settings::Replay { files: files.to_vec(), speed: speed.into() })
}

fn drain(mut replay: Replay) -> (Vec<Reading>, Vec<DeadRow>) {
    let (mut readings, mut dead) = (Vec::new(), Vec::new());
    loop {
        let mut out = Vec::new();
        let next = replay.next(Duration::ZERO, &mut out).unwrap();
        assert!(out.len() <= BATCH);
        for delivery in out {
            match delivery.content {
                Content::Reading(reading) => readings.push(reading),
                Content::Dead(row) => dead.push(row),
            }
        }
        match next {
            Next::More => {}
            Next::End => break,
            Next::Wait(time) => panic!("waits {time:?} at full speed"),
        }
    }
    let progress = replay.progress().unwrap();
    assert_eq!(progress.done, progress.total);
    (readings, dead)
}

fn one_file(content: impl AsRef<[u8]>) -> (Vec<Reading>, Vec<DeadRow>) {
    let folder = Folder::new();
    drain(open(&[folder.file("pump-7.csv", content)], "max").unwrap())
}

proptest::proptest! {
    /// Whatever a file holds: nothing panics, and every line that is not blank is a reading or in the dead lane.
    #[test]
    fn no_line_is_lost(lines in proptest::collection::vec("[a-z0-9,\" .:+Z\u{e4}\r-]{0,30}|[0-9]{1,4},-?[0-9]{1,3}(\\.[0-9]{1,3})?", 0..50)) {
        let (readings, dead) = one_file(format!("timestamp,value\n{}", lines.join("\n")));
        let wanted = lines.iter().filter(|line| !line.trim_ascii().is_empty()).count();
        proptest::prop_assert_eq!(readings.len() + dead.len(), wanted);
        proptest::prop_assert!(readings.iter().all(|reading| reading.value.is_finite()));
    }

    #[test]
    fn quoted_fields_survive(texts in proptest::collection::vec("[a-z,\"\u{e4} ]{0,8}", 1..6)) {
        let line = texts.iter().map(|text| format!("\"{}\"", text.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
        let mut fields = fields::Fields::default();
        fields.split(&line).unwrap();
        let got: Vec<&str> = (0..fields.len()).map(|index| fields.get(&line, index)).collect();
        proptest::prop_assert_eq!(got, texts);
    }

    #[test]
    fn every_moment_survives_rfc_3339(millis in -62_135_596_800_000_i64..253_402_300_799_999) {
        let moment = chrono::DateTime::from_timestamp_millis(millis).unwrap();
        proptest::prop_assert_eq!(time::parse(&moment.to_rfc3339()), Some(millis));
        proptest::prop_assert_eq!(time::parse(&moment.format("%Y-%m-%d %H:%M:%S%.3f").to_string()), Some(millis));
    }
}

fn reading(sensor_id: &str, ts: i64, value: f64, kind: Option<&str>, seq: i64) -> Reading {
    Reading { sensor_id: sensor_id.into(), ts, value, kind: kind.map(Into::into), seq: Some(seq), ..Reading::default() }
}

#[test]
fn timestamp_and_value_take_the_sensor_from_the_name() {
    let (readings, dead) = one_file("timestamp,value\n1970-01-01 00:00:01,1.5\n1970-01-01 00:00:02,-2e3\n");
    assert_eq!(readings, [reading("pump-7", 1000, 1.5, None, 1), reading("pump-7", 2000, -2000.0, None, 2)]);
    assert_eq!(dead, []);
}

#[test]
fn the_readings_own_columns_in_any_order() {
    let (readings, dead) = one_file("value,sensor_id,ts,extra,seq,kind\n1,a,5,x,9,temperature\n2,b,6,x,,\n3,b,7,x,,\n");
    assert_eq!(dead, []);
    assert_eq!(readings, [reading("a", 5, 1.0, Some("temperature"), 9), reading("b", 6, 2.0, None, 1), reading("b", 7, 3.0, None, 2)]);
}

#[test]
fn bom_crlf_quotes_blank_lines_and_a_missing_last_line_break() {
    let (readings, dead) = one_file("\u{feff}\"timestamp\",\"value\"\r\n\"1\",\"1.5\"\r\n\r\n   \r\n2, 2.5 \r\n3,3.5");
    assert_eq!(dead, []);
    assert_eq!(
        readings.iter().map(|r| (r.ts, r.value, r.seq)).collect::<Vec<_>>(),
        [(1, 1.5, Some(1)), (2, 2.5, Some(2)), (3, 3.5, Some(3))]
    );
}

#[test]
fn a_line_that_is_no_reading_goes_to_the_dead_lane_whole_and_its_neighbours_pass() {
    let text = b"sensor_id,ts,value\na,1,1\na,never,1\r\na,2,\na,,2\n,3,3\na,3,inf\na,3\na,3,3,3\na,\"3,3\n\xff,3,3\na,4,4\n";
    let (readings, dead) = one_file(text);
    assert_eq!(readings.iter().map(|r| (r.ts, r.seq)).collect::<Vec<_>>(), [(1, Some(1)), (4, Some(2))]);
    let found: Vec<(u64, &str)> = dead.iter().map(|row| (row.offset, row.reason)).collect();
    let expected = [
        (3, "wrong_type"),
        (4, "no_value"),
        (5, "no_event_time"),
        (6, "no_sensor_id"),
        (7, "wrong_type"),
        (8, "wrong_columns"),
        (9, "wrong_columns"),
        (10, "not_csv"),
        (11, "not_utf8"),
    ];
    assert_eq!(found, expected);
    assert_eq!(dead[0].value, b"a,never,1");
    assert_eq!(dead[8].value, b"\xff,3,3");
    assert!(dead.iter().all(|row| row.topic == "pump-7.csv"));
    assert!(dead[0].detail.contains("'never' is not a time"), "{}", dead[0].detail);
}

#[test]
fn a_line_without_end_is_cut() {
    let mut text = b"timestamp,value\n1,1\n".to_vec();
    text.resize(2_000_000, b'x');
    text.extend_from_slice(b"\n2,2\n");
    let (readings, dead) = one_file(&text);
    assert_eq!(readings.len(), 2);
    assert_eq!((dead.len(), dead[0].reason, dead[0].offset), (1, "too_long", 3));
    assert!(dead[0].value.len() < 600_000);
}

#[test]
fn more_bad_lines_than_a_batch_do_not_pile_up() {
    let (readings, dead) = one_file(format!("timestamp,value\n{}5,5\n", "bad\n".repeat(5_000)));
    assert_eq!((readings.len(), dead.len()), (1, 5_000));
}

#[test]
fn files_are_merged_by_event_time_and_keep_their_own_order() {
    let folder = Folder::new();
    let a = folder.file("a.csv", "timestamp,value\n1,1\n5,2\n3,3\n9,4\n");
    let b = folder.file("b.csv", "timestamp,value\n1,1\n4,2\n9,3\n10,4\n");
    let empty = folder.file("c.csv", "timestamp,value\n");
    let (readings, _) = drain(open(&[a, b, empty], "max").unwrap());
    let order: Vec<(&str, i64)> = readings.iter().map(|r| (r.sensor_id.as_str(), r.ts)).collect();
    // In `a`, 3 comes after 5: it stays there.
    assert_eq!(order, [("a", 1), ("b", 1), ("b", 4), ("a", 5), ("a", 3), ("a", 9), ("b", 9), ("b", 10)]);
}

#[test]
fn the_same_sensor_in_two_files_is_numbered_once() {
    let folder = Folder::new();
    let files = [folder.file("1.csv", "sensor_id,ts,value\ns,1,1\ns,3,1\n"), folder.file("2.csv", "sensor_id,ts,value\ns,2,1\n")];
    let (readings, _) = drain(open(&files, "max").unwrap());
    assert_eq!(readings.iter().map(|r| (r.ts, r.seq.unwrap())).collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn speed_scales_event_time() {
    let folder = Folder::new();
    let file = folder.file("a.csv", "timestamp,value\n60000,1\n0,2\n120000,3\n");
    let mut replay = open(&[file], "60").unwrap();
    let mut out = Vec::new();
    assert_eq!(replay.next(Duration::ZERO, &mut out).unwrap(), Next::Wait(Duration::from_secs(1)));
    assert_eq!(out.len(), 2, "the first row and the one from before it are due at once");
    assert_eq!(replay.next(Duration::from_millis(400), &mut out).unwrap(), Next::Wait(Duration::from_millis(600)));
    assert_eq!(replay.next(Duration::from_secs(1), &mut out).unwrap(), Next::End);
    assert_eq!(out.len(), 3);
}

#[test]
fn mistakes_show_before_anything_is_sent() {
    let folder = Folder::new();
    let good = folder.file("good.csv", "timestamp,value\n1,1\n");
    let fault = |files: &[PathBuf], speed: &str| open(files, speed).unwrap_err().to_string();
    let missing = fault(&[good.clone(), "nowhere.csv".into()], "max");
    assert!(missing.starts_with("cannot open nowhere.csv") && missing.contains("--replay"), "{missing}");
    assert!(fault(&[folder.file("empty.csv", "")], "max").contains("it is empty"));
    assert!(fault(&[folder.file("bare.csv", "1,1\n")], "max").contains("no column 'timestamp'"));
    assert!(fault(&[folder.file("binary.csv", b"\xff\xfe\n1,1\n")], "max").contains("not UTF-8"));
    assert!(fault(&[folder.0.path().to_owned()], "max").contains("directory"));
    assert!(fault(&[good], "quick").contains("'quick' is not a speed"));
}

#[test]
fn equal_times_across_many_files_keep_the_order_of_the_files() {
    let folder = Folder::new();
    let files: Vec<PathBuf> = (0..50).map(|i| folder.file(&format!("{i:02}.csv"), "timestamp,value\n7,1\n7,2\n")).collect();
    let replay = open(&files, "max").unwrap();
    assert_eq!(replay.describe(), "replay of 00.csv, 01.csv, 02.csv, 03.csv, 04.csv and 45 more as fast as it goes");
    let (readings, _) = drain(replay);
    let order: Vec<String> = readings.iter().map(|r| format!("{}-{}", r.sensor_id, r.value)).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(order.len(), 100);
}
