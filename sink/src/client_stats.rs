//! What librdkafka tells of itself each second: whether the log is there, and how far behind we are.

use std::collections::HashMap;

use serde::Deserialize;

/// The few of librdkafka's figures that are needed. rdkafka's own type wants all of them, and each in the form of one version.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ClientStats {
    #[serde(default)]
    brokers: HashMap<String, Broker>,
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Debug, Deserialize)]
struct Broker {
    nodeid: i64,
    state: String,
}

#[derive(Debug, Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    partition: i64,
    #[serde(default)]
    consumer_lag: i64,
}

impl ClientStats {
    /// Whether any broker is connected; `None` when none is known. Before the first metadata only the bootstrap addresses are, without node
    /// numbers, which says nothing yet; later it says that the client has lost the log.
    pub(crate) fn is_connected(&self) -> Option<bool> {
        let mut known = self.brokers.values().filter(|broker| broker.nodeid >= 0).peekable();
        known.peek()?;
        Some(known.any(|broker| matches!(broker.state.as_str(), "UP" | "UPDATE")))
    }

    /// Rows in the assigned partitions that were not read yet; -1 in a partition means unknown.
    pub(crate) fn lag(&self) -> i64 {
        let partitions = self.topics.values().flat_map(|topic| topic.partitions.values());
        partitions.filter(|partition| partition.partition >= 0).map(|partition| partition.consumer_lag.max(0)).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(json: &str) -> ClientStats {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_log_is_away_when_no_known_broker_is_up() {
        assert_eq!(read(r#"{"brokers":{"bootstrap":{"nodeid":-1,"state":"TRY_CONNECT"}}}"#).is_connected(), None);
        assert_eq!(read(r#"{"brokers":{"b":{"nodeid":-1,"state":"UP"},"1":{"nodeid":1,"state":"DOWN"}}}"#).is_connected(), Some(false));
        assert_eq!(read(r#"{"brokers":{"1":{"nodeid":1,"state":"DOWN"},"2":{"nodeid":2,"state":"UP"}}}"#).is_connected(), Some(true));
    }

    #[test]
    fn unknown_lags_and_the_internal_partition_do_not_count() {
        let stats = r#"{"topics":{"t":{"partitions":{"-1":{"partition":-1,"consumer_lag":9},"0":{"partition":0,"consumer_lag":-1},
            "1":{"partition":1,"consumer_lag":5}}}}}"#;
        assert_eq!(read(stats).lag(), 5);
    }
}
