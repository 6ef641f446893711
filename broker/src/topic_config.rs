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

/// Every topic setting that is taken: name, type, Kafka's default, least value of a number, and the broker's setting that the default
/// comes from in Kafka.
const KNOWN: &[(&str, Type, &str, i64, &str)] = &[
    ("cleanup.policy", Type::List, "delete", 0, "log.cleanup.policy"),
    ("compression.gzip.level", Type::Int, "-1", -1, "compression.gzip.level"),
    ("compression.lz4.level", Type::Int, "9", 1, "compression.lz4.level"),
    ("compression.type", Type::Str, "producer", 0, "compression.type"),
    ("compression.zstd.level", Type::Int, "3", -131072, "compression.zstd.level"),
    ("delete.retention.ms", Type::Long, "86400000", 0, "log.cleaner.delete.retention.ms"),
    ("file.delete.delay.ms", Type::Long, "60000", 0, "log.segment.delete.delay.ms"),
    ("flush.messages", Type::Long, "9223372036854775807", 1, "log.flush.interval.messages"),
    ("flush.ms", Type::Long, "9223372036854775807", 0, ""),
    ("follower.replication.throttled.replicas", Type::List, "", 0, ""),
    ("index.interval.bytes", Type::Int, "4096", 0, "log.index.interval.bytes"),
    ("leader.replication.throttled.replicas", Type::List, "", 0, ""),
    ("local.retention.bytes", Type::Long, "-2", -2, "log.local.retention.bytes"),
    ("local.retention.ms", Type::Long, "-2", -2, "log.local.retention.ms"),
    ("max.compaction.lag.ms", Type::Long, "9223372036854775807", 1, "log.cleaner.max.compaction.lag.ms"),
    ("max.message.bytes", Type::Int, "1048588", 0, "message.max.bytes"),
    ("message.timestamp.after.max.ms", Type::Long, "3600000", 0, "log.message.timestamp.after.max.ms"),
    ("message.timestamp.before.max.ms", Type::Long, "9223372036854775807", 0, "log.message.timestamp.before.max.ms"),
    ("message.timestamp.type", Type::Str, "CreateTime", 0, "log.message.timestamp.type"),
    ("min.cleanable.dirty.ratio", Type::Double, "0.5", 0, "log.cleaner.min.cleanable.ratio"),
    ("min.compaction.lag.ms", Type::Long, "0", 0, "log.cleaner.min.compaction.lag.ms"),
    ("min.insync.replicas", Type::Int, "1", 1, "min.insync.replicas"),
    ("preallocate", Type::Boolean, "false", 0, "log.preallocate"),
    ("remote.log.copy.disable", Type::Boolean, "false", 0, ""),
    ("remote.log.delete.on.disable", Type::Boolean, "false", 0, ""),
    ("remote.storage.enable", Type::Boolean, "false", 0, ""),
    ("retention.bytes", Type::Long, "-1", i64::MIN, "log.retention.bytes"),
    ("retention.ms", Type::Long, "604800000", -1, ""),
    ("segment.bytes", Type::Int, "1073741824", MIN_SEGMENT, "log.segment.bytes"),
    ("segment.index.bytes", Type::Int, "10485760", 4, "log.index.size.max.bytes"),
    ("segment.jitter.ms", Type::Long, "0", 0, ""),
    ("segment.ms", Type::Long, "604800000", 1, ""),
    ("unclean.leader.election.enable", Type::Boolean, "false", 0, "unclean.leader.election.enable"),
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
    /// The broker's setting that Kafka names as the origin of the default; empty where it names none.
    pub(crate) synonym: &'static str,
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
    segment_ms: i64,
    pub(crate) deletes: bool,
    pub(crate) compacts: bool,
    /// Number of the compression that batches are kept in; `None`: as they come.
    pub(crate) codec: Option<i16>,
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
        let given: BTreeMap<_, _> = given.into_iter().map(|(name, value)| (name, value.trim().to_owned())).collect();
        for (name, value) in &given {
            check(name, value)?;
        }
        let default_segment_bytes = i64::try_from(segment_bytes).unwrap_or(i64::MAX);
        let text = |name: &str| given.get(name).map_or_else(|| default_of(name), String::as_str);
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
            codec: codec_of(text("compression.type")),
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
        let one = |(name, kind, default, _, synonym): &(&'static str, Type, &'static str, i64, &'static str)| {
            let default = if *name == "segment.bytes" { self.default_segment_bytes.to_string() } else { (*default).to_owned() };
            let given = self.given.get(*name);
            Described { name, value: given.unwrap_or(&default).clone(), given: given.is_some(), default, kind: *kind, synonym }
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

    /// Milliseconds of records that a segment holds: one that is written to is never compacted, so that what must be is not kept back.
    pub(crate) fn roll_ms(&self) -> i64 {
        if self.compacts { self.segment_ms.min(self.max_compaction_lag_ms) } else { self.segment_ms }
    }

    /// Whether records go by their keys alone, so that nobody may delete them by offset.
    pub(crate) fn only_compacts(&self) -> bool {
        self.compacts && !self.deletes
    }
}

/// Number of a compression by its name in the settings.
fn codec_of(name: &str) -> Option<i16> {
    let names = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
    names.iter().position(|known| *known == name).and_then(|number| i16::try_from(number).ok())
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
    let Some((_, kind, _, least, _)) = KNOWN.iter().find(|known| known.0 == name) else {
        return Err(format!("unknown topic setting '{name}'"));
    };
    let value = value.trim();
    match name {
        // An empty one keeps everything for ever.
        "cleanup.policy" if !value.is_empty() && !value.split(',').map(str::trim).all(|part| matches!(part, "delete" | "compact")) => {
            return Err(format!("cleanup.policy must be delete, compact or both, not '{value}'"));
        }
        "message.timestamp.type" if !matches!(value, "CreateTime" | "LogAppendTime") => {
            return Err(format!("message.timestamp.type must be CreateTime or LogAppendTime, not '{value}'"));
        }
        "compression.type" if value != "producer" && codec_of(value).is_none() => {
            return Err(format!("compression.type must be producer, uncompressed, gzip, snappy, lz4 or zstd, not '{value}'"));
        }
        "compression.gzip.level" if value == "0" || value.parse().is_ok_and(|level: i64| level > 9) => {
            return Err(format!("compression.gzip.level must be -1 or between 1 and 9, not '{value}'"));
        }
        "compression.lz4.level" if value.parse().is_ok_and(|level: i64| level > 17) => {
            return Err(format!("compression.lz4.level must be between 1 and 17, not '{value}'"));
        }
        "compression.zstd.level" if value.parse().is_ok_and(|level: i64| level > 22) => {
            return Err(format!("compression.zstd.level must be between -131072 and 22, not '{value}'"));
        }
        "remote.storage.enable" if value.eq_ignore_ascii_case("true") => {
            return Err("remote.storage.enable can only be false here: there is no tiered storage".to_owned());
        }
        "min.cleanable.dirty.ratio" if !value.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio)) => {
            return Err(format!("min.cleanable.dirty.ratio must be a number between 0 and 1, not '{value}'"));
        }
        "leader.replication.throttled.replicas" | "follower.replication.throttled.replicas" if !names_replicas(value) => {
            return Err(format!("{name} must be * or a list of partition:broker pairs, not '{value}'"));
        }
        _ => {}
    }
    let most = if *kind == Type::Int { i64::from(i32::MAX) } else { i64::MAX };
    let fine = match kind {
        Type::Boolean => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
        Type::Int | Type::Long => value.parse().is_ok_and(|number: i64| (*least..=most).contains(&number)),
        Type::Str | Type::Double | Type::List => true,
    };
    match kind {
        _ if fine => Ok(()),
        Type::Boolean => Err(format!("{name} must be true or false, not '{value}'")),
        _ => Err(format!("{name} must be a whole number of at least {least}, not '{value}'")),
    }
}

/// Kept settings without those lists of replicas that were once taken as they came: on one node they change nothing, and must not keep
/// the log from starting.
pub(crate) fn without_unchecked(mut kept: BTreeMap<String, String>) -> BTreeMap<String, String> {
    kept.retain(|name, value| !name.ends_with(".replication.throttled.replicas") || names_replicas(value));
    kept
}

/// Whether a list is `*`, or `partition:broker` in each place; an empty place is none.
fn names_replicas(list: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_replica = |item: &str| item.split_once(':').is_some_and(|(partition, broker)| is_number(partition) && is_number(broker));
    list == "*" || list.split(',').map(str::trim).all(|item| item.is_empty() || is_replica(item))
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
            ("leader.replication.throttled.replicas", "x"),
            ("leader.replication.throttled.replicas", "1:1,*"),
            ("follower.replication.throttled.replicas", "0:"),
            ("x", "1"),
        ];
        for (name, value) in wrong {
            assert!(config(name, value).is_err(), "{name}={value}");
        }
        let kept = [("retention.ms", "1"), ("leader.replication.throttled.replicas", "x")];
        let kept = without_unchecked(kept.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert!(kept.keys().eq(["retention.ms"]) && TopicConfig::new(kept, 1 << 20).is_ok());
        for list in ["*", "0:1", "0:1, 1:1", ""] {
            config("leader.replication.throttled.replicas", list).unwrap();
        }
        let described = config("segment.bytes", "2048").unwrap().described();
        let of = |name: &str| described.iter().find(|one| one.name == name).unwrap();
        assert_eq!((of("segment.bytes").value.as_str(), of("segment.bytes").default.as_str()), ("2048", "1048576"));
        assert!(of("segment.bytes").given && !of("retention.bytes").given);
    }

    #[test]
    fn every_default_is_a_value_that_would_be_taken() {
        for (name, _, default, ..) in KNOWN {
            config(name, default).unwrap();
        }
    }
}
