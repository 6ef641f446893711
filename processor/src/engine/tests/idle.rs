//! Windows that only the wall clock closes.

use std::sync::Arc;

use super::harness::{Record, input, readings_query};
use crate::engine::{Engine, Entry, codec};
use crate::query::StreamQuery;

const T: i64 = 1_700_000_000_000;

fn reading(partition: i32, ts: i64) -> Record {
    let value = format!(r#"{{"sensor_id":"a","ts":{ts},"value":1}}"#);
    Record { partition, received: ts, value: Some(value.into_bytes()) }
}

fn step(engine: &mut Engine, query: &Arc<StreamQuery>, from: usize, records: &[Record]) -> (Entry, usize) {
    let records: Vec<&Record> = records.iter().collect();
    let prepared = engine.prepare(vec![input(query, records[0].partition, from, &records)]).unwrap();
    let late = prepared.late.iter().map(Vec::len).sum();
    engine.apply(&prepared.entry).unwrap();
    (prepared.entry, late)
}

#[test]
fn the_last_window_closes_without_a_reading_and_a_restart_repeats_it() {
    let query = readings_query("SELECT sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id");
    let mut engine = Engine::new(Arc::clone(&query), [0]);
    let (first, _) = step(&mut engine, &query, 0, &[reading(0, T + 1_000), reading(0, T + 12_000)]);

    assert!(engine.close_idle(T + 14_999, &[(0, 2)]).is_none(), "the delay after the first window's end has not passed");
    let closing = engine.close_idle(T + 15_000, &[(0, 2)]).unwrap();
    let output = engine.apply(&closing).unwrap();
    assert_eq!((output.windows.as_slice(), output.finals.as_slice()), (&[(T, T + 10_000)][..], &[true][..]));
    assert!(engine.close_idle(T + 16_000, &[(0, 2)]).is_none(), "once is enough");
    let second = engine.close_idle(T + 3_600_000, &[(0, 2)]).unwrap();
    assert_eq!(engine.apply(&second).unwrap().windows, [(T + 10_000, T + 20_000)]);
    assert_eq!(engine.state_rows(), 0);

    // A reading of a closed window is late; one of the next window is welcome, an hour later too.
    let records = [reading(0, T + 19_999), reading(0, T + 20_000)];
    let mut restored = Engine::new(Arc::clone(&query), [0]);
    for entry in [&first, &closing, &second] {
        let entry = codec::decode(&query, &codec::encode(&query, entry).unwrap()).unwrap();
        assert!(restored.follows(&entry));
        restored.absorb_quietly(&entry).unwrap();
    }
    for engine in [&mut engine, &mut restored] {
        let (_, late) = step(engine, &query, 2, &records);
        assert_eq!((late, engine.state_rows()), (1, 1));
    }
}

#[test]
fn a_partition_that_never_had_a_reading_holds_nothing_up() {
    let query = readings_query("SELECT count(*) AS n FROM iot GROUP BY window(ts, '10 seconds')");
    let mut engine = Engine::new(Arc::clone(&query), [0, 1]);
    step(&mut engine, &query, 0, &[reading(0, T), reading(0, T + 60_000)]);
    assert!(engine.close_idle(T + 61_000, &[]).is_none());
    let closing = engine.close_idle(T + 61_000, &[(1, 0)]).unwrap();
    assert_eq!(closing.progress.len(), 1, "only the idle partition is moved");
    assert_eq!(engine.apply(&closing).unwrap().windows, [(T, T + 10_000)]);
}

#[test]
fn a_partition_that_is_behind_and_busy_is_waited_for() {
    let query = readings_query("SELECT count(*) AS n FROM iot GROUP BY window(ts, '10 seconds')");
    let mut engine = Engine::new(Arc::clone(&query), [0, 1]);
    step(&mut engine, &query, 0, &[reading(0, T), reading(0, T + 60_000)]);
    step(&mut engine, &query, 0, &[reading(1, T)]);
    assert!(engine.close_idle(T + 61_000, &[(0, 2)]).is_none());
    assert!(engine.close_idle(T + 61_000, &[(1, 1)]).is_some());
}

#[test]
fn the_time_of_a_partition_does_not_go_back_when_an_older_window_of_another_device_closes() {
    let sql = "SELECT sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id";
    let query = super::harness::compile(&super::harness::query_file(sql).replace("[query]\n", "watermark_by = 'sensor_id'\n[query]\n"));
    let mut engine = Engine::new(Arc::clone(&query), [0]);
    let of = |sensor: &str, ts: i64| {
        let value = format!(r#"{{"sensor_id":"{sensor}","ts":{ts},"value":1}}"#);
        Record { partition: 0, received: ts, value: Some(value.into_bytes()) }
    };
    step(&mut engine, &query, 0, &[of("a", T + 60_000)]);
    let first = engine.close_idle(T + 3_600_000, &[(0, 1)]).unwrap();
    engine.apply(&first).unwrap();
    step(&mut engine, &query, 1, &[of("b", T)]);
    let second = engine.close_idle(T + 3_601_000, &[(0, 2)]).unwrap();
    assert_eq!(engine.apply(&second).unwrap().windows, [(T, T + 10_000)]);
    assert_eq!(engine.partitions()[&0].time.floor, Some(T + 70_000));
}
