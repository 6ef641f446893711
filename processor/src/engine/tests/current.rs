//! The current result, looked at after every step: what a reader of the results holds, less the windows that have closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::harness::{Record, compile, input, query_file, readings_query, texts};
use super::property::{readings, record};
use crate::engine::{Engine, Output};
use crate::format::encode::key_text;
use crate::query::StreamQuery;

/// What a reader holds: by window start and key the row, and whether it is final.
type Held = BTreeMap<(i64, String), (String, bool)>;

fn take(held: &mut Held, output: &Output) {
    for row in 0..output.gone.count {
        let mut key = Vec::new();
        key_text(&output.gone.keys, row, &mut key);
        held.remove(&(output.gone.windows.get(row).map_or(0, |window| window.0), String::from_utf8(key).unwrap()));
    }
    for (row, value) in texts(&output.rows).into_iter().enumerate() {
        let mut key = Vec::new();
        key_text(&output.keys, row, &mut key);
        let start = output.windows.get(row).map_or(0, |window| window.0);
        held.insert((start, String::from_utf8(key).unwrap()), (value, output.finals[row]));
    }
}

/// Runs random logs through the query in random steps, and compares after each. Gives the rows that were compared.
fn compare(query: &Arc<StreamQuery>, keeps_final: bool) -> usize {
    let mut compared = 0;
    for seed in 0..12 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // The timelines of devices are those of one partition: whoever has them owns no other.
        let one = query.timeline.is_some();
        let log: Vec<Record> = readings(seed).iter().map(record).filter(|record| !one || record.partition == 0).collect();
        let logs = [0, 1].map(|partition| log.iter().filter(|record| record.partition == partition).collect::<Vec<_>>());
        let mut engine = Engine::new(Arc::clone(query), [0, 1]);
        let (mut held, mut at) = (Held::new(), [0_usize; 2]);
        while logs.iter().zip(at).any(|(log, at)| at < log.len()) {
            let mut inputs = Vec::new();
            for (number, (log, at)) in (0..).zip(logs.iter().zip(&mut at)) {
                let rows = random.random_range(0..=(log.len() - *at).min(9));
                if rows > 0 {
                    inputs.push(input(query, number, *at, &log[*at..*at + rows]));
                    *at += rows;
                }
            }
            let prepared = engine.prepare(inputs).unwrap();
            take(&mut held, &engine.apply(&prepared.entry).unwrap());
            let mut want: Vec<&String> = held.values().filter(|(_, is_final)| keeps_final || !is_final).map(|(row, _)| row).collect();
            let got = texts(&engine.copy().rows().unwrap());
            let mut sorted: Vec<&String> = got.iter().collect();
            sorted.sort();
            want.sort();
            assert_eq!(sorted, want, "seed {seed} of {}", query.file.query.sql);
            compared += got.len();
        }
    }
    compared
}

const SENSORS: &str = "SELECT window.start AS s, sensor_id, count(*) AS n, avg(value) AS avg, median(value) AS m FROM iot GROUP BY ";

#[test]
fn the_open_windows_of_update_mode() {
    for grouping in ["window(ts, '10 seconds'), sensor_id", "window(ts, '10 seconds', '5 seconds'), sensor_id"] {
        assert!(compare(&readings_query(&format!("{SENSORS}{grouping}")), false) > 1_000, "{grouping}");
    }
    // The groups of a fleet lie in both partitions; groups without a window stay.
    assert!(compare(&readings_query("SELECT window.start AS s, sum(value) AS v FROM iot GROUP BY window(ts, '10 seconds')"), false) > 100);
    assert!(compare(&readings_query("SELECT sensor_id, count(*) AS n FROM iot GROUP BY sensor_id"), false) > 300);
}

#[test]
fn each_device_has_its_own_open_windows() {
    let text = query_file(&format!("{SENSORS}window(ts, '10 seconds'), sensor_id"));
    let text = text.replace("watermark = ", "watermark_by = 'sensor_id'\nmax_silence = '30 seconds'\nwatermark = ");
    assert!(compare(&compile(&text), false) > 300);
}

#[test]
fn the_whole_result_of_complete_mode() {
    let complete = |sql: &str| compile(&format!("{}output_mode = 'complete'\n", query_file(sql)));
    let grouped = format!("{SENSORS}window(ts, '10 seconds'), sensor_id");
    for sql in [
        &grouped,
        &format!("{grouped} HAVING count(*) > 2 ORDER BY avg DESC LIMIT 5"),
        "SELECT session_window.start AS s, sensor_id, count(*) AS n FROM iot GROUP BY session_window(ts, '4 seconds'), sensor_id",
        "SELECT sensor_id, count(*) AS n FROM iot GROUP BY sensor_id ORDER BY n DESC, sensor_id",
    ] {
        assert!(compare(&complete(sql), true) > 500, "{sql}");
    }
}

#[test]
fn in_append_mode_the_open_windows_show_before_they_are_given() {
    let append = compile(&format!("{}output_mode = 'append'\n", query_file(&format!("{SENSORS}window(ts, '10 seconds'), sensor_id"))));
    let update = readings_query(&format!("{SENSORS}window(ts, '10 seconds'), sensor_id"));
    let log: Vec<Record> = readings(3).iter().map(record).filter(|record| record.partition == 0).collect();
    let rows = |query: &Arc<StreamQuery>| {
        let mut engine = Engine::new(Arc::clone(query), [0]);
        let prepared = engine.prepare(vec![input(query, 0, 0, &log.iter().collect::<Vec<_>>())]).unwrap();
        engine.apply(&prepared.entry).unwrap();
        texts(&engine.copy().rows().unwrap())
    };
    assert!(!rows(&append).is_empty());
    assert_eq!(rows(&append), rows(&update));
}

#[test]
fn before_the_first_reading_of_a_partition_nothing_is_closed() {
    let query = readings_query("SELECT window.start AS s, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds')");
    let mut engine = Engine::new(Arc::clone(&query), [0, 1]);
    assert_eq!(engine.copy().rows().unwrap().num_rows(), 0);
    let record = |ts: i64| Record { partition: 0, received: ts, value: Some(format!(r#"{{"sensor_id":"a","ts":{ts}}}"#).into_bytes()) };
    let prepared = engine.prepare(vec![input(&query, 0, 0, &[&record(1_000), &record(90_000)])]).unwrap();
    engine.apply(&prepared.entry).unwrap();
    // Partition 1 may still bring readings of the first window.
    assert_eq!(engine.copy().rows().unwrap().num_rows(), 2);
}
