//! CreatePartitions: a topic grows, it never shrinks.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{NODE, Request, blocking, text};
use crate::auth::users::Act;
use crate::broker::Shared;
use crate::topics::MAX_PARTITIONS;

type Refused = (ResponseError, String);

pub(super) async fn create(broker: &Arc<Shared>, header: &Request, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let (shared, principal) = (broker.clone(), header.client.principal());
    let work = move || {
        let grown = request.topics.iter().map(|topic| {
            let answer = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            let grown = if principal.may(Act::Manage(&topic.name)) {
                grow(&shared, topic, request.validate_only)
            } else {
                Err((ResponseError::TopicAuthorizationFailed, "this user may not alter topics".to_owned()))
            };
            match grown {
                Ok(()) => answer,
                Err((error, detail)) => answer.with_error_code(error.code()).with_error_message(Some(text(detail))),
            }
        });
        grown.collect()
    };
    CreatePartitionsResponse::default().with_results(blocking(work).await.unwrap_or_default())
}

fn grow(broker: &Shared, wanted: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refused> {
    let topic = broker.topics.get(&wanted.name).ok_or_else(|| {
        let detail = format!("there is no topic '{}'", &*wanted.name);
        (ResponseError::UnknownTopicOrPartition, detail)
    })?;
    let has = topic.partitions.len() as i32;
    if wanted.count <= has {
        let detail = format!("The topic {} currently has {has} partition(s); {} would not be an increase.", topic.name, wanted.count);
        return Err((ResponseError::InvalidPartitions, detail));
    }
    if wanted.count > MAX_PARTITIONS {
        return Err((ResponseError::InvalidPartitions, format!("a topic has at most {MAX_PARTITIONS} partitions")));
    }
    if let Some(assignments) = &wanted.assignments {
        let fits = assignments.len() as i32 == wanted.count - has && assignments.iter().all(|a| a.broker_ids == [NODE]);
        if !fits {
            let detail = "the assignment must give each new partition to node 1 alone".to_owned();
            return Err((ResponseError::InvalidReplicaAssignment, detail));
        }
    }
    if validate_only {
        return Ok(());
    }
    broker.topics.grow(&wanted.name, wanted.count).map_err(|fault| {
        tracing::error!(topic = %topic.name, %fault, "partitions cannot be created");
        (ResponseError::KafkaStorageError, fault.to_string())
    })
}
