//! Wrong clocks: whatever they say, no honest reading is late.

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::harness::{Record, Way, cases, readings_query, run};

const DAY: i64 = 86_400_000;

/// A fleet of which each device has a clock of its own; the first two are right. Honest readings take less than the delay to arrive.
fn fleet(seed: u64) -> Vec<Record> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut now = 1_700_000_000_000 + random.random_range(0..DAY);
    (0..400)
        .map(|_| {
            now += random.random_range(0..400);
            let device = random.random_range(0..7);
            let taken = now - random.random_range(0..5_000);
            let ts = match device {
                0 | 1 => taken,
                2 => taken + DAY,
                3 => taken - 1_700_000_000_000,
                // Drifts away by a second in a hundred, ahead or behind.
                4 => taken + (now - 1_700_000_000_000) / 100,
                5 => taken - (now - 1_700_000_000_000) / 100,
                // Jumps.
                _ => taken + random.random_range(-400_000..400_000),
            };
            let value = format!(r#"{{"sensor_id":"d-{device}","ts":{ts},"value":1.0,"kind":"k","seq":1}}"#);
            Record { partition: random.random_range(0..2), received: now, value: Some(value.into_bytes()) }
        })
        .collect()
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn no_honest_reading_is_late(seed: u64) {
        let query = readings_query("SELECT window.start AS s, sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '1 second'), sensor_id");
        let log = fleet(seed);
        let outcome = run(&query, &log, Way::Killed { seed });
        let mut offsets = [0i64; 2];
        for record in &log {
            let offset = &mut offsets[record.partition as usize];
            let text = String::from_utf8(record.value.clone().unwrap()).unwrap();
            if text.contains("d-0") || text.contains("d-1") {
                prop_assert!(!outcome.late.contains(&(record.partition, *offset)), "late: {} at {}", text, record.received);
                prop_assert!(outcome.dead.iter().all(|(partition, dead, _)| (*partition, *dead) != (record.partition, *offset)));
            }
            *offset += 1;
        }
        prop_assert_eq!(outcome.ledger.imbalance(), 0);
    }
}
