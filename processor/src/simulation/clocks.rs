//! Devices that lie about the time, in the same partition as honest ones.

use std::sync::Arc;

use super::query::compile;
use super::world::{Reading, record};
use crate::engine::{Engine, Input};

const T: i64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;

/// Two hours of one honest reading a second, and one of the other device, whose clock shows `clock(now)`. Gives the late rows: honest ones
/// and others.
fn late_beside(settings: &str, clock: impl Fn(i64) -> i64) -> (usize, usize) {
    let query = compile(&format!(
        "name = 'q'\n[source]\ntopic = 'iot'\nevent_time = 'ts'\nwatermark = '5 seconds'\n{settings}\n\
         schema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING, seq BIGINT'\n\
         [query]\nsql = \"SELECT sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id\"\n"
    ));
    let mut engine = Engine::new(Arc::clone(&query), [0]);
    let (mut honest, mut others) = (0, 0);
    for minute in 0..120 {
        let start = T + minute * 60_000;
        let readings = (0..60).flat_map(|second| {
            let now = start + second * 1_000;
            [("honest", now - 3_000), ("other", clock(now))].map(|(sensor, ts)| (now, sensor, ts))
        });
        let readings: Vec<(i64, &str, i64)> = readings.collect();
        let record = |(_, sensor, ts): &(i64, &str, i64)| {
            record(&Reading { sensor: Some((*sensor).to_owned()), ts: Some(*ts), value: Some(1.0), ..Reading::default() })
        };
        let records: Vec<Vec<u8>> = readings.iter().map(record).collect();
        let decoded = query.decoder().decode(records.iter().map(|record| Some(record.as_slice()))).unwrap();
        let received = readings.iter().map(|(now, ..)| *now).collect();
        let prepared = engine.prepare(vec![Input { partition: 0, from: minute * 120, to: (minute + 1) * 120, received, decoded }]).unwrap();
        for row in &prepared.late[0] {
            match readings[row.index as usize].1 {
                "honest" => honest += 1,
                _ => others += 1,
            }
        }
        engine.apply(&prepared.entry).unwrap();
    }
    (honest, others)
}

#[test]
fn a_clock_a_day_ahead_or_at_1970_makes_no_honest_row_late() {
    for settings in ["", "watermark_by = 'sensor_id'"] {
        assert_eq!(late_beside(settings, |now| now + 24 * HOUR), (0, 0), "a day ahead: its rows are dead");
        assert_eq!(late_beside(settings, |now| now - T).0, 0, "at 1970");
        assert_eq!(late_beside(settings, |now| now - if now > T + HOUR { HOUR } else { 0 }).0, 0, "steps back");
        assert_eq!(late_beside(settings, |now| now - (now - T) / 100).0, 0, "drifts behind");
    }
}

/// A drift that the guard cannot see yet: it moves no time past that of the receipt, whether devices have times of their own or not.
#[test]
fn a_clock_that_drifts_ahead_makes_no_honest_row_late() {
    // 100 ppm are 0.7 s after two hours, one percent 72 s.
    for rate in [10_000, 100] {
        for settings in ["", "watermark_by = 'sensor_id'"] {
            assert_eq!(late_beside(settings, |now| now + (now - T) / rate), (0, 0), "a part in {rate}, {settings}");
        }
    }
}
