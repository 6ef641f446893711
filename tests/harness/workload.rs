//! Many readings for the measurements: some of them out of order, some late.

use std::io::Write as _;

use super::log::Log;
use super::random::Random;
use super::topic;

/// Columns that [`Workload::wide`] adds to a reading's five, as they stand in a schema.
pub(crate) const WIDE: &str = ", site STRING, battery DOUBLE, charging BOOLEAN, signal INT, firmware STRING";

/// Event time of the first reading.
const BEGIN: i64 = 1_700_000_000_000;

/// One in twenty readings is up to 4 s out of order, one in a thousand 30 s late.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) count: u64,
    pub(crate) sensors: u64,
    /// Event time of all, milliseconds.
    pub(crate) span: u64,
    /// Ten columns instead of five.
    pub(crate) wide: bool,
    /// Values are filled up to this many bytes, by a field that no schema has.
    pub(crate) bytes: usize,
}

impl Workload {
    /// Readings of about 95 bytes over 500 s.
    pub(crate) fn new(count: u64, sensors: u64) -> Self {
        Self { count, sensors, span: 500_000, wide: false, bytes: 0 }
    }

    pub(crate) fn load(&self, log: &Log) {
        let mut random = Random::seeded(42);
        let mut writer = topic::Writer::new(log, "iot");
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for seq in 0..self.count {
            let now = BEGIN + i64::try_from(seq * self.span / self.count).unwrap();
            let sensor = random.between(0, self.sensors);
            let ts = match random.between(0, 1000) {
                0 if now > BEGIN + 60_000 => now - 30_000,
                1..51 => now - i64::try_from(random.between(1, 4000)).unwrap(),
                _ => now,
            };
            key.clear();
            value.clear();
            write!(key, "sensor-{sensor:04}").unwrap();
            self.write(&mut value, seq, sensor, ts, 15_000 + sensor * 37 % 60_000 + random.between(0, 10_000));
            writer.send(&key, &value);
        }
        writer.finish();
    }

    fn write(&self, out: &mut Vec<u8>, seq: u64, sensor: u64, ts: i64, milli: u64) {
        const KINDS: [&str; 4] = ["temperature", "humidity", "pressure", "vibration"];
        let kind = KINDS[usize::try_from(sensor % 4).unwrap()];
        let (whole, part) = (milli / 1000, milli % 1000);
        write!(out, r#"{{"sensor_id":"sensor-{sensor:04}","ts":{ts},"value":{whole}.{part:03},"kind":"{kind}","seq":{seq}"#).unwrap();
        if self.wide {
            let (site, battery, charging, signal) = (sensor % 20, 300 + seq % 120, seq.is_multiple_of(7), seq % 60);
            let fields =
                format!(r#","site":"hall {site}","battery":{battery}e-2,"charging":{charging},"signal":-{signal},"firmware":"2.{site}""#);
            out.extend(fields.as_bytes());
        }
        let frame = br#","note":""}"#.len();
        if out.len() + frame < self.bytes {
            let fill = self.bytes - out.len() - frame;
            write!(out, r#","note":"{:x<fill$}""#, "").unwrap();
        }
        out.push(b'}');
    }
}
