//! The query file: input, SQL, output mode, trigger, output.

mod kinesis;
mod mqtt;
mod payload;
mod sink;
mod source;

use std::path::{Path, PathBuf};

use common::units::Span;
use serde::Deserialize;

pub use kinesis::{Kinesis, Start};
pub use mqtt::Mqtt;
pub use payload::{OwnColumn, Payload};
pub use sink::{Body, Sink, SinkFormat};
pub(crate) use source::default_partition_key;
pub use source::{CleanSource, FileOrder, Source, SourceFormat};

use super::zone::Zone;

/// The query that runs when no file is given.
const DEFAULT: &str = include_str!("../../../../queries/iot-10s.toml");

/// A query file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read the query file {path}: {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("query file {path}: {cause}")]
    Toml { path: PathBuf, cause: Box<toml::de::Error> },
    #[error("query file {path}: {cause}")]
    Content { path: PathBuf, cause: String },
}

/// One query, as its file says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryFile {
    /// Names the query's topics, its consumer group and its rows: letters, digits, `.`, `_`, `-`.
    pub name: String,
    pub source: Source,
    pub query: Query,
    #[serde(default)]
    pub sink: Sink,
    /// Tables that the SQL joins with the stream.
    #[serde(default, rename = "lookup")]
    pub lookups: Vec<Lookup>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub sql: String,
    #[serde(default)]
    pub output_mode: OutputMode,
    #[serde(default)]
    pub trigger: Trigger,
    /// Whose days, weeks, months and years the windows of that length are: a name of the IANA database, such as `Europe/Rome`. Without
    /// it a day is 24 hours of UTC, and windows of months are refused.
    pub time_zone: Option<String>,
    /// The directory that holds state and positions, relative to the query file; none: the journal topic, or, where a source or sink is
    /// outside Kafka, a directory that goes with the run.
    pub checkpoint: Option<PathBuf>,
    /// Of a query whose groups lie in all input partitions: by how many shards the states of the partitions are merged, so that several
    /// processors share the query; 0: one processor reads all partitions.
    #[serde(default)]
    pub repartition: u32,
}

impl Query {
    pub(crate) fn zone(&self) -> Result<Option<&'static Zone>, String> {
        self.time_zone.as_deref().map(Zone::named).transpose().map_err(|fault| format!("query.time_zone: {fault}"))
    }
}

/// Spark's output modes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputMode {
    /// The rows that changed, at each trigger, and each once more, marked final, when its window closes.
    #[default]
    Update,
    /// Each row once, when its window closes.
    Append,
    /// The whole result at each trigger.
    Complete,
}

/// When a step is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub enum Trigger {
    /// As soon as there are rows.
    #[default]
    AsSoonAsPossible,
    /// At multiples of the interval.
    ProcessingTime(Span),
    /// All that is there at the start, in several commits, and then the end.
    AvailableNow,
    /// All that is there at the start, in one commit, and then the end.
    Once,
    /// Each row's result at once; a commit at each interval.
    Continuous(Span),
}

impl Trigger {
    /// Whether the query ends when it has read what was there at its start.
    pub fn is_bounded(self) -> bool {
        matches!(self, Self::AvailableNow | Self::Once)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerTable {
    processing_time: Option<Span>,
    continuous: Option<Span>,
}

const TRIGGERS: &str = "use { processing_time = \"1 second\" }, { continuous = \"1 second\" }, \"available_now\", \"once\" or none";

/// A word or a table, told apart by hand: serde's `untagged` would hide what is wrong inside the table.
impl TryFrom<toml::Value> for Trigger {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(word) if word == "available_now" => Ok(Self::AvailableNow),
            toml::Value::String(word) if word == "once" => Ok(Self::Once),
            toml::Value::Table(_) => {
                let table: TriggerTable = value.try_into().map_err(|error: toml::de::Error| format!("trigger: {}", error.message()))?;
                match table {
                    TriggerTable { continuous: Some(_), processing_time: Some(_) } => {
                        Err(format!("the trigger is both processing_time and continuous; {TRIGGERS}"))
                    }
                    TriggerTable { continuous: Some(span), .. } if span.millis() == 0 => {
                        Err("trigger: continuous needs the interval between two commits, such as \"1 second\"; leave the trigger out to commit \
                             each step"
                            .into())
                    }
                    TriggerTable { continuous: Some(span), .. } => Ok(Self::Continuous(span)),
                    // Spark: an interval of 0 means as soon as possible.
                    TriggerTable { processing_time: Some(span), .. } if span.millis() == 0 => Ok(Self::AsSoonAsPossible),
                    TriggerTable { processing_time: Some(span), .. } => Ok(Self::ProcessingTime(span)),
                    TriggerTable { .. } => Err(format!("the trigger is empty; {TRIGGERS}")),
                }
            }
            other => Err(format!("{other} is no trigger; {TRIGGERS}")),
        }
    }
}

/// A table that does not change while the query runs, such as the rooms that sensors stand in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// The table's name in the SQL: a letter, then letters, digits and `_`.
    pub name: String,
    /// Relative to the query file.
    pub path: PathBuf,
    /// By the file's ending unless given.
    pub format: Option<TableFormat>,
    /// Spark's DDL, as that of the source. A CSV file needs one; a Parquet file brings its own, and one here chooses among its columns.
    pub schema: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    /// With a first line that names the columns.
    Csv,
    Parquet,
}

impl Lookup {
    /// The format as it is given, or as the file's ending tells.
    ///
    /// # Errors
    /// When neither says it.
    pub fn table_format(&self) -> Result<TableFormat, String> {
        let ending = self.path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        match (self.format, ending.as_str()) {
            (Some(format), _) => Ok(format),
            (None, "csv") => Ok(TableFormat::Csv),
            (None, "parquet") => Ok(TableFormat::Parquet),
            (None, _) => Err(format!(
                "lookup '{}': the ending of {} does not tell its format; write format = \"csv\" or format = \"parquet\"",
                self.name,
                self.path.display()
            )),
        }
    }
}

impl QueryFile {
    /// Reads and checks one file.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML of this shape, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|cause| FileError::Read { path: path.to_owned(), cause })?;
        Self::parse(&text, path)
    }

    /// The built-in query: ten-second windows of every sensor.
    ///
    /// # Errors
    /// Never for the file that the program was built with.
    pub fn built_in() -> Result<Self, FileError> {
        Self::parse(DEFAULT, Path::new("(built-in) iot-10s.toml"))
    }

    /// Parses the text of a query file; `path` is for messages, and what the paths of lookup tables are relative to.
    ///
    /// # Errors
    /// As [`QueryFile::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let mut file: Self = toml::from_str(text).map_err(|cause| FileError::Toml { path: path.to_owned(), cause: Box::new(cause) })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for lookup in &mut file.lookups {
            lookup.path = folder.join(&lookup.path);
        }
        if let Some(checkpoint) = &mut file.query.checkpoint {
            *checkpoint = folder.join(&*checkpoint);
        }
        file.source.settle(folder, &file.name);
        file.sink.settle(folder);
        file.check().map_err(|cause| FileError::Content { path: path.to_owned(), cause })?;
        Ok(file)
    }

    /// Whether state and positions are in the journal topic. Else they are in a directory, and one processor runs the query.
    pub fn has_journal_topic(&self) -> bool {
        self.source.is_kafka() && self.sink.is_kafka() && self.query.checkpoint.is_none()
    }

    /// The topic that the results go to, when they go to one.
    pub fn output_topic(&self) -> String {
        self.sink.topic.clone().unwrap_or_else(|| common::topics::aggregate(&self.name))
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("name is empty; the query's topics are named after it".into());
        }
        common::topics::check_name(&common::topics::journal(&self.name)).map_err(|fault| format!("name: {fault}"))?;
        self.source.check()?;
        self.sink.check(self.query.output_mode)?;
        if self.source.is_kafka() {
            common::topics::check_name(&self.source.topic).map_err(|fault| format!("source.topic: {fault}"))?;
        }
        common::topics::check_name(&self.output_topic()).map_err(|fault| format!("sink.topic: {fault}"))?;
        if self.source.is_kafka() && self.sink.is_kafka() && self.output_topic() == self.source.topic {
            return Err(format!("sink.topic and source.topic are both '{}'; a query must not read its own results", self.source.topic));
        }
        self.query.zone()?;
        self.check_places()?;
        self.check_lookups()?;
        if !self.source.watermark_by.is_empty() && self.source.max_silence.millis() < 1 {
            return Err("source.max_silence must be at least 1 millisecond".into());
        }
        if self.query.output_mode == OutputMode::Complete && matches!(self.query.trigger, Trigger::Continuous(_)) {
            // A row that was sent ahead and then left the result before a crash would be nobody's to take away.
            return Err(
                "query.trigger: continuous does not fit output_mode \"complete\"; use { processing_time = \"1 second\" } with it, \
                        or output_mode \"update\""
                    .into(),
            );
        }
        // Last: what is wrong with the file is wrong in any build.
        if self.source.format == SourceFormat::Kinesis && !cfg!(feature = "kinesis") {
            return Err(
                "source.format: this program was built without \"kinesis\"; build it with `cargo build --release --workspace --features \
                        kinesis`"
                    .into(),
            );
        }
        Ok(())
    }

    /// What sources and sinks outside Kafka ask of the rest.
    fn check_places(&self) -> Result<(), String> {
        if !self.has_journal_topic() && matches!(self.query.trigger, Trigger::Continuous(_)) {
            return Err(
                "query.trigger: continuous needs Kafka for source, sink and journal; use { processing_time = \"1 second\" }, or none"
                    .into(),
            );
        }
        let source = self.source.format;
        if matches!(source, SourceFormat::Socket | SourceFormat::Rate | SourceFormat::Mqtt) && self.query.trigger.is_bounded() {
            return Err(format!(
                "query.trigger: a source of format = \"{}\" has no end, so available_now and once do not fit it",
                source.name()
            ));
        }
        if !self.has_journal_topic() && self.query.checkpoint.is_none() && self.sink.format.lasts() {
            return Err(format!(
                "query.checkpoint is missing: a query from {} to {} keeps its state and positions in a directory, and rows would be \
                 written twice without it",
                source.name(),
                self.sink.format.name()
            ));
        }
        if source.is_files() && self.source.path == self.sink.path {
            return Err("sink.path and source.path are the same directory; a query must not read its own results".into());
        }
        Ok(())
    }

    fn check_lookups(&self) -> Result<(), String> {
        for (place, lookup) in self.lookups.iter().enumerate() {
            let name = &lookup.name;
            let plain = name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
            if !plain || !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
                return Err(format!("lookup.name: '{name}' must be a letter, then letters, digits and '_', so that the SQL can name it"));
            }
            if name.eq_ignore_ascii_case(&self.source.topic) {
                return Err(format!("lookup.name: '{name}' is the topic's name, too; give the lookup table another one"));
            }
            if self.lookups.iter().take(place).any(|other| other.name.eq_ignore_ascii_case(name)) {
                return Err(format!("lookup.name: there are two lookup tables '{name}'; give one of them another name"));
            }
            lookup.table_format()?;
        }
        Ok(())
    }
}

/// Refuses options of another format: a setting that does nothing is a mistake that nobody sees.
fn check_options<F: Copy + PartialEq>(table: &str, format: F, name: &str, options: &[(&str, bool, &[F])]) -> Result<(), String> {
    match options.iter().find(|(_, given, formats)| *given && !formats.contains(&format)) {
        Some((key, ..)) => Err(format!("{table}.{key} is no option of format = \"{name}\"")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<QueryFile, FileError> {
        QueryFile::parse(text, Path::new("q.toml"))
    }

    const SOURCE: &str = "name='q'\n[source]\ntopic='iot'\nschema='ts TIMESTAMP'\nevent_time='ts'\nwatermark='5 seconds'\n";

    #[test]
    fn the_built_in_query_is_valid() {
        let file = QueryFile::built_in().unwrap();
        assert_eq!(file.output_topic(), "iot.agg.iot-10s");
        assert_eq!(file.query.trigger, Trigger::ProcessingTime(Span::from_secs(1)));
    }

    #[test]
    fn triggers_read_as_documented() {
        let trigger = |text: &str| parse(&format!("{SOURCE}[query]\nsql='x'\n{text}")).map(|file| file.query.trigger);
        assert_eq!(trigger("").unwrap(), Trigger::AsSoonAsPossible);
        assert_eq!(trigger("trigger = 'available_now'").unwrap(), Trigger::AvailableNow);
        assert_eq!(trigger("trigger = { processing_time = '0 seconds' }").unwrap(), Trigger::AsSoonAsPossible);
        assert_eq!(trigger("trigger = 'once'").unwrap(), Trigger::Once);
        assert_eq!(trigger("trigger = { continuous = '1 second' }").unwrap(), Trigger::Continuous(Span::from_secs(1)));
        assert!(trigger("trigger = { continuous = '0 seconds' }").unwrap_err().to_string().contains("between two commits"));
        let complete = trigger("output_mode = 'complete'\ntrigger = { continuous = '1s' }").unwrap_err().to_string();
        assert!(complete.contains("does not fit output_mode"), "{complete}");
        assert!(trigger("trigger = { continuous = '1s', processing_time = '1s' }").unwrap_err().to_string().contains("both"));
        assert!(trigger("trigger = 'sometimes'").unwrap_err().to_string().contains("available_now"));
        assert!(trigger("trigger = { processing_time = '1' }").unwrap_err().to_string().contains("a number with a unit"));
        assert!(trigger("trigger = { every = '1s' }").unwrap_err().to_string().contains("every"));
    }

    #[test]
    fn a_time_zone_is_checked_when_the_file_is_read() {
        let zone = |name: &str| parse(&format!("{SOURCE}[query]\nsql='x'\ntime_zone='{name}'")).map(|file| file.query.time_zone);
        assert_eq!(zone("Europe/Rome").unwrap().as_deref(), Some("Europe/Rome"));
        assert_eq!(zone("UTC").unwrap().as_deref(), Some("UTC"));
        let fault = zone("europe/rome").unwrap_err().to_string();
        assert!(fault.contains("q.toml: query.time_zone: there is no time zone 'europe/rome'; did you mean 'Europe/Rome'?"), "{fault}");
    }

    #[test]
    fn unknown_keys_and_loops_are_refused() {
        assert!(parse(&format!("{SOURCE}delay='1s'\n[query]\nsql='x'")).unwrap_err().to_string().contains("delay"));
        let looped = parse(&format!("{SOURCE}[query]\nsql='x'\n[sink]\ntopic='iot'")).unwrap_err().to_string();
        assert!(looped.contains("its own results"), "{looped}");
        assert!(parse(&format!("{SOURCE}[query]\nsql='x'\n").replace("name='q'", "name='a b'")).is_err());
    }

    /// A query from a source to a sink, each given by its keys.
    fn outside(source: &str, query: &str, sink: &str) -> Result<QueryFile, FileError> {
        let text = format!("name='q'\n[source]\nwatermark='1s'\n{source}\n[query]\nsql='x'\n{query}\n[sink]\n{sink}\n");
        QueryFile::parse(&text, Path::new("/etc/queries/q.toml"))
    }

    #[test]
    fn sources_bring_their_columns_and_paths_lie_beside_the_query_file() {
        let socket = outside("format='socket'\nhost='h'\nport=1", "", "format='console'").unwrap();
        assert_eq!((socket.source.topic.as_str(), socket.source.event_time.as_str()), ("socket", "timestamp"));
        assert!(!socket.has_journal_topic() && socket.source.idle_timeout() == Some(Span::from_secs(30)));
        let files =
            outside("format='text'\nname='lines'\npath='in'", "checkpoint='state'\noutput_mode='append'", "format='csv'\npath='/out'")
                .unwrap();
        assert_eq!((files.source.topic.as_str(), files.source.idle_timeout()), ("lines", None));
        let paths = [files.source.path, files.query.checkpoint, files.sink.path].map(|path| path.unwrap().display().to_string());
        assert_eq!(paths, ["/etc/queries/in", "/etc/queries/state", "/out"]);
        let kafka = outside("topic='iot'\nschema='ts TIMESTAMP'\nevent_time='ts'", "checkpoint='state'", "").unwrap();
        assert!(!kafka.has_journal_topic() && kafka.source.is_kafka());
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let (socket, rate, text) = ("format='socket'\nhost='h'\nport=1", "format='rate'", "format='text'\npath='in'");
        let mqtt = "format='mqtt'\n[source.mqtt]\nurl='mqtt://b'\npayload='text'\ntopics=['a/#']";
        let (console, csv, state) = ("format='console'", "format='csv'\npath='out'", "checkpoint='state'\noutput_mode='append'");
        for (source, query, sink, part) in [
            ("format='socket'\nport=1", "", console, "source.host is missing; format = \"socket\" needs it"),
            ("format='csv'\npath='in'\nevent_time='ts'", "", console, "source.schema is missing"),
            ("topic='iot'\nschema='ts TIMESTAMP'\nevent_time='ts'\nport=1", "", "", "source.port is no option of format = \"kafka\""),
            ("format='rate'\npath='in'", "", console, "source.path is no option of format = \"rate\""),
            ("format='rate'\nrows_per_second=0", "", console, "at least 1"),
            ("format='rate'\nschema='x STRING'", "", console, "leave it out"),
            ("format='text'\npath='in'\nclean_source='archive'", "", console, "source_archive_dir is missing"),
            ("format='text'\npath='in'\nclean_source='archive'\nsource_archive_dir='in'", "", console, "the same directory"),
            (socket, "trigger='once'", console, "\"socket\" has no end"),
            (rate, "trigger={continuous='1s'}", console, "continuous needs Kafka"),
            (rate, "", "", "query.checkpoint is missing"),
            (text, "output_mode='append'", csv, "query.checkpoint is missing"),
            (text, "checkpoint='state'", csv, "needs output_mode = \"append\""),
            (text, state, "format='csv'\npath='in'", "must not read its own results"),
            (text, state, "format='csv'", "sink.path is missing"),
            (text, state, "format='foreach'", "needs either sink.command or sink.url"),
            (text, state, "format='foreach'\nurl='ftp://x'", "must begin with http"),
            (text, state, "format='foreach'\ncommand=['x']\nbody='flume'", "sink.body is of what is posted"),
            (text, state, "format='csv'\npath='out'\nbody='lines'", "sink.body is no option of format = \"csv\""),
            (text, state, "format='foreach'\nurl='http://x'\nbody='avro'", "avro"),
            ("format='mqtt'", "", console, "[source.mqtt] is missing"),
            ("format='mqtt'\n[source.mqtt]\nurl='mqtt://b'\ntopics=['#']", "", console, "source.schema is missing"),
            (mqtt, "trigger='available_now'", console, "\"mqtt\" has no end"),
            ("format='kinesis'", "", console, "[source.kinesis] is missing"),
            ("format='kinesis'\n[source.kinesis]\nstream='s'", "", console, "source.schema is missing"),
            (mqtt, "", "", "query.checkpoint is missing"),
            (
                "format='socket'\nhost='h'\nport=1\n[source.mqtt]\nurl='mqtt://b'",
                "",
                console,
                "source.mqtt is no option of format = \"socket\"",
            ),
            (text, "", "format='console'\npath='out'", "sink.path is no option of format = \"console\""),
        ] {
            let fault = outside(source, query, sink).unwrap_err().to_string();
            assert!(fault.contains(part), "'{part}' is not in: {fault}");
        }
    }

    #[test]
    fn the_keys_of_an_mqtt_source() {
        let mqtt = |source: &str, keys: &str| {
            let source = format!("format='mqtt'\n{source}\n[source.mqtt]\nurl='mqtts://b'\n{keys}");
            outside(&source, "", "format='console'").map(|file| file.source)
        };
        let source = mqtt("schema='id STRING, timestamp TIMESTAMP'", "topics=['a/+']\nusername='u'\npassword_file='secret'").unwrap();
        assert_eq!(
            (source.topic.as_str(), source.event_time.as_str(), source.schema.as_str()),
            ("mqtt", "timestamp", "id STRING, timestamp TIMESTAMP, topic STRING")
        );
        let connection = source.mqtt.unwrap().connection();
        assert_eq!((connection.client_id.as_str(), connection.keep_alive), ("tidemark-q", Span::from_secs(30)));
        assert_eq!(connection.password_file, Some("/etc/queries/secret".into()));
        assert_eq!(mqtt("", "topics=['#']\npayload='text'").unwrap().schema, "value STRING, topic STRING, timestamp TIMESTAMP");
        for (source, keys, part) in [
            ("", "topics=['#']", "source.schema is missing"),
            ("schema='a STRING'", "", "source.mqtt.topics is missing"),
            ("schema='a STRING'", "topics=['a/#/b']", "'#' is the last level"),
            ("schema='a STRING'", "topics=['#']\nreceive_maximum=0", "at least 1"),
            ("schema='a STRING'", "topics=['#']\nclient_id=''", "source.mqtt.client_id is empty"),
            ("schema='a STRING'", "topics=['#']\npassword='x'", "source.mqtt.password is given without a user"),
            ("schema='a STRING'", "topics=['#']\ntls_key_file='k'", "source.mqtt.tls_certificate_file and tls_key_file belong together"),
            ("schema='a STRING'", "topics=['#']\nqos=2", "qos"),
            ("schema='a STRING'", "topics=['#']\nversion='4'", "4"),
            ("schema='a STRING'\ntopic='sensors'", "topics=['#']", "write topics = [...] in [source.mqtt]"),
            ("schema='a STRING'", "topics=['#']\npayload='text'", "leave the schema out"),
            ("schema='a ARRAY<INT>'", "topics=['#']\npayload='text'", "leave the schema out"),
        ] {
            let fault = mqtt(source, keys).unwrap_err().to_string();
            assert!(fault.contains(part), "'{part}' is not in: {fault}");
        }
    }

    #[test]
    fn the_keys_of_a_kinesis_source() {
        let kinesis = |source: &str, keys: &str| {
            let source = format!("format='kinesis'\n{source}\n[source.kinesis]\n{keys}");
            outside(&source, "", "format='console'").map(|file| file.source)
        };
        match kinesis("schema='id STRING'", "stream='readings'\nregion='eu-south-1'\nstart='at 2026-11-01'") {
            Ok(source) => {
                let Source { event_time, schema, kinesis: Some(kinesis), .. } = source else { panic!("no [source.kinesis]") };
                assert_eq!((event_time.as_str(), schema.as_str()), ("timestamp", "id STRING, partition_key STRING, timestamp TIMESTAMP"));
                assert_eq!((kinesis.start, kinesis.poll_interval), (Start::At(1_793_491_200_000), Span::from_secs(1)));
            }
            Err(fault) => {
                let without = fault.to_string().contains("built without \"kinesis\"; build it with `cargo");
                assert_eq!(without, !cfg!(feature = "kinesis"), "{fault}");
            }
        }
        for (source, keys, part) in [
            ("schema='a STRING'", "", "source.kinesis.stream is missing"),
            ("schema='a STRING'", "stream='a b'", "'a b' is no name of a stream"),
            ("schema='a STRING'", "stream='s'\nstart='yesterday'", "'yesterday' is no start"),
            ("schema='a STRING'", "stream='s'\nstart='at noon'", "'at noon' is no start"),
            ("schema='a STRING'", "stream='s'\nendpoint='localhost:4567'", "must begin with http"),
            ("schema='a STRING'", "stream='s'\npoll_interval='100ms'", "at least 200ms"),
            ("schema='a STRING'", "stream='s'\naccess_key_id='k'", "belong together"),
            ("schema='a STRING'", "stream='s'\nprofile='p'\naccess_key_id='k'\nsecret_access_key_file='f'", "choose one"),
            ("schema='a STRING'", "stream='s'\nshards=2", "shards"),
            ("schema='a STRING'\ntopic='t'", "stream='s'", "in [source.kinesis]"),
            ("schema='a STRING'", "stream='s'\npayload='text'", "has the columns value, partition_key and timestamp; leave the schema out"),
        ] {
            let fault = kinesis(source, keys).unwrap_err().to_string();
            assert!(fault.contains(part), "'{part}' is not in: {fault}");
        }
    }

    #[test]
    fn lookup_tables_lie_beside_the_query_file() {
        let text = |lookup: &str| format!("{SOURCE}[query]\nsql='x'\n[[lookup]]\n{lookup}");
        let read = |lookup: &str| QueryFile::parse(&text(lookup), Path::new("/etc/queries/q.toml"));
        let file = read("name='a'\npath='a.CSV'\nschema='k STRING'\n[[lookup]]\nname='b'\npath='/data/b.parquet'").unwrap();
        let found: Vec<_> = file.lookups.iter().map(|lookup| (lookup.path.to_str().unwrap(), lookup.table_format().unwrap())).collect();
        assert_eq!(found, [("/etc/queries/a.CSV", TableFormat::Csv), ("/data/b.parquet", TableFormat::Parquet)]);
        for (lookup, part) in [
            ("name='a b'\npath='a.csv'", "so that the SQL can name it"),
            ("name='IOT'\npath='a.csv'", "the topic's name"),
            ("name='a'\npath='a.csv'\n[[lookup]]\nname='A'\npath='b.csv'", "two lookup tables"),
            ("name='a'\npath='a.txt'", "format = \"csv\""),
            ("name='a'\npath='a.csv'\nsep=';'", "sep"),
        ] {
            let fault = read(lookup).unwrap_err().to_string();
            assert!(fault.contains(part), "'{part}' is not in: {fault}");
        }
    }
}
