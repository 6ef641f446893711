//! Properties over random logs: the same final rows however the log is cut, and the rows of a plain batch computation.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::Value;

use super::harness::{Record, Way, cases, readings_query, run};
use super::oracle::{Reading, aggregate, in_time};

const SIZE: i64 = 10_000;
const DELAY: i64 = 5_000;

/// Readings of a few sensors over some minutes around 1970, out of order within and beyond the delay.
pub(super) fn readings(seed: u64) -> Vec<Reading> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let count = random.random_range(0..200);
    let mut clock = random.random_range(-300_000..300_000);
    (0..count)
        .map(|_| {
            clock += random.random_range(0..1_500);
            let sensor = random.random_range(0..6);
            let back = if random.random_bool(0.1) { random.random_range(0..60_000) } else { random.random_range(0..5_000) };
            let value = random.random_range(-1e6..1e6) * 10f64.powi(random.random_range(-9..9));
            Reading { partition: sensor % 2, sensor: format!("s-{sensor}"), ts: clock - back, value }
        })
        .collect()
}

pub(super) fn record(reading: &Reading) -> Record {
    let value = format!(r#"{{"sensor_id":"{}","ts":{},"value":{},"kind":"k","seq":1}}"#, reading.sensor, reading.ts, reading.value);
    Record { partition: reading.partition, received: reading.ts + 60_000, value: Some(value.into_bytes()) }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn final_rows_do_not_depend_on_how_the_log_is_cut(seed: u64, keyed: bool) {
        let keys = if keyed { ", sensor_id" } else { "" };
        let query = readings_query(&format!(
            "SELECT window.start AS s, count(*) AS n, sum(value) AS sum, avg(value) AS avg, min(value) AS min, max(value) AS max, \
             stddev(value) AS sd, var_pop(value) AS vp, corr(value, seq + value) AS c, count(DISTINCT kind) AS kinds, \
             first_value(value) AS f, last_value(value) AS l, median(value) AS m, array_agg(sensor_id) AS ids \
             FROM iot WHERE value > -900000 GROUP BY window(ts, '10 seconds'){keys} HAVING count(*) > 0"
        ));
        let log: Vec<Record> = readings(seed).iter().map(record).collect();
        let straight = run(&query, &log, Way::Straight);
        prop_assert_eq!(straight.ledger.imbalance(), 0);
        prop_assert_eq!(straight.ledger.read, log.len() as u64);
        prop_assert_eq!(&run(&query, &log, Way::Cut { seed }), &straight);
        prop_assert_eq!(&run(&query, &log, Way::Killed { seed }), &straight);
    }

    #[test]
    fn final_rows_equal_plain_datafusion(seed: u64) {
        let query = readings_query(
            "SELECT unix_millis(window.start) AS s, sensor_id, count(value) AS n, sum(value) AS sum, avg(value) AS avg, \
             min(value) AS min, max(value) AS max FROM iot GROUP BY window(ts, '10 seconds'), sensor_id",
        );
        let readings = readings(seed);
        let log: Vec<Record> = readings.iter().map(record).collect();
        let outcome = run(&query, &log, Way::Killed { seed });
        let kept = in_time(&readings, SIZE, DELAY);
        prop_assert_eq!(outcome.ledger.used as usize, kept.len());
        let mut cells: BTreeMap<(i64, String), (i64, [u64; 4])> = BTreeMap::new();
        for row in outcome.rows.values() {
            let row: Value = serde_json::from_str(row).unwrap();
            let float = |name: &str| row[name].as_f64().unwrap().to_bits();
            let key = (row["s"].as_i64().unwrap(), row["sensor_id"].as_str().unwrap().to_owned());
            cells.insert(key, (row["n"].as_i64().unwrap(), [float("sum"), float("avg"), float("min"), float("max")]));
        }
        let wanted: BTreeMap<_, _> = aggregate(&kept, SIZE).into_iter().map(|(key, (n, floats))| (key, (n, floats.map(f64::to_bits)))).collect();
        prop_assert_eq!(cells, wanted);
    }
}
