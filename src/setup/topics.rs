//! The topics in which the three programs meet: made when they are missing, and looked at.

use std::collections::BTreeSet;

use common::kafka::{LogError, TopicSpec, ensure_topics};
use common::{Settings, Shutdown};
use processor::query::StreamQuery;

/// Largest record of a topic that we make, bytes: a lane takes the largest record that the input takes by default, and our headers.
const LARGEST: &str = "2097152";

/// The input, both lanes, and what the queries read and give; journals are made by the processor that writes them. Returns a line for each
/// topic.
///
/// # Errors
/// When the log is away or refuses, or when a topic that was there has another number of partitions than the settings say.
pub(super) async fn prepare(settings: &Settings, queries: &[StreamQuery], shutdown: &Shutdown) -> Result<Vec<String>, LogError> {
    let topics = &settings.topics;
    let names: BTreeSet<String> = [&topics.input, &topics.late, &topics.dead]
        .map(Clone::clone)
        .into_iter()
        .chain(queries.iter().flat_map(|query| [query.file.source.topic.clone(), query.file.output_topic()]))
        .collect();
    let spec = |name| TopicSpec {
        name,
        partitions: topics.partitions,
        replication: topics.replication_factor,
        properties: vec![("max.message.bytes", LARGEST.to_owned())],
    };
    let specs: Vec<TopicSpec> = names.into_iter().map(spec).collect();
    let found = ensure_topics(&settings.kafka, &specs, shutdown).await?;
    for (topic, &found) in &found {
        if found != topics.partitions {
            let advice = "say so in topics.partitions, or begin with new topics: a key must not change its partition".to_owned();
            return Err(LogError::Partitions { topic: topic.clone(), found, expected: topics.partitions, advice });
        }
    }
    Ok(found.iter().map(|(topic, partitions)| format!("topic {topic}: {partitions} partitions")).collect())
}
