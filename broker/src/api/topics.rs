//! CreateTopics and DeleteTopics.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse};

use super::{NODE, Request, blocking, doubled, text};
use crate::auth::users::Act;
use crate::broker::Shared;
use crate::ids::wire_id;
use crate::topic_config::{Described, TopicConfig};
use crate::topics::{CreateFault, MAX_PARTITIONS, check_name};

const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

type Refused = (ResponseError, String);

pub(super) async fn create(broker: &Arc<Shared>, header: &Request, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let (shared, principal) = (broker.clone(), header.client.principal());
    let work = move || {
        let doubled = doubled(request.topics.iter().map(|topic| &topic.name));
        let mut answered = HashSet::new();
        // A name that is there twice is answered once: nobody can tell which of the two is meant.
        let created = request.topics.iter().filter(|topic| answered.insert(&topic.name)).map(|topic| {
            let answer = CreatableTopicResult::default().with_name(topic.name.clone());
            let created = if doubled.contains(&topic.name) {
                Err((ResponseError::InvalidRequest, "Duplicate topic name.".to_owned()))
            } else if !principal.may(Act::Manage(&topic.name)) {
                Err((ResponseError::TopicAuthorizationFailed, "this user may not create topics".to_owned()))
            } else {
                create_one(&shared, topic, request.validate_only)
            };
            match created {
                Ok(created) => created.into_answer(answer),
                Err((error, detail)) => answer
                    .with_error_code(error.code())
                    .with_error_message(Some(text(detail)))
                    .with_num_partitions(-1)
                    .with_replication_factor(-1)
                    .with_configs(None),
            }
        });
        created.collect()
    };
    CreateTopicsResponse::default().with_topics(blocking(work).await.unwrap_or_default())
}

struct Created {
    id: u128,
    partitions: i32,
    config: TopicConfig,
}

fn create_one(broker: &Shared, topic: &CreatableTopic, validate_only: bool) -> Result<Created, Refused> {
    check_name(&topic.name).map_err(|fault| (ResponseError::InvalidTopicException, fault.to_owned()))?;
    let partitions = partitions_of(topic, broker.auto_create.unwrap_or(1))?;
    let given: BTreeMap<_, _> =
        topic.configs.iter().filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string()))).collect();
    let config = TopicConfig::new(given, broker.segment_bytes).map_err(|detail| (ResponseError::InvalidConfig, detail))?;
    let exists = || (ResponseError::TopicAlreadyExists, format!("Topic '{}' already exists.", &*topic.name));
    if broker.topics.get(&topic.name).is_some() {
        return Err(exists());
    }
    if let Some(other) = broker.topics.colliding(&topic.name) {
        let detail = format!("topic '{}' and '{other}' differ in '.' and '_' alone; choose another name", &*topic.name);
        return Err((ResponseError::InvalidTopicException, detail));
    }
    if validate_only {
        return Ok(Created { id: 0, partitions, config });
    }
    match broker.topics.create(&topic.name, partitions, &config) {
        Ok(created) => Ok(Created { id: created.id, partitions, config }),
        Err(CreateFault::Exists) => Err(exists()),
        Err(CreateFault::Storage(fault)) => {
            tracing::error!(topic = topic.name.as_str(), %fault, "a topic cannot be created");
            Err((ResponseError::KafkaStorageError, fault.to_string()))
        }
    }
}

/// Number of partitions wanted; one node can hold one replica of each.
fn partitions_of(topic: &CreatableTopic, default_partitions: i32) -> Result<i32, Refused> {
    if !topic.assignments.is_empty() {
        let mut indexes: Vec<_> = topic.assignments.iter().map(|a| a.partition_index).collect();
        indexes.sort_unstable();
        let wrong = !indexes.iter().copied().eq(0..indexes.len() as i32) || topic.assignments.iter().any(|a| a.broker_ids != [NODE]);
        if wrong || indexes.len() > MAX_PARTITIONS as usize {
            let detail = "the assignment must give the partitions 0, 1, ... to node 1 alone".to_owned();
            return Err((ResponseError::InvalidReplicaAssignment, detail));
        }
        return Ok(indexes.len() as i32);
    }
    if !matches!(topic.replication_factor, -1 | 1) {
        let detail = "this is one node: the replication factor can only be 1".to_owned();
        return Err((ResponseError::InvalidReplicationFactor, detail));
    }
    match topic.num_partitions {
        -1 => Ok(default_partitions),
        n if (1..=MAX_PARTITIONS).contains(&n) => Ok(n),
        _ => Err((ResponseError::InvalidPartitions, format!("a topic has 1 to {MAX_PARTITIONS} partitions"))),
    }
}

impl Created {
    fn into_answer(self, answer: CreatableTopicResult) -> CreatableTopicResult {
        let config = |one: Described| {
            let source = if one.given { SOURCE_TOPIC } else { SOURCE_DEFAULT };
            CreatableTopicConfigs::default().with_name(text(one.name)).with_value(Some(text(one.value))).with_config_source(source)
        };
        answer
            .with_topic_id(wire_id(self.id))
            .with_num_partitions(self.partitions)
            .with_replication_factor(1)
            .with_configs(Some(self.config.described().into_iter().map(config).collect()))
    }
}

pub(super) async fn delete(broker: &Arc<Shared>, header: &Request, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let (shared, principal) = (broker.clone(), header.client.principal());
    let work = move || {
        let by_name = request.topic_names.into_iter().map(|name| (Some(name), 0));
        let by_state = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id.as_u128()));
        let deleted = by_name.chain(by_state).map(|(name, id)| {
            let found = match &name {
                Some(name) => shared.topics.get(name),
                None => shared.topics.get_by_id(id),
            };
            let answer = DeletableTopicResult::default();
            let Some(topic) = found else {
                let error = if name.is_some() { ResponseError::UnknownTopicOrPartition } else { ResponseError::UnknownTopicId };
                return answer.with_name(name).with_topic_id(wire_id(id)).with_error_code(error.code());
            };
            let answer = answer.with_name(Some(text(&topic.name).into())).with_topic_id(wire_id(topic.id));
            if !principal.may(Act::Manage(&topic.name)) {
                return answer.with_error_code(ResponseError::TopicAuthorizationFailed.code());
            }
            match shared.topics.delete(&topic.name) {
                Ok(true) => {
                    shared.groups.forget_topic(&topic.name);
                    answer
                }
                Ok(false) => answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                Err(fault) => {
                    tracing::error!(topic = %topic.name, %fault, "a topic cannot be deleted");
                    answer.with_error_code(ResponseError::KafkaStorageError.code())
                }
            }
        });
        deleted.collect()
    };
    DeleteTopicsResponse::default().with_responses(blocking(work).await.unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use kafka_protocol::messages::ApiKey;

    use super::*;
    use crate::api::fixture;

    #[tokio::test]
    async fn a_name_that_is_there_twice_is_refused_once_and_the_others_are_created() {
        let (_dir, broker) = fixture::broker().await;
        let topic = |name: &str| CreatableTopic::default().with_name(text(name).into()).with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(["a", "b", "a", "a"].map(topic).to_vec());
        let answer = create(broker.shared(), &fixture::header(ApiKey::CreateTopics, 7), request).await;
        let answers: Vec<_> = answer.topics.iter().map(|topic| (topic.name.as_str(), topic.error_code)).collect();
        assert_eq!(answers, [("a", ResponseError::InvalidRequest.code()), ("b", 0)]);
        assert!(broker.shared().topics.get("a").is_none());
        broker.shutdown().await.unwrap();
    }
}
