#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use common::units::Span;

use super::*;
use crate::source::Content;

const NOW: i64 = 1_800_000_000_000;
const DAY: i64 = 86_400_000;

fn settings(count: u64) -> settings::Simulator {
    settings::Simulator { count: Some(count), rate: 0.0, out_of_order: 0.0, ..Default::default() }
}

/// All readings of a counted run that started at `now`.
fn readings(settings: &settings::Simulator, now: i64) -> (Vec<Reading>, Tally) {
    let mut simulator = Simulator::new(settings);
    simulator.start(now);
    let mut out = Vec::new();
    let mut elapsed = Duration::ZERO;
    loop {
        match simulator.next(elapsed, &mut out).unwrap() {
            Next::More => {}
            Next::Wait(time) => elapsed += time,
            Next::End => break,
        }
    }
    let reading = |delivery: Delivery| match delivery.content {
        Content::Reading(reading) => reading,
        Content::Dead(row) => panic!("{row:?}"),
    };
    (out.into_iter().map(reading).collect(), simulator.tally())
}

#[test]
fn the_same_seed_gives_the_same_readings_relative_to_the_start() {
    let all = settings::Simulator { out_of_order: 0.2, duplicates: 0.1, late: 0.1, ..settings(3_000) };
    let (first, _) = readings(&all, NOW);
    let (mut second, _) = readings(&all, NOW + 12_345);
    second.iter_mut().for_each(|reading| reading.ts -= 12_345);
    assert_eq!(first, second);
    let (other, _) = readings(&settings::Simulator { seed: 43, ..all }, NOW);
    assert_ne!(first, other);
}

#[test]
fn the_pace_does_not_change_the_values() {
    let values = |rate| {
        readings(&settings::Simulator { rate, ..settings(500) }, NOW).0.into_iter().map(|r| (r.sensor_id, r.seq)).collect::<Vec<_>>()
    };
    assert_eq!(values(0.0), values(1000.0));
}

#[test]
fn faults_leave_the_values_of_random_sensors_alone() {
    let plain = readings(&settings(600), NOW).0;
    let faulty = readings(&settings::Simulator { late: 0.5, bad_clock: 0.5, ..settings(600) }, NOW).0;
    let key = |reading: &Reading| (reading.sensor_id.clone(), reading.seq);
    assert_eq!(plain.iter().map(key).collect::<Vec<_>>(), faulty.iter().map(key).collect::<Vec<_>>());
    // Only a sine looks at the time; all others have the same values.
    let same = plain.iter().zip(&faulty).filter(|(a, b)| a.value == b.value).count();
    assert!(same > 300, "{same} of 600");
}

#[test]
fn shares_are_kept_and_counted() {
    let all = settings::Simulator { out_of_order: 0.2, duplicates: 0.1, late: 0.05, ..settings(20_000) };
    let (got, tally) = readings(&all, NOW);
    assert_eq!(tally.readings, 20_000);
    assert_eq!(got.len() as u64, tally.readings + tally.duplicates);
    for (count, share) in [(tally.out_of_order, 0.2), (tally.duplicates, 0.1), (tally.late, 0.05)] {
        assert!((count as f64 / 20_000.0 - share).abs() < 0.01, "{count} for {share}");
    }
    // Reading i of the fleet is due at i seconds / 20 after reading 0: what lies further back than out of order may be is late.
    let distinct: BTreeMap<_, _> = got.iter().map(|r| ((r.seq.unwrap(), r.sensor_id.clone()), r.ts)).collect();
    let origin = NOW - 20_000 * 50;
    let back = |(i, ts): (usize, &i64)| origin + i as i64 * 50 - ts;
    let delays: Vec<i64> = distinct.values().enumerate().map(back).collect();
    assert_eq!(delays.iter().filter(|delay| **delay == 60_000).count() as u64, tally.late);
    assert_eq!(delays.iter().filter(|delay| (1..=2_000).contains(*delay)).count() as u64, tally.out_of_order);
    assert!(delays.iter().all(|delay| (0..=2_000).contains(delay) || *delay == 60_000));
}

#[test]
fn no_shares_means_no_faults() {
    let (got, tally) = readings(&settings(1_000), NOW);
    assert_eq!(tally, Tally { readings: 1_000, ..Tally::default() });
    assert!(got.is_sorted_by_key(|reading| reading.ts));
    assert!(got.iter().all(|reading| reading.ts < NOW));
    let first: Vec<&str> = got[..2].iter().map(|reading| reading.sensor_id.as_str()).collect();
    assert_eq!(first, ["s-0001", "s-0002"]);
}

#[test]
fn seq_counts_up_for_each_sensor_and_duplicates_are_copies() {
    let (got, _) = readings(&settings::Simulator { duplicates: 0.3, ..settings(2_000) }, NOW);
    let mut last: BTreeMap<&str, &Reading> = BTreeMap::new();
    for reading in &got {
        let expected = match last.insert(&reading.sensor_id, reading) {
            Some(before) if before.seq == reading.seq => {
                assert_eq!(before, reading);
                continue;
            }
            Some(before) => before.seq.unwrap() + 1,
            None => 1,
        };
        assert_eq!(reading.seq, Some(expected));
    }
}

#[test]
fn bad_clocks_are_a_share_of_sensors() {
    let all = settings::Simulator { sensors: 30, bad_clock: 0.2, ..settings(3_000) };
    let (got, tally) = readings(&all, NOW);
    assert_eq!(tally.bad_clock, 600);
    let ids = |wanted: fn(&Reading) -> bool| got.iter().filter(|r| wanted(r)).map(|r| r.sensor_id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(ids(|r| r.ts >= NOW + DAY).len(), 2, "a day ahead");
    assert_eq!(ids(|r| r.ts < DAY).len(), 2, "at 1970");
}

#[test]
fn a_small_share_of_bad_clocks_spoils_at_least_one() {
    let (_, tally) = readings(&settings::Simulator { sensors: 5, bad_clock: 0.01, ..settings(50) }, NOW);
    assert_eq!(tally.bad_clock, 10);
}

#[test]
fn values_stay_in_the_range_of_their_kind_and_move() {
    let (got, _) = readings(&settings::Simulator { sensors: 48, ..settings(48_000) }, NOW);
    let mut distinct: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for reading in &got {
        let kind = wave::KINDS.iter().find(|kind| Some(kind.name) == reading.kind.as_deref()).unwrap();
        assert!((kind.low..=kind.high).contains(&reading.value), "{reading:?}");
        distinct.entry(&reading.sensor_id).or_default().insert(reading.value.to_bits());
    }
    assert_eq!(distinct.len(), 48);
    assert!(distinct.values().all(|values| values.len() > 10));
}

#[test]
fn a_paced_run_sends_what_is_due_and_waits_for_the_rest() {
    let mut simulator = Simulator::new(&settings::Simulator { rate: 100.0, count: None, ..settings(0) });
    simulator.start(NOW);
    let mut out = Vec::new();
    assert_eq!(simulator.next(Duration::ZERO, &mut out).unwrap(), Next::Wait(SLICE));
    assert_eq!(out.len(), 1);
    let next = simulator.next(Duration::from_millis(995), &mut out).unwrap();
    assert_eq!((next, out.len()), (Next::Wait(SLICE), 100));
    // After a pause it catches up, in batches.
    assert_eq!(simulator.next(Duration::from_secs(60), &mut out).unwrap(), Next::More);
    assert_eq!(out.len(), 100 + BATCH);
}

#[test]
fn a_slice_holds_what_is_due_and_no_more_than_a_turn_gives() {
    for (rate, wait) in [(0.1, Duration::from_secs(10)), (1_000.0, SLICE), (200_000.0, Duration::from_millis(5)), (0.0, SHORTEST_WAIT)] {
        let mut simulator = Simulator::new(&settings::Simulator { rate, count: None, ..settings(0) });
        simulator.start(NOW);
        assert_eq!(simulator.next(Duration::ZERO, &mut Vec::new()).unwrap(), Next::Wait(wait), "rate {rate}");
    }
    // Each has the event time at which it was due.
    let mut simulator = Simulator::new(&settings::Simulator { rate: 1_000.0, count: None, ..settings(0) });
    simulator.start(NOW);
    let mut out = Vec::new();
    simulator.next(SLICE, &mut out).unwrap();
    let times = out.into_iter().map(|delivery| if let Content::Reading(reading) = delivery.content { reading.ts - NOW } else { panic!() });
    assert_eq!(times.collect::<Vec<_>>(), (0..=250).collect::<Vec<_>>());
}

#[test]
fn event_time_never_runs_ahead_of_the_clock() {
    for (rate, count) in [(0.0, None), (7.0, None), (123_456.0, None)] {
        let mut simulator = Simulator::new(&settings::Simulator { rate, count, ..settings(0) });
        simulator.start(NOW);
        for millis in 0..50 {
            let mut out = Vec::new();
            simulator.next(Duration::from_millis(millis), &mut out).unwrap();
            for delivery in out {
                let Content::Reading(reading) = delivery.content else { panic!() };
                assert!(reading.ts <= NOW + millis as i64, "rate {rate}");
            }
        }
    }
}

#[test]
fn late_by_and_out_of_order_by_of_zero_are_fine() {
    let none = Span::from_millis(0);
    let all = settings::Simulator { out_of_order: 0.5, out_of_order_by: none, late: 0.5, late_by: none, ..settings(100) };
    assert_eq!(readings(&all, NOW).0.len(), 100);
}
