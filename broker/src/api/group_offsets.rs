//! OffsetCommit and OffsetFetch.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::{Request, text};
use crate::broker::Shared;
use crate::group::offsets::{Committed, Offsets};

/// Kafka's `offset.metadata.max.bytes`.
const MAX_METADATA: usize = 4096;

pub(super) async fn commit(broker: &Arc<Shared>, _header: &Request, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let (group, member) = (&request.group_id, &request.member_id);
    let instance = request.group_instance_id.as_deref();
    let allowed = broker.groups.check_commit(group, member, instance, request.generation_id_or_member_epoch);
    let mut offsets = Offsets::new();
    let mut answers: Vec<(TopicName, Vec<(i32, i16)>)> = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let checked = allowed.and_then(|()| check(broker, &topic.name, &partition));
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

fn check(broker: &Shared, topic: &str, partition: &OffsetCommitRequestPartition) -> Result<(), ResponseError> {
    if partition.committed_metadata.as_ref().is_some_and(|metadata| metadata.len() > MAX_METADATA) {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    match broker.topics.partition(topic, partition.partition_index) {
        Some(_) => Ok(()),
        None => Err(ResponseError::UnknownTopicOrPartition),
    }
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

pub(super) async fn fetch(broker: &Arc<Shared>, header: &Request, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if header.version < 8 {
        let wanted = request.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let topics = look_up(broker, &request.group_id, wanted).into_iter().map(|(name, partitions)| {
            let partition = |(index, committed): (i32, Committed)| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(if header.version >= 5 { committed.leader_epoch } else { -1 })
                    .with_metadata(Some(text(committed.metadata)))
            };
            OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.into_iter().map(partition).collect())
        });
        return OffsetFetchResponse::default().with_topics(topics.collect());
    }
    let groups = request.groups.into_iter().map(|group| {
        let wanted = group.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let topics = look_up(broker, &group.group_id, wanted).into_iter().map(|(name, partitions)| {
            let partition = |(index, committed): (i32, Committed)| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(index)
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(committed.leader_epoch)
                    .with_metadata(Some(text(committed.metadata)))
            };
            OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.into_iter().map(partition).collect())
        });
        OffsetFetchResponseGroup::default().with_topics(topics.collect()).with_group_id(group.group_id)
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}
