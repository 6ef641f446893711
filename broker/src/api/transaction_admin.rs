//! What an administrator sees of transactions, and how it ends one that hangs: DescribeProducers, ListTransactions,
//! DescribeTransactions, WriteTxnMarkers.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
    list_transactions_response,
};

use regex::{Regex, RegexBuilder};

use super::{Request, text};
use crate::auth::users::Act;
use crate::broker::Shared;
use crate::clock::now_millis;
use crate::log::producers::Described;
use crate::txn::markers;
use crate::txn::state::{KeptTransaction, Status};

const STATES: [Status; 6] =
    [Status::Empty, Status::Ongoing, Status::PrepareCommit, Status::PrepareAbort, Status::CompleteCommit, Status::CompleteAbort];

pub(super) async fn describe_producers(
    broker: &Arc<Shared>,
    header: &Request,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let answer = PartitionResponse::default().with_partition_index(*index);
            if !header.may(Act::Read(&topic.name)) {
                return answer.with_error_code(ResponseError::TopicAuthorizationFailed.code());
            }
            match broker.topics.partition(&topic.name, *index) {
                Some(partition) => answer.with_active_producers(partition.producers().into_iter().map(producer).collect()),
                None => answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn producer(described: Described) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(described.producer_id))
        .with_producer_epoch(i32::from(described.epoch))
        .with_last_sequence(described.last_sequence)
        .with_last_timestamp(described.last_timestamp)
        .with_coordinator_epoch(if described.has_ended { 0 } else { -1 })
        .with_current_txn_start_offset(described.open_since.unwrap_or(-1))
}

/// A pattern that the whole of an id has to match. What it may take in memory is bounded: it comes from a client.
fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(1 << 20).build()
}

pub(super) async fn list(broker: &Arc<Shared>, header: &Request, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let pattern = match request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty()).map(whole).transpose() {
        Ok(pattern) => pattern,
        Err(_) => return ListTransactionsResponse::default().with_error_code(ResponseError::InvalidRegularExpression.code()),
    };
    let known = |name: &str| STATES.iter().any(|status| status.name() == name);
    let unknown = request.state_filters.iter().filter(|name| !known(name)).cloned().collect();
    let now = now_millis();
    let wanted = |kept: &KeptTransaction| {
        let state = request.state_filters.is_empty() || request.state_filters.iter().any(|name| &**name == kept.status.name());
        let producer = request.producer_id_filters.is_empty() || request.producer_id_filters.contains(&ProducerId(kept.producer_id));
        let open = kept.status == Status::Ongoing && kept.started.saturating_add(request.duration_filter) <= now;
        let lasting = header.version < 1 || request.duration_filter < 0 || open;
        let named = pattern.as_ref().is_none_or(|pattern| pattern.is_match(&kept.id));
        state && producer && lasting && named && header.may(Act::Transaction(&kept.id))
    };
    let listed = broker.transactions.list().await.into_iter().filter(wanted).map(|kept| {
        list_transactions_response::TransactionState::default()
            .with_transactional_id(TransactionalId(text(&kept.id)))
            .with_producer_id(ProducerId(kept.producer_id))
            .with_transaction_state(text(kept.status.name()))
    });
    ListTransactionsResponse::default().with_unknown_state_filters(unknown).with_transaction_states(listed.collect())
}

pub(super) async fn describe(broker: &Arc<Shared>, header: &Request, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let mut states = Vec::with_capacity(request.transactional_ids.len());
    for id in request.transactional_ids {
        let answer = TransactionState::default().with_transactional_id(id.clone());
        if !header.may(Act::Transaction(&id)) {
            states.push(answer.with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code()));
            continue;
        }
        states.push(match broker.transactions.describe(&id).await {
            Some(kept) => described(kept, answer),
            None => answer.with_error_code(ResponseError::TransactionalIdNotFound.code()),
        });
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn described(kept: KeptTransaction, answer: TransactionState) -> TransactionState {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, index) in kept.partitions {
        topics.entry(topic).or_default().push(index);
    }
    let topics =
        topics.into_iter().map(|(topic, partitions)| TopicData::default().with_topic(text(topic).into()).with_partitions(partitions));
    answer
        .with_transaction_state(text(kept.status.name()))
        .with_transaction_timeout_ms(i32::try_from(kept.timeout_ms).unwrap_or(i32::MAX))
        .with_transaction_start_time_ms(kept.started)
        .with_producer_id(ProducerId(kept.producer_id))
        .with_producer_epoch(kept.epoch)
        .with_topics(topics.collect())
}

pub(super) async fn write_markers(broker: &Arc<Shared>, header: &Request, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let allowed = header.may(Act::Administer);
    let mut results = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        let producer = (marker.producer_id.0, marker.producer_epoch);
        let mut topics = Vec::with_capacity(marker.topics.len());
        for topic in marker.topics {
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for index in topic.partition_indexes {
                let written = match broker.topics.partition(&topic.name, index) {
                    _ if !allowed => Err(ResponseError::ClusterAuthorizationFailed),
                    None => Err(ResponseError::UnknownTopicOrPartition),
                    Some(partition) if partition.producers().iter().any(|p| p.producer_id == producer.0 && p.epoch > producer.1) => {
                        Err(ResponseError::InvalidProducerEpoch)
                    }
                    Some(_) => markers::write(broker, vec![(topic.name.to_string(), index)], producer, marker.transaction_result)
                        .await
                        .map_err(|_| ResponseError::KafkaStorageError),
                };
                let answer = WritableTxnMarkerPartitionResult::default().with_partition_index(index);
                partitions.push(answer.with_error_code(written.map_or_else(|error| error.code(), |()| 0)));
            }
            topics.push(WritableTxnMarkerTopicResult::default().with_name(topic.name).with_partitions(partitions));
        }
        results.push(WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}
