//! The sections about real devices: MQTT, HTTP, and how their payloads are read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::units::{Size, Span};

/// Text that no log shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// The version of the protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MqttVersion {
    #[serde(rename = "3.1.1")]
    V3,
    #[default]
    #[serde(rename = "5")]
    V5,
}

/// How to reach an MQTT broker; part of `[producer.mqtt]` and of `[producer.simulator.mqtt]`.
///
/// The files are read at each connection, so a rotated certificate or password needs no restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MqttConnection {
    /// `mqtt://host[:port]` or `mqtts://host[:port]` (TLS); unset: off.
    pub url: Option<String>,
    /// `5` or `3.1.1`.
    pub version: MqttVersion,
    /// The session's name at the broker: stable, and different for every client of the broker.
    pub client_id: String,
    pub username: Option<String>,
    pub username_file: Option<PathBuf>,
    pub password: Option<Secret>,
    /// A file whose first line is the password; keeps it out of environment and process list.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities to trust; unset: those of the system.
    pub tls_ca_file: Option<PathBuf>,
    /// The client's own certificate chain and key (PEM).
    pub tls_certificate_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    /// A connection without any sign of life for twice this long is given up and made anew.
    pub keep_alive: Span,
}

impl Default for MqttConnection {
    fn default() -> Self {
        Self {
            url: None,
            version: MqttVersion::default(),
            client_id: "tidemark-producer".into(),
            username: None,
            username_file: None,
            password: None,
            password_file: None,
            tls_ca_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
            keep_alive: Span::from_secs(30),
        }
    }
}

/// `[producer.mqtt]`: readings from the devices of an MQTT broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mqtt {
    #[serde(flatten)]
    pub connection: MqttConnection,
    /// Name of a shared subscription: several producers, each with its own `client_id`, divide the messages.
    pub share: Option<String>,
    /// How long the broker keeps the session, and with it our messages, while we are away (MQTT 5).
    pub session_expiry: Span,
    /// Messages that the broker may send ahead of our acknowledgements (MQTT 5; for 3.1.1 the broker's own limit holds).
    pub receive_maximum: u16,
    /// Also take the retained messages that a subscription begins with.
    pub keep_retained: bool,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            connection: MqttConnection::default(),
            share: None,
            session_expiry: Span::from_secs(7 * 24 * 3600),
            receive_maximum: 20_000,
            keep_retained: false,
        }
    }
}

/// `[producer.mqtt_listener]`: the MQTT broker that Tidemark brings itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MqttListener {
    /// Unset: off. Beyond the loopback address it wants `users_file` or `tls_client_ca_file`.
    pub listen: Option<SocketAddr>,
    /// Users and hashed passwords as `mosquitto_passwd` writes them.
    pub users_file: Option<PathBuf>,
    /// The server's certificate chain and key (PEM); with them the listener speaks TLS only.
    pub tls_certificate_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    /// Authorities (PEM) of the devices' certificates; with it every device must show one.
    pub tls_client_ca_file: Option<PathBuf>,
    /// Take devices without a name from anywhere. For closed networks only.
    pub allow_anonymous: bool,
    pub max_connections: usize,
    /// Larger packets end the connection.
    pub max_packet: Size,
    /// Messages that one device may send ahead of their acknowledgements.
    pub receive_maximum: u16,
    /// Longest time that the session of a device that is away is kept.
    pub session_expiry: Span,
}

impl Default for MqttListener {
    fn default() -> Self {
        Self {
            listen: None,
            users_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            allow_anonymous: false,
            max_connections: 10_000,
            max_packet: Size::from_mib(16),
            receive_maximum: 1_000,
            session_expiry: Span::from_secs(24 * 3600),
        }
    }
}

/// `[producer.ingest]`: readings by HTTP, `POST /ingest` at the program's HTTP listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ingest {
    pub enabled: bool,
    /// What a request must carry as `Authorization: Bearer ...`; needed beyond the loopback address.
    pub token: Option<Secret>,
    pub token_file: Option<PathBuf>,
    /// Larger bodies are refused.
    pub max_body: Size,
}

impl Default for Ingest {
    fn default() -> Self {
        Self { enabled: false, token: None, token_file: None, max_body: Size::from_mib(8) }
    }
}

/// How a payload is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadFormat {
    /// A reading as JSON, a list of them, or a bare number.
    #[default]
    Json,
    /// JSON of any shape, read through `mapping`.
    MappedJson,
    /// A number as text.
    Number,
    /// InfluxDB's line protocol.
    LineProtocol,
    /// SenML in JSON (RFC 8428).
    Senml,
    /// Sparkplug B.
    Sparkplug,
}

/// What a number means that is a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeUnit {
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "us")]
    Micros,
    #[serde(rename = "ns")]
    Nanos,
}

/// Where the parts of a reading stand in JSON of any shape. Pointers are RFC 6901: `/data/temp`, `/values/0`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PayloadMapping {
    /// Unset: the sensor's name comes from the topic.
    pub sensor_id: Option<String>,
    /// Unset: the time of receipt.
    pub time: Option<String>,
    pub seq: Option<String>,
    pub kind: Option<String>,
    /// The one value.
    pub value: Option<String>,
    /// Several values, each by its name; a message becomes as many readings.
    pub values: BTreeMap<String, String>,
    /// Further columns of the row.
    pub labels: BTreeMap<String, String>,
}

/// A topic template, alone or with a format of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TopicSetting {
    Template(String),
    Full(TopicFormat),
}

/// By hand, because serde's own would not say which key it does not know.
impl<'de> Deserialize<'de> for TopicSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = TopicSetting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a topic template, or a table with topic and format")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TopicSetting, E> {
                Ok(TopicSetting::Template(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TopicSetting, A::Error> {
                TopicFormat::deserialize(MapAccessDeserializer::new(map)).map(TopicSetting::Full)
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

/// One entry of `producer.payload.topics`; what is not given is taken from `[producer.payload]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicFormat {
    pub topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<PayloadFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_unit: Option<TimeUnit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<PayloadMapping>,
}

/// `[producer.payload]`: what devices send, and how it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Payload {
    /// Topics with wildcards (`+`, `#`) and named parts: `sensors/{site}/{sensor_id}/{kind}`.
    pub topics: Vec<TopicSetting>,
    pub format: PayloadFormat,
    /// The unit of times that are numbers: `s`, `ms`, `us`, `ns`. Unset: `ms`, and `ns` for line protocol. SenML and Sparkplug have their
    /// own.
    pub time_unit: Option<TimeUnit>,
    pub mapping: PayloadMapping,
    /// The sensor's name when one message has several values: `{sensor_id}` is the device, `{kind}` the value's name.
    pub series: String,
    /// The tag that is the sensor's name in line protocol.
    pub sensor_tag: String,
}

impl Default for Payload {
    fn default() -> Self {
        let plain = ["sensors/{sensor_id}", "sensors/{sensor_id}/{kind}", "sensors/{site}/{sensor_id}/{kind}"];
        let sparkplug = TopicFormat { topic: "spBv1.0/#".into(), format: Some(PayloadFormat::Sparkplug), time_unit: None, mapping: None };
        let topics = plain.into_iter().map(|topic| TopicSetting::Template(topic.into())).chain([TopicSetting::Full(sparkplug)]);
        Self {
            topics: topics.collect(),
            format: PayloadFormat::default(),
            time_unit: None,
            mapping: PayloadMapping::default(),
            series: "{sensor_id}/{kind}".into(),
            sensor_tag: "sensor_id".into(),
        }
    }
}

/// `[producer.simulator.mqtt]`: the simulated sensors as MQTT devices, each with a connection of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SimulatedDevices {
    #[serde(flatten)]
    pub connection: MqttConnection,
    /// Where a device publishes: `{sensor_id}` and `{kind}` are its own.
    pub topic: String,
    /// Where a device says `online` and, by its will, `offline`; retained. Empty: nowhere.
    pub presence: String,
    /// How long a device is connected before it goes away; 0: for ever.
    pub online_for: Span,
    /// How long it is away; its readings of that time come as a burst when it is back.
    pub offline_for: Span,
    /// Most messages without acknowledgement, for each device.
    pub in_flight: u16,
    /// A file for what the devices saw acknowledged: a line `sensor_id seq` each, to be compared with the log.
    pub ledger_file: Option<PathBuf>,
}

impl Default for SimulatedDevices {
    fn default() -> Self {
        Self {
            connection: MqttConnection { client_id: "tidemark-device".into(), ..MqttConnection::default() },
            topic: "sensors/{sensor_id}/{kind}".into(),
            presence: "devices/{sensor_id}/state".into(),
            online_for: Span::default(),
            offline_for: Span::from_secs(5),
            in_flight: 100,
            ledger_file: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_a_template_or_a_table_whose_keys_are_known() {
        let topics: Vec<TopicSetting> = serde_json::from_str(r#"["a/{sensor_id}", {"topic":"b/#","format":"senml"}]"#).unwrap();
        assert_eq!(topics[0], TopicSetting::Template("a/{sensor_id}".into()));
        assert!(matches!(&topics[1], TopicSetting::Full(full) if full.format == Some(PayloadFormat::Senml)));
        let fault = serde_json::from_str::<TopicSetting>(r#"{"topic":"b/#","fromat":"senml"}"#).unwrap_err().to_string();
        assert!(fault.contains("fromat") && fault.contains("format"), "{fault}");
    }
}
