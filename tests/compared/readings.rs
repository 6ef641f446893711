use serde_json::{Value, json};

use crate::harness::log::Log;
use crate::harness::random::Random;
use crate::harness::topic::Writer;

const SEED: u64 = 4;
/// 25 minutes, half of them before 1970.
const FIRST: i64 = -750_000;
const STEP: i64 = 375;
/// Less than the delay of the queries, so that no row is late in any order of reading.
const DISORDER: u64 = 40_000;

const KINDS: [&str; 4] = ["temperature", "humidity", "pressure", "dew point"];
const NOTES: [&str; 12] = ["abc", "Straße", " padded ", "a%b", "12", "", "Ünïcode ñandú", "42.5", "ABC abc", "x", "caracara", "2024-02-29"];

/// Writes `count` readings, each under its sensor's name, in an order that is not that of their times.
pub(crate) fn write(log: &Log, count: u64) {
    let mut random = Random::seeded(SEED);
    let mut readings: Vec<(i64, String, Value)> = (0..count).map(|seq| reading(&mut random, i64::try_from(seq).unwrap())).collect();
    readings.sort_by_key(|(place, ..)| *place);
    let mut writer = Writer::new(log, "iot");
    for (_, sensor, value) in readings {
        let value = value.to_string();
        // Now and then a reading comes twice, as MQTT delivers it.
        for _ in 0..1 + u64::from(random.between(0, 40) == 0) {
            writer.send(sensor.as_bytes(), value.as_bytes());
        }
    }
    writer.finish();
}

/// One reading, and where in the log it belongs. All floats are multiples of 1/8 of a few digits: their sums are exact in any order.
fn reading(random: &mut Random, seq: i64) -> (i64, String, Value) {
    let ts = FIRST + seq * STEP;
    let sensor = format!("s-{}", random.between(0, 8));
    let mut value = json!({
        "sensor_id": sensor,
        "ts": if seq % 2 == 0 { json!(ts) } else { json!(rfc3339(ts)) },
        "seq": seq,
        "value": eighths(random, -160, 800),
        "f": eighths(random, 0, 400),
        "n": int(random, -20, 40),
        "n2": int(random, 1, 9),
        "small": int(random, -4, 5),
        "flag": random.between(0, 2) == 0,
        "price": cents(random),
        "kind": KINDS[place(random, KINDS.len())],
        "note": NOTES[place(random, NOTES.len())],
        "at": rfc3339(moment(random)),
        "day": rfc3339(moment(random))[..10],
    });
    let fields = value.as_object_mut().unwrap();
    for name in ["value", "f", "n", "small", "flag", "price", "kind", "note", "at", "day"] {
        match random.between(0, 24) {
            0 => drop(fields.insert(name.into(), Value::Null)),
            1 => drop(fields.remove(name)),
            _ => {}
        }
    }
    (ts + i64::try_from(random.between(0, DISORDER)).unwrap(), sensor, value)
}

fn int(random: &mut Random, from: i64, to: i64) -> i64 {
    from + i64::try_from(random.between(0, u64::try_from(to - from).unwrap())).unwrap()
}

fn place(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.between(0, count as u64)).unwrap()
}

#[allow(clippy::cast_precision_loss)]
fn eighths(random: &mut Random, from: i64, to: i64) -> f64 {
    int(random, from, to) as f64 / 8.0
}

fn cents(random: &mut Random) -> Value {
    let cents = int(random, -5000, 20_000);
    let sign = if cents < 0 { "-" } else { "" };
    serde_json::from_str(&format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)).unwrap()
}

/// From 1900 to 2100, now and then the first or last moment of a year or month.
fn moment(random: &mut Random) -> i64 {
    const DAY: i64 = 86_400_000;
    let days = int(random, -25_567, 47_482);
    match random.between(0, 4) {
        0 => days * DAY,
        1 => days * DAY - 1,
        _ => days * DAY + int(random, 0, DAY),
    }
}

fn rfc3339(millis: i64) -> String {
    let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    // The civil calendar of days since 1970-01-01, years that begin in March.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s, ms) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

#[test]
fn the_calendar_is_right() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
}
