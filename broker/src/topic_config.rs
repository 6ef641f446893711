//! A topic's own settings: kept as given, checked once, read as numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Smaller segments would only make files; Kafka allows 14 bytes.
const MIN_SEGMENT: i64 = 1024;

/// How a setting's value reads: decides what is checked, and what DescribeConfigs calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Boolean = 1,
    Str = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Every topic setting that is taken: name, type, Kafka's default, least value of a number.
const KNOWN: &[(&str, Type, &str, i64)] = &[
    ("cleanup.policy", Type::List, "delete", 0),
    ("compression.type", Type::Str, "producer", 0),
    ("delete.retention.ms", Type::Long, "86400000", 0),
    ("file.delete.delay.ms", Type::Long, "60000", 0),
    ("flush.messages", Type::Long, "9223372036854775807", 1),
    ("flush.ms", Type::Long, "9223372036854775807", 0),
    ("index.interval.bytes", Type::Int, "4096", 0),
    ("max.compaction.lag.ms", Type::Long, "9223372036854775807", 1),
    ("max.message.bytes", Type::Int, "1048588", 0),
    ("message.timestamp.after.max.ms", Type::Long, "9223372036854775807", 0),
    ("message.timestamp.before.max.ms", Type::Long, "9223372036854775807", 0),
    ("message.timestamp.type", Type::Str, "CreateTime", 0),
    ("min.cleanable.dirty.ratio", Type::Double, "0.5", 0),
    ("min.compaction.lag.ms", Type::Long, "0", 0),
    ("min.insync.replicas", Type::Int, "1", 1),
    ("preallocate", Type::Boolean, "false", 0),
    ("retention.bytes", Type::Long, "-1", -1),
    ("retention.ms", Type::Long, "604800000", -1),
    ("segment.bytes", Type::Int, "1073741824", MIN_SEGMENT),
    ("segment.index.bytes", Type::Int, "10485760", 4),
    ("segment.jitter.ms", Type::Long, "0", 0),
    ("segment.ms", Type::Long, "604800000", 1),
    ("unclean.leader.election.enable", Type::Boolean, "false", 0),
];

/// A setting as DescribeConfigs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    /// What it would be if the topic had not been given it.
    pub(crate) default: String,
    pub(crate) given: bool,
    pub(crate) kind: Type,
}

/// The settings of one topic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicConfig {
    given: BTreeMap<String, String>,
    retention_ms: i64,
    retention_bytes: i64,
    max_message_bytes: i64,
    segment_bytes: i64,
    default_segment_bytes: i64,
    pub(crate) segment_ms: i64,
    pub(crate) deletes: bool,
    pub(crate) compacts: bool,
    pub(crate) log_append_time: bool,
    pub(crate) delete_retention_ms: i64,
    pub(crate) min_compaction_lag_ms: i64,
    pub(crate) max_compaction_lag_ms: i64,
    pub(crate) dirty_ratio: f64,
    pub(crate) after_max_ms: i64,
    pub(crate) before_max_ms: i64,
}

impl TopicConfig {
    /// Checks the given settings; `segment_bytes` is the broker's default.
    ///
    /// # Errors
    /// A sentence about the first setting that is unknown or impossible.
    pub(crate) fn new(given: BTreeMap<String, String>, segment_bytes: u64) -> Result<Self, String> {
        for (name, value) in &given {
            check(name, value)?;
        }
        let default_segment_bytes = i64::try_from(segment_bytes).unwrap_or(i64::MAX);
        let text = |name: &str| given.get(name).map_or_else(|| default_of(name), |value| value.trim());
        let number = |name: &str| text(name).parse().unwrap_or_default();
        let policy = |name: &str| text("cleanup.policy").split(',').any(|part| part.trim() == name);
        Ok(Self {
            retention_ms: number("retention.ms"),
            retention_bytes: number("retention.bytes"),
            max_message_bytes: number("max.message.bytes"),
            segment_bytes: if given.contains_key("segment.bytes") { number("segment.bytes") } else { default_segment_bytes },
            default_segment_bytes,
            segment_ms: number("segment.ms"),
            deletes: policy("delete"),
            compacts: policy("compact"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            delete_retention_ms: number("delete.retention.ms"),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            max_compaction_lag_ms: number("max.compaction.lag.ms"),
            dirty_ratio: text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            after_max_ms: number("message.timestamp.after.max.ms"),
            before_max_ms: number("message.timestamp.before.max.ms"),
            given,
        })
    }

    /// The same topic with other settings given.
    ///
    /// # Errors
    /// As [`TopicConfig::new`].
    pub(crate) fn with_given(&self, given: BTreeMap<String, String>) -> Result<Self, String> {
        Self::new(given, self.default_segment_bytes.unsigned_abs())
    }

    pub(crate) fn given(&self) -> &BTreeMap<String, String> {
        &self.given
    }

    /// All settings, by name.
    pub(crate) fn described(&self) -> Vec<Described> {
        let one = |(name, kind, default, _): &(&'static str, Type, &'static str, i64)| {
            let default = if *name == "segment.bytes" { self.default_segment_bytes.to_string() } else { (*default).to_owned() };
            let given = self.given.get(*name);
            Described { name, value: given.unwrap_or(&default).clone(), given: given.is_some(), default, kind: *kind }
        };
        KNOWN.iter().map(one).collect()
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

/// Kafka's default of a topic setting; empty for one that does not exist.
pub(crate) fn default_of(name: &str) -> &'static str {
    KNOWN.iter().find(|known| known.0 == name).map_or("", |known| known.2)
}

/// Whether a setting is a list, to which IncrementalAlterConfigs can append.
pub(crate) fn is_list(name: &str) -> bool {
    KNOWN.iter().any(|known| known.0 == name && known.1 == Type::List)
}

fn check(name: &str, value: &str) -> Result<(), String> {
    let Some((_, kind, _, least)) = KNOWN.iter().find(|known| known.0 == name) else {
        return Err(format!("unknown topic setting '{name}'"));
    };
    let value = value.trim();
    match name {
        "cleanup.policy" if !value.split(',').map(str::trim).all(|part| matches!(part, "delete" | "compact")) => {
            return Err(format!("cleanup.policy must be delete, compact or both, not '{value}'"));
        }
        "message.timestamp.type" if !matches!(value, "CreateTime" | "LogAppendTime") => {
            return Err(format!("message.timestamp.type must be CreateTime or LogAppendTime, not '{value}'"));
        }
        "compression.type" if value != "producer" => {
            return Err("compression.type can only be producer here: batches are kept as they come".to_owned());
        }
        "min.cleanable.dirty.ratio" if !value.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio)) => {
            return Err(format!("min.cleanable.dirty.ratio must be a number between 0 and 1, not '{value}'"));
        }
        "min.insync.replicas" if value != "1" => {
            return Err("min.insync.replicas can only be 1 here: this is one node".to_owned());
        }
        _ => {}
    }
    let most = if *kind == Type::Int { i64::from(i32::MAX) } else { i64::MAX };
    let fine = match kind {
        Type::Boolean => matches!(value, "true" | "false"),
        Type::Int | Type::Long => value.parse().is_ok_and(|number: i64| (*least..=most).contains(&number)),
        Type::Str | Type::Double | Type::List => true,
    };
    match kind {
        _ if fine => Ok(()),
        Type::Boolean => Err(format!("{name} must be true or false, not '{value}'")),
        _ => Err(format!("{name} must be a whole number of at least {least}, not '{value}'")),
    }
}

/// The present settings of a topic, shared with its partitions, which see a change at once.
#[derive(Debug, Clone)]
pub(crate) struct LiveConfig(Arc<RwLock<Arc<TopicConfig>>>);

impl LiveConfig {
    pub(crate) fn new(config: TopicConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    pub(crate) fn get(&self) -> Arc<TopicConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, config: TopicConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
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
        assert!(!config("cleanup.policy", "compact").unwrap().deletes);
        let both = config("cleanup.policy", "compact, delete").unwrap();
        assert!(both.deletes && both.compacts);
        assert!(config("message.timestamp.type", "LogAppendTime").unwrap().log_append_time);
        let wrong = [
            ("retention.ms", "soon"),
            ("segment.bytes", "1"),
            ("segment.bytes", "99999999999"),
            ("cleanup.policy", "burn"),
            ("preallocate", "maybe"),
            ("min.cleanable.dirty.ratio", "2"),
            ("x", "1"),
        ];
        for (name, value) in wrong {
            assert!(config(name, value).is_err(), "{name}={value}");
        }
        let described = config("segment.bytes", "2048").unwrap().described();
        let of = |name: &str| described.iter().find(|one| one.name == name).unwrap();
        assert_eq!((of("segment.bytes").value.as_str(), of("segment.bytes").default.as_str()), ("2048", "1048576"));
        assert!(of("segment.bytes").given && !of("retention.bytes").given);
    }

    #[test]
    fn every_default_is_a_value_that_would_be_taken() {
        for (name, _, default, _) in KNOWN {
            config(name, default).unwrap();
        }
    }
}
