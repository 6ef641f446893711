//! `[sink]`: where results go, what they become there, and how they are delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::{Size, Span};

const BATCH_ROWS: usize = 5_000;
/// The same where larger batches are cheaper.
pub const LARGE_BATCH_ROWS: usize = 12_000;

/// `[sink]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sink {
    /// The databases to write, each set up in the section of its name; each has its own place in the log.
    pub to: Vec<Database>,
    /// More freedom than `to`: any number of outputs, each with topics, mapping and database of its own. Instead of `to`.
    pub outputs: Vec<Output>,
    /// Topics to write; every topic that begins with `iot.agg.` when empty. A name that begins with `^` is a pattern.
    pub topics: Vec<String>,
    pub instance_id: Option<String>,
    /// Most rows that one database transaction or request covers. Left as it is, SQLite and a lake get 12,000.
    pub batch_rows: usize,
    /// A batch is written when its records have this size, however few they are.
    pub batch_size: Size,
    /// Longest time that a row waits for its batch to fill.
    pub batch_wait: Span,
    pub drain_timeout: Span,
    /// Folder for what a sink must remember besides its place in the log: types of fields, series.
    pub state_path: PathBuf,
    pub mapping: Mapping,
    pub sqlite: Sqlite,
    pub influxdb: Influxdb,
    pub victoriametrics: Victoriametrics,
    pub http: Post,
    pub delta: Lake,
    pub parquet: Lake,
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            to: vec![Database::Sqlite],
            outputs: Vec::new(),
            topics: Vec::new(),
            instance_id: None,
            batch_rows: BATCH_ROWS,
            batch_size: Size::from_mib(8),
            batch_wait: Span::from_millis(200),
            drain_timeout: Span::from_secs(4),
            state_path: "tidemark-sink".into(),
            mapping: Mapping::default(),
            sqlite: Sqlite::default(),
            influxdb: Influxdb::default(),
            victoriametrics: Victoriametrics::default(),
            http: Post::default(),
            delta: Lake::default(),
            parquet: Lake::default(),
        }
    }
}

impl Sink {
    /// The outputs in full: those of `outputs`, else one for each of `to`.
    pub fn all_outputs(&self) -> Vec<Output> {
        if !self.outputs.is_empty() {
            return self.outputs.clone();
        }
        let output = |to: &Database| Output {
            name: None,
            to: *to,
            topics: self.topics.clone(),
            batch_rows: None,
            batch_wait: None,
            mapping: self.mapping.clone(),
            sqlite: self.sqlite.clone(),
            influxdb: self.influxdb.clone(),
            victoriametrics: self.victoriametrics.clone(),
            http: self.http.clone(),
            delta: self.delta.clone(),
            parquet: self.parquet.clone(),
        };
        self.to.iter().map(output).collect()
    }

    /// Puts what the settings leave where the program happens to be started into `folder`: the appliance keeps all it has in one place. The
    /// database that its page shows is always there.
    pub fn keep_in(&mut self, folder: &Path) {
        self.sqlite.path = folder.join("tidemark.sqlite");
        if self.state_path == Self::default().state_path {
            self.state_path = folder.join("sink");
        }
        for output in &mut self.outputs {
            if output.sqlite == Sqlite::default() {
                output.sqlite.path.clone_from(&self.sqlite.path);
            }
        }
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.batch_rows == 0 {
            faults.push("sink.batch_rows is 0; a batch has at least 1 row".into());
        }
        if !self.outputs.is_empty() && self.to != [Database::Sqlite] {
            faults.push("sink.to and sink.outputs say different things; keep one of them".into());
        }
        let outputs = self.all_outputs();
        if outputs.is_empty() {
            faults.push("sink.to is empty; name at least one database, such as sqlite or influxdb".into());
        }
        let mut names = BTreeSet::new();
        for output in &outputs {
            if !names.insert(output.name()) {
                faults.push(format!(
                    "sink.outputs: two outputs are called '{0}'; give each a name of its own, or they would share one place in the log",
                    output.name()
                ));
            }
            faults.extend(output.faults().into_iter().map(|fault| format!("sink output '{}': {fault}", output.name())));
        }
        faults
    }
}

/// A kind of database, or what stands for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    #[default]
    Sqlite,
    /// InfluxDB 2, or another that takes `/api/v2/write`.
    Influxdb,
    Victoriametrics,
    /// Parquet files, for readers that look at the files alone.
    Parquet,
    /// Tables of Delta Lake.
    Delta,
    /// Rows as text on standard output.
    Console,
    /// Rows as NDJSON to any address.
    Http,
}

impl Database {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Influxdb => "influxdb",
            Self::Victoriametrics => "victoriametrics",
            Self::Parquet => "parquet",
            Self::Delta => "delta",
            Self::Console => "console",
            Self::Http => "http",
        }
    }
}

/// `[[sink.outputs]]`: one database with a consumer group of its own, independent of the others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Output {
    /// Part of its consumer group, its metrics and its state; the database's kind unless told.
    pub name: Option<String>,
    pub to: Database,
    pub topics: Vec<String>,
    pub batch_rows: Option<usize>,
    pub batch_wait: Option<Span>,
    pub mapping: Mapping,
    pub sqlite: Sqlite,
    pub influxdb: Influxdb,
    pub victoriametrics: Victoriametrics,
    pub http: Post,
    pub delta: Lake,
    pub parquet: Lake,
}

impl Output {
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.to.name())
    }

    /// Most rows of one batch. A commit of SQLite costs the pages that it touches, one of a lake is a file: both want larger ones than a
    /// request does, unless the settings say otherwise.
    pub fn batch_rows(&self, sink: &Sink) -> usize {
        let usual = match self.to {
            Database::Sqlite | Database::Delta | Database::Parquet => LARGE_BATCH_ROWS,
            _ => BATCH_ROWS,
        };
        self.batch_rows.unwrap_or(if sink.batch_rows == BATCH_ROWS { usual } else { sink.batch_rows })
    }

    /// Longest time that a row waits for its batch to fill.
    pub fn batch_wait(&self, sink: &Sink) -> Span {
        self.batch_wait.unwrap_or(if self.is_lake() { sink.batch_wait.max(Span::from_secs(30)) } else { sink.batch_wait })
    }

    fn is_lake(&self) -> bool {
        matches!(self.to, Database::Delta | Database::Parquet)
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |fine: bool, text: &str| {
            if !fine {
                faults.push(text.to_owned());
            }
        };
        check(crate::topics::check_name(self.name()).is_ok(), "its name may have letters, digits, '.', '_' and '-' only");
        check(self.batch_rows != Some(0), "batch_rows is 0; a batch has at least 1 row");
        check(self.mapping.max_series != Some(0), "mapping.max_series is 0; leave it out for the database's own default");
        let url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        let pair = |cert: &Option<PathBuf>, key: &Option<PathBuf>| cert.is_some() == key.is_some();
        let both = "cert_file and key_file belong together; name both or none";
        let one = |token: &Option<String>, file: &Option<PathBuf>| token.as_deref().is_none_or(str::is_empty) || file.is_none();
        let either = "token and token_file say different things; keep one of them";
        match self.to {
            Database::Influxdb => {
                check(url(&self.influxdb.url), "influxdb.url must begin with http:// or https://");
                check(!self.influxdb.bucket.is_empty(), "influxdb.bucket is missing; name the bucket to write into");
                check(pair(&self.influxdb.cert_file, &self.influxdb.key_file), both);
                check(one(&self.influxdb.token, &self.influxdb.token_file), either);
            }
            Database::Victoriametrics => {
                check(url(&self.victoriametrics.url), "victoriametrics.url must begin with http:// or https://");
                check(pair(&self.victoriametrics.cert_file, &self.victoriametrics.key_file), both);
                check(one(&self.victoriametrics.token, &self.victoriametrics.token_file), either);
            }
            Database::Http => {
                check(url(&self.http.url), "http.url is missing, or does not begin with http:// or https://");
                check(pair(&self.http.cert_file, &self.http.key_file), both);
                check(one(&self.http.token, &self.http.token_file), either);
            }
            Database::Parquet => check(
                self.parquet.mode == LakeMode::Append,
                "parquet.mode is upsert, which leaves replaced files for readers of Delta Lake to skip; write to = \"delta\" for it",
            ),
            Database::Sqlite | Database::Delta | Database::Console => {}
        }
        faults
    }
}

/// `[sink.mapping]`: which column becomes what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// Name of the measurement; `{query}` and `{topic}` stand for theirs. Unset: the query's name, else what follows `iot.agg.` in the
    /// topic's name, else the topic's name.
    pub measurement: Option<String>,
    /// Columns that become tags, instead of the query's grouping columns (in rows without headers: instead of all texts).
    pub tags: Vec<String>,
    /// Columns that become fields, instead of all that are neither tag nor time.
    pub fields: Vec<String>,
    /// The column with the point's time, instead of the window's start.
    pub time_column: Option<String>,
    /// Types of fields by name, over what the registry has learnt.
    pub types: BTreeMap<String, FieldType>,
    /// Most series (measurement and tags) that this output may make; rows of further ones go to the dead lane. Unset: 1,000,000 in
    /// databases that keep an index of series in memory, no limit in the others.
    pub max_series: Option<usize>,
}

/// A field's type in a database that has types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    Float,
    Integer,
    Unsigned,
    Boolean,
    Text,
}

impl FieldType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Unsigned => "unsigned",
            Self::Boolean => "boolean",
            Self::Text => "text",
        }
    }
}

/// `[sink.sqlite]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sqlite {
    pub path: PathBuf,
    /// Points whose window started longer ago than this, *counted back from the newest point* or from now when that lies ahead, are deleted;
    /// unset: kept for ever.
    pub retention: Option<Span>,
}

impl Default for Sqlite {
    fn default() -> Self {
        Self { path: "tidemark.sqlite".into(), retention: None }
    }
}

/// Whether the bodies of requests are compressed: `true`, `false` or `"auto"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gzip {
    /// Unless the database is on this machine: compressing costs both sides more than the loopback does.
    #[default]
    Auto,
    On,
    Off,
}

impl Gzip {
    /// Whether requests to `url` are compressed.
    pub fn is_for(self, url: &str) -> bool {
        match self {
            Self::Auto => !is_loopback(url),
            Self::On => true,
            Self::Off => false,
        }
    }
}

fn is_loopback(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Serialize for Gzip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for Gzip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Gzip;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Gzip, E> {
                Ok(if on { Gzip::On } else { Gzip::Off })
            }

            // The environment has only text.
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Gzip, E> {
                match word {
                    "auto" => Ok(Gzip::Auto),
                    "true" => Ok(Gzip::On),
                    "false" => Ok(Gzip::Off),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Word)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InfluxApi {
    #[default]
    V2,
    V3,
}

/// `[sink.influxdb]`: InfluxDB 2 and what speaks like it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Influxdb {
    pub url: String,
    /// The way it is written: `v2` is taken by InfluxDB 2, by 3 as well and by many others; `v3` is InfluxDB 3's own.
    pub api: InfluxApi,
    pub org: String,
    /// The bucket; a database in InfluxDB 3.
    pub bucket: String,
    /// A token that may write the bucket. Better in a file, which is read again when the database refuses it.
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate (PEM) with its key, for a server that asks for one.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub gzip: Gzip,
    /// Longest time for one request.
    pub timeout: Span,
}

impl Default for Influxdb {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8086".into(),
            api: InfluxApi::V2,
            org: String::new(),
            bucket: String::new(),
            token: None,
            token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            gzip: Gzip::Auto,
            timeout: Span::from_secs(30),
        }
    }
}

/// `[sink.victoriametrics]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Victoriametrics {
    pub url: String,
    /// A bearer token, for a proxy in front of it.
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub gzip: Gzip,
    pub timeout: Span,
}

impl Default for Victoriametrics {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8428".into(),
            token: None,
            token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            gzip: Gzip::Auto,
            timeout: Span::from_secs(30),
        }
    }
}

/// `[sink.http]`: rows as NDJSON by POST.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Post {
    pub url: String,
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub gzip: Gzip,
    pub timeout: Span,
}

impl Default for Post {
    fn default() -> Self {
        Self {
            url: String::new(),
            token: None,
            token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            gzip: Gzip::Off,
            timeout: Span::from_secs(30),
        }
    }
}

// A token must not reach a log by way of `{:?}`.
macro_rules! debug_url_only {
    ($($type:ident),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type)).field("url", &self.url).finish_non_exhaustive()
            }
        }
    )*};
}
debug_url_only!(Influxdb, Victoriametrics, Post);

/// `[sink.delta]`, `[sink.parquet]`: tables of a data lake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lake {
    /// Folder of the tables; each measurement has one below it.
    pub path: PathBuf,
    pub mode: LakeMode,
}

/// What a row does to one of the same identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LakeMode {
    /// Nothing: final rows are appended, a correction is one more row.
    #[default]
    Append,
    /// The row of the larger revision stays: a table holds one row of each identity, the newest.
    Upsert,
}

impl Default for Lake {
    fn default() -> Self {
        Self { path: "tidemark-lake".into(), mode: LakeMode::default() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Gzip;
    use crate::settings::load;

    fn faults(file: &str) -> Vec<String> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        load(Some(path.path()), [], &[]).unwrap_err().0
    }

    #[test]
    fn outputs_are_read_shown_without_secrets_and_found_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.toml");
        let text = "[[sink.outputs]]\nname = 'raw'\nto = 'influxdb'\ntopics = ['iot']\ninfluxdb = { bucket = 'b', token = 'hunter2' }\n
            [[sink.outputs]]\nto = 'sqlite'\nsqlite.path = 'p.sqlite'\nmapping.types = { n = 'integer' }\n";
        std::fs::write(&path, text).unwrap();
        let loaded = load(Some(&path), [], &[]).unwrap();
        let outputs = loaded.settings.sink.all_outputs();
        assert_eq!((outputs[0].name(), outputs[1].name()), ("raw", "sqlite"));
        assert_eq!(outputs[1].sqlite.path, dir.path().join("p.sqlite"));
        assert_eq!(outputs[0].influxdb.token.as_deref(), Some("hunter2"));
        assert!(!loaded.show().contains("hunter2") && !format!("{loaded:?}").contains("hunter2"));
    }

    #[test]
    fn the_environment_names_databases_and_lists_outputs() {
        let environment = [("TIDEMARK_SINK__TO", "influxdb, console"), ("TIDEMARK_SINK__INFLUXDB__BUCKET", "b")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let outputs = load(None, environment, &[]).unwrap().settings.sink.all_outputs();
        assert_eq!(outputs.iter().map(|output| output.name()).collect::<Vec<_>>(), ["influxdb", "console"]);
        let environment = [("TIDEMARK_SINK__OUTPUTS".to_owned(), r#"[{"to":"console","topics":["iot"]}]"#.to_owned())];
        assert_eq!(load(None, environment, &[]).unwrap().settings.sink.all_outputs()[0].topics, ["iot"]);
    }

    #[test]
    fn bodies_are_compressed_unless_the_database_is_here() {
        for (url, compressed) in [
            ("http://127.0.0.1:8086", false),
            ("http://localhost", false),
            ("https://user:pw@LOCALHOST:1/x", false),
            ("http://[::1]:8086/a", false),
            ("http://influxdb:8086", true),
            ("https://localhost.example.org", true),
            ("http://10.0.0.1:8086?at=localhost", true),
            ("http://[fe80::1]", true),
        ] {
            assert_eq!(Gzip::Auto.is_for(url), compressed, "{url}");
            assert!(Gzip::On.is_for(url) && !Gzip::Off.is_for(url));
        }
        let gzip = |text: &str| {
            let environment = [("TIDEMARK_SINK__INFLUXDB__GZIP".to_owned(), text.to_owned())];
            load(None, environment, &[]).map(|loaded| loaded.settings.sink.influxdb.gzip).map_err(|faults| faults.to_string())
        };
        assert_eq!((gzip("auto"), gzip("true"), gzip("false")), (Ok(Gzip::Auto), Ok(Gzip::On), Ok(Gzip::Off)));
        assert!(gzip("yes").unwrap_err().contains("true, false or \"auto\""));
    }

    #[test]
    fn a_list_that_is_no_json_is_one_sentence_without_its_secrets() {
        let fault = |text: &str| {
            let environment = [("TIDEMARK_SINK__OUTPUTS".to_owned(), text.to_owned())];
            load(None, environment, &[]).unwrap_err().0
        };
        let broken = fault(r#"[{"to":"influxdb","influxdb":{"token":"hunter2"}]"#);
        assert!(broken.len() == 1 && broken[0].contains("environment TIDEMARK_SINK__OUTPUTS"), "{broken:?}");
        assert!(broken[0].contains("is no list in JSON") && broken[0].contains("column 49"), "{broken:?}");
        assert!(!broken[0].contains("hunter2"), "{broken:?}");
        let one = fault(r#"{"to":"influxdb","influxdb":{"token":"hunter2"}}"#);
        assert!(one.len() == 1 && one[0].contains("put it into [ ]") && !one[0].contains("hunter2"), "{one:?}");
        let word = fault("influxdb, console");
        assert!(word.len() == 1 && word[0].contains("environment TIDEMARK_SINK__OUTPUTS") && word[0].contains(r#"[{"to""#), "{word:?}");
    }

    #[test]
    fn batches_are_as_large_as_the_database_likes_them_unless_told() {
        let rows = |text: &str| {
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), text).unwrap();
            let sink = load(Some(path.path()), [], &[]).unwrap().settings.sink;
            sink.all_outputs().iter().map(|output| output.batch_rows(&sink)).collect::<Vec<_>>()
        };
        assert_eq!(rows("[sink]\nto = ['sqlite', 'http', 'delta']\nhttp.url = 'http://h'\n"), [12_000, 5_000, 12_000]);
        assert_eq!(rows("[sink]\nbatch_rows = 10\nto = ['sqlite', 'delta']\n"), [10, 10]);
    }

    #[test]
    fn an_appliance_keeps_its_databases_in_its_folder() {
        let environment = [("TIDEMARK_SINK__OUTPUTS".to_owned(), r#"[{"to":"sqlite"},{"name":"b","sqlite":{"path":"/b"}}]"#.to_owned())];
        let mut sink = load(None, environment, &[]).unwrap().settings.sink;
        sink.keep_in(std::path::Path::new("/data"));
        let paths: Vec<_> = sink.all_outputs().into_iter().map(|output| output.sqlite.path).collect();
        assert_eq!(paths, [std::path::PathBuf::from("/data/tidemark.sqlite"), "/b".into()]);
        assert_eq!((sink.state_path, sink.sqlite.path), ("/data/sink".into(), "/data/tidemark.sqlite".into()));
    }

    #[test]
    fn faults_name_the_output() {
        assert!(faults("[[sink.outputs]]\nto = 'sqlite'\nbatch = 1\n")[0].contains("batch"));
        let twice = faults("[[sink.outputs]]\nto = 'console'\n[[sink.outputs]]\nto = 'console'\n");
        assert!(twice[0].contains("two outputs are called 'console'"), "{twice:?}");
        assert!(faults("[sink]\nto = ['influxdb']\n")[0].contains("influxdb.bucket is missing"));
        let half = faults("[sink]\nto = ['victoriametrics']\nvictoriametrics.cert_file = 'c.pem'\n");
        assert!(half[0].contains("cert_file and key_file belong together"), "{half:?}");
        let both = faults("[sink]\nto = ['influxdb']\ninfluxdb = { bucket = 'b', token = 't', token_file = 'f' }\n");
        assert!(both.len() == 1 && both[0].contains("token and token_file"), "{both:?}");
        assert!(faults("[sink]\nto = ['parquet']\nparquet.mode = 'upsert'\n")[0].contains("to = \"delta\""));
        assert!(faults("[sink]\nto = ['oracle']\n")[0].contains("sqlite"));
    }
}
