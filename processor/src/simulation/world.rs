//! A fleet and its readings: honest clocks and others, devices that vanish and come back, duplicates, poison.

use chrono::DateTime;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// What a reading says; `None` is a missing field.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub(super) sensor: Option<String>,
    pub(super) ts: Option<i64>,
    pub(super) value: Option<f64>,
    pub(super) kind: Option<String>,
    pub(super) seq: Option<i64>,
}

/// A record of the log.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) partition: i32,
    /// When it is in the log, by the wall clock.
    pub(super) arrival: i64,
    /// Its timestamp there; -1 when it has none.
    pub(super) received: i64,
    pub(super) bytes: Option<Vec<u8>>,
    /// `None`: nobody can read it.
    pub(super) reading: Option<Reading>,
    /// Of a device whose clock is right.
    pub(super) honest: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Clock {
    Right,
    DayAhead,
    /// Counts from 1970 since it was switched on.
    Reset,
    /// Parts per million, ahead or behind.
    Drifts(i64),
    /// Goes back by so many milliseconds in the middle.
    StepsBack(i64),
}

#[derive(Debug, Clone, Copy)]
struct Device {
    number: usize,
    clock: Clock,
    /// Between two readings, milliseconds.
    period: i64,
    /// Silent for this stretch; what it measured meanwhile comes in one burst at its end, or never.
    away: Option<(i64, i64)>,
    forgets: bool,
    /// Largest time on the way.
    delay: i64,
}

#[derive(Debug)]
pub(super) struct World {
    /// By arrival.
    pub(super) log: Vec<Delivery>,
    pub(super) partitions: i32,
    pub(super) start: i64,
    pub(super) end: i64,
    /// Values whose sums are exact in any order.
    pub(super) exact: bool,
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// Of every query; the file's default.
pub(super) const MAX_FUTURE: i64 = 300_000;

/// Some hours of a fleet; `delay` is the watermark's.
pub(super) fn world(random: &mut ChaCha8Rng, delay: i64) -> World {
    let millis = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis();
    let starts = ["2023-11-14T22:13:20Z", "2026-03-28T20:30:00Z", "2026-10-24T21:15:00Z", "1969-12-31T22:00:00Z"].map(millis);
    let start = starts[random.random_range(0..starts.len())] + random.random_range(0..HOUR);
    // Times of receipt before 1970 mean nothing, so no guard can be asked for.
    let guarded = start > DAY;
    let end = start + random.random_range(HOUR..6 * HOUR);
    let partitions = random.random_range(1..=8);
    let devices = random.random_range(1..=8);
    let rows = random.random_range(50..350);
    let mut world = World { log: Vec::new(), partitions, start, end, exact: random.random_bool(0.5) };
    let odd_names = random.random_bool(0.15);
    for number in 0..devices {
        let device = device(random, number, (end - start) * i64::from(devices as i32) / rows, (start, end), (delay, guarded));
        world.send(random, device, &sensor(number, odd_names), delay);
    }
    if random.random_bool(0.5) {
        world.poison(random);
    }
    world.log.sort_by_key(|delivery| delivery.arrival);
    world
}

fn device(random: &mut ChaCha8Rng, number: usize, period: i64, (start, end): (i64, i64), (delay, guarded): (i64, bool)) -> Device {
    let clock = match random.random_range(0..12) {
        _ if !guarded => Clock::Right,
        0 => Clock::DayAhead,
        1 => Clock::Reset,
        2 => Clock::Drifts(100),
        3 => Clock::Drifts([-50_000, -100, 2_000, 10_000][random.random_range(0..4)]),
        4 => Clock::StepsBack(random.random_range(1_000..HOUR)),
        _ => Clock::Right,
    };
    let away = random.random_bool(0.35).then(|| {
        let from = random.random_range(start..end);
        (from, from + random.random_range(60_000..3 * HOUR))
    });
    let forgets = random.random_bool(0.4);
    Device { number, clock, period: period.max(1), away, forgets, delay: random.random_range(1..=delay) }
}

fn sensor(number: usize, odd: bool) -> Option<String> {
    match (odd, number) {
        (false, _) => Some(format!("s-{number}")),
        (true, 0) => None,
        (true, 1) => Some(String::new()),
        (true, 2) => Some("ü\"\n\u{0}[null]".to_owned()),
        (true, 3) => Some("long ".repeat(400)),
        (true, _) => Some(format!("[{number}]")),
    }
}

impl World {
    fn send(&mut self, random: &mut ChaCha8Rng, device: Device, sensor: &Option<String>, delay: i64) {
        let mut taken = self.start + random.random_range(0..device.period);
        let mut seq = 0;
        while taken < self.end {
            let reading = self.reading(random, device, sensor, taken, seq);
            seq += 1;
            let mut arrival = taken + random.random_range(0..device.delay);
            // Disorder beyond the delay.
            if random.random_bool(0.03) {
                arrival += random.random_range(0..4 * delay + 60_000);
            }
            let away = device.away.filter(|(from, to)| (*from..*to).contains(&taken));
            if let Some((_, back)) = away {
                arrival = back + random.random_range(0..2_000);
            }
            if away.is_none() || !device.forgets {
                self.deliver(random, device, reading, arrival);
            }
            taken += device.period / 2 + random.random_range(0..=device.period);
        }
    }

    fn reading(&self, random: &mut ChaCha8Rng, device: Device, sensor: &Option<String>, taken: i64, seq: i64) -> Reading {
        let ts = match device.clock {
            Clock::Right => taken,
            Clock::DayAhead => taken + DAY,
            Clock::Reset => taken - self.start,
            Clock::Drifts(rate) => taken + (taken - self.start) * rate / 1_000_000,
            Clock::StepsBack(by) => taken - if taken > (self.start + self.end) / 2 { by } else { 0 },
        };
        let maybe = |random: &mut ChaCha8Rng| !random.random_bool(0.05);
        let kinds = ["temperature", "humidity", ""];
        Reading {
            sensor: sensor.clone(),
            ts: Some(ts).filter(|_| !random.random_bool(0.005)),
            value: Some(self.value(random)).filter(|_| maybe(random)),
            kind: Some(kinds[random.random_range(0..kinds.len())].to_owned()).filter(|_| maybe(random)),
            seq: Some(seq).filter(|_| maybe(random)),
        }
    }

    fn value(&self, random: &mut ChaCha8Rng) -> f64 {
        if self.exact {
            return f64::from(random.random_range(-4_000..4_000)) / 4.0;
        }
        match random.random_range(0..20) {
            0 => -0.0,
            1 => 0.0,
            2 => 1.7e308,
            3 => -1.7e308,
            4 => 5e-324,
            _ => random.random_range(-1e6..1e6) * 10f64.powi(random.random_range(-9..9)),
        }
    }

    /// Puts a reading into the log, now and then twice.
    fn deliver(&mut self, random: &mut ChaCha8Rng, device: Device, reading: Reading, arrival: i64) {
        let bytes = Some(record(&reading));
        let partition = i32::try_from(device.number).unwrap() * 5 % self.partitions;
        let honest = device.clock == Clock::Right;
        let received = if arrival < 0 || (honest && random.random_bool(0.02)) { -1 } else { arrival };
        let delivery = Delivery { partition, arrival, received, bytes, reading: Some(reading), honest };
        if random.random_bool(0.05) {
            let later = arrival + random.random_range(0..120_000);
            self.log.push(Delivery { arrival: later, received: if received < 0 { -1 } else { later }, ..delivery.clone() });
        }
        self.log.push(delivery);
    }

    fn poison(&mut self, random: &mut ChaCha8Rng) {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let poisons: [Option<&[u8]>; 9] = [
            None,
            Some(b""),
            Some(b"\xff\xfe"),
            Some(b"[]"),
            Some(br#"{"sensor_id":"s-0","ts":1700000000000,"value":"NaN"}"#),
            Some(br#"{"sensor_id":"s-0","ts":1700000000000,"value":1e999}"#),
            Some(br#"{"sensor_id":"s-0","ts":{},"value":1}"#),
            Some(br#"{"sensor_id":"s-0","ts":1700000000000,"#),
            Some(deep.as_bytes()),
        ];
        for _ in 0..random.random_range(1..12) {
            let arrival = random.random_range(self.start..self.end);
            let bytes = poisons[random.random_range(0..poisons.len())].map(<[u8]>::to_vec);
            let partition = random.random_range(0..self.partitions);
            self.log.push(Delivery { partition, arrival, received: arrival.max(-1), bytes, reading: None, honest: false });
        }
        // Readable, and of no time that anybody can use.
        for ts in [i64::MAX, i64::MIN, 9_000_000_000_000_000_000] {
            let reading = Reading { ts: Some(ts), seq: Some(7), ..Reading::default() };
            let arrival = random.random_range(self.start..self.end);
            let bytes = Some(record(&reading));
            self.log.push(Delivery { partition: 0, arrival, received: -1, bytes, reading: Some(reading), honest: false });
        }
    }
}

pub(super) fn record(reading: &Reading) -> Vec<u8> {
    let mut fields = Map::new();
    let fields_of = [
        ("sensor_id", reading.sensor.clone().map(Value::from)),
        ("ts", reading.ts.map(Value::from)),
        ("value", reading.value.map(|value| json!(value))),
        ("kind", reading.kind.clone().map(Value::from)),
        ("seq", reading.seq.map(Value::from)),
    ];
    for (name, value) in fields_of {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    }
    Value::Object(fields).to_string().into_bytes()
}
