//! `[source.mqtt]`: which topics of which MQTT broker are read, and how.

use std::path::{Path, PathBuf};

use common::mqtt::options::faults;
use common::settings::{MqttConnection, MqttVersion, Secret};
use common::units::Span;
use serde::Deserialize;

use super::payload::{OwnColumn, Payload};

/// The keys of a connection are those of `[producer.mqtt]` in the settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    url: String,
    /// Topic filters, with MQTT's wildcards `+` and `#`.
    #[serde(default)]
    pub topics: Vec<String>,
    #[serde(default)]
    pub payload: Payload,
    #[serde(default)]
    version: MqttVersion,
    /// The session's name at the broker: `tidemark-` and the query's name unless given.
    client_id: Option<String>,
    username: Option<String>,
    username_file: Option<PathBuf>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    tls_ca_file: Option<PathBuf>,
    tls_certificate_file: Option<PathBuf>,
    tls_key_file: Option<PathBuf>,
    #[serde(default = "default_keep_alive")]
    keep_alive: Span,
    /// How long the broker keeps the session, and with it our messages, while we are away (MQTT 5).
    #[serde(default = "default_session_expiry")]
    pub session_expiry: Span,
    /// Messages that the broker may send ahead of our acknowledgements (MQTT 5; for 3.1.1 the broker's own limit holds).
    #[serde(default = "default_receive_maximum")]
    pub receive_maximum: u16,
    /// Also take the retained messages that a subscription begins with.
    #[serde(default)]
    pub keep_retained: bool,
    /// The message's own columns, behind those of its payload.
    #[serde(skip)]
    pub own: Vec<OwnColumn>,
}

fn default_keep_alive() -> Span {
    MqttConnection::default().keep_alive
}

fn default_session_expiry() -> Span {
    common::settings::Mqtt::default().session_expiry
}

fn default_receive_maximum() -> u16 {
    common::settings::Mqtt::default().receive_maximum
}

/// What a message has beside its payload.
const COLUMNS: &[OwnColumn] = &[OwnColumn::Topic, OwnColumn::Timestamp];

impl Mqtt {
    pub fn connection(&self) -> MqttConnection {
        MqttConnection {
            url: Some(self.url.clone()),
            version: self.version,
            client_id: self.client_id.clone().unwrap_or_default(),
            username: self.username.clone(),
            username_file: self.username_file.clone(),
            password: self.password.clone(),
            password_file: self.password_file.clone(),
            tls_ca_file: self.tls_ca_file.clone(),
            tls_certificate_file: self.tls_certificate_file.clone(),
            tls_key_file: self.tls_key_file.clone(),
            keep_alive: self.keep_alive,
        }
    }

    /// What is read, for people.
    pub(super) fn place(&self) -> String {
        format!("{}, topics {}", self.url, self.topics.join(", "))
    }

    /// Names the session, puts paths beside the query file, and adds the message's own columns to those of the payload: each whose name
    /// the payload does not have.
    pub(super) fn settle(&mut self, folder: &Path, query: &str, schema: &mut String) {
        self.client_id.get_or_insert_with(|| format!("tidemark-{query}"));
        let files = [
            &mut self.username_file,
            &mut self.password_file,
            &mut self.tls_ca_file,
            &mut self.tls_certificate_file,
            &mut self.tls_key_file,
        ];
        for path in files.into_iter().flatten() {
            *path = folder.join(&*path);
        }
        self.own = self.payload.settle(COLUMNS, schema);
    }

    pub(super) fn check(&self, schema: &str) -> Result<(), String> {
        if let Some(fault) = faults(&self.connection()).into_iter().next() {
            return Err(format!("source.mqtt.{fault}"));
        }
        if self.topics.is_empty() {
            return Err("source.mqtt.topics is missing; name the topics to read, such as [\"sensors/#\"]".into());
        }
        self.topics.iter().try_for_each(|filter| check_filter(filter))?;
        if self.receive_maximum == 0 {
            return Err("source.mqtt.receive_maximum must be at least 1".into());
        }
        self.payload.check(COLUMNS, schema)
    }
}

/// What the protocol says of filters: `+` and `#` are whole levels, and `#` is the last.
fn check_filter(filter: &str) -> Result<(), String> {
    let fault = |what: &str| Err(format!("source.mqtt.topics: '{filter}' is no topic filter: {what}"));
    if filter.is_empty() || filter.len() > usize::from(u16::MAX) || filter.contains('\0') {
        return fault("it has from 1 to 65535 bytes, and none of them is 0");
    }
    let levels: Vec<&str> = filter.split('/').collect();
    for (place, level) in levels.iter().enumerate() {
        if level.len() > 1 && level.contains(['+', '#']) {
            return fault("'+' and '#' stand alone between two '/'");
        }
        if *level == "#" && place + 1 < levels.len() {
            return fault("'#' is the last level");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_the_protocol() {
        for good in ["a", "#", "+", "/", "a/+/b", "+/+/#", "a b/é", "$share/group/a/#"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["", "a+", "a/b#", "#/a", "a/#/b", "a/+b/c", "a\0b"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }
}
