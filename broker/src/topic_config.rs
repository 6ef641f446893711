//! A topic's own settings: kept as given, checked once, read as numbers.

use std::collections::BTreeMap;

/// Kafka's default for `retention.ms`: seven days.
const DEFAULT_RETENTION_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// Kafka's default for `max.message.bytes`.
const DEFAULT_MAX_MESSAGE: i64 = 1_048_588;
/// Smaller segments would only make files; Kafka allows 14 bytes.
const MIN_SEGMENT: i64 = 1024;

/// Topic settings of Kafka that are kept and shown, and change nothing on one node.
const KEPT: &[&str] = &[
    "compression.type",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "index.interval.bytes",
    "max.compaction.lag.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.difference.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "retention.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

/// The settings of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicConfig {
    given: BTreeMap<String, String>,
    retention_ms: i64,
    retention_bytes: i64,
    max_message_bytes: i64,
    segment_bytes: i64,
    cleanup: String,
}

impl TopicConfig {
    /// Checks the given settings; `segment_bytes` is the broker's default.
    ///
    /// # Errors
    /// A sentence about the first setting that is unknown or impossible.
    pub(crate) fn new(given: BTreeMap<String, String>, segment_bytes: u64) -> Result<Self, String> {
        let mut config = Self {
            given: BTreeMap::new(),
            retention_ms: DEFAULT_RETENTION_MS,
            retention_bytes: -1,
            max_message_bytes: DEFAULT_MAX_MESSAGE,
            segment_bytes: i64::try_from(segment_bytes).unwrap_or(i64::MAX),
            cleanup: "delete".to_owned(),
        };
        for (name, value) in &given {
            config.set(name, value)?;
        }
        config.given = given;
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "retention.ms" => self.retention_ms = number(name, value, -1)?,
            "retention.bytes" => self.retention_bytes = number(name, value, -1)?,
            "max.message.bytes" => self.max_message_bytes = number(name, value, 0)?,
            "segment.bytes" => self.segment_bytes = number(name, value, MIN_SEGMENT)?,
            "cleanup.policy" => {
                let known = value.split(',').map(str::trim).all(|part| matches!(part, "delete" | "compact"));
                if !known {
                    return Err(format!("cleanup.policy must be delete, compact or both, not '{value}'"));
                }
                self.cleanup = value.to_owned();
            }
            "message.timestamp.type" if value != "CreateTime" => {
                return Err("message.timestamp.type can only be CreateTime here".to_owned());
            }
            "compression.type" if value != "producer" => {
                return Err("compression.type can only be producer here: batches are kept as they come".to_owned());
            }
            name if KEPT.contains(&name) => {}
            name => return Err(format!("unknown topic setting '{name}'")),
        }
        Ok(())
    }

    pub(crate) fn given(&self) -> &BTreeMap<String, String> {
        &self.given
    }

    /// Name, value, and whether the topic was given it, of all settings that mean something here.
    pub(crate) fn described(&self) -> Vec<(String, String, bool)> {
        let mut all: BTreeMap<String, (String, bool)> = BTreeMap::from([
            ("cleanup.policy".to_owned(), (self.cleanup.clone(), false)),
            ("compression.type".to_owned(), ("producer".to_owned(), false)),
            ("max.message.bytes".to_owned(), (self.max_message_bytes.to_string(), false)),
            ("message.timestamp.type".to_owned(), ("CreateTime".to_owned(), false)),
            ("min.insync.replicas".to_owned(), ("1".to_owned(), false)),
            ("retention.bytes".to_owned(), (self.retention_bytes.to_string(), false)),
            ("retention.ms".to_owned(), (self.retention_ms.to_string(), false)),
            ("segment.bytes".to_owned(), (self.segment_bytes.to_string(), false)),
        ]);
        all.extend(self.given.iter().map(|(name, value)| (name.clone(), (value.clone(), true))));
        all.into_iter().map(|(name, (value, given))| (name, value, given)).collect()
    }

    /// Whether old segments are deleted at all.
    pub(crate) fn deletes(&self) -> bool {
        self.cleanup.contains("delete")
    }

    /// Milliseconds that records are kept; `None` without end.
    pub(crate) fn retention_ms(&self) -> Option<i64> {
        (self.retention_ms >= 0).then_some(self.retention_ms)
    }

    /// Bytes that a partition keeps; `None` without end.
    pub(crate) fn retention_bytes(&self) -> Option<u64> {
        u64::try_from(self.retention_bytes).ok()
    }

    pub(crate) fn max_message_bytes(&self) -> usize {
        usize::try_from(self.max_message_bytes).unwrap_or(usize::MAX)
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.unsigned_abs()
    }
}

fn number(name: &str, value: &str, least: i64) -> Result<i64, String> {
    value
        .trim()
        .parse()
        .ok()
        .filter(|number| *number >= least)
        .ok_or_else(|| format!("{name} must be a whole number of at least {least}, not '{value}'"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn config(name: &str, value: &str) -> Result<TopicConfig, String> {
        TopicConfig::new(BTreeMap::from([(name.to_owned(), value.to_owned())]), 1 << 20)
    }

    #[test]
    fn settings_are_checked_and_kept() {
        assert_eq!(config("retention.ms", "-1").unwrap().retention_ms(), None);
        assert_eq!(config("retention.bytes", "5").unwrap().retention_bytes(), Some(5));
        assert!(!config("cleanup.policy", "compact").unwrap().deletes());
        assert!(config("cleanup.policy", "compact, delete").unwrap().deletes());
        for (name, value) in [("retention.ms", "soon"), ("segment.bytes", "1"), ("cleanup.policy", "burn"), ("x", "1")] {
            assert!(config(name, value).is_err(), "{name}={value}");
        }
        let described = config("segment.bytes", "2048").unwrap().described();
        assert!(described.contains(&("segment.bytes".into(), "2048".into(), true)));
        assert!(described.contains(&("retention.bytes".into(), "-1".into(), false)));
    }
}
