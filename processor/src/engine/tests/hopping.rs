//! Hopping windows against a loop over all windows: a closed window never changes, an open one counts every row in time for it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::harness::{Record, Way, cases, readings_query, run};
use super::property::{readings, record};

const DELAY: i64 = 5_000;

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn every_window_counts_the_rows_that_were_in_time_for_it(
        seed: u64, (size, slide, start) in prop_oneof![
            Just((10_000i64, 5_000i64, 0i64)), Just((30_000, 20_000, 0)), Just((60_000, 10_000, 7_000)), Just((7_000, 3_000, 1_000)),
            // Of so many panes that they are merged block by block.
            Just((60_000, 5_000, 0)), Just((30_000, 1_000, 0)), Just((60_000, 7_000, 2_000)),
        ],
    ) {
        let query = readings_query(&format!(
            "SELECT unix_millis(window.start) AS s, sensor_id, count(*) AS n, min(value) AS min, max(value) AS max, avg(value) AS avg \
             FROM iot GROUP BY window(ts, '{size} ms', '{slide} ms', '{start} ms'), sensor_id"
        ));
        let readings = readings(seed);
        let log: Vec<Record> = readings.iter().map(record).collect();
        let straight = run(&query, &log, Way::Straight);
        prop_assert_eq!(straight.ledger.imbalance(), 0);
        prop_assert_eq!(&run(&query, &log, Way::Cut { seed }), &straight);
        prop_assert_eq!(&run(&query, &log, Way::Killed { seed }), &straight);

        let mut wanted: BTreeMap<(i64, String), (i64, f64, f64)> = BTreeMap::new();
        let mut watermarks: BTreeMap<i32, i64> = BTreeMap::new();
        for reading in &readings {
            let watermark = watermarks.entry(reading.partition).or_insert(i64::MIN);
            let mut window = reading.ts - (reading.ts - start).rem_euclid(slide);
            while window + size > reading.ts {
                if window + size > *watermark {
                    let cell = wanted.entry((window, reading.sensor.clone())).or_insert((0, f64::INFINITY, f64::NEG_INFINITY));
                    *cell = (cell.0 + 1, cell.1.min(reading.value), cell.2.max(reading.value));
                }
                window -= slide;
            }
            *watermark = (*watermark).max(reading.ts - DELAY);
        }
        let rows: BTreeMap<(i64, String), (i64, f64, f64)> = straight.rows.values().map(|row| {
            let row: Value = serde_json::from_str(row).unwrap();
            let float = |name: &str| row[name].as_f64().unwrap();
            let key = (row["s"].as_i64().unwrap(), row["sensor_id"].as_str().unwrap().to_owned());
            (key, (row["n"].as_i64().unwrap(), float("min"), float("max")))
        }).collect();
        prop_assert_eq!(rows, wanted);
    }

    #[test]
    fn append_mode_gives_the_final_rows_of_update_mode(seed: u64) {
        let sql = "SELECT window.start AS s, sensor_id, count(*) AS n, sum(value) AS sum \
                   FROM iot GROUP BY window(ts, '10 seconds', '5 seconds'), sensor_id";
        let update = readings_query(sql);
        let append = super::harness::compile(
            &super::harness::query_file(sql).replace("[query]\n", "[query]\noutput_mode = 'append'\n"),
        );
        let log: Vec<Record> = readings(seed).iter().map(record).collect();
        let (update, append) = (run(&update, &log, Way::Straight), run(&append, &log, Way::Killed { seed }));
        prop_assert_eq!(append.rows.len(), append.finals);
        prop_assert_eq!(append.finals, update.finals);
        prop_assert!(append.rows.iter().all(|(cell, row)| update.rows[cell] == *row));
    }
}

/// More rows than are computed at a time, of one entry, and of windows that all close at once.
#[test]
fn many_windows_come_in_parts() {
    let query = readings_query(
        "SELECT unix_millis(window.start) AS s, sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds', '1 second'), sensor_id",
    );
    let reading = |(number, ts): (u32, i64)| Record {
        partition: 0,
        received: -1,
        value: Some(format!(r#"{{"sensor_id":"s{number}","ts":{ts},"value":1,"kind":"k","seq":1}}"#).into_bytes()),
    };
    let begin = 1_700_000_000_000;
    let readings = (0..2_000u32).map(|number| (number, begin + i64::from(number % 1_000)));
    let log: Vec<Record> = readings.chain([(0, begin + 100_000)]).map(reading).collect();
    for way in [Way::Straight, Way::Cut { seed: 1 }, Way::Killed { seed: 2 }] {
        let outcome = run(&query, &log, way);
        assert_eq!((outcome.rows.len(), outcome.finals), (20_010, 20_000), "{way:?}");
        assert!(outcome.rows.values().all(|row| row.ends_with("\"n\":1}")), "{way:?}");
    }
}
