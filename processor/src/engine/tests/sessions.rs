//! Session windows against a list of lists: rows that touch are one, what has closed never changes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::harness::{Record, Way, cases, compile, query_file, run};
use super::oracle::Reading;
use super::property::{readings, record};
use crate::engine::Engine;

const DELAY: i64 = 5_000;
const GAP: i64 = 4_000;

/// A stretch of rows: its bounds, where it may meet those of other partitions, and its values.
#[derive(Debug, Clone)]
struct Stretch {
    start: i64,
    end: i64,
    from: i64,
    values: Vec<f64>,
}

impl Stretch {
    fn join(&mut self, other: Self) {
        (self.start, self.end, self.from) = (self.start.min(other.start), self.end.max(other.end), self.from.min(other.from));
        self.values.extend(other.values);
    }
}

/// Joins what touches, until nothing does.
fn joined(mut all: Vec<Stretch>) -> Vec<Stretch> {
    loop {
        let pair = (0..all.len())
            .flat_map(|a| (0..a).map(move |b| (b, a)))
            .find(|(b, a)| all[*b].from <= all[*a].end && all[*a].from <= all[*b].end);
        let Some((b, a)) = pair else { return all };
        let second = all.remove(a);
        all[b].join(second);
    }
}

/// The closed sessions: key, start, end; count, min, max.
fn wanted(readings: &[Reading], key: impl Fn(&Reading) -> String) -> BTreeMap<(String, i64, i64), (usize, f64, f64)> {
    let mut stretches: BTreeMap<(i32, String), Vec<Stretch>> = BTreeMap::new();
    let mut watermarks: BTreeMap<i32, i64> = readings.iter().map(|reading| (reading.partition, i64::MIN)).collect();
    for reading in readings {
        let watermark = watermarks[&reading.partition];
        watermarks.insert(reading.partition, watermark.max(reading.ts - DELAY));
        if reading.ts + GAP <= watermark {
            continue;
        }
        let own = stretches.entry((reading.partition, key(reading))).or_default();
        let (open, mut closed): (Vec<_>, Vec<_>) = own.drain(..).partition(|stretch| stretch.end > watermark);
        let mut row = vec![Stretch {
            start: reading.ts,
            end: reading.ts + GAP,
            from: reading.ts.max(watermark.saturating_add(1)),
            values: vec![reading.value],
        }];
        row.extend(open);
        closed.extend(joined(row));
        *own = closed;
    }
    let horizon = watermarks.values().copied().min().unwrap_or(i64::MIN);
    let mut keys: BTreeMap<String, Vec<Stretch>> = BTreeMap::new();
    for ((_, key), all) in stretches {
        keys.entry(key).or_default().extend(all);
    }
    let mut rows = BTreeMap::new();
    for (key, all) in keys {
        for whole in joined(all).into_iter().filter(|whole| whole.end <= horizon) {
            let (min, max) =
                whole.values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| (min.min(*value), max.max(*value)));
            rows.insert((key.clone(), whole.start, whole.end), (whole.values.len(), min, max));
        }
    }
    rows
}

fn check(seed: u64, column: &str, key: impl Fn(&Reading) -> String) -> Result<(), TestCaseError> {
    let query = compile(
        &query_file(&format!(
            "SELECT unix_millis(session_window.start) AS s, unix_millis(session_window.end) AS e, {column} AS k, count(*) AS n, \
             min(value) AS min, max(value) AS max, sum(value) AS sum, stddev(value) AS sd, array_agg(seq) AS seqs \
             FROM iot GROUP BY session_window(ts, '{GAP} ms'), {column}"
        ))
        .replace("[query]\n", "[query]\noutput_mode = 'append'\n"),
    );
    let readings = readings(seed);
    let log: Vec<Record> = readings.iter().map(record).collect();
    let straight = run(&query, &log, Way::Straight);
    prop_assert_eq!(straight.ledger.imbalance(), 0);
    prop_assert_eq!(&run(&query, &log, Way::Cut { seed }), &straight);
    prop_assert_eq!(&run(&query, &log, Way::Killed { seed }), &straight);
    let rows: BTreeMap<(String, i64, i64), (usize, f64, f64)> = straight
        .rows
        .values()
        .map(|row| {
            let row: Value = serde_json::from_str(row).unwrap();
            let number = |name: &str| row[name].as_i64().unwrap();
            let key = (row["k"].as_str().unwrap().to_owned(), number("s"), number("e"));
            (key, (number("n") as usize, row["min"].as_f64().unwrap(), row["max"].as_f64().unwrap()))
        })
        .collect();
    let wanted = if column == "kind" {
        wanted(&readings, key)
    } else {
        // Each partition is on its own.
        let parts = (0..2).map(|partition| readings.iter().filter(|reading| reading.partition == partition).cloned().collect::<Vec<_>>());
        parts.flat_map(|part| wanted(&part, &key)).collect()
    };
    prop_assert_eq!(rows, wanted);
    Ok(())
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn sessions_of_a_sensor(seed: u64) {
        check(seed, "sensor_id", |reading| reading.sensor.clone())?;
    }

    #[test]
    fn sessions_over_partitions(seed: u64) {
        check(seed, "kind", |_| "k".to_owned())?;
    }
}

#[test]
fn in_complete_mode_a_session_that_became_part_of_another_leaves_the_result() {
    let file = query_file("SELECT session_window.start AS s, count(*) AS n FROM iot GROUP BY session_window(ts, '10 seconds'), sensor_id");
    let query = compile(&file.replace("[query]\n", "[query]\noutput_mode = 'complete'\n"));
    let reading = |ts: i64| record(&Reading { partition: 0, sensor: "a".into(), ts, value: 1.0 });
    let log = [reading(0), reading(15_000), reading(8_000), reading(30_000)];
    let mut engine = Engine::new(std::sync::Arc::clone(&query), [0]);
    let mut gone = Vec::new();
    for (offset, record) in log.iter().enumerate() {
        let prepared = engine.prepare(vec![super::harness::input(&query, 0, offset, &[record])]).unwrap();
        gone.push(engine.apply(&prepared.entry).unwrap().gone.windows);
    }
    assert_eq!(gone, [vec![], vec![], vec![(15_000, 25_000)], vec![]], "the first one grew, the second one is part of it");
}
