//! What goes beyond one windowed aggregate, each against a loop that a child could follow, and each cut and killed anywhere.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::harness::{Outcome, Record, Way, cases, compile, query_file, run};
use super::oracle::Reading;
use super::property::{readings, record};

const DELAY: i64 = 5_000;

/// Runs a query all ways; they must agree.
fn outcome(sql: &str, source: &str, mode: &str, log: &[Record], seed: u64) -> Result<Outcome, TestCaseError> {
    let query = compile(&query_file(sql).replace("[query]\n", &format!("{source}\n[query]\noutput_mode = '{mode}'\n")));
    let straight = run(&query, log, Way::Straight);
    prop_assert_eq!(straight.ledger.imbalance(), 0);
    prop_assert_eq!(&run(&query, log, Way::Cut { seed }), &straight);
    prop_assert_eq!(&run(&query, log, Way::Killed { seed }), &straight);
    Ok(straight)
}

fn values(outcome: &Outcome) -> Vec<Value> {
    outcome.rows.values().map(|row| serde_json::from_str(row.split(" #").next().unwrap()).unwrap()).collect()
}

fn log(readings: &[Reading]) -> Vec<Record> {
    readings.iter().map(record).collect()
}

/// Readings some of which come again, a while later.
fn repeated(seed: u64) -> Vec<Reading> {
    let mut all = readings(seed);
    for (place, back) in [(3, 1), (10, 6), (40, 25), (90, 60), (91, 3)] {
        if place < all.len() && back <= place {
            all.insert(place, all[place - back].clone());
        }
    }
    all
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_filter_keeps_every_row_that_matches(seed: u64) {
        let readings = readings(seed);
        let outcome = outcome("SELECT sensor_id, value * 2 AS v FROM iot WHERE value > 0", "", "append", &log(&readings), seed)?;
        let matching = readings.iter().filter(|reading| reading.value > 0.0).count();
        prop_assert_eq!((outcome.rows.len(), outcome.ledger.used as usize, outcome.ledger.late), (matching, matching, 0));
    }

    #[test]
    fn distinct_rows_show_once(seed: u64) {
        let readings = readings(seed);
        let sensors: BTreeSet<&str> = readings.iter().map(|reading| reading.sensor.as_str()).collect();
        let by_sensor = outcome("SELECT DISTINCT sensor_id, kind FROM iot", "", "append", &log(&readings), seed)?;
        prop_assert_eq!(by_sensor.rows.len(), sensors.len());
        let kinds = outcome("SELECT DISTINCT kind FROM iot", "", "update", &log(&readings), seed)?;
        prop_assert_eq!(kinds.rows.len(), usize::from(!readings.is_empty()));
    }

    #[test]
    fn a_reading_that_comes_again_counts_once(seed: u64) {
        let readings = repeated(seed);
        let outcome = outcome(
            "SELECT window.start AS s, sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id",
            "drop_duplicates_within_watermark = ['sensor_id', 'ts']", "update", &log(&readings), seed,
        )?;
        let mut known: BTreeMap<(i32, &str, i64), i64> = BTreeMap::new();
        let mut watermarks: BTreeMap<i32, i64> = BTreeMap::new();
        let (mut used, mut late, mut again) = (0, 0, 0);
        for reading in &readings {
            let watermark = watermarks.entry(reading.partition).or_insert(i64::MIN);
            let key = (reading.partition, reading.sensor.as_str(), reading.ts);
            if reading.ts <= *watermark {
                late += 1;
            } else if known.get(&key).is_some_and(|expiry| *expiry > *watermark) {
                again += 1;
            } else {
                known.insert(key, reading.ts + DELAY);
                used += 1;
            }
            *watermark = (*watermark).max(reading.ts - DELAY);
        }
        let ledger = outcome.ledger;
        prop_assert_eq!((ledger.used, ledger.late, ledger.filtered, ledger.duplicates), (used, late, again, again));
    }

    #[test]
    fn complete_mode_is_the_batch_result(seed: u64, windowed: bool) {
        let readings = readings(seed);
        let (column, group) = if windowed { ("unix_millis(window.start)", "window(ts, '10 seconds'), sensor_id") } else { ("0", "sensor_id") };
        let outcome = outcome(
            &format!("SELECT {column} AS s, sensor_id, count(*) AS n, max(value) AS m FROM iot GROUP BY {group} HAVING max(value) > 0"),
            "", "complete", &log(&readings), seed,
        )?;
        let mut wanted: BTreeMap<(i64, String), (i64, f64)> = BTreeMap::new();
        for reading in &readings {
            let start = if windowed { reading.ts.div_euclid(10_000) * 10_000 } else { 0 };
            let cell = wanted.entry((start, reading.sensor.clone())).or_insert((0, f64::NEG_INFINITY));
            *cell = (cell.0 + 1, cell.1.max(reading.value));
        }
        wanted.retain(|_, cell| cell.1 > 0.0);
        let rows: BTreeMap<(i64, String), (i64, f64)> = values(&outcome).into_iter().map(|row| {
            ((row["s"].as_i64().unwrap(), row["sensor_id"].as_str().unwrap().to_owned()), (row["n"].as_i64().unwrap(), row["m"].as_f64().unwrap()))
        }).collect();
        prop_assert_eq!(rows, wanted);
        prop_assert_eq!(outcome.ledger.used as usize, readings.len());
    }

    #[test]
    fn the_top_rows_are_the_top_of_the_batch_result(seed: u64) {
        let readings = readings(seed);
        let outcome = outcome(
            "SELECT sensor_id, count(*) AS n FROM iot GROUP BY sensor_id ORDER BY n DESC, sensor_id LIMIT 3", "", "complete", &log(&readings), seed,
        )?;
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        readings.iter().for_each(|reading| *counts.entry(&reading.sensor).or_default() += 1);
        let mut top: Vec<(i64, &str)> = counts.into_iter().map(|(sensor, n)| (-n, sensor)).collect();
        top.sort_unstable();
        let wanted: BTreeSet<String> =
            top.iter().take(3).enumerate().map(|(rank, (n, sensor))| format!(r#"{{"sensor_id":"{sensor}","n":{}}} #{rank}"#, -n)).collect();
        prop_assert_eq!(outcome.rows.into_values().collect::<BTreeSet<_>>(), wanted);
    }

    #[test]
    fn each_device_has_its_own_time(seed: u64, silence in prop_oneof![Just(10_000i64), Just(40_000), Just(10_000_000)]) {
        // Some devices are a minute behind the others.
        let mut readings = readings(seed);
        for reading in readings.iter_mut().filter(|reading| ["s-1", "s-4"].contains(&reading.sensor.as_str())) {
            reading.ts -= 60_000;
        }
        let source = format!("watermark_by = 'sensor_id'\nmax_silence = '{silence} ms'");
        let outcome = outcome(
            "SELECT unix_millis(window.start) AS s, sensor_id, count(*) AS n, sum(value) AS sum FROM iot \
             GROUP BY window(ts, '10 seconds'), sensor_id",
            &source, "update", &log(&readings), seed,
        )?;
        let mut devices: BTreeMap<&str, i64> = BTreeMap::new();
        let mut partitions: BTreeMap<i32, i64> = BTreeMap::new();
        let mut wanted: BTreeMap<(i64, String), i64> = BTreeMap::new();
        let step = (silence / 8).max(1);
        let watermark = |device: Option<&i64>, partition: Option<&i64>| {
            let given_up = partition.map(|max| max.div_euclid(step) * step - silence);
            device.copied().max(given_up).map_or(i64::MIN, |max| max - DELAY)
        };
        for reading in &readings {
            let start = reading.ts.div_euclid(10_000) * 10_000;
            let (device, partition) = (devices.get(reading.sensor.as_str()), partitions.get(&reading.partition));
            if start + 10_000 > watermark(device, partition) {
                *wanted.entry((start, reading.sensor.clone())).or_default() += 1;
            }
            let newest = |max: Option<&i64>| max.map_or(reading.ts, |max| reading.ts.max(*max));
            let (device, partition) = (newest(device), newest(partition));
            devices.insert(&reading.sensor, device);
            partitions.insert(reading.partition, partition);
        }
        let rows: BTreeMap<(i64, String), i64> = values(&outcome).into_iter().map(|row| {
            ((row["s"].as_i64().unwrap(), row["sensor_id"].as_str().unwrap().to_owned()), row["n"].as_i64().unwrap())
        }).collect();
        let closed = |(start, sensor): &(i64, String)| {
            let partition = readings.iter().find(|reading| reading.sensor == *sensor).unwrap().partition;
            start + 10_000 <= watermark(devices.get(sensor.as_str()), partitions.get(&partition))
        };
        prop_assert_eq!(outcome.finals, wanted.keys().filter(|cell| closed(cell)).count());
        prop_assert_eq!(rows, wanted);
    }

    #[test]
    fn an_aggregate_over_an_aggregate_takes_each_closed_window_once(seed: u64, fleet: bool) {
        let readings = readings(seed);
        let keys = if fleet { "" } else { ", sensor_id" };
        let outcome = outcome(
            &format!(
                "SELECT unix_millis(window.start) AS s{keys}, count(*) AS windows, sum(n) AS n, sum(sum) AS total, max(peak) AS peak FROM \
                 (SELECT window(ts, '5 seconds') AS w, sensor_id, count(*) AS n, sum(value) AS sum, max(value) AS peak FROM iot \
                 GROUP BY window(ts, '5 seconds'), sensor_id HAVING count(*) > 0) GROUP BY window(w, '20 seconds'){keys}"
            ),
            "", "append", &log(&readings), seed,
        )?;
        let mut watermarks: BTreeMap<i32, i64> = BTreeMap::new();
        let mut inner: BTreeMap<(i32, i64, String), (i64, f64)> = BTreeMap::new();
        for reading in &readings {
            let watermark = watermarks.entry(reading.partition).or_insert(i64::MIN);
            let start = reading.ts.div_euclid(5_000) * 5_000;
            if start + 5_000 > *watermark {
                let cell = inner.entry((reading.partition, start, reading.sensor.clone())).or_insert((0, f64::NEG_INFINITY));
                *cell = (cell.0 + 1, cell.1.max(reading.value));
            }
            *watermark = (*watermark).max(reading.ts - DELAY);
        }
        let together = watermarks.values().copied().min().unwrap_or(i64::MIN);
        let mut wanted: BTreeMap<(i64, String), (i64, i64, f64)> = BTreeMap::new();
        for ((partition, start, sensor), (n, peak)) in inner {
            let outer = start.div_euclid(20_000) * 20_000;
            let horizon = if fleet { together } else { watermarks[&partition] };
            if outer + 20_000 <= horizon {
                let cell = wanted.entry((outer, if fleet { String::new() } else { sensor })).or_insert((0, 0, f64::NEG_INFINITY));
                *cell = (cell.0 + 1, cell.1 + n, cell.2.max(peak));
            }
        }
        let rows: BTreeMap<(i64, String), (i64, i64, f64)> = values(&outcome).into_iter().map(|row| {
            let number = |name: &str| row[name].as_i64().unwrap();
            ((number("s"), row["sensor_id"].as_str().unwrap_or_default().to_owned()), (number("windows"), number("n"), row["peak"].as_f64().unwrap()))
        }).collect();
        prop_assert_eq!(outcome.finals, rows.len());
        prop_assert_eq!(rows, wanted);
    }
}

#[test]
fn in_complete_mode_the_result_has_the_rows_of_devices_that_are_silent() {
    let file = query_file("SELECT sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id HAVING count(*) > 0");
    let query = compile(&file.replace("[query]\n", "watermark_by = 'sensor_id'\n[query]\noutput_mode = 'complete'\n"));
    let mut engine = crate::engine::Engine::new(std::sync::Arc::clone(&query), [0]);
    let reading = |sensor: &str| record(&Reading { partition: 0, sensor: sensor.into(), ts: 1, value: 1.0 });
    for (offset, sensor, rows) in [(0, "a", 1), (1, "b", 2), (2, "b", 2)] {
        let prepared = engine.prepare(vec![super::harness::input(&query, 0, offset, &[&reading(sensor)])]).unwrap();
        let output = engine.apply(&prepared.entry).unwrap();
        assert_eq!((output.rows.num_rows(), output.gone.count), (rows, 0), "after the reading of {sensor}");
    }
}
