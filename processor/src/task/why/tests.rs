//! Each thing that can hold a result back, and the answer to it.

use super::*;

const T: i64 = 1_700_000_000_000;

fn partition(number: i32) -> Partition {
    let quiet = Duration::from_secs(1);
    Partition { number, position: Some(500), end: Some(500), at_end: true, quiet, watermark: Some(T + 3_000) }
}

/// Two partitions that are read to their ends, a window open until T + 10 s.
fn calm() -> Situation {
    let shard = |number| Shard {
        number,
        turned: Duration::ZERO,
        point: "after_results",
        restored: true,
        state_bytes: 1_000,
        next_close: Some(NextClose { end: T + 10_000, device: None }),
        partitions: vec![partition(number)],
    };
    Situation {
        now_ms: T + 8_300,
        topic: "iot".into(),
        trigger: Trigger::AsSoonAsPossible,
        output_mode: OutputMode::Update,
        windowed: true,
        delay: 5_000,
        idle_timeout: 30_000,
        max_state: 100_000,
        input_partitions: 2,
        found_partitions: 2,
        shards: vec![shard(0), shard(1)],
        gives_results: true,
        fault: None,
        away: None,
        outside: None,
        rows_per_second: 100.0,
        since_result: SinceResult { last_ms: Some(T - 8_000), ..SinceResult::default() },
    }
}

#[track_caller]
fn answer(situation: &Situation, code: &str, parts: &[&str]) {
    let reasons = explain(situation);
    assert_eq!(reasons[0].code, code, "{reasons:#?}");
    for part in parts {
        assert!(reasons[0].text.contains(part), "'{part}' in: {}", reasons[0].text);
    }
}

#[test]
fn an_open_window_names_what_it_waits_for() {
    // Idle at T + 37.3 s, which is later than the end and the delay.
    let parts = ["ends at 2023-11-14T22:13:30.000Z", "partition 0 has its watermark at 2023-11-14T22:13:23.000Z"];
    answer(&calm(), "window_open", &parts);
    answer(&calm(), "window_open", &["at or after 2023-11-14T22:13:35.000Z", "in 29s (at 2023-11-14T22:13:57.300Z", "the next final row"]);
    let mut quiet = calm();
    quiet.now_ms = T + 40_000;
    quiet.shards.iter_mut().for_each(|shard| shard.partitions[0].quiet = Duration::from_secs(33));
    answer(&quiet, "window_open", &["any moment now", "counts as idle"]);
    let mut bounded = calm();
    bounded.trigger = Trigger::AvailableNow;
    answer(&bounded, "window_open", &["a bounded run does not wait for the clock"]);
}

#[test]
fn a_partition_that_never_had_a_reading_is_named() {
    let mut situation = calm();
    // One shard over both partitions: the silent one holds the other's windows.
    let silent = Partition { number: 1, position: None, end: Some(0), at_end: true, quiet: Duration::from_secs(12), watermark: None };
    situation.shards.truncate(1);
    situation.shards[0].partitions.push(silent);
    answer(&situation, "partition_without_data", &["partition 1 has had no reading yet", "in 18s"]);
    assert_eq!(explain(&situation)[0].partition, Some(1));
}

#[test]
fn a_device_with_a_time_of_its_own_is_named() {
    let mut situation = calm();
    situation.shards[1].next_close = Some(NextClose { end: T + 7_000, device: Some((1, "pump-3".into(), Some(T - 2_000))) });
    answer(&situation, "window_open", &["ends at 2023-11-14T22:13:27.000Z", "device 'pump-3' (partition 1) has its watermark at"]);
}

#[test]
fn a_lag_says_how_long() {
    let mut situation = calm();
    situation.shards[1].partitions[0].end = Some(30_500);
    answer(&situation, "lag", &["partition 1 lags by 30000 rows at 100 rows/s: about 5m more"]);
    situation.rows_per_second = 0.0;
    answer(&situation, "lag", &["none of them has come lately"]);
}

#[test]
fn rows_that_do_not_count_are_told_with_their_reason() {
    let mut situation = calm();
    situation.since_result.counts = Ledger { read: 90, used: 0, late: 7, dead: 80, filtered: 3, duplicates: 2 };
    situation.since_result.reasons = BTreeMap::from([("late", 7), ("future", 78), ("not_json", 2)]);
    answer(&situation, "all_refused", &["90 rows", "7 late, 80 dead, 1 filtered by WHERE, 2 duplicates", "'future' (78)"]);
    situation.since_result = SinceResult { counts: Ledger { read: 5, filtered: 5, ..Ledger::default() }, ..SinceResult::default() };
    answer(&situation, "all_refused", &["none matches WHERE"]);
    situation.since_result.counts = Ledger { read: 5, used: 5, ..Ledger::default() };
    answer(&situation, "having", &["HAVING let none pass"]);
    situation.output_mode = OutputMode::Append;
    answer(&situation, "window_open", &["the next result"]);
    assert!(explain(&situation).iter().any(|reason| reason.code == "append"));
}

#[test]
fn what_must_be_mended_comes_first() {
    let mut situation = calm();
    situation.shards[0].turned = Duration::from_secs(75);
    situation.shards[0].point = "after_lanes";
    answer(&situation, "worker_stuck", &["shard 0 has stood still for 1m 15s, after the step 'after_lanes'"]);
    situation.away = Some(Duration::from_secs(70));
    answer(&situation, "log_away", &["not answered for 1m 10s"]);
    situation.outside = Some("mqtt://broker, topics a".into());
    answer(&situation, "source_away", &["mqtt://broker, topics a", "not answered for 1m 10s"]);
    situation.away = None;
    situation.fault = Some((Duration::from_secs(2), "the Kafka log: gone".into()));
    answer(&situation, "worker_restarting", &["2s ago", "gone"]);

    let mut none = calm();
    none.shards.clear();
    answer(&none, "no_partition", &["another one of its group"]);
    none.away = Some(Duration::from_secs(12));
    assert!(explain(&none).iter().all(|reason| reason.code != "no_partition"), "without the log nobody owns anything");
    let mut restoring = calm();
    restoring.shards[1].restored = false;
    answer(&restoring, "restoring", &["shard 1"]);
    let mut full = calm();
    full.shards[0].state_bytes = 95_000;
    answer(&full, "max_state", &["95000 of 100000 bytes", "processor.max_state"]);
    let mut grown = calm();
    grown.found_partitions = 4;
    answer(&grown, "new_partitions", &["has 4 partitions now, and had 2"]);
}

#[test]
fn while_rows_leave_nothing_holds_them_back() {
    let mut situation = calm();
    situation.since_result.last_ms = Some(T + 8_000);
    answer(&situation, "flowing", &["the last rows left 300ms ago"]);
    assert_eq!(explain(&situation)[1].code, "window_open", "the final ones");
    situation.since_result.last_ms = None;
    answer(&situation, "window_open", &[]);
    assert!(explain(&situation).iter().any(|reason| reason.code == "starting"));
    // A slow tick is no silence.
    situation.since_result.last_ms = Some(T - 30_000);
    situation.trigger = Trigger::ProcessingTime(Span::from_secs(20));
    answer(&situation, "flowing", &["38s ago"]);
}

#[test]
fn of_many_shards_the_first_windows_are_told() {
    let mut situation = calm();
    situation.shards = (0..9)
        .map(|number| Shard {
            number,
            next_close: Some(NextClose { end: T + 20_000 - i64::from(number) * 1_000, device: None }),
            partitions: vec![partition(number)],
            ..situation.shards[0].clone()
        })
        .collect();
    let told: Vec<_> = explain(&situation).into_iter().filter(|reason| reason.code == "window_open").collect();
    assert_eq!(told.iter().map(|reason| reason.partition).collect::<Vec<_>>(), [Some(8), Some(7), Some(6)]);
}

#[test]
fn without_windows_the_trigger_and_the_quiet_are_left() {
    let mut situation = calm();
    situation.windowed = false;
    answer(&situation, "steady", &[]);
    situation.trigger = Trigger::ProcessingTime(Span::from_secs(7));
    answer(&situation, "trigger", &["every 7s: the next one in"]);
    situation.trigger = Trigger::AsSoonAsPossible;
    situation.shards.iter_mut().for_each(|shard| shard.partitions[0].quiet = Duration::from_secs(125));
    answer(&situation, "quiet", &["no row has come for 2m 5s"]);
    situation.shards.iter_mut().for_each(|shard| shard.partitions[0].end = Some(0));
    answer(&situation, "no_data", &["topic 'iot' has no rows yet"]);
}
