use std::path::Path;

use rdkafka::message::{Message as _, Timestamp};
use serde_json::Value;

use super::log::Log;
use super::oracle::{epoch_seconds, millis};
use super::topic;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    pub(crate) sensor: String,
    /// Event time, epoch milliseconds.
    pub(crate) ts: i64,
    pub(crate) value: f64,
    pub(crate) kind: Option<String>,
    pub(crate) seq: Option<i64>,
}

/// The readings of a CSV file, in its order: columns `timestamp,value` and the sensor's name from the file's, or a reading's own
/// columns. Lines that are no reading are left out.
pub(crate) fn of_file(path: &Path) -> Vec<Reading> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let at = |name: &str| columns.iter().position(|column| *column == name);
    let (time, value) = (at("timestamp").or(at("ts")).unwrap(), at("value").unwrap());
    let (sensor, kind, seq) = (at("sensor_id"), at("kind"), at("seq"));
    let stem = path.file_stem().unwrap().to_string_lossy();
    let reading = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let value = fields.get(value)?.parse().ok()?;
        let sensor = sensor.map_or_else(|| stem.to_string(), |at| fields[at].to_owned());
        let seq = seq.and_then(|at| fields.get(at)?.parse().ok());
        let kind = kind.map(|at| fields[at].to_owned());
        Some(Reading { sensor, kind, ts: time_of(fields.get(time)?)?, value, seq })
    };
    lines.filter_map(reading).collect()
}

fn time_of(text: &str) -> Option<i64> {
    match text.ends_with('Z') {
        true => Some(millis(text)),
        false if text.contains(':') => Some(epoch_seconds(text) * 1000),
        false => text.parse().ok(),
    }
}

/// What must become of each record of the input topic, by the rule of the design: a row is late when its window ended at or before
/// the watermark of its own partition's prefix, which is the largest event time so far less `delay`.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    pub(crate) used: Vec<Reading>,
    /// Partition and offset.
    pub(crate) late: Vec<(i32, i64)>,
    pub(crate) dead: Vec<(i32, i64)>,
    pub(crate) filtered: usize,
}

impl Sorted {
    pub(crate) fn read(&self) -> usize {
        self.used.len() + self.late.len() + self.dead.len() + self.filtered
    }
}

/// The default of the processor: a row whose event time lies further ahead of its time of receipt is dead.
const MAX_FUTURE: i64 = 5 * 60 * 1000;

pub(crate) fn sort(log: &Log, window: i64, delay: i64) -> Sorted {
    sort_where(log, window, delay, |_| true)
}

/// The same with a WHERE: a row that does not match it moves the watermark all the same, and is filtered, not late.
pub(crate) fn sort_where(log: &Log, window: i64, delay: i64, matches: impl Fn(&Reading) -> bool) -> Sorted {
    let mut sorted = Sorted::default();
    walk(log, delay, |place, reading| match reading {
        None => sorted.dead.push(place),
        Some((reading, _)) if !matches(&reading) => sorted.filtered += 1,
        Some((reading, watermark)) if reading.ts.div_euclid(window) * window + window <= watermark => sorted.late.push(place),
        Some((reading, _)) => sorted.used.push(reading),
    });
    sorted.late.sort_unstable();
    sorted.dead.sort_unstable();
    sorted
}

/// Of hopping windows: each reading as often as a window takes it, with that window's start. It may be late for one and not for the next.
pub(crate) fn hopping(log: &Log, (size, slide): (i64, i64), delay: i64) -> Vec<(i64, Reading)> {
    let mut used = Vec::new();
    walk(log, delay, |_, judged| {
        let Some((reading, watermark)) = judged else { return };
        let mut start = reading.ts.div_euclid(slide) * slide;
        while start + size > reading.ts {
            if start + size > watermark {
                used.push((start, reading.clone()));
            }
            start -= slide;
        }
    });
    used
}

/// Hands every record of the input topic to `visit`, with partition and offset: its reading and the watermark that the reading met, or `None`
/// when it is dead.
pub(crate) fn walk(log: &Log, delay: i64, mut visit: impl FnMut((i32, i64), Option<(Reading, i64)>)) {
    let mut newest: Vec<i64> = Vec::new();
    topic::scan(log, "iot", |message| {
        let place = (message.partition(), message.offset());
        let index = usize::try_from(message.partition()).unwrap();
        if newest.len() <= index {
            newest.resize(index + 1, i64::MIN / 2);
        }
        let Timestamp::CreateTime(received) = message.timestamp() else { panic!("no time of receipt at {place:?}") };
        let reading = parse(message.payload().unwrap_or_default()).filter(|reading| reading.ts <= received + MAX_FUTURE);
        let watermark = newest[index] - delay;
        newest[index] = reading.as_ref().map_or(newest[index], |reading| newest[index].max(reading.ts));
        visit(place, reading.map(|reading| (reading, watermark)));
    });
}

/// A record's value; `None` when it is not a reading of the tests' schema.
fn parse(value: &[u8]) -> Option<Reading> {
    let fields: Value = serde_json::from_slice(value).ok()?;
    if fields.get("seq").is_some_and(|seq| !seq.is_i64()) {
        return None;
    }
    Some(Reading {
        sensor: fields.get("sensor_id")?.as_str()?.to_owned(),
        ts: fields.get("ts").and_then(|ts| ts.as_i64().or_else(|| ts.as_str().filter(|text| text.ends_with('Z')).map(millis)))?,
        value: fields.get("value")?.as_f64()?,
        kind: fields.get("kind").and_then(Value::as_str).map(str::to_owned),
        seq: fields.get("seq").and_then(Value::as_i64),
    })
}
