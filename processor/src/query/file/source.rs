//! Where the rows come from: a topic, or one of Spark's other sources with its options.

use std::path::{Path, PathBuf};

use common::units::Span;
use serde::Deserialize;

use super::check_options;
use super::kinesis::Kinesis;
use super::mqtt::Mqtt;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    #[serde(default)]
    pub format: SourceFormat,
    /// The topic; of another source the stream's name in the SQL.
    #[serde(default)]
    pub topic: String,
    /// The stream's name in the SQL, of a source that is no topic: that of its format unless given.
    pub name: Option<String>,
    /// Spark's DDL: `sensor_id STRING, ts TIMESTAMP, value DOUBLE`. Lines and generated rows have their own.
    #[serde(default)]
    pub schema: String,
    /// The TIMESTAMP column that says when a reading was taken; `timestamp` where the source brings one.
    #[serde(default)]
    pub event_time: String,
    /// How far the watermark stays behind the largest event time; Spark's `withWatermark` delay.
    pub watermark: Span,
    /// A row whose event time is further than this ahead of its time of receipt goes to the dead lane and moves no watermark.
    #[serde(default = "default_max_future")]
    pub max_future: Span,
    /// A partition that is read to its end and has been quiet for this long lets the wall clock close its windows: 30 seconds unless given,
    /// and never for files, whose times are seldom those of the clock.
    idle_timeout: Option<Span>,
    /// The column that is the records' key, so that all rows of one value are in one partition. Empty: the key means nothing, and one
    /// processor reads all partitions.
    #[serde(default = "default_partition_key")]
    pub partition_key: String,
    /// A column whose values have a timeline each: a device that lags or hurries makes no other late. Empty: one timeline a partition.
    #[serde(default)]
    pub watermark_by: String,
    /// A device whose newest reading is this far behind the newest of its partition is given up: its windows close.
    #[serde(default = "default_max_silence")]
    pub max_silence: Span,
    /// Columns that name a reading: a row whose values were there already, no longer ago than the watermark's delay, is dropped. Spark's
    /// `dropDuplicatesWithinWatermark`.
    #[serde(default)]
    pub drop_duplicates_within_watermark: Vec<String>,
    /// Of `socket`: who writes the lines.
    pub host: Option<String>,
    pub port: Option<u16>,
    /// Of `rate`: how many rows are made in a second, 1 unless given, and how long it takes to come to that.
    pub rows_per_second: Option<u32>,
    pub ramp_up_time: Option<Span>,
    /// Of files: the watched directory, relative to the query file.
    pub path: Option<PathBuf>,
    pub order: Option<FileOrder>,
    pub max_files_per_trigger: Option<usize>,
    pub clean_source: Option<CleanSource>,
    pub source_archive_dir: Option<PathBuf>,
    /// Of `mqtt`: the broker, the topics, and how they are read.
    pub mqtt: Option<Mqtt>,
    /// Of `kinesis`: the stream, and how it is read.
    pub kinesis: Option<Kinesis>,
}

fn default_max_silence() -> Span {
    Span::from_secs(86_400)
}

fn default_max_future() -> Span {
    Span::from_secs(300)
}

const DEFAULT_IDLE_TIMEOUT: Span = Span::from_secs(30);

pub(crate) fn default_partition_key() -> String {
    "sensor_id".into()
}

/// Spark's names of its sources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    #[default]
    Kafka,
    /// Lines from a TCP connection. What was read before a crash cannot be read again.
    Socket,
    /// Rows that are made here, at a pace.
    Rate,
    /// Files of a directory.
    Csv,
    Json,
    Parquet,
    Text,
    /// Topics of an MQTT broker.
    Mqtt,
    /// A stream of Amazon Kinesis Data Streams.
    Kinesis,
}

/// Which files come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileOrder {
    /// The one that was changed first; those of one time by name.
    #[default]
    Time,
    Name,
}

/// What becomes of a file that is read and committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CleanSource {
    #[default]
    Off,
    Archive,
    Delete,
}

impl SourceFormat {
    /// The word that the query file has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Socket => "socket",
            Self::Rate => "rate",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
            Self::Text => "text",
            Self::Mqtt => "mqtt",
            Self::Kinesis => "kinesis",
        }
    }

    pub fn is_files(self) -> bool {
        matches!(self, Self::Csv | Self::Json | Self::Parquet | Self::Text)
    }

    /// Whether it reads messages, which have a payload.
    fn has_messages(self) -> bool {
        matches!(self, Self::Mqtt | Self::Kinesis)
    }

    /// The columns that the source itself has.
    fn own_schema(self) -> Option<&'static str> {
        match self {
            Self::Socket | Self::Text => Some("value STRING, timestamp TIMESTAMP"),
            Self::Rate => Some("timestamp TIMESTAMP, value BIGINT"),
            Self::Kafka | Self::Csv | Self::Json | Self::Parquet | Self::Mqtt | Self::Kinesis => None,
        }
    }
}

impl Source {
    pub fn is_kafka(&self) -> bool {
        self.format == SourceFormat::Kafka
    }

    /// After how long a quiet partition lets the wall clock close its windows; `None`: never.
    pub fn idle_timeout(&self) -> Option<Span> {
        self.idle_timeout.or((!self.format.is_files()).then_some(DEFAULT_IDLE_TIMEOUT))
    }

    /// What is read, for people.
    pub fn place(&self) -> String {
        match (self.format, &self.path) {
            (SourceFormat::Kafka, _) => self.topic.clone(),
            (SourceFormat::Mqtt, _) => self.mqtt.as_ref().map_or_else(String::new, Mqtt::place),
            (SourceFormat::Kinesis, _) => self.kinesis.as_ref().map_or_else(String::new, Kinesis::place),
            (SourceFormat::Socket, _) => format!("socket {}:{}", self.host.as_deref().unwrap_or_default(), self.port.unwrap_or_default()),
            (SourceFormat::Rate, _) => format!("rate, {} rows per second", self.rows_per_second.unwrap_or(1)),
            (format, path) => format!("{} files of {}", format.name(), path.as_deref().unwrap_or(Path::new("")).display()),
        }
    }

    /// Fills in what the format says, and puts paths beside the query file.
    pub(super) fn settle(&mut self, folder: &Path, query: &str) {
        for path in self.path.iter_mut().chain(&mut self.source_archive_dir) {
            *path = folder.join(&*path);
        }
        if self.is_kafka() {
            return;
        }
        // There is no record key, and one partition.
        self.partition_key = String::new();
        if self.topic.is_empty() {
            self.topic = self.name.clone().unwrap_or_else(|| self.format.name().to_owned());
        }
        if let Some(mqtt) = &mut self.mqtt {
            mqtt.settle(folder, query, &mut self.schema);
        }
        if let Some(kinesis) = &mut self.kinesis {
            kinesis.settle(folder, &mut self.schema);
        }
        let own = self.format.own_schema();
        if let Some(own) = own.filter(|_| self.schema.is_empty()) {
            own.clone_into(&mut self.schema);
        }
        if self.event_time.is_empty() && (own.is_some() || self.format.has_messages()) {
            self.event_time = "timestamp".to_owned();
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        use SourceFormat::{Csv, Json, Kafka, Kinesis, Mqtt, Parquet, Rate, Socket, Text};
        let files: &[SourceFormat] = &[Csv, Json, Parquet, Text];
        check_options(
            "source",
            self.format,
            self.format.name(),
            &[
                ("name", self.name.is_some(), &[Socket, Rate, Csv, Json, Parquet, Text, Mqtt, Kinesis]),
                ("host", self.host.is_some(), &[Socket]),
                ("port", self.port.is_some(), &[Socket]),
                ("rows_per_second", self.rows_per_second.is_some(), &[Rate]),
                ("ramp_up_time", self.ramp_up_time.is_some(), &[Rate]),
                ("path", self.path.is_some(), files),
                ("order", self.order.is_some(), files),
                ("max_files_per_trigger", self.max_files_per_trigger.is_some(), files),
                ("clean_source", self.clean_source.is_some(), files),
                ("source_archive_dir", self.source_archive_dir.is_some(), files),
                ("mqtt", self.mqtt.is_some(), &[Mqtt]),
                ("kinesis", self.kinesis.is_some(), &[Kinesis]),
            ],
        )?;
        let needed = |key: &str, given: bool| match given {
            true => Ok(()),
            false => Err(format!("source.{key} is missing; format = \"{}\" needs it", self.format.name())),
        };
        match self.format {
            Kafka => needed("topic", !self.topic.is_empty())?,
            Socket => needed("host", self.host.is_some()).and_then(|()| needed("port", self.port.is_some()))?,
            Rate => self.check_rate()?,
            Mqtt => self.check_mqtt()?,
            Kinesis => self.check_kinesis()?,
            Csv | Json | Parquet | Text => needed("path", self.path.is_some()).and_then(|()| self.check_cleaning())?,
        }
        needed("schema", !self.schema.is_empty())?;
        needed("event_time", !self.event_time.is_empty())?;
        match self.format.own_schema() {
            Some(own) if self.schema != own => {
                Err(format!("source.schema: a {} has the columns '{own}'; leave it out", self.format.name()))
            }
            _ => Ok(()),
        }
    }

    fn check_mqtt(&self) -> Result<(), String> {
        let Some(mqtt) = &self.mqtt else {
            return Err("[source.mqtt] is missing; format = \"mqtt\" needs its url and topics".into());
        };
        if self.topic != self.name.as_deref().unwrap_or(self.format.name()) {
            return Err("source.topic is no option of format = \"mqtt\"; write topics = [...] in [source.mqtt]".into());
        }
        mqtt.check(&self.schema)
    }

    fn check_kinesis(&self) -> Result<(), String> {
        let Some(kinesis) = &self.kinesis else {
            return Err("[source.kinesis] is missing; format = \"kinesis\" needs its stream".into());
        };
        if self.topic != self.name.as_deref().unwrap_or(self.format.name()) {
            return Err("source.topic is no option of format = \"kinesis\"; write stream = \"...\" in [source.kinesis]".into());
        }
        kinesis.check(&self.schema)
    }

    fn check_rate(&self) -> Result<(), String> {
        if self.rows_per_second == Some(0) {
            return Err("source.rows_per_second must be at least 1".into());
        }
        if self.ramp_up_time.is_some_and(|time| time.millis() % 1000 != 0) {
            return Err("source.ramp_up_time must be in whole seconds".into());
        }
        Ok(())
    }

    fn check_cleaning(&self) -> Result<(), String> {
        if self.max_files_per_trigger == Some(0) {
            return Err("source.max_files_per_trigger must be at least 1".into());
        }
        let archives = self.clean_source == Some(CleanSource::Archive);
        match &self.source_archive_dir {
            None if archives => Err("source.source_archive_dir is missing; clean_source = \"archive\" needs it".into()),
            Some(_) if !archives => Err("source.source_archive_dir needs clean_source = \"archive\"".into()),
            Some(archive) if Some(archive) == self.path.as_ref() => {
                Err("source.source_archive_dir and source.path are the same directory; read files would be read again".into())
            }
            _ => Ok(()),
        }
    }
}
