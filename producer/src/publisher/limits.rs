//! How large a batch the topics take.

use std::time::Duration;

use common::Settings;
use common::aside::EndsAside;
use common::client_log::Quiet;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::error::KafkaError;

const LIMIT: &str = "max.message.bytes";
const BATCH_SIZE: &str = "batch.size";
/// The start waits no longer: it goes without an answer, too.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lets batches be no larger than the topics take: a log refuses a larger one as a whole, and its records then go one by one. A log that does
/// not say how large is believed to take the usual size.
pub(crate) async fn fit_batches(settings: &mut Settings) {
    if settings.kafka.properties.contains_key(BATCH_SIZE) {
        return;
    }
    match smallest_limit(settings).await {
        Ok(Some(limit)) if limit < super::client::USUAL_BATCH => {
            settings.kafka.properties.insert(BATCH_SIZE.into(), limit.max(1).to_string());
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "the log does not say how large a batch it takes"),
    }
}

async fn smallest_limit(settings: &Settings) -> Result<Option<u64>, KafkaError> {
    let config = common::kafka::client(&settings.kafka, "admin");
    let admin: EndsAside<AdminClient<Quiet>> = config.create_with_context(Quiet).map(EndsAside::new)?;
    let topics = [&settings.topics.input, &settings.topics.dead].map(|topic| ResourceSpecifier::Topic(topic));
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let found = admin.describe_configs(&topics, &options).await?;
    let limit = |entry: &rdkafka::admin::ConfigEntry| entry.value.as_ref().and_then(|value| value.parse().ok());
    Ok(found.iter().flatten().filter_map(|topic| topic.get(LIMIT).and_then(limit)).min())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use broker::{Broker, BrokerConfig};
    use rdkafka::admin::{NewTopic, TopicReplication};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn batches_are_no_larger_than_the_topics_take() {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerConfig::new(folder.path(), "127.0.0.1:0".parse().unwrap())).await.unwrap();
        let mut settings = Settings::default();
        settings.kafka.bootstrap_servers = broker.addr().to_string();
        let admin: AdminClient<Quiet> = common::kafka::client(&settings.kafka, "test").create_with_context(Quiet).unwrap();
        let create = async |name: &str, limit: &str| {
            let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1)).set(LIMIT, limit);
            admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        };
        create(&settings.topics.input, "2000000").await;
        fit_batches(&mut settings).await;
        assert_eq!(settings.kafka.properties.get(BATCH_SIZE), None);
        create(&settings.topics.dead, "20000").await;
        // It starts without an answer when a slow log gives none in time.
        let began = std::time::Instant::now();
        while !settings.kafka.properties.contains_key(BATCH_SIZE) && began.elapsed() < Duration::from_secs(60) {
            fit_batches(&mut settings).await;
        }
        assert_eq!(settings.kafka.properties[BATCH_SIZE], "20000");
        // What is set by hand stays.
        settings.kafka.properties.insert(BATCH_SIZE.into(), "77".into());
        fit_batches(&mut settings).await;
        assert_eq!(settings.kafka.properties[BATCH_SIZE], "77");
        broker.shutdown().await.unwrap();
    }
}
