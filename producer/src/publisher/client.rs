//! librdkafka's settings for half a million small records a second.

use common::Settings;
use rdkafka::ClientConfig;

/// Most bytes of a batch; Kafka's default limit is a little more.
pub(super) const USUAL_BATCH: u64 = 1_000_000;

/// The house's base configuration, with queues and batches that keep a fast log busy. `[kafka.properties]` wins.
pub(super) fn config(settings: &Settings) -> ClientConfig {
    let mut config = common::kafka::producer(&settings.kafka, "producer");
    config
        .set("compression.type", &settings.producer.compression)
        .set("linger.ms", settings.producer.linger.millis().to_string())
        // A fifth of a second at full speed: enough for a log that syncs its disk, and some 60 MB of memory at most.
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("batch.num.messages", "20000")
        .set("batch.size", USUAL_BATCH.to_string())
        // Records without a key (dead lines) keep to one partition for a while, so that they share batches.
        .set("sticky.partitioning.linger.ms", "100")
        // A log that swallows packets is asked again over a new connection after this long.
        .set("socket.timeout.ms", "20000");
    common::kafka::apply_properties(&mut config, &settings.kafka);
    config
}

/// For records that were refused in company: one in each batch.
pub(super) fn alone(settings: &Settings) -> ClientConfig {
    let mut config = config(settings);
    common::too_large::send_alone(&mut config);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_the_settings_win() {
        let mut settings = Settings::default();
        assert_eq!(config(&settings).get("compression.type"), Some("lz4"));
        assert_eq!(config(&settings).get("linger.ms"), Some("5"));
        assert_eq!(config(&settings).get("enable.idempotence"), Some("true"));
        settings.kafka.properties.insert("batch.size".into(), "77".into());
        assert_eq!(config(&settings).get("batch.size"), Some("77"));
    }
}
