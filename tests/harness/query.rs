use std::path::{Path, PathBuf};

/// A query file, the default query of the README unless something is changed.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) watermark: String,
    pub(crate) window: String,
    /// The column that is grouped by, beside the window.
    pub(crate) key: String,
    /// After `trigger =`; empty: no trigger.
    pub(crate) trigger: String,
    /// Between `FROM iot` and `GROUP BY`.
    pub(crate) filter: String,
    /// After `GROUP BY`.
    pub(crate) having: String,
    pub(crate) idle_timeout: String,
    /// More lines of `[source]`.
    pub(crate) source: String,
    /// More columns of the schema, each after a comma.
    pub(crate) columns: String,
    /// By how many shards the groups are merged; 0: by who reads the input.
    pub(crate) repartition: u32,
}

impl Query {
    pub(crate) fn new(name: &str, window: &str) -> Self {
        Self {
            name: name.into(),
            watermark: "5 seconds".into(),
            window: window.into(),
            key: "sensor_id".into(),
            trigger: "\"available_now\"".into(),
            filter: String::new(),
            having: String::new(),
            idle_timeout: "30 seconds".into(),
            source: String::new(),
            columns: String::new(),
            repartition: 0,
        }
    }

    pub(crate) fn trigger(mut self, trigger: &str) -> Self {
        self.trigger = trigger.into();
        self
    }

    pub(crate) fn key(mut self, key: &str) -> Self {
        self.key = key.into();
        self
    }

    pub(crate) fn watermark(mut self, watermark: &str) -> Self {
        self.watermark = watermark.into();
        self
    }

    pub(crate) fn filter(mut self, filter: &str) -> Self {
        self.filter = filter.into();
        self
    }

    pub(crate) fn having(mut self, having: &str) -> Self {
        self.having = having.into();
        self
    }

    pub(crate) fn idle_timeout(mut self, timeout: &str) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    pub(crate) fn source(mut self, lines: &str) -> Self {
        self.source = lines.into();
        self
    }

    /// More columns in the schema, each after a comma.
    pub(crate) fn columns(mut self, columns: &str) -> Self {
        self.columns = columns.into();
        self
    }

    pub(crate) fn repartition(mut self, merges: u32) -> Self {
        self.repartition = merges;
        self
    }

    /// Where the results go.
    pub(crate) fn topic(&self) -> String {
        format!("iot.agg.{}", self.name)
    }

    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        let Self { name, watermark, window, key, trigger, filter, having, idle_timeout, source, columns, repartition } = self;
        let topic = self.topic();
        let trigger = if trigger.is_empty() { String::new() } else { format!("trigger = {trigger}") };
        let repartition = if *repartition > 0 { format!("repartition = {repartition}") } else { String::new() };
        let text = format!(
            r#"name = "{name}"
[source]
format = "kafka"
topic = "iot"
schema = "sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING, seq BIGINT{columns}"
event_time = "ts"
watermark = "{watermark}"
idle_timeout = "{idle_timeout}"
{source}
[query]
sql = """SELECT window.start AS window_start, window.end AS window_end, {key},
                count(*) AS n, avg(value) AS avg, min(value) AS min, max(value) AS max
         FROM iot {filter} GROUP BY window(ts, '{window}'), {key} {having}"""
output_mode = "update"
{trigger}
{repartition}
[sink]
format = "kafka"
topic = "{topic}"
"#
        );
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        path
    }
}
