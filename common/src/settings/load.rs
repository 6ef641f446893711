//! Reads the sources, lays them over each other, and reports every fault at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Source, ValueKind};
use serde_json::Value;

use super::Settings;

const ENV_PREFIX: &str = "TIDEMARK";

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value given on the command line: the key it sets, the flag's name, the value.
#[derive(Debug, Clone)]
pub struct Flag {
    pub key: &'static str,
    pub name: &'static str,
    pub value: Value,
}

/// All that is wrong with the settings, one line each.
#[derive(Debug, thiserror::Error)]
#[error("the settings have {} fault{}:\n  - {}", .0.len(), if .0.len() == 1 { "" } else { "s" }, .0.join("\n  - "))]
pub struct Faults(pub Vec<String>);

/// Settings and, for each key that is not a default, where its value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub settings: Settings,
    pub origins: BTreeMap<String, Origin>,
}

struct Given {
    key: String,
    value: Value,
    origin: Origin,
}

/// Loads the settings: defaults, then `file`, then the environment, then `flags`.
///
/// # Errors
/// [`Faults`] with one line for each unknown key, wrong type, unreadable file and contradiction, over all sources.
pub fn load(file: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>, flags: &[Flag]) -> Result<Loaded, Faults> {
    let defaults = serde_json::to_value(Settings::default()).map_err(|error| Faults(vec![error.to_string()]))?;
    let mut faults = Vec::new();
    let mut given = Vec::new();
    if let Some(path) = file {
        match read_file(path) {
            Ok(values) => given.extend(values),
            Err(fault) => faults.push(fault),
        }
    }
    for one in read_environment(environment, &defaults) {
        match one {
            Ok(one) => given.push(one),
            Err(fault) => faults.push(fault),
        }
    }
    given.extend(flags.iter().map(|flag| Given {
        key: flag.key.to_owned(),
        value: flag.value.clone(),
        origin: Origin::Flag(flag.name.to_owned()),
    }));

    let mut tree = defaults.clone();
    let mut origins = BTreeMap::new();
    for Given { key, value, origin } in given {
        match check_one(&defaults, &key, &value) {
            Ok(()) => {
                set(&mut tree, &key, value);
                origins.insert(key, origin);
            }
            Err(fault) => faults.push(format!("{key} ({origin}): {fault}")),
        }
    }
    let mut settings: Settings = match serde_json::from_value(tree) {
        Ok(settings) => settings,
        Err(error) => {
            faults.push(error.to_string());
            return Err(Faults(faults));
        }
    };
    faults.extend(settings.cross_faults());
    if let Some(path) = settings.kafka.sasl_password_file.clone() {
        match read_secret(&path) {
            Ok(secret) => settings.kafka.sasl_password = Some(secret),
            Err(error) => faults.push(format!("kafka.sasl_password_file: cannot read {}: {error}", path.display())),
        }
    }
    if faults.is_empty() { Ok(Loaded { settings, origins }) } else { Err(Faults(faults)) }
}

fn read_secret(path: &Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?.lines().next().unwrap_or_default().to_owned())
}

fn read_file(path: &Path) -> Result<Vec<Given>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read the settings file {}: {error}", path.display()))?;
    let values =
        config::File::from_str(&text, config::FileFormat::Toml).collect().map_err(|error| format!("{}: {error}", path.display()))?;
    let mut leaves = Vec::new();
    for (key, value) in values {
        flatten(key, value.kind, &mut leaves);
    }
    leaves.sort_by(|a, b| a.0.cmp(&b.0));
    // Relative paths in a file are relative to the file's folder, as in query files.
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(leaves
        .into_iter()
        .map(|(key, value)| Given { value: rebase(&key, value, folder), key, origin: Origin::File(path.to_owned()) })
        .collect())
}

/// Keys whose values are paths.
fn is_path(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    key.ends_with("_file") || matches!(last, "data_dir" | "path" | "files" | "queries")
}

fn rebase(key: &str, value: Value, folder: &Path) -> Value {
    match value {
        Value::String(text) if is_path(key) => Value::String(folder.join(text).to_string_lossy().into_owned()),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| rebase(key, item, folder)).collect()),
        // A table within a list, such as one of `[[sink.outputs]]`.
        Value::Object(map) => map.into_iter().map(|(name, value)| (name.clone(), rebase(&name, value, folder))).collect(),
        other => other,
    }
}

fn flatten(key: String, kind: ValueKind, leaves: &mut Vec<(String, Value)>) {
    match kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                flatten(format!("{key}.{name}"), value.kind, leaves);
            }
        }
        other => leaves.push((key, to_json(other))),
    }
}

fn to_json(kind: ValueKind) -> Value {
    match kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(value) => value.into(),
        ValueKind::I64(value) => value.into(),
        ValueKind::I128(value) => value.to_string().into(),
        ValueKind::U64(value) => value.into(),
        ValueKind::U128(value) => value.to_string().into(),
        ValueKind::Float(value) => value.into(),
        ValueKind::String(value) => value.into(),
        ValueKind::Array(items) => Value::Array(items.into_iter().map(|item| to_json(item.kind)).collect()),
        ValueKind::Table(table) => table.into_iter().map(|(name, value)| (name, to_json(value.kind))).collect(),
    }
}

/// `TIDEMARK_KAFKA__BOOTSTRAP_SERVERS` sets `kafka.bootstrap_servers`. `TIDEMARK_CONFIG` names the file and is read by the flags.
fn read_environment(environment: impl IntoIterator<Item = (String, String)>, defaults: &Value) -> Vec<Result<Given, String>> {
    let mut given: Vec<(String, String, String)> = environment
        .into_iter()
        .filter_map(|(name, text)| {
            let key = name.strip_prefix(ENV_PREFIX)?.strip_prefix('_')?;
            let key = key.to_ascii_lowercase().replace("__", ".");
            (key != "config").then_some((key, name, text))
        })
        .collect();
    given.sort();
    let read = |(key, name, text): (String, String, String)| {
        let origin = Origin::Environment(name);
        match from_text(&text, &key, lookup(defaults, &key)) {
            Ok(value) => Ok(Given { key, value, origin }),
            Err(fault) => Err(format!("{key} ({origin}): {fault}")),
        }
    };
    given.into_iter().map(read).collect()
}

/// The environment has only text: the key's default says whether it means a number, a list or text.
///
/// # Errors
/// When a list is no JSON; what stands in it may be secret and is not repeated.
fn from_text(text: &str, key: &str, default: Option<&Value>) -> Result<Value, String> {
    let parsed = || serde_json::from_str::<Value>(text).ok();
    Ok(match default {
        // A list of tables has no other spelling here.
        Some(Value::Array(_)) if text.trim_start().starts_with(['[', '{']) => match serde_json::from_str(text) {
            Ok(list @ Value::Array(_)) => list,
            Ok(_) => return Err("is one table in JSON and not a list; put it into [ ]".into()),
            Err(error) => return Err(format!("is no list in JSON ({error}); look there for a comma, a quote or a bracket")),
        },
        // Its items are tables, for which a list of words has no place.
        Some(Value::Array(_)) if key == "sink.outputs" && !text.trim().is_empty() => {
            return Err(r#"is no list in JSON; write one such as [{"to":"console","topics":["iot"]}]"#.into());
        }
        Some(Value::Array(_)) => text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect(),
        Some(Value::Number(_) | Value::Bool(_)) => parsed().unwrap_or_else(|| text.into()),
        // An unset option shows no type; only these are numbers.
        Some(Value::Null) if matches!(key.rsplit('.').next(), Some("count" | "max_series")) => parsed().unwrap_or_else(|| text.into()),
        _ => text.into(),
    })
}

fn lookup<'a>(tree: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(tree, |node, name| node.get(name))
}

/// A value is fine when its key exists and the defaults with just this value changed are valid settings.
fn check_one(defaults: &Value, key: &str, value: &Value) -> Result<(), String> {
    match lookup(defaults, key) {
        None if in_free_map(defaults, key) => {}
        None => return Err(unknown(defaults, key)),
        Some(Value::Object(map)) if !map.is_empty() => return Err("is a section, not a value".into()),
        Some(_) => {}
    }
    let mut tree = defaults.clone();
    set(&mut tree, key, value.clone());
    serde_json::from_value::<Settings>(tree).map(drop).map_err(|error| error.to_string())
}

/// `kafka.properties.*` takes any name: a default that is an empty table.
fn in_free_map(defaults: &Value, key: &str) -> bool {
    let mut node = defaults;
    for name in key.split('.') {
        match node.get(name) {
            Some(next) => node = next,
            None => return node.as_object().is_some_and(serde_json::Map::is_empty),
        }
    }
    false
}

fn unknown(defaults: &Value, key: &str) -> String {
    let mut keys = Vec::new();
    all_keys(defaults, String::new(), &mut keys);
    let last = key.rsplit('.').next().unwrap_or(key);
    match keys.iter().find(|known| known.rsplit('.').next() == Some(last)) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => "unknown key; `config show` lists those that exist".into(),
    }
}

fn all_keys(node: &Value, key: String, keys: &mut Vec<String>) {
    match node {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                all_keys(value, if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, keys);
            }
        }
        _ => keys.push(key),
    }
}

fn set(tree: &mut Value, key: &str, value: Value) {
    // A key inside `kafka.properties` may have dots of its own: the rest of the key is one name there.
    let mut node = tree;
    let mut rest = key;
    loop {
        let Value::Object(map) = node else { return };
        let (name, tail) = rest.split_once('.').unwrap_or((rest, ""));
        if tail.is_empty() || !map.contains_key(name) {
            map.insert(rest.to_owned(), value);
            return;
        }
        node = &mut map[name];
        rest = tail;
    }
}

impl Loaded {
    /// One line a key: `key = value   # origin`. Secrets are masked.
    pub fn show(&self) -> String {
        let tree = serde_json::to_value(&self.settings).unwrap_or_default();
        let mut keys = Vec::new();
        all_keys(&tree, String::new(), &mut keys);
        let line = |key: &String| {
            let value = lookup(&tree, key).unwrap_or(&Value::Null);
            let shown = match value {
                Value::Null => "(unset)".to_owned(),
                _ if is_secret(key) => MASK.to_owned(),
                value => masked(value.clone()).to_string(),
            };
            let origin = self.origins.get(key).unwrap_or(&Origin::Default);
            format!("{key} = {shown}   # {origin}\n")
        };
        keys.iter().map(line).collect()
    }
}

const MASK: &str = "\"********\"";

/// Hides the secrets of tables within a list.
fn masked(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(masked).collect(),
        Value::Object(map) => {
            let mask = |(name, value): (String, Value)| {
                let hidden = is_secret(&name) && !value.is_null();
                (name, if hidden { MASK.trim_matches('"').into() } else { masked(value) })
            };
            map.into_iter().map(mask).collect()
        }
        other => other,
    }
}

fn is_secret(key: &str) -> bool {
    ["password", "token", "secret"].iter().any(|word| key.ends_with(word))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let file = file("[kafka]\nbootstrap_servers = 'file:1'\nclient_id = 'file'\n[topics]\npartitions = 3\n");
        let environment = env(&[("TIDEMARK_KAFKA__BOOTSTRAP_SERVERS", "env:1"), ("TIDEMARK_KAFKA__CLIENT_ID", "env"), ("OTHER", "x")]);
        let flags = [Flag { key: "kafka.bootstrap_servers", name: "--bootstrap-servers", value: "flag:1".into() }];
        let loaded = load(Some(file.path()), environment, &flags).unwrap();
        assert_eq!(loaded.settings.kafka.bootstrap_servers, "flag:1");
        assert_eq!(loaded.settings.kafka.client_id, "env");
        assert_eq!(loaded.settings.topics.partitions, 3);
        assert_eq!(loaded.settings.topics.late, "iot.late");
        assert_eq!(loaded.origins["kafka.client_id"], Origin::Environment("TIDEMARK_KAFKA__CLIENT_ID".into()));
    }

    #[test]
    fn all_faults_come_together() {
        let file =
            file("[kafka]\nbootstrap_server = 'x'\n[topics]\npartitions = 'two'\n[processor]\nsession_timeout = 30\n[nonsense]\na = 1\n");
        let Faults(faults) = load(Some(file.path()), env(&[("TIDEMARK_SINK__BATCH_ROWS", "0")]), &[]).unwrap_err();
        for part in ["kafka.bootstrap_server", "topics.partitions", "processor.session_timeout", "nonsense.a", "sink.batch_rows"] {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part} in {faults:#?}");
        }
        assert_eq!(faults.len(), 5, "{faults:#?}");
    }

    #[test]
    fn environment_text_takes_the_type_of_its_key() {
        let pairs = [
            ("TIDEMARK_PRODUCER__SIMULATOR__RATE", "2.5"),
            ("TIDEMARK_PRODUCER__SIMULATOR__COUNT", "7"),
            ("TIDEMARK_KAFKA__CLIENT_ID", "007"),
            ("TIDEMARK_PROCESSOR__QUERIES", "a.toml, b.toml"),
        ];
        let settings = load(None, env(&pairs), &[]).unwrap().settings;
        assert_eq!(settings.producer.simulator.rate, 2.5);
        assert_eq!(settings.producer.simulator.count, Some(7));
        assert_eq!(settings.kafka.client_id, "007");
        assert_eq!(settings.processor.queries, [PathBuf::from("a.toml"), PathBuf::from("b.toml")]);
    }

    #[test]
    fn librdkafka_properties_keep_their_dots() {
        let file = file("[kafka.properties]\n'socket.keepalive.enable' = 'true'\n");
        let settings = load(Some(file.path()), [], &[]).unwrap().settings;
        assert_eq!(settings.kafka.properties["socket.keepalive.enable"], "true");
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_never_shown() {
        let secret = file("hunter2\n");
        let environment = env(&[("TIDEMARK_KAFKA__SASL_PASSWORD_FILE", secret.path().to_str().unwrap())]);
        let loaded = load(None, environment, &[]).unwrap();
        assert_eq!(loaded.settings.kafka.sasl_password.as_deref(), Some("hunter2"));
        assert!(!loaded.show().contains("hunter2"));
        assert!(!format!("{loaded:?}").contains("hunter2"));
    }

    #[test]
    fn an_external_listener_needs_users_and_says_what_it_encrypts() {
        let file = file("[broker.external]\nlisten = '0.0.0.0:9094'\nadvertised = 'gateway'\n");
        let Faults(faults) = load(Some(file.path()), [], &[]).unwrap_err();
        for part in ["users_file", "plaintext = true", "host:port"] {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part} in {faults:#?}");
        }
    }

    #[test]
    fn paths_in_a_file_are_relative_to_the_file() {
        let file = file("[processor]\nqueries = ['q.toml']\n[appliance]\ndata_dir = '/abs'\n");
        let settings = load(Some(file.path()), [], &[]).unwrap().settings;
        assert_eq!(settings.processor.queries, [file.path().parent().unwrap().join("q.toml")]);
        assert_eq!(settings.appliance.data_dir, Some(PathBuf::from("/abs")));
    }
}
