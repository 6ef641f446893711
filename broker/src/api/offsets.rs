//! Questions about offsets: ListOffsets, OffsetForLeaderEpoch; and DeleteRecords, which moves the first one.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};

use super::{Request, blocking, doubled};
use crate::auth::users::Act;
use crate::batch::LEADER_EPOCH;
use crate::broker::Shared;
use crate::log::partition::{Isolation, Partition};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// First offset that is on this node's own disk: here all of them.
const EARLIEST_LOCAL: i64 = -4;
/// Last offset that has been moved to another store: here none.
const LATEST_TIERED: i64 = -5;
/// First version in which each of them may be asked for.
const SINCE: [(i64, i16); 5] = [(LATEST, 1), (EARLIEST, 1), (MAX_TIMESTAMP, 7), (EARLIEST_LOCAL, 8), (LATEST_TIERED, 9)];

pub(super) async fn list_offsets(broker: &Arc<Shared>, header: &Request, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let (shared, version, principal) = (broker.clone(), header.version, header.client.principal());
    let isolation = if request.isolation_level == 0 { Isolation::Uncommitted } else { Isolation::Committed };
    let work = move || {
        let asked = request.topics.iter().flat_map(|topic| topic.partitions.iter().map(|wanted| (&topic.name, wanted.partition_index)));
        let doubled = doubled(asked);
        let mut answered = HashSet::new();
        let topics = request.topics.iter().map(|topic| {
            let allowed = principal.may(Act::See(&topic.name));
            // A partition that is asked about twice is answered once.
            let first = topic.partitions.iter().filter(|wanted| answered.insert((&topic.name, wanted.partition_index)));
            let partitions = first.map(|wanted| {
                let index = wanted.partition_index;
                let found = match shared.topics.partition(&topic.name, index) {
                    _ if !allowed => Err(ResponseError::TopicAuthorizationFailed),
                    _ if doubled.contains(&(&topic.name, index)) => Err(ResponseError::InvalidRequest),
                    _ if !is_known(wanted.timestamp, version) => Err(ResponseError::UnsupportedVersion),
                    found => found.ok_or(ResponseError::UnknownTopicOrPartition),
                };
                let answer = ListOffsetsPartitionResponse::default().with_partition_index(index);
                match found.and_then(|partition| offset_at(&partition, wanted.timestamp, wanted.current_leader_epoch, isolation)) {
                    Ok((offset, timestamp)) => {
                        let epoch = if version >= 4 && offset >= 0 { LEADER_EPOCH } else { -1 };
                        answer.with_offset(offset).with_timestamp(timestamp).with_leader_epoch(epoch)
                    }
                    Err(error) => answer.with_error_code(error.code()),
                }
            });
            ListOffsetsTopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name.clone())
        });
        topics.filter(|topic: &ListOffsetsTopicResponse| !topic.partitions.is_empty()).collect()
    };
    ListOffsetsResponse::default().with_topics(blocking(work).await.unwrap_or_default())
}

/// Whether a timestamp is a time, or one of those below zero that stand for something in this version.
fn is_known(timestamp: i64, version: i16) -> bool {
    timestamp >= 0 || SINCE.iter().any(|(known, since)| *known == timestamp && *since <= version)
}

/// Offset and timestamp of what `timestamp` asks for; (-1, -1) when there is no such record.
fn offset_at(partition: &Partition, timestamp: i64, leader_epoch: i32, isolation: Isolation) -> Result<(i64, i64), ResponseError> {
    if leader_epoch > LEADER_EPOCH {
        return Err(ResponseError::UnknownLeaderEpoch);
    }
    let found = match timestamp {
        LATEST => return Ok((partition.readable(isolation), -1)),
        LATEST_TIERED => return Ok((-1, -1)),
        EARLIEST | EARLIEST_LOCAL => return Ok((partition.start(), -1)),
        MAX_TIMESTAMP => partition.find_max_time(),
        timestamp => partition.find_time(timestamp),
    };
    let found = found.map_err(|fault| {
        tracing::error!(partition = %partition.name, %fault, "the log cannot be read");
        ResponseError::KafkaStorageError
    })?;
    // What cannot be read yet is not found either.
    Ok(found.filter(|(offset, _)| *offset < partition.readable(isolation)).unwrap_or((-1, -1)))
}

pub(super) async fn for_leader_epoch(
    broker: &Arc<Shared>,
    header: &Request,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let answer = EpochEndOffset::default().with_partition(wanted.partition);
            match broker.topics.partition(&topic.topic, wanted.partition) {
                _ if !header.may(Act::See(&topic.topic)) => answer.with_error_code(ResponseError::TopicAuthorizationFailed.code()),
                None => answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                Some(_) if wanted.current_leader_epoch > LEADER_EPOCH => answer.with_error_code(ResponseError::UnknownLeaderEpoch.code()),
                // Nothing was ever written in another epoch.
                Some(_) if wanted.leader_epoch != LEADER_EPOCH => answer.with_leader_epoch(-1).with_end_offset(-1),
                Some(partition) => answer.with_leader_epoch(LEADER_EPOCH).with_end_offset(partition.high_watermark()),
            }
        });
        OffsetForLeaderTopicResult::default().with_partitions(partitions.collect()).with_topic(topic.topic)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

pub(super) async fn delete_records(broker: &Arc<Shared>, header: &Request, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let (shared, principal) = (broker.clone(), header.client.principal());
    let work = move || {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let index = wanted.partition_index;
                let answer = DeleteRecordsPartitionResult::default().with_partition_index(index);
                let only_compacted = shared.topics.get(&topic.name).is_some_and(|topic| topic.config.get().only_compacts());
                let deleted = match shared.topics.partition(&topic.name, index) {
                    _ if !principal.may(Act::Manage(&topic.name)) => Err(ResponseError::TopicAuthorizationFailed),
                    // Its records go when newer ones replace them, and never by their place in the log.
                    Some(_) if only_compacted => Err(ResponseError::PolicyViolation),
                    found => found.ok_or(ResponseError::UnknownTopicOrPartition),
                };
                match deleted.and_then(|partition| delete_until(&partition, wanted.offset)) {
                    Ok(start) => answer.with_low_watermark(start),
                    Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
                }
            });
            DeleteRecordsTopicResult::default().with_partitions(partitions.collect()).with_name(topic.name)
        });
        topics.collect()
    };
    DeleteRecordsResponse::default().with_topics(blocking(work).await.unwrap_or_default())
}

fn delete_until(partition: &Partition, offset: i64) -> Result<i64, ResponseError> {
    let high_watermark = partition.high_watermark();
    let offset = if offset == -1 { high_watermark } else { offset };
    if !(0..=high_watermark).contains(&offset) {
        return Err(ResponseError::OffsetOutOfRange);
    }
    partition.delete_until(offset).map_err(|fault| {
        tracing::error!(partition = %partition.name, %fault, "records cannot be deleted");
        ResponseError::KafkaStorageError
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use kafka_protocol::messages::ApiKey;
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

    use super::*;
    use crate::api::{fixture, text};
    use crate::topic_config::TopicConfig;

    #[tokio::test]
    async fn unknown_times_and_partitions_that_are_there_twice_are_refused_as_kafka_does() {
        let (_dir, broker) = fixture::broker().await;
        broker.shared().topics.create("t", 3, &TopicConfig::new(Default::default(), 1 << 20).unwrap()).unwrap();
        let ask = async |version: i16, wanted: &[(i32, i64)]| {
            let one = |(index, timestamp): &(i32, i64)| {
                ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(*timestamp).with_current_leader_epoch(-1)
            };
            let topic = ListOffsetsTopic::default().with_name(text("t").into()).with_partitions(wanted.iter().map(one).collect());
            let request = ListOffsetsRequest::default().with_topics(vec![topic]);
            let answer = list_offsets(broker.shared(), &fixture::header(ApiKey::ListOffsets, version), request).await;
            answer.topics[0].partitions.iter().map(|one| (one.partition_index, one.error_code)).collect::<Vec<_>>()
        };
        let (unsupported, invalid) = (ResponseError::UnsupportedVersion.code(), ResponseError::InvalidRequest.code());
        assert_eq!(ask(10, &[(0, -7), (1, LATEST_TIERED), (2, 0)]).await, [(0, unsupported), (1, 0), (2, 0)]);
        assert_eq!(ask(6, &[(0, MAX_TIMESTAMP), (1, EARLIEST)]).await, [(0, unsupported), (1, 0)]);
        assert_eq!(ask(10, &[(0, LATEST), (1, LATEST), (0, EARLIEST)]).await, [(0, invalid), (1, 0)]);
        broker.shutdown().await.unwrap();
    }
}
