//! Windows of a calendar through the whole engine: however the log is cut, the rows of a loop over local dates.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate, TimeZone as _};
use chrono_tz::Tz;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::Value;

use super::harness::{Record, Way, cases, compile, input, query_file, run};
use super::oracle::Reading;
use super::property::record;
use crate::engine::{Engine, codec};
use crate::query::StreamQuery;

const HOUR: i64 = 3_600_000;
const DELAY: i64 = 6 * HOUR;

fn query(zone: &str, sql: &str) -> Arc<StreamQuery> {
    let file = query_file(sql).replace("'5 seconds'", "'6 hours'");
    compile(&file.replace("[query]\n", &format!("[query]\ntime_zone = '{zone}'\n")))
}

fn millis(text: &str) -> i64 {
    text.parse::<DateTime<chrono::Utc>>().unwrap().timestamp_millis()
}

/// Some weeks around a change of clocks, out of order within and beyond the delay.
fn readings(seed: u64, from: i64) -> Vec<Reading> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut clock = from;
    (0..random.random_range(0..150))
        .map(|_| {
            clock += random.random_range(0..9 * HOUR);
            let back = if random.random_bool(0.1) { random.random_range(0..120 * HOUR) } else { random.random_range(0..DELAY) };
            let sensor = random.random_range(0..4);
            Reading { partition: sensor % 2, sensor: format!("s-{sensor}"), ts: clock - back, value: f64::from(sensor) }
        })
        .collect()
}

/// The first instant of a day, which for one that clocks skip is that of the day after it.
fn midnight(zone: Tz, date: NaiveDate) -> i64 {
    let local = zone.from_local_datetime(&date.and_time(chrono::NaiveTime::MIN)).single();
    local.map_or_else(|| midnight(zone, date + Days::new(1)), |time| time.timestamp_millis())
}

/// A zone, and a time some weeks before its clocks change.
fn zones() -> impl Strategy<Value = (Tz, &'static str)> {
    prop_oneof![
        Just((Tz::Europe__Rome, "2026-03-20T07:00:00Z")),
        Just((Tz::Europe__Rome, "2026-10-15T07:00:00Z")),
        // The 30th of December was not.
        Just((Tz::Pacific__Apia, "2011-12-20T07:00:00Z")),
    ]
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    // From eight days on windows are merged block by block.
    fn every_local_day_counts_the_rows_that_were_in_time_for_it(seed: u64, (zone, from) in zones(), size in prop_oneof![1u64..4, 8u64..20]) {
        let query = query(zone.name(), &format!(
            "SELECT unix_millis(window.start) AS s, unix_millis(window.end) AS e, sensor_id, count(*) AS n FROM iot \
             GROUP BY window(ts, '{size} days', '1 day'), sensor_id"
        ));
        let readings = readings(seed, millis(from));
        let log: Vec<Record> = readings.iter().map(record).collect();
        let straight = run(&query, &log, Way::Straight);
        prop_assert_eq!(straight.ledger.imbalance(), 0);
        prop_assert_eq!(&run(&query, &log, Way::Cut { seed }), &straight);
        prop_assert_eq!(&run(&query, &log, Way::Killed { seed }), &straight);

        let mut wanted: BTreeMap<(i64, i64, String), i64> = BTreeMap::new();
        let mut watermarks: BTreeMap<i32, i64> = BTreeMap::new();
        for reading in &readings {
            let watermark = watermarks.entry(reading.partition).or_insert(i64::MIN);
            let date = zone.timestamp_millis_opt(reading.ts).unwrap().date_naive();
            for first in (0..size).map(|back| date - Days::new(back)) {
                let (start, end) = (midnight(zone, first), midnight(zone, first + Days::new(size)));
                let is_skipped = start == midnight(zone, first + Days::new(1));
                if end > *watermark && !is_skipped {
                    *wanted.entry((start, end, reading.sensor.clone())).or_default() += 1;
                }
            }
            *watermark = (*watermark).max(reading.ts - DELAY);
        }
        let rows: BTreeMap<(i64, i64, String), i64> = straight.rows.values().map(|row| {
            let row: Value = serde_json::from_str(row).unwrap();
            let int = |name: &str| row[name].as_i64().unwrap();
            ((int("s"), int("e"), row["sensor_id"].as_str().unwrap().to_owned()), int("n"))
        }).collect();
        prop_assert_eq!(rows, wanted);
    }
}

#[test]
fn the_wall_clock_closes_a_day_at_its_local_end() {
    let query = query("America/New_York", "SELECT count(*) AS n FROM iot GROUP BY window(ts, '1 day')");
    let mut engine = Engine::new(Arc::clone(&query), [0]);
    let reading = Reading { partition: 0, sensor: "a".into(), ts: millis("2026-11-01T12:00:00Z"), value: 1.0 };
    let prepared = engine.prepare(vec![input(&query, 0, 0, &[&record(&reading)])]).unwrap();
    engine.apply(&prepared.entry).unwrap();
    // 25 hours after a midnight in summer time.
    let end = millis("2026-11-02T05:00:00Z");
    assert!(engine.close_idle(end + DELAY - 1, &[(0, 1)]).is_none());
    let closing = engine.close_idle(end + DELAY, &[(0, 1)]).unwrap();
    let output = engine.apply(&closing).unwrap();
    assert_eq!((output.windows.as_slice(), output.finals.as_slice()), (&[(millis("2026-11-01T04:00:00Z"), end)][..], &[true][..]));
    assert_eq!(engine.state_rows(), 0);
}

#[test]
fn state_of_another_zone_is_refused() {
    let sql = "SELECT count(*) AS n FROM iot GROUP BY window(ts, '1 day')";
    let (rome, tokyo) = (query("Europe/Rome", sql), query("Asia/Tokyo", sql));
    let without = compile(&query_file(sql).replace("'5 seconds'", "'6 hours'"));
    let bytes = codec::encode(&rome, &Engine::new(Arc::clone(&rome), [0]).snapshot()).unwrap();
    assert!(codec::decode(&rome, &bytes).is_ok());
    for other in [tokyo, without] {
        assert!(codec::decode(&other, &bytes).unwrap_err().to_string().contains("another SQL"));
    }
}
