//! A group whose values are all null beside groups that have a state: DataFusion's accumulators know groups by the order in which they come.

use std::sync::Arc;

use super::harness::{Record, Way, compile, input, query_file, run, texts};
use crate::engine::Engine;

fn reading(partition: i32, sensor: &str, fields: &str) -> Record {
    Record { partition, received: -1, value: Some(format!(r#"{{"sensor_id":"{sensor}","ts":1000{fields}}}"#).into_bytes()) }
}

const SQL: &str = "SELECT kind, count(value) AS n, sum(value) AS sum, avg(value) AS mean, avg(CAST(seq AS DECIMAL(12, 2))) AS exact, \
                   max(value) AS max, min(seq) AS min, bit_and(seq) AS bits, bool_or(value > 0) AS any, stddev(value) AS sd FROM iot";

#[test]
fn a_new_group_of_nulls_is_null_beside_a_group_with_a_state() {
    for window in ["window(ts, '10 seconds')", "session_window(ts, '10 seconds')"] {
        let file = query_file(&format!("{SQL} GROUP BY {window}, sensor_id, kind"));
        let query = compile(&file.replace("[query]\n", "[query]\noutput_mode = 'complete'\n"));
        let mut engine = Engine::new(Arc::clone(&query), [0]);
        let known = reading(0, "a", r#","kind":"known","value":2,"seq":6"#);
        let first = engine.prepare(vec![input(&query, 0, 0, &[&known])]).unwrap();
        engine.apply(&first.entry).unwrap();
        let new = reading(0, "a", r#","kind":"new""#);
        let second = engine.prepare(vec![input(&query, 0, 1, &[&new, &known])]).unwrap();
        let output = engine.apply(&second.entry).unwrap();
        assert_eq!(output.failed, Vec::<String>::new());
        let mut rows = texts(&output.rows);
        rows.sort();
        let nulls = r#""n":0,"sum":null,"mean":null,"exact":null,"max":null,"min":null,"bits":null,"any":null,"sd":null"#;
        assert_eq!(rows[1], format!(r#"{{"kind":"new",{nulls}}}"#), "{window}");
        assert_eq!(rows.len(), 2);
    }
}

#[test]
fn a_group_of_nulls_in_one_partition_is_null_beside_groups_of_others() {
    let query = compile(&query_file(&format!("{SQL} GROUP BY window(ts, '10 seconds'), kind")));
    let log = [
        reading(0, "a", r#","kind":"known","value":2,"seq":6"#),
        reading(1, "b", r#","kind":"other","value":3,"seq":7"#),
        reading(1, "b", r#","kind":"new""#),
    ];
    let outcome = run(&query, &log, Way::Straight);
    assert!(outcome.rows[&(0, "new".to_owned())].contains(r#""sum":null,"mean":null,"exact":null"#), "{:?}", outcome.rows);
    assert!(outcome.rows[&(0, "new".to_owned())].contains(r#""bits":null,"any":null"#), "{:?}", outcome.rows);
}
