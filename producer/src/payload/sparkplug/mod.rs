//! Sparkplug B as a host application sees it: births name the metrics, data may use their aliases, every node counts its messages.
//!
//! ```text
//! spBv1.0/GROUP/NBIRTH/NODE          names, types, aliases; seq 0; bdSeq
//! spBv1.0/GROUP/DBIRTH/NODE/DEVICE
//! spBv1.0/GROUP/NDATA/NODE           seq + 1, 0 after 255
//! spBv1.0/GROUP/DDATA/NODE/DEVICE
//! spBv1.0/GROUP/NDEATH/NODE          the will of the connection with the same bdSeq
//! ```
//!
//! A gap in the count, an alias that no birth named, or data before a birth: the node is asked for its births again (`NCMD`, `Node
//! Control/Rebirth`). What can be read meanwhile is read; what cannot goes to the dead lane.

mod proto;

use std::collections::HashMap;

use prost::Message as _;

use self::proto::{BOOLEAN, Metric, Payload, Value};
use super::json::MAX_READINGS;
use super::{Around, Decoded, Fault, MAX_NAME, Piece, time};
use common::reading::Reading;
use common::settings::TimeUnit;

/// A node is asked again after this long at the earliest.
const REBIRTH_EVERY_MS: i64 = 10_000;
/// Nodes and metrics beyond these numbers are not remembered: somebody invents names.
const MAX_NODES: usize = 20_000;
const MAX_METRICS: usize = 20_000;

/// What the births of all nodes have said.
#[derive(Debug, Default)]
pub(crate) struct Host {
    nodes: HashMap<String, Node>,
}

#[derive(Debug, Default)]
struct Node {
    born: bool,
    /// Number of the last message.
    seq: Option<u8>,
    /// Which connection the birth belongs to; an older connection's death may come later.
    bd_seq: Option<u64>,
    /// The node's own metrics under "", those of each device under its name.
    metrics: HashMap<String, Metrics>,
    asked: Option<i64>,
}

#[derive(Debug, Default)]
struct Metrics {
    types: HashMap<String, Option<u32>>,
    aliases: HashMap<u64, String>,
}

/// A topic taken apart.
struct Address<'a> {
    group: &'a str,
    verb: &'a str,
    node: &'a str,
    /// Empty: the node itself.
    device: &'a str,
}

impl<'a> Address<'a> {
    fn parse(topic: &'a str) -> Option<Self> {
        let mut levels = topic.splitn(5, '/');
        let (namespace, group, verb, node) = (levels.next()?, levels.next()?, levels.next()?, levels.next()?);
        let device = levels.next().unwrap_or_default();
        (namespace == "spBv1.0" && !device.contains('/')).then_some(Self { group, verb, node, device })
    }

    fn name(&self) -> String {
        format!("{}/{}", self.group, self.node)
    }

    fn sensor(&self) -> String {
        if self.device.is_empty() { self.name() } else { format!("{}/{}", self.name(), self.device) }
    }
}

impl Host {
    /// Reads one message; nodes to ask for their births are added to `rebirths`, as topics.
    pub(super) fn read(&mut self, topic: &str, payload: &[u8], around: &Around<'_>, rebirths: &mut Vec<String>) -> Result<Decoded, Fault> {
        // The state of host applications and commands to nodes are not for us.
        if topic.starts_with("spBv1.0/STATE/") {
            return Ok(Decoded::default());
        }
        let address = Address::parse(topic).ok_or_else(|| Fault::new("unknown_topic", format!("'{topic}' is no topic of Sparkplug B")))?;
        match address.verb {
            "NCMD" | "DCMD" | "STATE" => return Ok(Decoded::default()),
            "NBIRTH" | "DBIRTH" | "NDATA" | "DDATA" if payload.is_empty() => {
                return Err(Fault::new("empty", "the payload is empty"));
            }
            "NBIRTH" | "DBIRTH" | "NDATA" | "DDATA" | "NDEATH" | "DDEATH" => {}
            other => return Err(Fault::new("unknown_topic", format!("'{other}' is no message type of Sparkplug B"))),
        }
        if [address.group, address.node, address.device].iter().any(|part| part.len() > MAX_NAME) {
            return Err(Fault::new("wrong_type", format!("a part of the topic has more than {MAX_NAME} bytes")));
        }
        // Before it is decoded: two bytes may be a metric, which takes a hundred in memory.
        let count = proto::count_metrics(payload);
        if count > MAX_READINGS {
            return Err(super::json::too_many(count));
        }
        let message =
            Payload::decode(payload).map_err(|error| Fault::new("not_sparkplug", format!("the payload is no Sparkplug B: {error}")))?;
        let name = address.name();
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&name) {
            return Err(Fault::new("too_many", format!("more than {MAX_NODES} Sparkplug nodes; '{name}' is not remembered")));
        }
        let node = self.nodes.entry(name).or_default();
        let mut ask = false;
        match address.verb {
            "NDEATH" => {
                node.die(bd_seq(&message));
                return Ok(Decoded::default());
            }
            "NBIRTH" => node.begin(&message),
            _ => ask = !node.count(message.seq),
        }
        match address.verb {
            "NBIRTH" | "DBIRTH" => node.learn(address.device, &message)?,
            "DDEATH" => {
                node.metrics.remove(address.device);
                return Ok(Decoded::default());
            }
            _ => {}
        }
        let decoded = node.readings(&address, &message, payload, around);
        ask |= decoded.pieces.iter().any(|piece| piece.fault.reason == "no_birth");
        if ask && node.asked.is_none_or(|asked| around.received.saturating_sub(asked) >= REBIRTH_EVERY_MS) {
            node.asked = Some(around.received);
            rebirths.push(format!("spBv1.0/{}/NCMD/{}", address.group, address.node));
        }
        Ok(decoded)
    }
}

fn bd_seq(message: &Payload) -> Option<u64> {
    let metric = message.metrics.iter().find(|metric| metric.name.as_deref() == Some("bdSeq"))?;
    match metric.value {
        Some(Value::Long(number)) => Some(number),
        Some(Value::Int(number)) => Some(number.into()),
        _ => None,
    }
}

impl Node {
    fn begin(&mut self, birth: &Payload) {
        *self = Self { born: true, seq: birth.seq.map(|seq| seq as u8), bd_seq: bd_seq(birth), metrics: HashMap::new(), asked: None };
    }

    /// An old connection's will is not this one's death.
    fn die(&mut self, bd_seq: Option<u64>) {
        if self.bd_seq == bd_seq || bd_seq.is_none() {
            *self = Self { asked: self.asked, ..Self::default() };
        }
    }

    /// Whether the message is the next one, or the last one again (MQTT's redelivery).
    fn count(&mut self, seq: Option<u64>) -> bool {
        let Some(seq) = seq.map(|seq| seq as u8) else { return self.born };
        let expected = match self.seq {
            Some(last) => seq == last || seq == last.wrapping_add(1),
            None => false,
        };
        self.seq = Some(seq);
        self.born && expected
    }

    fn learn(&mut self, device: &str, birth: &Payload) -> Result<(), Fault> {
        let known: usize = self.metrics.iter().filter(|(name, _)| *name != device).map(|(_, metrics)| metrics.types.len()).sum();
        if known + birth.metrics.len() > MAX_METRICS {
            return Err(Fault::new("too_many", format!("a Sparkplug node with more than {MAX_METRICS} metrics is not remembered")));
        }
        let mut metrics = Metrics::default();
        for metric in &birth.metrics {
            let Some(name) = &metric.name else { continue };
            metrics.types.insert(name.clone(), metric.datatype);
            if let Some(alias) = metric.alias {
                metrics.aliases.insert(alias, name.clone());
            }
        }
        self.metrics.insert(device.to_owned(), metrics);
        Ok(())
    }

    fn readings(&self, address: &Address<'_>, message: &Payload, payload: &[u8], around: &Around<'_>) -> Decoded {
        let mut decoded = Decoded::default();
        let known = self.metrics.get(address.device);
        for metric in &message.metrics {
            match reading(address, message, metric, known, around) {
                Ok(Found::Reading(reading)) => decoded.readings.push(reading),
                Ok(Found::Control) => {}
                Ok(Found::NoNumber) => decoded.no_numbers += 1,
                // The payload as a whole: a metric cannot be cut out of it. Once is enough.
                Err(fault) if decoded.pieces.is_empty() => decoded.pieces.push(Piece { value: payload.to_vec(), fault }),
                Err(_) => {}
            }
        }
        decoded
    }
}

/// What a metric is.
enum Found {
    Reading(Reading),
    /// The protocol's own, or a metric that has no value at the moment.
    Control,
    /// Text, a data set, a template, bytes: the node says itself that it is no measurement.
    NoNumber,
}

fn reading(
    address: &Address<'_>,
    message: &Payload,
    metric: &Metric,
    known: Option<&Metrics>,
    around: &Around<'_>,
) -> Result<Found, Fault> {
    let name = match (&metric.name, metric.alias) {
        (Some(name), _) if !name.is_empty() => name.as_str(),
        (_, Some(alias)) => known.and_then(|known| known.aliases.get(&alias)).ok_or_else(|| {
            Fault::new("no_birth", format!("no birth of '{}' has named the alias {alias}; it is asked for", address.sensor()))
        })?,
        _ => return Err(Fault::new("not_sparkplug", "a metric has neither a name nor an alias")),
    };
    // The protocol's own.
    if name == "bdSeq" || name.starts_with("Node Control/") || name.starts_with("Device Control/") || metric.is_null == Some(true) {
        return Ok(Found::Control);
    }
    let datatype = metric.datatype.or_else(|| known.and_then(|known| known.types.get(name).copied().flatten()));
    let Some(value) = metric.value.as_ref().and_then(|value| value.number(datatype)) else {
        return match datatype {
            Some(datatype) if !proto::is_numeric(datatype) => Ok(Found::NoNumber),
            _ => Err(Fault::new("wrong_type", format!("the metric '{name}' is no number (data type {})", datatype.unwrap_or(0)))),
        };
    };
    let stamp = metric.timestamp.or(message.timestamp);
    let ts = stamp.map(|millis| time::millis(millis.into(), TimeUnit::Millis)).transpose()?;
    let sensor_id = around.one_of_several(&address.sensor(), name)?;
    let mut reading = around.reading(sensor_id, around.kind(Some(name))?, ts, value)?;
    reading.labels.push(("group".into(), address.group.into()));
    reading.labels.push(("node".into(), address.node.into()));
    if !address.device.is_empty() {
        reading.labels.push(("device".into(), address.device.into()));
    }
    if metric.is_historical == Some(true) {
        reading.labels.push(("is_historical".into(), true.into()));
    }
    Ok(Found::Reading(reading))
}

/// The payload of a request for births.
pub(crate) fn rebirth(now: i64) -> Vec<u8> {
    let timestamp = u64::try_from(now).ok();
    let metric = Metric {
        name: Some("Node Control/Rebirth".into()),
        timestamp,
        datatype: Some(BOOLEAN),
        value: Some(Value::Boolean(true)),
        ..Metric::default()
    };
    Payload { timestamp, metrics: vec![metric], seq: None }.encode_to_vec()
}

#[cfg(test)]
mod tests;
