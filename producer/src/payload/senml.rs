//! SenML in JSON (RFC 8428): a pack of records that share what their base fields say.

use common::reading::Reading;
use common::settings::TimeUnit;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::json::{MAX_READINGS, not_json, too_many};
use super::{Around, Fault, MAX_NAME, text, time};

/// Times below this many seconds are relative to now (section 4.5.3).
const RELATIVE: f64 = 268_435_456.0;
const VERSION: u64 = 10;

#[derive(Debug, Default, Deserialize)]
struct Record {
    bn: Option<String>,
    bt: Option<f64>,
    bu: Option<String>,
    bv: Option<f64>,
    bs: Option<f64>,
    bver: Option<u64>,
    n: Option<String>,
    u: Option<String>,
    v: Option<f64>,
    vs: Option<String>,
    vb: Option<bool>,
    vd: Option<String>,
    s: Option<f64>,
    t: Option<f64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What the records before have set.
#[derive(Debug, Default)]
struct Base {
    name: String,
    time: f64,
    unit: Option<String>,
    value: f64,
    sum: f64,
}

fn bad(detail: impl Into<String>) -> Fault {
    Fault::new("not_senml", detail)
}

/// The whole pack or nothing: its records depend on those before them.
pub(super) fn read(payload: &[u8], around: &Around<'_>) -> Result<Vec<Reading>, Fault> {
    let text = text(payload)?;
    let no_pack = |error: serde_json::Error| match error.is_data() {
        true => bad(format!("the payload is no SenML pack: {error}")),
        false => not_json(&error),
    };
    // Counted first, because a record takes more room in memory than in the payload.
    let count = serde_json::from_str::<Vec<IgnoredAny>>(text).map_err(no_pack)?.len();
    if count > MAX_READINGS {
        return Err(too_many(count));
    }
    let records: Vec<Record> = serde_json::from_str(text).map_err(no_pack)?;
    let mut base = Base::default();
    let mut readings = Vec::with_capacity(records.len());
    for record in records {
        check(&record)?;
        base.take(&record);
        readings.extend(base.resolve(&record, around)?);
    }
    if readings.is_empty() {
        return Err(Fault::new("empty", "the SenML pack has no value"));
    }
    Ok(readings)
}

fn check(record: &Record) -> Result<(), Fault> {
    if let Some(version) = record.bver.filter(|version| *version > VERSION) {
        return Err(bad(format!("SenML version {version} is not known; {VERSION} is")));
    }
    if let Some(name) = record.others.keys().find(|name| name.ends_with('_')) {
        return Err(bad(format!("'{name}' must be understood, and is not known")));
    }
    Ok(())
}

impl Base {
    fn take(&mut self, record: &Record) {
        if let Some(name) = &record.bn {
            self.name.clone_from(name);
        }
        if let Some(unit) = &record.bu {
            self.unit = Some(unit.clone());
        }
        self.time = record.bt.unwrap_or(self.time);
        self.value = record.bv.unwrap_or(self.value);
        self.sum = record.bs.unwrap_or(self.sum);
    }

    /// A record may have base fields only.
    fn resolve(&self, record: &Record, around: &Around<'_>) -> Result<Option<Reading>, Fault> {
        let Record { n, u, v, vs, vb, vd, s, t, .. } = record;
        let value = match (v, vb, vs.as_ref().or(vd.as_ref())) {
            (Some(value), None, None) => self.value + value,
            (None, Some(on), None) => f64::from(u8::from(*on)),
            (None, None, Some(_)) => {
                return Err(Fault::new("wrong_type", format!("the value of '{}' is text or data, not a number", self.full_name(n))));
            }
            (None, None, None) if s.is_none() && n.is_none() => return Ok(None),
            (None, None, None) => match s {
                Some(sum) => self.sum + sum,
                None => return Err(Fault::new("missing", format!("the record '{}' has no value", self.full_name(n)))),
            },
            _ => return Err(bad(format!("the record '{}' has more than one value", self.full_name(n)))),
        };
        let name = self.full_name(n);
        if !name.is_empty() && !is_name(&name) {
            return Err(bad(format!("'{}' is no SenML name", super::number::short(&name))));
        }
        let (ts, own) = self.time(t.unwrap_or(0.0), around)?;
        let sensor = around.sensor(Some(name.as_str()).filter(|name| !name.is_empty()))?;
        let mut reading = around.reading(sensor, around.kind(None)?, own.then_some(ts), value)?;
        reading.ts = ts;
        if let Some(unit) = u.as_ref().or(self.unit.as_ref()) {
            if unit.len() > MAX_NAME {
                return Err(bad(format!("the unit has {} bytes; {MAX_NAME} are too many already", unit.len())));
            }
            reading.labels.retain(|(label, _)| label != "unit");
            reading.labels.push(("unit".into(), unit.as_str().into()));
        }
        Ok(Some(reading))
    }

    fn full_name(&self, name: &Option<String>) -> String {
        format!("{}{}", self.name, name.as_deref().unwrap_or_default())
    }

    /// The time in milliseconds, and whether it is the sensor's own: a relative one is counted from the receipt.
    fn time(&self, time: f64, around: &Around<'_>) -> Result<(i64, bool), Fault> {
        let seconds = self.time + time;
        if seconds >= RELATIVE {
            return Ok((time::fractional(seconds, TimeUnit::Seconds)?, true));
        }
        Ok((around.received.saturating_add(time::fractional(seconds, TimeUnit::Seconds)?), false))
    }
}

/// Section 4.5.1: a letter or a digit, then those and `-:./_`.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '/' | '_'))
}
