//! Where the results go: a topic, or one of Spark's other sinks with its options.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{OutputMode, check_options};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    #[serde(default)]
    pub format: SinkFormat,
    /// `iot.agg.<name>` unless given.
    pub topic: Option<String>,
    /// Of `console`: how many rows of a batch are shown, 20 unless given, and whether long values are cut, which they are.
    pub num_rows: Option<usize>,
    pub truncate: Option<bool>,
    /// Of files: the directory, relative to the query file.
    pub path: Option<PathBuf>,
    /// Of files: the columns whose values name subdirectories.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// Of `memory`: the most rows that are kept.
    pub max_rows: Option<usize>,
    /// Of `foreach`: a program and its arguments, which gets the rows of a batch on standard input; or a web address that they are posted to.
    #[serde(default)]
    pub command: Vec<String>,
    pub url: Option<String>,
    /// What is posted to `url`: `lines` unless given.
    pub body: Option<Body>,
}

/// How the rows of a batch are posted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// A JSON object a line.
    #[default]
    Lines,
    /// An array of events, as the HTTP source of a Flume agent takes it.
    Flume,
}

/// Spark's names of its sinks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkFormat {
    #[default]
    Kafka,
    /// A table a batch on standard output.
    Console,
    /// A table in memory, which `/tables` shows.
    Memory,
    /// Files of a directory.
    Csv,
    Json,
    Parquet,
    /// A program or a web address for each batch.
    Foreach,
}

impl SinkFormat {
    /// The word that the query file has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Console => "console",
            Self::Memory => "memory",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
            Self::Foreach => "foreach",
        }
    }

    pub fn is_files(self) -> bool {
        matches!(self, Self::Csv | Self::Json | Self::Parquet)
    }

    /// Whether what was given out lies somewhere, so that the state must outlive the program, too.
    pub(super) fn lasts(self) -> bool {
        !matches!(self, Self::Console | Self::Memory)
    }
}

impl Sink {
    pub fn is_kafka(&self) -> bool {
        self.format == SinkFormat::Kafka
    }

    /// What is written to outside Kafka, for people; nothing where the format says it.
    pub fn place(&self) -> String {
        let path = self.path.as_ref().map(|path| path.display().to_string());
        path.or_else(|| self.url.clone()).or_else(|| self.command.first().cloned()).unwrap_or_default()
    }

    pub(super) fn settle(&mut self, folder: &Path) {
        if let Some(path) = &mut self.path {
            *path = folder.join(&*path);
        }
    }

    pub(super) fn check(&self, mode: OutputMode) -> Result<(), String> {
        use SinkFormat::{Console, Csv, Foreach, Json, Kafka, Memory, Parquet};
        let files: &[SinkFormat] = &[Csv, Json, Parquet];
        check_options(
            "sink",
            self.format,
            self.format.name(),
            &[
                ("topic", self.topic.is_some(), &[Kafka]),
                ("num_rows", self.num_rows.is_some(), &[Console]),
                ("truncate", self.truncate.is_some(), &[Console]),
                ("path", self.path.is_some(), files),
                ("partition_by", !self.partition_by.is_empty(), files),
                ("max_rows", self.max_rows.is_some(), &[Memory]),
                ("command", !self.command.is_empty(), &[Foreach]),
                ("url", self.url.is_some(), &[Foreach]),
                ("body", self.body.is_some(), &[Foreach]),
            ],
        )?;
        if self.format.is_files() && self.path.is_none() {
            return Err(format!("sink.path is missing; format = \"{}\" needs it", self.format.name()));
        }
        if self.format.is_files() && mode != OutputMode::Append {
            return Err(format!(
                "format = \"{}\" of the sink writes each row once, so it needs output_mode = \"append\"; use format = \"foreach\" for rows \
                 that change",
                self.format.name()
            ));
        }
        if self.format == Foreach && self.command.is_empty() == self.url.is_none() {
            return Err("format = \"foreach\" needs either sink.command or sink.url".into());
        }
        if self.body.is_some() && self.url.is_none() {
            return Err("sink.body is of what is posted to sink.url; a program gets a JSON object a line".into());
        }
        if let Some(url) = self.url.as_deref().filter(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return Err(format!("sink.url: '{url}' must begin with http:// or https://"));
        }
        Ok(())
    }
}
