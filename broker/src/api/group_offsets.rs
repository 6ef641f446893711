//! OffsetCommit, OffsetFetch, OffsetDelete.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
    TopicName,
};

use super::{Request, text};
use crate::auth::users::Act;
use crate::broker::Shared;
use crate::group::offsets::{Committed, Offsets};

/// Kafka's `offset.metadata.max.bytes`.
pub(super) const MAX_METADATA: usize = 4096;

pub(super) async fn commit(broker: &Arc<Shared>, header: &Request, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let (group, member) = (&request.group_id, &request.member_id);
    let instance = request.group_instance_id.as_deref();
    let allowed = match header.may(Act::Group(group)) {
        true => broker.groups.check_commit(group, member, instance, request.generation_id_or_member_epoch),
        false => Err(ResponseError::GroupAuthorizationFailed),
    };
    let mut offsets = Offsets::new();
    let mut answers: Vec<(TopicName, Vec<(i32, i16)>)> = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
            let checked = allowed.and_then(|()| check_offset(broker, header, &topic.name, index, metadata));
            if checked.is_ok() {
                offsets.entry(topic.name.to_string()).or_default().insert(index, committed(partition));
            }
            partitions.push((index, checked.map_or_else(|error| error.code(), |()| 0)));
        }
        answers.push((topic.name, partitions));
    }
    let kept = if offsets.is_empty() { Ok(()) } else { broker.groups.commit(group, offsets).await };
    let answer = |(name, partitions): (TopicName, Vec<(i32, i16)>)| {
        let partitions = partitions.into_iter().map(|(index, code)| {
            let code = if code == 0 { kept.map_or_else(|error| error.code(), |()| 0) } else { code };
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    };
    OffsetCommitResponse::default().with_topics(answers.into_iter().map(answer).collect())
}

/// Checks an offset that is to be committed.
pub(super) fn check_offset(broker: &Shared, header: &Request, topic: &str, index: i32, metadata: &str) -> Result<(), ResponseError> {
    if !header.may(Act::Read(topic)) {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    if metadata.len() > MAX_METADATA {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    broker.topics.partition(topic, index).map(drop).ok_or(ResponseError::UnknownTopicOrPartition)
}

fn committed(partition: OffsetCommitRequestPartition) -> Committed {
    Committed {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.map(|metadata| metadata.to_string()).unwrap_or_default(),
    }
}

/// Topics and partitions with what is committed for each.
type Found = Vec<(TopicName, Vec<(i32, Committed)>)>;

fn look_up(broker: &Shared, group: &str, wanted: Option<Vec<(TopicName, Vec<i32>)>>) -> Found {
    let none = || Committed { offset: -1, leader_epoch: -1, metadata: String::new() };
    match wanted {
        Some(topics) => {
            let find = |topic: &str, index| broker.groups.committed(group, topic, index).unwrap_or_else(none);
            let topic = |(name, indexes): (TopicName, Vec<i32>)| {
                let found = indexes.into_iter().map(|index| (index, find(&name, index))).collect();
                (name, found)
            };
            topics.into_iter().map(topic).collect()
        }
        None => {
            let all = broker.groups.all_committed(group).into_iter();
            all.map(|(topic, partitions)| (text(topic).into(), partitions.into_iter().collect())).collect()
        }
    }
}

/// What is told of one partition: nothing yet when a transaction is about to change it and the client wants to wait for that.
fn settled(broker: &Shared, group: &str, topic: &str, stable: bool, found: (i32, Committed)) -> (i32, Committed, i16) {
    let (index, committed) = found;
    if stable && broker.transactions.is_pending(group, topic, index) {
        let none = Committed { offset: -1, leader_epoch: -1, metadata: String::new() };
        return (index, none, ResponseError::UnstableOffsetCommit.code());
    }
    (index, committed, 0)
}

pub(super) async fn fetch(broker: &Arc<Shared>, header: &Request, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let stable = request.require_stable;
    if header.version < 8 {
        let group = &request.group_id;
        if !header.may(Act::Group(group)) {
            return OffsetFetchResponse::default().with_error_code(ResponseError::GroupAuthorizationFailed.code());
        }
        let wanted = request.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let topics = look_up(broker, group, wanted).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|found| {
                let (index, committed, code) = settled(broker, group, &name, stable, found);
                OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(if header.version >= 5 { committed.leader_epoch } else { -1 })
                    .with_metadata(Some(text(committed.metadata)))
                    .with_error_code(code)
            });
            let partitions = partitions.collect();
            OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
        });
        return OffsetFetchResponse::default().with_topics(topics.collect());
    }
    let groups = request.groups.into_iter().map(|group| {
        if !header.may(Act::Group(&group.group_id)) {
            let error = ResponseError::GroupAuthorizationFailed.code();
            return OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_error_code(error);
        }
        let wanted = group.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let topics = look_up(broker, &group.group_id, wanted).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|found| {
                let (index, committed, code) = settled(broker, &group.group_id, &name, stable, found);
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(index)
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(committed.leader_epoch)
                    .with_metadata(Some(text(committed.metadata)))
                    .with_error_code(code)
            });
            let partitions = partitions.collect();
            OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
        });
        let topics = topics.collect();
        OffsetFetchResponseGroup::default().with_topics(topics).with_group_id(group.group_id)
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

pub(super) async fn delete(broker: &Arc<Shared>, header: &Request, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let named = request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.to_string(), p.partition_index)));
    let deleted = match header.may(Act::Group(&request.group_id)) {
        true => broker.groups.delete_offsets(&request.group_id, named.collect()).await,
        false => Err(ResponseError::GroupAuthorizationFailed),
    };
    let held = match deleted {
        Ok(held) => held,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error.code()),
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let subscribed = held.iter().any(|(name, at)| *name == **topic.name && *at == index);
            let code = match broker.topics.partition(&topic.name, index) {
                None => ResponseError::UnknownTopicOrPartition.code(),
                Some(_) if subscribed => ResponseError::GroupSubscribedToTopic.code(),
                Some(_) => 0,
            };
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
