use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Before the names of Spark's result topics.
pub(crate) const SPARK: &str = "spark.";

/// The columns of the readings, as in the query file.
const SCHEMA: &str = "sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING, seq BIGINT, n INT, n2 INT, small INT, flag BOOLEAN, \
                      price DECIMAL(10,2), note STRING, f FLOAT, at TIMESTAMP, day DATE";
const ALL: &str = "sensor_id, ts, value, kind, seq, n, n2, small, flag, price, note, f, at, day";

/// Metadata for some of the sensors; the schema leaves the column `floor` out.
const ROOMS: &str = "sensor,floor,room,offset\ns-0,0,hall,0.5\ns-1,0,hall,-0.25\ns-2,1,roof,1\ns-5,1,roof,\n";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    sql: Option<String>,
    row: Option<BTreeMap<String, String>>,
    agg: Option<BTreeMap<String, String>>,
    each: Option<BTreeMap<String, String>>,
    /// The result columns that tell rows apart.
    #[serde(default)]
    key: Vec<String>,
    #[serde(default = "update")]
    pub(crate) mode: String,
    /// Further lines of the query file's table `source`.
    #[serde(default)]
    source: String,
    #[serde(default)]
    pub(crate) stream: bool,
    pub(crate) awaits: Option<String>,
    #[serde(default)]
    close: Vec<String>,
    #[serde(default)]
    lists: Vec<String>,
    /// Columns that differ on purpose, and the words of docs/divergences.md about it.
    #[serde(default)]
    pub(crate) differs: BTreeMap<String, String>,
}

fn update() -> String {
    "update".into()
}

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

/// The cases of `TIDEMARK_TEST_CASES=FILE`, or those of the project.
pub(crate) fn all() -> Vec<Case> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compared/cases.toml");
    let path = std::env::var_os("TIDEMARK_TEST_CASES").map_or(own, PathBuf::from);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases: Cases = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    cases.case
}

impl Case {
    pub(crate) fn topic(&self) -> String {
        format!("iot.agg.{}", self.name)
    }

    pub(crate) fn spark_topic(&self) -> String {
        format!("{SPARK}{}", self.topic())
    }

    pub(crate) fn keys(&self) -> Vec<&str> {
        match (&self.row, &self.agg, &self.each) {
            (Some(_), ..) => vec!["seq"],
            (_, Some(_), _) => vec!["window_start", "kind"],
            (.., Some(_)) => vec!["window_start", "sensor_id", "kind"],
            _ => self.key.iter().map(String::as_str).collect(),
        }
    }

    pub(crate) fn is_close(&self, column: &str) -> bool {
        has(&self.close, column)
    }

    pub(crate) fn is_list(&self, column: &str) -> bool {
        has(&self.lists, column)
    }

    fn sql(&self) -> String {
        let listed = |columns: &BTreeMap<String, String>| {
            columns.iter().map(|(name, expr)| format!("{expr} AS `{name}`")).collect::<Vec<_>>().join(",\n       ")
        };
        match (&self.sql, &self.row, &self.agg, &self.each) {
            (Some(sql), ..) => sql.clone(),
            (_, Some(row), ..) => format!("SELECT seq, {}\nFROM iot GROUP BY window(ts, '1 hour'), {ALL}", listed(row)),
            (.., Some(agg), _) => {
                format!("SELECT window.start AS window_start, kind, {}\nFROM iot GROUP BY window(ts, '1 minute'), kind", listed(agg))
            }
            (.., Some(each)) => format!(
                "SELECT window.start AS window_start, sensor_id, kind, {}\nFROM iot GROUP BY window(ts, '1 minute'), sensor_id, kind",
                listed(each)
            ),
            _ => panic!("the case {} has no query", self.name),
        }
    }

    /// The query file, the same for both.
    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        let (name, mode, source, sql) = (&self.name, &self.mode, &self.source, self.sql());
        let mut text = format!(
            "name = \"{name}\"\n[source]\ntopic = \"iot\"\nschema = \"{SCHEMA}\"\nevent_time = \"ts\"\nwatermark = \"2 minutes\"\n{source}\n\
             [query]\nsql = '''{sql}'''\noutput_mode = \"{mode}\"\ntrigger = \"available_now\"\n"
        );
        if sql.contains(" rooms ") {
            text += "[[lookup]]\nname = \"rooms\"\npath = \"rooms.csv\"\nschema = \"sensor STRING, room STRING, offset DOUBLE\"\n";
            std::fs::write(dir.join("rooms.csv"), ROOMS).unwrap();
        }
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn has(names: &[String], column: &str) -> bool {
    names.iter().any(|name| name == "*" || name == column)
}
