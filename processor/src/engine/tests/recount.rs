//! Closed windows computed once more, against the same query with a delay so long that nothing is late.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::harness::{Record, Way, cases, compile, input, query_file, run};
use super::property::{readings, record};
use crate::engine::recount::{Recount, Target, place};
use crate::engine::{Decision, Engine, Entry, codec};
use crate::format::encode::{JsonRows, key_text};
use crate::query::StreamQuery;

const SQL: &str = "SELECT window.start AS s, sensor_id, count(*) AS n, avg(value) AS avg, stddev(value) AS sd FROM iot WHERE value > -900000 \
                   GROUP BY window(ts, '10 seconds', '5 seconds'), sensor_id HAVING count(*) > 1";

type Rows = BTreeMap<(i64, String), String>;

/// Chooses every window that has a row, and computes them in steps of `step` records.
fn recount(query: &Arc<StreamQuery>, log: &[Record], step: usize) -> Rows {
    let partitions: BTreeSet<i32> = log.iter().map(|record| record.partition).collect();
    let of = |partition: i32| log.iter().filter(move |record| record.partition == partition).collect::<Vec<_>>();
    let mut targets: Vec<Target> = Vec::new();
    for partition in &partitions {
        let placed = place(query, &input(query, *partition, 0, &of(*partition))).unwrap();
        targets.extend(placed.rows.into_iter().flat_map(|(_, targets)| targets));
    }
    let mut recount = Recount::new(Arc::clone(query), targets, HashSet::new());
    for partition in &partitions {
        for (number, records) in of(*partition).chunks(step).enumerate() {
            let from = number * step;
            recount.feed(&input(query, *partition, from, records), i64::from).unwrap();
        }
    }
    let recounted = recount.finish().unwrap();
    assert_eq!(recounted.failed, Vec::<String>::new());
    let rows = JsonRows::new(&recounted.rows).unwrap();
    let row = |row: usize| {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        key_text(&recounted.keys, row, &mut key);
        rows.write_row(row, &mut value);
        ((recounted.windows[row].0, String::from_utf8(key).unwrap()), String::from_utf8(value).unwrap())
    };
    (0..recounted.rows.num_rows()).map(row).collect()
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn it_gives_what_a_query_gives_for_which_nothing_is_late(seed: u64, step in 1..50usize) {
        let log: Vec<Record> = readings(seed).iter().map(record).collect();
        let query = compile(&query_file(SQL));
        let patient = compile(&query_file(SQL).replace("watermark = '5 seconds'", "watermark = '100 days'"));
        let want = run(&patient, &log, Way::Straight);
        prop_assert_eq!(want.ledger.late, 0);
        prop_assert_eq!(recount(&query, &log, step), want.rows);
    }
}

fn at(sensor: &str, ts: i64, seq: i64) -> Record {
    let value = format!(r#"{{"sensor_id":"{sensor}","ts":{ts},"value":1,"seq":{seq}}}"#);
    Record { partition: 0, received: 1_000_000, value: Some(value.into_bytes()) }
}

#[test]
fn a_late_row_that_was_there_is_not_counted_twice() {
    let text = query_file("SELECT sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id")
        .replace("[query]", "drop_duplicates_within_watermark = ['sensor_id', 'seq']\n[query]");
    let query = compile(&text);
    // 2: in time; 3: its double, late; 4 and 5: one late reading and its double; 6: the number again, much later.
    let log = [at("a", 1_000, 1), at("a", 60_000, 2), at("a", 1_000, 1), at("a", 4_000, 3), at("a", 4_000, 3), at("a", 61_000, 1)];
    for step in [1, 2, 6] {
        let rows = recount(&query, &log, step);
        let rows: Vec<(i64, &str)> = rows.iter().map(|((start, _), row)| (*start, row.as_str())).collect();
        assert_eq!(rows, [(0, r#"{"sensor_id":"a","n":2}"#), (60_000, r#"{"sensor_id":"a","n":2}"#)], "{step}");
    }
}

#[test]
fn decisions_of_the_wall_clock_and_the_base_outlive_snapshots() {
    let query = compile(&query_file("SELECT sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id"));
    let mut engine = Engine::new(Arc::clone(&query), [0]);
    engine.apply(&Entry { snapshot: true, base: 1 << 42, ..Entry::default() }).unwrap();
    for (from, ts) in [(0, 1_000), (1, 31_000)] {
        let row = at("a", ts, 1);
        let entry = engine.prepare(vec![input(&query, 0, from, &[&row])]).unwrap().entry;
        engine.apply(&entry).unwrap();
        let closed = engine.close_idle(1_000_000, &[(0, 9)]).unwrap();
        let closed = codec::decode(&query, &codec::encode(&query, &closed).unwrap()).unwrap();
        engine.apply(&closed).unwrap();
    }
    let snapshot = codec::decode(&query, &codec::encode(&query, &engine.snapshot()).unwrap()).unwrap();
    let decision = |offset, floor| Decision { partition: 0, offset, floor };
    assert_eq!(snapshot.decisions, [decision(1, 10_000), decision(2, 40_000)]);
    let mut restored = Engine::new(Arc::clone(&query), [0]);
    restored.absorb_quietly(&snapshot).unwrap();
    assert_eq!((restored.revision(), restored.snapshot().decisions), ((1 << 42) + 2, snapshot.decisions));
}
