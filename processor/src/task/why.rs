//! Why the next result has not come: a pure function of what the processor knows of a query.
//!
//! All that holds a result back is found, the gravest first: what a person must mend, then what only takes its time, then what is as it
//! should be. The first reason is the answer.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use common::units::Span;
use serde_json::{Value, json};

use crate::engine::{Ledger, NextClose};
use crate::query::file::{OutputMode, Trigger};

/// A worker that has not turned for this long stands still.
const STUCK: Duration = Duration::from_secs(10);
/// A result is of just now for this long, milliseconds.
const LATELY: i64 = 3_000;
/// Windows of so many shards are told.
const MOST_WINDOWS: usize = 3;
/// So many rows may be on their way without being called a lag.
const ON_THEIR_WAY: i64 = 1_000;

/// What is known of a query at `now_ms`.
#[derive(Debug, Clone)]
pub(crate) struct Situation {
    pub(crate) now_ms: i64,
    pub(crate) topic: String,
    pub(crate) trigger: Trigger,
    pub(crate) output_mode: OutputMode,
    pub(crate) windowed: bool,
    /// Of the watermark and of idleness, milliseconds.
    pub(crate) delay: i64,
    pub(crate) idle_timeout: i64,
    pub(crate) max_state: u64,
    /// How many partitions the input had at the start, and has now.
    pub(crate) input_partitions: u32,
    pub(crate) found_partitions: u32,
    pub(crate) shards: Vec<Shard>,
    /// Whether any of them gives results: one that reads for those who merge does not.
    pub(crate) gives_results: bool,
    /// The last end of a worker by a fault: how long ago, and why.
    pub(crate) fault: Option<(Duration, String)>,
    /// For how long the log has not answered, or the source outside Kafka whose place this is.
    pub(crate) away: Option<Duration>,
    pub(crate) outside: Option<String>,
    pub(crate) rows_per_second: f64,
    pub(crate) since_result: SinceResult,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Shard {
    pub(crate) number: i32,
    /// How long ago its loop turned, and the last named step that it passed.
    pub(crate) turned: Duration,
    pub(crate) point: &'static str,
    pub(crate) restored: bool,
    pub(crate) state_bytes: u64,
    /// The next window to close.
    pub(crate) next_close: Option<NextClose>,
    pub(crate) partitions: Vec<Partition>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Partition {
    pub(crate) number: i32,
    pub(crate) position: Option<i64>,
    /// As the log says it.
    pub(crate) end: Option<i64>,
    pub(crate) at_end: bool,
    /// For how long no row has come.
    pub(crate) quiet: Duration,
    pub(crate) watermark: Option<i64>,
}

/// What happened since a result row last left.
#[derive(Debug, Clone, Default)]
pub(crate) struct SinceResult {
    /// When that was, epoch milliseconds; `None`: not in this run.
    pub(crate) last_ms: Option<i64>,
    pub(crate) counts: Ledger,
    pub(crate) reasons: BTreeMap<&'static str, u64>,
}

/// One thing that holds the next result back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reason {
    pub(crate) code: &'static str,
    pub(crate) text: String,
    pub(crate) partition: Option<i32>,
}

impl Partition {
    fn lag(&self) -> i64 {
        self.end.map_or(0, |end| (end - self.position.unwrap_or(0)).max(0))
    }
}

/// All reasons, the gravest first; never none.
pub(crate) fn explain(situation: &Situation) -> Vec<Reason> {
    let mut reasons = Vec::new();
    workers(situation, &mut reasons);
    input(situation, &mut reasons);
    if situation.gives_results {
        rows(situation, &mut reasons);
    } else {
        let text = "this processor reads its partitions for others, which merge the groups and write the results: ask those too";
        reasons.push(reason("merged_elsewhere", text.into()));
    }
    if flows(situation) {
        // Only final rows wait for anything.
        pace(situation, &mut reasons);
        windows(situation, &mut reasons);
    } else {
        windows(situation, &mut reasons);
        pace(situation, &mut reasons);
    }
    reasons
}

/// Whether results have left just now.
fn flows(situation: &Situation) -> bool {
    let patience = match situation.trigger {
        Trigger::ProcessingTime(interval) => interval.millis().saturating_mul(2).max(LATELY),
        _ => LATELY,
    };
    situation.since_result.last_ms.is_some_and(|last| situation.now_ms.saturating_sub(last) <= patience)
}

/// The first reason is the answer.
pub(crate) fn to_json(situation: &Situation) -> Value {
    let reasons = explain(situation);
    let reason = |reason: &Reason| json!({ "code": reason.code, "text": reason.text, "partition": reason.partition });
    json!({
        "last_result": super::progress::instant(situation.since_result.last_ms),
        "reasons": reasons.iter().map(reason).collect::<Vec<_>>(),
    })
}

fn reason(code: &'static str, text: String) -> Reason {
    Reason { code, text, partition: None }
}

fn workers(situation: &Situation, reasons: &mut Vec<Reason>) {
    // First, because it explains the others.
    if let Some(away) = situation.away {
        reasons.push(match &situation.outside {
            None => reason("log_away", format!("the Kafka log has not answered for {}", span(away))),
            Some(place) => reason("source_away", format!("the source ({place}) has not answered for {}", span(away))),
        });
    }
    if let Some((ago, cause)) = &situation.fault {
        let text = format!("a worker ended {} ago and takes over anew: {cause}", span(*ago));
        reasons.push(reason("worker_restarting", text));
    }
    for shard in &situation.shards {
        let number = shard.number;
        if shard.turned > STUCK {
            let (turned, point) = (span(shard.turned), shard.point);
            let text =
                format!("the worker of shard {number} has stood still for {turned}, after the step '{point}'; look at the log around it");
            reasons.push(reason("worker_stuck", text));
        } else if !shard.restored {
            reasons.push(reason("restoring", format!("shard {number} is being restored from its journal (last step: '{}')", shard.point)));
        }
        if shard.state_bytes > situation.max_state / 10 * 9 {
            let text = format!(
                "the state of shard {number} takes {} of {} bytes: beyond that the query ends; use coarser groups, a shorter watermark \
                 delay, or raise processor.max_state",
                shard.state_bytes, situation.max_state
            );
            reasons.push(reason("max_state", text));
        }
    }
    // Without the log nobody owns anything.
    if situation.shards.is_empty() && situation.fault.is_none() && situation.away.is_none() {
        let text = "this processor owns no partition of the query: another one of its group has them all (ask that one), or the group is \
                    still dividing them";
        reasons.push(reason("no_partition", text.into()));
    }
}

fn input(situation: &Situation, reasons: &mut Vec<Reason>) {
    if situation.found_partitions > situation.input_partitions {
        let (topic, found, known) = (&situation.topic, situation.found_partitions, situation.input_partitions);
        let text = format!(
            "topic '{topic}' has {found} partitions now, and had {known} when the query began to read it; the rows of the new ones are not \
             read: restart the processor, and give the query another name if it then refuses its journal"
        );
        reasons.push(reason("new_partitions", text));
    }
    let partitions = || situation.shards.iter().flat_map(|shard| &shard.partitions);
    for partition in partitions().filter(|partition| partition.lag() > ON_THEIR_WAY) {
        let (number, lag, rate) = (partition.number, partition.lag(), situation.rows_per_second);
        let left = if rate >= 1.0 { format!("about {} more", seconds(lag as f64 / rate)) } else { "none of them has come lately".into() };
        let text = format!("partition {number} lags by {lag} rows at {rate:.0} rows/s: {left}");
        reasons.push(Reason { code: "lag", text, partition: Some(number) });
    }
    if partitions().next().is_some() && partitions().all(|partition| partition.end == Some(0)) {
        reasons.push(reason("no_data", format!("topic '{}' has no rows yet", situation.topic)));
    }
}

/// What became of the rows since the last result.
fn rows(situation: &Situation, reasons: &mut Vec<Reason>) {
    let SinceResult { counts, reasons: why, .. } = &situation.since_result;
    if counts.read == 0 {
        return;
    }
    let Ledger { read, used, late, dead, filtered, duplicates } = *counts;
    if used == 0 {
        let commonest = why.iter().max_by_key(|(_, count)| **count);
        let commonest = commonest.map_or(String::new(), |(name, count)| format!("; the commonest reason is '{name}' ({count})"));
        let what = if filtered == read && duplicates == 0 {
            "none matches WHERE".to_owned()
        } else {
            let where_not = filtered - duplicates;
            format!(
                "none counts: {late} late, {dead} dead, {where_not} filtered by WHERE, {duplicates} duplicates{commonest}; the lanes keep \
                 the late and dead ones"
            )
        };
        reasons.push(reason("all_refused", format!("{read} rows came since the last result, and {what}")));
    } else if situation.output_mode == OutputMode::Update && !matches!(situation.trigger, Trigger::Once) {
        let text = format!("{used} rows were used since the last result: they changed no row, or HAVING let none pass");
        reasons.push(reason("having", text));
    }
}

/// Which window closes next, and what it waits for.
fn windows(situation: &Situation, reasons: &mut Vec<Reason>) {
    if !situation.windowed {
        return;
    }
    let mut found: Vec<(i64, Reason)> = situation.shards.iter().filter_map(|shard| window(situation, shard)).collect();
    found.sort_by_key(|(end, _)| *end);
    found.truncate(MOST_WINDOWS);
    reasons.extend(found.into_iter().map(|(_, reason)| reason));
}

fn window(situation: &Situation, shard: &Shard) -> Option<(i64, Reason)> {
    let NextClose { end, device } = shard.next_close.clone()?;
    let due = end.saturating_add(situation.delay);
    let holder = match &device {
        Some((partition, _, _)) => shard.partitions.iter().find(|holder| holder.number == *partition)?,
        // A partition without a watermark holds more back than any with one.
        None => {
            let holders = shard.partitions.iter().filter(|partition| partition.watermark.is_none_or(|mark| mark < end));
            holders.min_by_key(|partition| (partition.watermark.is_some(), partition.watermark))?
        }
    };
    let number = holder.number;
    let what = if situation.output_mode == OutputMode::Append { "the next result" } else { "the next final row" };
    let (who, mark) = match &device {
        Some((_, device, mark)) => (format!("device '{device}' (partition {number})"), *mark),
        None => (format!("partition {number}"), holder.watermark),
    };
    let silent = mark.is_none();
    let mark = match mark {
        Some(mark) => format!("{who} has its watermark at {}", time(mark)),
        None => format!("{who} has had no reading yet"),
    };
    let clock = if matches!(situation.trigger, Trigger::AvailableNow | Trigger::Once) {
        "; a bounded run does not wait for the clock".to_owned()
    } else if holder.lag() > 0 || !holder.at_end {
        ", or the wall clock once the partition is read to its end and quiet".to_owned()
    } else {
        let idle = situation.now_ms.saturating_add(situation.idle_timeout - millis(holder.quiet));
        let at = idle.max(due);
        let when = if at <= situation.now_ms { "any moment now".into() } else { format!("in {}", span_ms(at - situation.now_ms)) };
        let quiet = if idle <= situation.now_ms { "counts as idle" } else { "will count as idle" };
        format!(", or the wall clock, {when} (at {}; the partition {quiet} after {})", time(at), span_ms(situation.idle_timeout))
    };
    let text = format!(
        "{what} is that of the window that ends at {}: {mark}, and it needs a reading there at or after {} (the end and the delay of \
         {}){clock}",
        time(end),
        time(due),
        span_ms(situation.delay)
    );
    let code = if silent { "partition_without_data" } else { "window_open" };
    Some((end, Reason { code, text, partition: Some(number) }))
}

/// The trigger, the output mode, and what is as it should be.
fn pace(situation: &Situation, reasons: &mut Vec<Reason>) {
    let quiet = situation.shards.iter().flat_map(|shard| &shard.partitions).map(|partition| partition.quiet).min();
    match situation.since_result.last_ms {
        Some(last) if flows(situation) => {
            let ago = span_ms(situation.now_ms.saturating_sub(last).max(0));
            reasons.push(reason("flowing", format!("nothing holds it back: the last rows left {ago} ago")));
        }
        None if !situation.gives_results => {}
        None => reasons.push(reason("starting", "no result has left since the processor started".into())),
        Some(_) => {}
    }
    if let Some(quiet) = quiet.filter(|quiet| millis(*quiet) > LATELY) {
        reasons.push(reason("quiet", format!("no row has come for {}", span(quiet))));
    }
    match situation.trigger {
        Trigger::ProcessingTime(interval) => {
            let interval = interval.millis().max(1);
            let left = interval - situation.now_ms.rem_euclid(interval);
            let text = format!("the trigger takes a step every {}: the next one in {}", span_ms(interval), span_ms(left));
            reasons.push(reason("trigger", text));
        }
        Trigger::Once => reasons.push(reason("trigger", "the trigger is \"once\": all results come together at the end".into())),
        Trigger::AsSoonAsPossible | Trigger::AvailableNow | Trigger::Continuous(_) => {}
    }
    if situation.output_mode == OutputMode::Append && situation.windowed {
        reasons.push(reason(
            "append",
            "output_mode is \"append\": a row comes once, when its window closes; where the query allows it, \"update\" shows it earlier"
                .into(),
        ));
    }
    if reasons.is_empty() {
        reasons.push(reason("steady", "nothing is known that holds it back: the next row will tell".into()));
    }
}

fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).map_or_else(|| format!("{ms} ms"), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// To the second from a second on: nobody needs the rest.
fn span_ms(ms: i64) -> String {
    let ms = ms.unsigned_abs();
    Span::from_millis(if ms < 1000 { ms } else { ms / 1000 * 1000 }).to_string()
}

fn span(time: Duration) -> String {
    span_ms(millis(time))
}

fn seconds(number: f64) -> String {
    span(Duration::try_from_secs_f64(number.ceil()).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests;
