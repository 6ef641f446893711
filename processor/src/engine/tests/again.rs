//! The results of the newest entries, given again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::harness::{Record, compile, input, query_file, texts};
use crate::engine::{Engine, EngineError, Entry};

/// What a new owner gives of two entries, with the revisions: the first has a reading of 81 of a, the second one of 77, and one of 90 of b.
fn given_again(select: &str, mode: &str) -> Vec<(i64, String)> {
    let query = compile(&format!("{}output_mode = '{mode}'\n", query_file(select)));
    let record = |sensor: &str, value: f64| {
        let text = format!(r#"{{"sensor_id":"{sensor}","ts":1000,"value":{value},"kind":"heat","seq":1}}"#);
        Record { partition: 0, received: 1000, value: Some(text.into_bytes()) }
    };
    let log = [record("a", 81.0), record("a", 77.0), record("b", 90.0)];
    let mut owner = Engine::new(Arc::clone(&query), [0]);
    let mut newest: VecDeque<Entry> = VecDeque::new();
    for part in [0..1, 1..3] {
        let records: Vec<&Record> = log[part.clone()].iter().collect();
        let entry = owner.prepare(vec![input(&query, 0, part.start, &records)]).unwrap().entry;
        owner.apply(&entry).unwrap();
        newest.push_back(entry);
    }
    let mut given = Vec::new();
    let again = Engine::new(query, [0]).give_again(newest, |part, revision| {
        given.extend(texts(&part.rows).into_iter().map(|row| (revision, row)));
        let rows = part.rows.num_rows();
        assert_eq!((part.finals.len(), part.windows.len(), part.keys[0].len()), (rows, rows, rows));
        Ok::<_, EngineError>(())
    });
    again.unwrap();
    given
}

fn expected(rows: &[(i64, &str)]) -> Vec<(i64, String)> {
    rows.iter().map(|(revision, row)| (*revision, (*row).to_owned())).collect()
}

const SELECT: &str = "SELECT sensor_id, avg(value) AS mean FROM iot GROUP BY window(ts, '10 seconds'), sensor_id";

#[test]
fn a_row_that_both_entries_have_comes_as_the_newer_has_it() {
    let wanted = expected(&[(3, r#"{"sensor_id":"a","mean":79.0}"#), (3, r#"{"sensor_id":"b","mean":90.0}"#)]);
    assert_eq!(given_again(SELECT, "update"), wanted);
    assert_eq!(given_again(SELECT, "complete"), wanted);
}

#[test]
fn a_row_that_having_has_taken_out_since_comes_once_more() {
    let select = format!("{SELECT} HAVING avg(value) > 80");
    let b = (3, r#"{"sensor_id":"b","mean":90.0}"#);
    assert_eq!(given_again(&select, "update"), expected(&[b, (1, r#"{"sensor_id":"a","mean":81.0}"#)]));
    assert_eq!(given_again(&select, "complete"), expected(&[b]), "it has left the whole result");
}
