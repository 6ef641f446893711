use std::collections::BTreeMap;

use common::settings::{FieldType, Mapping};

use super::*;
use crate::metrics::Family;
use crate::point::FieldValue;
use crate::point::tests::point;

fn metrics() -> Metrics {
    Family::register(&prometheus::Registry::new()).unwrap().of("o")
}

fn output(mapping: Mapping) -> Output {
    Output { to: Database::Influxdb, mapping, ..Output::default() }
}

fn guard(folder: &Path, mapping: Mapping) -> Guard {
    Guard::open(folder, &output(mapping)).unwrap().unwrap()
}

fn with(value: FieldValue) -> Point {
    Point { fields: vec![("v".into(), value)], ..point("s", 0, 0.0, None) }
}

fn text(text: &str) -> Point {
    with(FieldValue::Text(text.into()))
}

#[test]
fn numbers_are_floats_and_a_field_keeps_its_type_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut points = [with(FieldValue::Int(21)), with(FieldValue::Float(21.5)), text("hot"), with(FieldValue::Bool(true))];
    let refused = guard(dir.path(), Mapping::default()).admit(&mut points, &metrics()).unwrap();
    assert_eq!(refused.iter().map(|(at, why)| (*at, why.reason)).collect::<Vec<_>>(), [(2, "wrong_type"), (3, "wrong_type")]);
    assert_eq!(refused[0].1.detail, "field 'v' of 'm' holds values of type float, and this is the text 'hot'");
    assert_eq!(points[0].fields[0].1, FieldValue::Float(21.0));
    let refused = guard(dir.path(), Mapping::default()).admit(&mut [text("hot")], &metrics()).unwrap();
    assert_eq!(refused.len(), 1, "the registry is on the disk");
}

#[test]
fn one_wrong_row_that_comes_first_does_not_decide() {
    let dir = tempfile::tempdir().unwrap();
    let refused = guard(dir.path(), Mapping::default()).admit(&mut [text("?"), with(FieldValue::Int(1))], &metrics()).unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, 0);
}

#[test]
fn what_is_not_finite_is_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = metrics();
    let mut points = [text("NaN"), text("-Infinity"), with(FieldValue::Float(f64::NAN)), with(FieldValue::Float(1.0))];
    assert!(guard(dir.path(), Mapping::default()).admit(&mut points, &metrics).unwrap().is_empty());
    assert_eq!(points.iter().map(|point| point.fields.len()).collect::<Vec<_>>(), [0, 0, 0, 1]);
    assert_eq!(points[0].nulls, ["v"]);
    assert_eq!(metrics.left_out_total(), 3);
}

#[test]
fn declared_types_win_and_nothing_is_rounded() {
    let dir = tempfile::tempdir().unwrap();
    let declared = Mapping { types: BTreeMap::from([("v".to_owned(), FieldType::Integer)]), ..Mapping::default() };
    let mut points = [with(FieldValue::Int(i64::MAX)), with(FieldValue::Float(3.0)), with(FieldValue::Float(3.5))];
    let refused = guard(dir.path(), declared).admit(&mut points, &metrics()).unwrap();
    assert_eq!(refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2]);
    assert_eq!(points[1].fields[0].1, FieldValue::Int(3));
    // As a float this number would become another.
    let other = tempfile::tempdir().unwrap();
    let refused = guard(other.path(), Mapping::default()).admit(&mut [with(FieldValue::Int((1 << 53) + 1))], &metrics()).unwrap();
    assert!(refused[0].1.detail.contains("declare the field as integer"), "{refused:?}");
}

#[test]
fn the_series_budget_holds_over_a_restart_and_known_series_pass() {
    let dir = tempfile::tempdir().unwrap();
    let limited = || Mapping { max_series: Some(5), ..Mapping::default() };
    let series = |from: i32, to: i32| (from..to).map(|i| point(&format!("s{i}"), 0, 1.0, None)).collect::<Vec<_>>();
    let metrics = metrics();
    let mut first = guard(dir.path(), limited());
    assert!(first.admit(&mut series(0, 3), &metrics).unwrap().is_empty());
    assert!(!first.series.as_ref().unwrap().alarmed);
    assert!(first.admit(&mut series(0, 4), &metrics).unwrap().is_empty());
    assert!(first.series.as_ref().unwrap().alarmed, "4 of 5 are 80 %");
    let mut again = guard(dir.path(), limited());
    let refused = again.admit(&mut series(0, 8), &metrics).unwrap();
    assert_eq!(refused.iter().map(|(at, why)| (*at, why.reason)).collect::<Vec<_>>(), [5, 6, 7].map(|at| (at, "series_budget")));
    assert_eq!((metrics.series.get(), metrics.max_series.get()), (5, 5));
}

#[test]
fn outputs_without_types_and_limits_need_no_state() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    let sqlite = Output { to: Database::Sqlite, ..Output::default() };
    assert!(Guard::open(&folder, &sqlite).unwrap().is_none() && !folder.exists());
    std::fs::write(dir.path().join("influxdb.state"), "this is not a database, but a text of some length").unwrap();
    let fault = Guard::open(dir.path(), &output(Mapping::default())).unwrap_err().to_string();
    assert!(fault.contains("sink.state_path"), "{fault}");
}
