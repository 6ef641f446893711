//! What devices send, as readings.
//!
//! | file | what |
//! |---|---|
//! | [`topic`] | templates such as `sensors/{site}/{sensor_id}/{kind}` |
//! | [`json`] | a reading, a list of them, a bare number |
//! | [`mapped`] | JSON of any shape, through pointers |
//! | [`line_protocol`] | InfluxDB's line protocol |
//! | [`senml`] | SenML (RFC 8428) |
//! | [`sparkplug`] | Sparkplug B |
//! | [`time`] | times by their declared unit |
//!
//! Nothing here knows a clock or a connection. What cannot be read is a [`Fault`]: whole, with a word for counting and a sentence for
//! people; the caller puts it into the dead lane.

pub(crate) mod json;
pub(crate) mod line_protocol;
mod mapped;
mod number;
mod senml;
pub(crate) mod sparkplug;
pub(crate) mod time;
pub(crate) mod topic;

#[cfg(test)]
mod tests;

use std::sync::Mutex;

use common::reading::{Reading, TsSource};
use common::settings::{Payload, PayloadFormat, PayloadMapping, TimeUnit, TopicSetting};
use serde_json::Value;

use self::sparkplug::Host;
use self::topic::{Parts, Template};
use crate::source::{Content, DeadRow};

/// Longest sensor id, kind or label; longer ones are a fault of the sender, and a record must fit into the log.
const MAX_NAME: usize = 1024;
/// Larger payloads are no readings; to look into them could take many times their size in memory.
const MAX_PAYLOAD: usize = 16 << 20;
/// Most characters of a sentence about a fault.
const MAX_DETAIL: usize = 500;
/// Most bytes of the labels that one message repeats in its readings.
const MAX_REPEATED: usize = 8 << 20;
/// Most bytes of a payload that the dead lane keeps; Kafka's default limit for a record is a little more than 1 MB.
const MAX_DEAD: usize = 900_000;

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// One word for counting.
    pub(crate) reason: &'static str,
    /// One sentence for people.
    pub(crate) detail: String,
}

impl Fault {
    pub(crate) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// A piece of a payload that could not be read, where the rest could.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) value: Vec<u8>,
    pub(crate) fault: Fault,
}

/// What a payload became.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) readings: Vec<Reading>,
    pub(crate) pieces: Vec<Piece>,
    /// Values that say themselves that they are no numbers.
    pub(crate) no_numbers: usize,
}

impl From<Vec<Reading>> for Decoded {
    fn from(readings: Vec<Reading>) -> Self {
        Self { readings, ..Self::default() }
    }
}

/// What is known of a payload beside its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    /// The named parts of its topic.
    pub(crate) parts: &'a Parts<'a>,
    /// Time of receipt, milliseconds since 1970.
    pub(crate) received: i64,
    pub(crate) unit: TimeUnit,
    pub(crate) series: &'a str,
    pub(crate) sensor_tag: &'a str,
}

impl Around<'_> {
    /// The sensor's name: what the payload says, else what the topic says.
    pub(crate) fn sensor(&self, own: Option<&str>) -> Result<String, Fault> {
        match own.or(self.parts.sensor_id) {
            Some("") | None => Err(Fault::new("no_sensor_id", "neither the payload nor the topic names the sensor")),
            Some(id) if id.len() > MAX_NAME => {
                Err(Fault::new("wrong_type", format!("the sensor's name has {} bytes; {MAX_NAME} are too many already", id.len())))
            }
            Some(id) => Ok(id.to_owned()),
        }
    }

    pub(crate) fn kind(&self, own: Option<&str>) -> Result<Option<String>, Fault> {
        match own.or(self.parts.kind) {
            Some(kind) if kind.len() > MAX_NAME => {
                Err(Fault::new("wrong_type", format!("the kind has {} bytes; {MAX_NAME} are too many already", kind.len())))
            }
            kind => Ok(kind.map(str::to_owned)),
        }
    }

    /// The name of one of several sensors of a device.
    pub(crate) fn one_of_several(&self, device: &str, kind: &str) -> Result<String, Fault> {
        self.sensor(Some(&self.series.replace("{sensor_id}", device).replace("{kind}", kind)))
    }

    /// A reading with the time, or with the time of receipt, and with the labels of the topic.
    pub(crate) fn reading(&self, sensor_id: String, kind: Option<String>, ts: Option<i64>, value: f64) -> Result<Reading, Fault> {
        if !value.is_finite() {
            return Err(Fault::new("not_finite", format!("the value of '{sensor_id}' is {value}, which is no measurement")));
        }
        Ok(Reading {
            sensor_id: sensor_id.into(),
            ts: ts.unwrap_or(self.received),
            value,
            kind: kind.map(Into::into),
            seq: None,
            ts_source: ts.is_none().then_some(TsSource::Receipt),
            labels: self.parts.labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect(),
        })
    }
}

/// A template and how the payloads of its topics are read.
#[derive(Debug)]
struct Route {
    template: Template,
    format: PayloadFormat,
    unit: TimeUnit,
    mapping: PayloadMapping,
}

/// Reads payloads by the settings. Shared by all doors: what Sparkplug's births declared is kept here.
#[derive(Debug)]
pub(crate) struct Reader {
    routes: Vec<Route>,
    series: String,
    sensor_tag: String,
    sparkplug: Mutex<Host>,
}

/// What a message became, and whom to ask for more.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) contents: Vec<Content>,
    /// Values that are no readings and no faults either; they are counted.
    pub(crate) no_numbers: usize,
    /// Topics of Sparkplug nodes that are asked for their births again.
    pub(crate) rebirths: Vec<String>,
}

impl Reader {
    /// # Errors
    /// One sentence for each setting that cannot be.
    pub(crate) fn new(settings: &Payload) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let mut routes = Vec::new();
        for setting in &settings.topics {
            let (text, format, unit, mapping) = match setting {
                TopicSetting::Template(text) => (text, None, None, None),
                TopicSetting::Full(full) => (&full.topic, full.format, full.time_unit, full.mapping.as_ref()),
            };
            let format = format.unwrap_or(settings.format);
            let mapping = mapping.unwrap_or(&settings.mapping);
            if format == PayloadFormat::MappedJson {
                faults.extend(mapped::faults(mapping).into_iter().map(|fault| format!("producer.payload.mapping for '{text}': {fault}")));
            }
            match text.parse() {
                Ok(template) => {
                    let unit = unit.or(settings.time_unit).unwrap_or_else(|| usual_unit(format));
                    routes.push(Route { template, format, unit, mapping: mapping.clone() });
                }
                Err(fault) => faults.push(format!("producer.payload.topics: {fault}")),
            }
        }
        if !settings.series.contains("{kind}") && !settings.series.contains("{sensor_id}") {
            faults.push("producer.payload.series names neither {sensor_id} nor {kind}; all sensors would be one".into());
        }
        let (series, sensor_tag) = (settings.series.clone(), settings.sensor_tag.clone());
        if faults.is_empty() { Ok(Self { routes, series, sensor_tag, sparkplug: Mutex::default() }) } else { Err(faults) }
    }

    /// The filters to subscribe to.
    pub(crate) fn filters(&self) -> Vec<String> {
        self.routes.iter().map(|route| route.template.filter()).collect()
    }

    /// Whether messages of this topic are readings.
    pub(crate) fn takes(&self, topic: &str) -> bool {
        self.routes.iter().any(|route| route.template.matches(topic).is_some())
    }

    /// Reads one message. What cannot be read comes out as rows for the dead lane.
    pub(crate) fn read(&self, topic: &str, payload: &[u8], received: i64) -> Outcome {
        let found = self.routes.iter().find_map(|route| Some((route, route.template.matches(topic)?)));
        let Some((route, parts)) = found else {
            let fault = Fault::new("unknown_topic", "no template of producer.payload.topics matches the topic");
            return Outcome { contents: vec![dead(topic, payload, fault)], ..Outcome::default() };
        };
        if let Some(long) = parts.too_long() {
            let fault = Fault::new("wrong_type", format!("a part of the topic has {} bytes; {MAX_NAME} are too many already", long.len()));
            return Outcome { contents: vec![dead(topic, payload, fault)], ..Outcome::default() };
        }
        let around = Around { parts: &parts, received, unit: route.unit, series: &self.series, sensor_tag: &self.sensor_tag };
        let mut rebirths = Vec::new();
        let decoded = match route.format {
            PayloadFormat::Sparkplug if payload.len() <= MAX_PAYLOAD => {
                let mut host = self.sparkplug.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                host.read(topic, payload, &around, &mut rebirths)
            }
            format => decode(format, &route.mapping, payload, &around),
        };
        let no_numbers = decoded.as_ref().map_or(0, |decoded| decoded.no_numbers);
        Outcome { contents: contents(topic, payload, decoded), no_numbers, rebirths }
    }

    /// Reads a payload that came without a topic, such as an HTTP body.
    pub(crate) fn read_as(&self, format: PayloadFormat, unit: TimeUnit, from: &str, payload: &[u8], received: i64) -> Vec<Content> {
        let parts = Parts::default();
        let around = Around { parts: &parts, received, unit, series: &self.series, sensor_tag: &self.sensor_tag };
        contents(from, payload, decode(format, &PayloadMapping::default(), payload, &around))
    }
}

/// The unit of a format whose settings name none.
pub(crate) fn usual_unit(format: PayloadFormat) -> TimeUnit {
    if format == PayloadFormat::LineProtocol { TimeUnit::Nanos } else { TimeUnit::Millis }
}

fn decode(format: PayloadFormat, mapping: &PayloadMapping, payload: &[u8], around: &Around<'_>) -> Result<Decoded, Fault> {
    if payload.is_empty() {
        return Err(Fault::new("empty", "the payload is empty"));
    }
    if payload.len() > MAX_PAYLOAD {
        return Err(Fault::new("too_large", format!("a payload of more than {MAX_PAYLOAD} bytes is not looked into")));
    }
    match format {
        PayloadFormat::Json => json::read(payload, around),
        PayloadFormat::MappedJson => mapped::read(payload, mapping, around).map(Decoded::from),
        PayloadFormat::Number => number::read(payload, around).map(|reading| vec![reading].into()),
        PayloadFormat::LineProtocol => line_protocol::read(payload, around),
        PayloadFormat::Senml => senml::read(payload, around).map(Decoded::from),
        PayloadFormat::Sparkplug => Err(Fault::new("unknown_topic", "Sparkplug is read by its topics (spBv1.0/...)")),
    }
}

fn contents(topic: &str, payload: &[u8], decoded: Result<Decoded, Fault>) -> Vec<Content> {
    match decoded {
        Ok(Decoded { readings, pieces, .. }) => {
            let pieces = pieces.into_iter().map(|piece| dead(topic, &piece.value, piece.fault));
            readings.into_iter().map(Content::Reading).chain(pieces).collect()
        }
        Err(fault) => vec![dead(topic, payload, fault)],
    }
}

/// A row for the dead lane; of a payload larger than a record can be, the beginning.
fn dead(topic: &str, payload: &[u8], Fault { reason, mut detail }: Fault) -> Content {
    let kept = payload.len().min(MAX_DEAD);
    // A sentence may quote the payload.
    if let Some((end, _)) = detail.char_indices().nth(MAX_DETAIL) {
        detail.truncate(end);
        detail.push_str("...");
    }
    if kept < payload.len() {
        detail.push_str(&format!(" (of {} bytes, the first {kept} are kept)", payload.len()));
    }
    Content::Dead(DeadRow { topic: topic.to_owned(), offset: 0, value: payload[..kept].to_vec(), reason, detail })
}

/// Of a message whose topic is not even text.
pub(crate) fn bad_topic(topic: &[u8], payload: &[u8]) -> Outcome {
    let row = dead(&String::from_utf8_lossy(topic), payload, Fault::new("not_utf8", "the topic is not UTF-8"));
    Outcome { contents: vec![row], ..Outcome::default() }
}

/// Whether labels may stand in each of so many readings: a small message must not become a large one.
pub(crate) fn check_repeated(labels: &[(String, Value)], times: usize) -> Result<(), Fault> {
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if times > 1 && bytes.saturating_mul(times) > MAX_REPEATED {
        let what =
            format!("{times} readings would each have {bytes} bytes of labels, which is too much; send them in more than one message");
        return Err(Fault::new("too_many", what));
    }
    Ok(())
}

/// The payload as text.
pub(crate) fn text(payload: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(payload).map_err(|error| Fault::new("not_utf8", format!("invalid UTF-8 at byte {}", error.valid_up_to())))
}
