//! AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit, EndTxn: from the wire to the coordinator and back.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult};
use kafka_protocol::messages::txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse,
    TopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::Request;
use super::group_offsets::check_offset;
use crate::auth::users::Act;
use crate::broker::Shared;
use crate::group::offsets::{Committed, Offsets};

/// Partitions of a topic, each with what was found wrong with it.
type Judged = Vec<(i32, Result<(), ResponseError>)>;

/// Before this version of the requests a producer that was shut out is told so in other words.
const KNOWS_FENCING: i16 = 2;

fn code(result: Result<(), ResponseError>, version: i16) -> i16 {
    match result {
        Ok(()) => 0,
        Err(ResponseError::ProducerFenced) if version < KNOWS_FENCING => ResponseError::InvalidProducerEpoch.code(),
        Err(error) => error.code(),
    }
}

fn may_transact(header: &Request, id: &str) -> Result<(), ResponseError> {
    if header.may(Act::Transaction(id)) { Ok(()) } else { Err(ResponseError::TransactionalIdAuthorizationFailed) }
}

pub(super) async fn add_partitions(
    broker: &Arc<Shared>,
    header: &Request,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let id = request.v3_and_below_transactional_id.to_string();
    let judge = |topic: &str, index: i32| {
        if !header.may(Act::Write(topic)) {
            return Err(ResponseError::TopicAuthorizationFailed);
        }
        broker.topics.partition(topic, index).map(|_| ()).ok_or(ResponseError::UnknownTopicOrPartition)
    };
    let named = request.v3_and_below_topics.iter().flat_map(|t| t.partitions.iter().map(|index| (t.name.to_string(), *index)));
    let all: Vec<(String, i32)> = named.collect();
    // All or none: a transaction never writes to half of what it asked for.
    let refused = all.iter().any(|(topic, index)| judge(topic, *index).is_err());
    let producer = (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
    let added = match may_transact(header, &id) {
        Ok(()) if refused => Err(ResponseError::OperationNotAttempted),
        Ok(()) => broker.transactions.add_partitions(&id, producer, all).await,
        Err(error) => Err(error),
    };
    let topics = request.v3_and_below_topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            let own = if refused { judge(&topic.name, *index).and(added) } else { added };
            let answer = AddPartitionsToTxnPartitionResult::default().with_partition_index(*index);
            answer.with_partition_error_code(code(own, header.version))
        });
        AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(partitions.collect())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics.collect())
}

pub(super) async fn add_offsets(broker: &Arc<Shared>, header: &Request, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let producer = (request.producer_id.0, request.producer_epoch);
    let added = match may_transact(header, &request.transactional_id) {
        Ok(()) if !header.may(Act::Group(&request.group_id)) => Err(ResponseError::GroupAuthorizationFailed),
        Ok(()) => broker.transactions.add_group(&request.transactional_id, producer, &request.group_id).await,
        Err(error) => Err(error),
    };
    AddOffsetsToTxnResponse::default().with_error_code(code(added, header.version))
}

pub(super) async fn end(broker: &Arc<Shared>, header: &Request, request: EndTxnRequest) -> EndTxnResponse {
    let producer = (request.producer_id.0, request.producer_epoch);
    let ended = match may_transact(header, &request.transactional_id) {
        Ok(()) => broker.transactions.end(broker, &request.transactional_id, producer, request.committed).await,
        Err(error) => Err(error),
    };
    EndTxnResponse::default().with_error_code(code(ended, header.version))
}

pub(super) async fn commit_offsets(broker: &Arc<Shared>, header: &Request, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let allowed = may_commit(broker, header, &request);
    let mut offsets = Offsets::new();
    let mut answers: Vec<(TopicName, Judged)> = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let metadata = partition.committed_metadata.map(|metadata| metadata.to_string()).unwrap_or_default();
            let checked = allowed.and_then(|()| check_offset(broker, header, &topic.name, index, &metadata));
            if checked.is_ok() {
                let committed = Committed { offset: partition.committed_offset, leader_epoch: partition.committed_leader_epoch, metadata };
                offsets.entry(topic.name.to_string()).or_default().insert(index, committed);
            }
            partitions.push((index, checked));
        }
        answers.push((topic.name, partitions));
    }
    let producer = (request.producer_id.0, request.producer_epoch);
    let kept = match offsets.is_empty() {
        true => Ok(()),
        false => broker.transactions.add_offsets(&request.transactional_id, producer, &request.group_id, offsets).await,
    };
    let answer = |(name, partitions): (TopicName, Judged)| {
        let partitions = partitions.into_iter().map(|(index, checked)| {
            let error = code(checked.and(kept), header.version);
            TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(error)
        });
        TxnOffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    };
    TxnOffsetCommitResponse::default().with_topics(answers.into_iter().map(answer).collect())
}

fn may_commit(broker: &Shared, header: &Request, request: &TxnOffsetCommitRequest) -> Result<(), ResponseError> {
    may_transact(header, &request.transactional_id)?;
    if !header.may(Act::Group(&request.group_id)) {
        return Err(ResponseError::GroupAuthorizationFailed);
    }
    // A producer that does not say for which member it acts is only checked by its epoch.
    let names_member = request.generation_id >= 0 || !request.member_id.is_empty() || request.group_instance_id.is_some();
    if header.version < 3 || !names_member {
        return Ok(());
    }
    let instance = request.group_instance_id.as_deref();
    broker.groups.check_commit(&request.group_id, &request.member_id, instance, request.generation_id)
}
