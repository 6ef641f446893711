//! `[source.kinesis]`: which stream of Amazon Kinesis Data Streams is read, and how.

use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate};
use common::units::Span;
use serde::Deserialize;

use super::payload::{OwnColumn, Payload};

/// What a record has beside its payload.
const COLUMNS: &[OwnColumn] = &[OwnColumn::PartitionKey, OwnColumn::Timestamp];

/// Kinesis answers five calls a second and shard, to all readers together.
const SHORTEST_POLL: i64 = 200;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kinesis {
    #[serde(default)]
    pub stream: String,
    /// That of the environment or the profile unless given.
    pub region: Option<String>,
    /// Of a server that is not Amazon's, such as `http://127.0.0.1:4567`.
    pub endpoint: Option<String>,
    #[serde(default)]
    pub start: Start,
    #[serde(default)]
    pub payload: Payload,
    /// How often a shard that has nothing new is asked.
    #[serde(default = "default_poll_interval")]
    pub poll_interval: Span,
    /// A profile of the files of the AWS command line.
    pub profile: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key_file: Option<PathBuf>,
    /// The record's own columns, behind those of its payload.
    #[serde(skip)]
    pub own: Vec<OwnColumn>,
}

fn default_poll_interval() -> Span {
    Span::from_secs(1)
}

/// Where the first run of a query begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Start {
    /// With the oldest record that the stream still has.
    #[default]
    TrimHorizon,
    /// With what comes from then on.
    Latest,
    /// With the first record that came at this time or later, epoch milliseconds.
    At(i64),
}

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let at = |time: &str| {
            let midnight = || NaiveDate::parse_from_str(time, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0).map(|time| time.and_utc());
            DateTime::parse_from_rfc3339(time).ok().map(|time| time.to_utc()).or_else(midnight).map(|time| time.timestamp_millis())
        };
        match text.as_str() {
            "trim_horizon" => Ok(Self::TrimHorizon),
            "latest" => Ok(Self::Latest),
            other => other.strip_prefix("at ").and_then(|time| at(time.trim())).map(Self::At).ok_or_else(|| {
                format!("'{other}' is no start; use \"trim_horizon\", \"latest\", or a time such as \"at 2026-11-01T06:00:00Z\"")
            }),
        }
    }
}

impl Kinesis {
    /// What is read, for people.
    pub(super) fn place(&self) -> String {
        let region = self.region.as_ref().map(|region| format!(" in {region}"));
        let endpoint = self.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}"));
        format!("Kinesis stream {}{}{}", self.stream, region.unwrap_or_default(), endpoint.unwrap_or_default())
    }

    /// Puts paths beside the query file, and adds the record's own columns.
    pub(super) fn settle(&mut self, folder: &Path, schema: &mut String) {
        if let Some(path) = &mut self.secret_access_key_file {
            *path = folder.join(&*path);
        }
        self.own = self.payload.settle(COLUMNS, schema);
    }

    pub(super) fn check(&self, schema: &str) -> Result<(), String> {
        if self.stream.is_empty() {
            return Err("source.kinesis.stream is missing; name the stream to read".into());
        }
        let letters = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
        if self.stream.len() > 128 || !self.stream.chars().all(letters) {
            return Err(format!(
                "source.kinesis.stream: '{}' is no name of a stream: up to 128 letters, digits, '_', '.' and '-'",
                self.stream
            ));
        }
        if let Some(endpoint) =
            self.endpoint.as_ref().filter(|endpoint| !endpoint.starts_with("http://") && !endpoint.starts_with("https://"))
        {
            return Err(format!("source.kinesis.endpoint: '{endpoint}' must begin with http:// or https://"));
        }
        if self.poll_interval.millis() < SHORTEST_POLL {
            return Err(format!(
                "source.kinesis.poll_interval must be at least {SHORTEST_POLL}ms: Kinesis answers five calls a second for each shard"
            ));
        }
        if self.access_key_id.is_some() != self.secret_access_key_file.is_some() {
            return Err("source.kinesis.access_key_id and secret_access_key_file belong together; give both or neither".into());
        }
        if self.access_key_id.is_some() && self.profile.is_some() {
            return Err("source.kinesis.access_key_id and profile both say whose credentials are used; choose one".into());
        }
        self.payload.check(COLUMNS, schema)
    }
}
