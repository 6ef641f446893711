//! What is one value to one expression is one value to all, and a number that does not fit is none.

use std::sync::Arc;

use super::harness::{Record, compile, input, query_file, texts};
use crate::engine::Engine;

fn reading(fields: &str) -> Record {
    Record { partition: 0, received: -1, value: Some(format!(r#"{{"sensor_id":"a","ts":1000,{fields}}}"#).into_bytes()) }
}

/// The rows of `sql` over readings, and the details of those that are dead.
fn run(sql: &str, mode: &str, readings: &[&str]) -> (Vec<String>, Vec<String>) {
    let query = compile(&query_file(sql).replace("[query]\n", &format!("[query]\noutput_mode = '{mode}'\n")));
    let mut engine = Engine::new(Arc::clone(&query), [0]);
    let records: Vec<Record> = readings.iter().map(|fields| reading(fields)).collect();
    let prepared = engine.prepare(vec![input(&query, 0, 0, &records.iter().collect::<Vec<_>>())]).unwrap();
    let dead = prepared.dead.iter().flatten().map(|row| row.detail.clone()).collect();
    let output = engine.apply(&prepared.entry).unwrap();
    let batches = prepared.rows.iter().map(|plain| &plain.rows).chain([&output.rows]);
    (batches.flat_map(texts).collect(), dead)
}

#[test]
fn both_zeros_are_one_distinct_value() {
    let sql = "SELECT count(DISTINCT value) AS n, count(DISTINCT value, kind) AS pairs, collect_set(value) AS all FROM iot \
               GROUP BY window(ts, '10 seconds')";
    let (rows, _) = run(sql, "update", &[r#""value":0.0"#, r#""value":-0.0"#, r#""value":4"#]);
    assert_eq!(rows, [r#"{"n":2,"pairs":0,"all":[0.0,4.0]}"#]);
}

#[test]
fn what_overflows_is_dead_and_not_another_number() {
    for expression in
        ["seq + 9223372036854775807", "seq * 4611686018427387904", "-9223372036854775807 - seq", "-(-9223372036854775806 - seq)"]
    {
        let sql = format!("SELECT sensor_id, {expression} AS x FROM iot");
        let (rows, dead) = run(&sql, "append", &[r#""seq":0"#, r#""seq":2"#]);
        assert_eq!((rows.len(), dead.len()), (1, 1), "{expression}: {rows:?} {dead:?}");
        assert!(dead[0].to_lowercase().contains("overflow"), "{dead:?}");
    }
    let sum = "SELECT sum(seq + 9223372036854775807) AS x FROM iot GROUP BY window(ts, '10 seconds')";
    let (rows, dead) = run(sum, "update", &[r#""seq":0"#, r#""seq":2"#]);
    assert_eq!((rows, dead.len()), (vec![r#"{"x":9223372036854775807}"#.to_owned()], 1));
}

#[test]
fn an_interval_is_one_text_as_well() {
    let sql = "SELECT unix_millis(ts + INTERVAL '1 hour') AS x, unix_millis(ts - INTERVAL '2' MINUTES) AS y FROM iot";
    let (rows, _) = run(sql, "append", &[r#""seq":0"#]);
    assert_eq!(rows, [r#"{"x":3601000,"y":-119000}"#]);
}

#[test]
fn windows_may_begin_before_their_grid() {
    let sql =
        "SELECT unix_millis(window.start) AS start, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds', '10 seconds', '-2 seconds')";
    let (rows, _) = run(sql, "update", &[r#""seq":0"#]);
    assert_eq!(rows, [r#"{"start":-2000,"n":1}"#]);
}
