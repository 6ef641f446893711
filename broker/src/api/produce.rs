//! Produce and InitProducerId.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId, TopicName};

use super::{Request, RequestFault, blocking, text};
use crate::batch::BatchFault;
use crate::broker::Shared;
use crate::log::partition::{AppendFault, Appended};

/// The answer to a produce, when its batches are durable; `None` when no answer is wanted.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<Option<Bytes>, RequestFault>> + Send>>;

struct Refused {
    error: ResponseError,
    detail: Option<String>,
}

type Placed = (i32, Result<Appended, Refused>);

/// Appends in the order of arrival, before the next request of the connection is looked at; the flush comes after.
pub(super) async fn produce(broker: &Arc<Shared>, mut header: Request) -> Result<Pending, RequestFault> {
    let request: ProduceRequest = header.decode()?;
    // The records need not stay in memory until their flush.
    header.body = Bytes::new();
    let acks = request.acks;
    let shared = broker.clone();
    let placed = blocking(move || append_all(&shared, request)).await.unwrap_or_default();
    Ok(Box::pin(async move {
        let refused = placed.iter().flat_map(|(_, partitions)| partitions).find_map(|(_, placed)| placed.as_ref().err());
        if acks == 0 {
            // Nobody reads an answer; closing the connection is the only way to be heard.
            return match refused {
                Some(refused) => Err(RequestFault::Unacknowledged(refused.error.to_string())),
                None => Ok(None),
            };
        }
        let mut responses = Vec::with_capacity(placed.len());
        for (name, partitions) in placed {
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, placed) in partitions {
                answers.push(answer(index, placed).await);
            }
            responses.push(TopicProduceResponse::default().with_name(name).with_partition_responses(answers));
        }
        header.answer(&ProduceResponse::default().with_responses(responses)).map(Some)
    }))
}

fn append_all(broker: &Shared, request: ProduceRequest) -> Vec<(TopicName, Vec<Placed>)> {
    let acks_known = matches!(request.acks, -1..=1);
    let transactional = request.transactional_id.is_some();
    let topics = request.topic_data.into_iter().map(|topic| {
        let found = broker.topics.get(&topic.name);
        let partitions = topic.partition_data.into_iter().map(|data| {
            let partition = found.as_ref().and_then(|topic| topic.partition(data.index));
            let placed = match (partition, data.records) {
                _ if !acks_known => Err(ResponseError::InvalidRequiredAcks.into()),
                _ if transactional => Err(ResponseError::InvalidTxnState.into()),
                (None, _) => Err(ResponseError::UnknownTopicOrPartition.into()),
                (Some(_), None) => Err(ResponseError::InvalidRecord.into()),
                (Some(partition), Some(records)) => {
                    let placed = partition.append(&records).map_err(Refused::from);
                    broker.flusher.request(&partition);
                    placed
                }
            };
            (data.index, placed)
        });
        (topic.name, partitions.collect())
    });
    topics.collect()
}

async fn answer(index: i32, placed: Result<Appended, Refused>) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default().with_index(index).with_base_offset(-1).with_log_append_time_ms(-1);
    let placed = match placed {
        Ok(placed) => placed,
        Err(refused) => {
            let detail = refused.detail.map(text);
            return answer.with_error_code(refused.error.code()).with_error_message(detail);
        }
    };
    match placed.ack.await {
        Ok(Ok(())) => answer.with_base_offset(placed.base_offset).with_log_start_offset(placed.start),
        _ => answer.with_error_code(ResponseError::KafkaStorageError.code()),
    }
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Self {
        Self { error, detail: None }
    }
}

impl From<AppendFault> for Refused {
    fn from(fault: AppendFault) -> Self {
        let error = match &fault {
            AppendFault::Batch(BatchFault::Short | BatchFault::Length | BatchFault::Place | BatchFault::Crc) => {
                ResponseError::CorruptMessage
            }
            AppendFault::Batch(BatchFault::Magic(_)) => ResponseError::UnsupportedForMessageFormat,
            AppendFault::Batch(BatchFault::Codec) => ResponseError::UnsupportedCompressionType,
            AppendFault::Batch(BatchFault::Transactional) => ResponseError::InvalidTxnState,
            AppendFault::Batch(BatchFault::AppendTime) => ResponseError::InvalidTimestamp,
            AppendFault::Batch(BatchFault::Count | BatchFault::NotOne | BatchFault::Control | BatchFault::Sequence) => {
                ResponseError::InvalidRecord
            }
            AppendFault::TooLarge { .. } => ResponseError::MessageTooLarge,
            AppendFault::OutOfOrder => ResponseError::OutOfOrderSequenceNumber,
            AppendFault::OldEpoch => ResponseError::InvalidProducerEpoch,
            AppendFault::Storage(_) => ResponseError::KafkaStorageError,
            AppendFault::Closed => ResponseError::NotLeaderOrFollower,
        };
        Self { error, detail: Some(fault.to_string()) }
    }
}

/// Gives out a producer id. There are no transactions, so a transactional id is refused.
pub(super) async fn init_producer_id(broker: &Arc<Shared>, _header: &Request, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refused = |error: ResponseError| {
        InitProducerIdResponse::default().with_error_code(error.code()).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        return refused(ResponseError::TransactionalIdAuthorizationFailed);
    }
    let dir = broker.dir.clone();
    match blocking(move || dir.next_producer_id()).await {
        Some(Ok(id)) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Some(Err(fault)) => {
            tracing::error!(%fault, "no producer id can be given out");
            refused(ResponseError::CoordinatorNotAvailable)
        }
        None => refused(ResponseError::CoordinatorNotAvailable),
    }
}
