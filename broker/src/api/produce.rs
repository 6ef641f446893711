//! Produce and InitProducerId.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::TopicProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId};

use super::{Request, RequestFault, blocking, text};
use crate::auth::users::{Act, Principal};
use crate::batch::{BatchFault, BatchHeader};
use crate::broker::Shared;
use crate::log::partition::{AppendFault, Appended, Partition};
use crate::quick::MOST_BYTES;
use crate::topics::Topic;

/// The answer to a produce, when its batches are durable; `None` when no answer is wanted.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<Option<Bytes>, RequestFault>> + Send>>;

/// From this version on topics have ids, not names.
const BY_ID: i16 = 13;

struct Refused {
    error: ResponseError,
    detail: Option<String>,
}

type Placed = (i32, Result<Appended, Refused>);

/// Who produces, and how.
struct Producing {
    principal: Principal,
    version: i16,
    acks: i16,
    transactional_id: Option<String>,
}

/// Appends in the order of arrival, before the next request of the connection is looked at; the flush comes after.
pub(super) async fn produce(broker: &Arc<Shared>, mut header: Request) -> Result<Pending, RequestFault> {
    let request: ProduceRequest = header.decode()?;
    // A transaction may have to be waited for.
    let small = header.body.len() <= MOST_BYTES && request.transactional_id.is_none();
    // The records need not stay in memory until their flush.
    header.body = Bytes::new();
    let producing = Producing {
        principal: header.client.principal(),
        version: header.version,
        acks: request.acks,
        transactional_id: request.transactional_id.map(|id| id.to_string()),
    };
    let (acks, shared) = (request.acks, broker.clone());
    let work = move || request.topic_data.into_iter().map(|topic| append_topic(&shared, &producing, topic)).collect::<Vec<_>>();
    let placed = broker.quick.run(small, work).await.unwrap_or_default();
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
        for (topic, partitions) in placed {
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, placed) in partitions {
                answers.push(answer(index, placed).await);
            }
            responses.push(topic.with_partition_responses(answers));
        }
        header.answer(&ProduceResponse::default().with_responses(responses)).map(Some)
    }))
}

fn append_topic(broker: &Shared, producing: &Producing, data: TopicProduceData) -> (TopicProduceResponse, Vec<Placed>) {
    let by_id = producing.version >= BY_ID;
    let topic = if by_id { broker.topics.get_by_id(data.topic_id.as_u128()) } else { broker.topics.get(&data.name) };
    let unknown = if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
    let placed = data.partition_data.into_iter().map(|partition| {
        let placed = match (&topic, partition.records) {
            _ if !matches!(producing.acks, -1..=1) => Err(ResponseError::InvalidRequiredAcks.into()),
            (None, _) => Err(unknown.into()),
            (Some(topic), _) if !producing.principal.may(Act::Write(&topic.name)) => Err(ResponseError::TopicAuthorizationFailed.into()),
            (Some(_), None) => Err(ResponseError::InvalidRecord.into()),
            (Some(topic), Some(records)) => append_one(broker, producing, topic, partition.index, &records),
        };
        (partition.index, placed)
    });
    let placed = placed.collect();
    (TopicProduceResponse::default().with_name(data.name).with_topic_id(data.topic_id), placed)
}

fn append_one(broker: &Shared, producing: &Producing, topic: &Topic, index: i32, records: &Bytes) -> Result<Appended, Refused> {
    let partition = topic.partition(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    // The rest of it is checked when it is appended.
    let header = BatchHeader::parse(records).map_err(AppendFault::from)?;
    let placed = match &producing.transactional_id {
        None if header.is_transactional() => return Err(ResponseError::InvalidTxnState.into()),
        Some(id) if header.is_transactional() => {
            if !producing.principal.may(Act::Transaction(id)) {
                return Err(ResponseError::TransactionalIdAuthorizationFailed.into());
            }
            let producer = (header.producer_id, header.producer_epoch);
            let appended = broker.transactions.within(id, producer, (&topic.name, index), || partition.append(records));
            // Producers have known this one longer than the other.
            appended.map_err(|error| if error == ResponseError::ProducerFenced { ResponseError::InvalidProducerEpoch } else { error })?
        }
        _ => partition.append(records),
    };
    finish(broker, &partition, placed)
}

fn finish(broker: &Shared, partition: &Arc<Partition>, placed: Result<Appended, AppendFault>) -> Result<Appended, Refused> {
    broker.flusher.request(partition);
    placed.map_err(Refused::from)
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
        Ok(Ok(())) => {
            let answer = answer.with_base_offset(placed.base_offset).with_log_start_offset(placed.start);
            answer.with_log_append_time_ms(placed.append_time.unwrap_or(-1))
        }
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
            AppendFault::Batch(BatchFault::Short | BatchFault::Length | BatchFault::Place | BatchFault::Crc) | AppendFault::Records(_) => {
                ResponseError::CorruptMessage
            }
            AppendFault::Batch(BatchFault::Magic(_)) => ResponseError::UnsupportedForMessageFormat,
            AppendFault::Batch(BatchFault::Codec) => ResponseError::UnsupportedCompressionType,
            AppendFault::Batch(BatchFault::Transactional) => ResponseError::InvalidTxnState,
            AppendFault::Batch(BatchFault::AppendTime) | AppendFault::Timestamp => ResponseError::InvalidTimestamp,
            AppendFault::Batch(BatchFault::Count | BatchFault::NotOne | BatchFault::Control | BatchFault::Sequence)
            | AppendFault::NoKey => ResponseError::InvalidRecord,
            AppendFault::TooLarge { .. } => ResponseError::MessageTooLarge,
            AppendFault::OutOfOrder => ResponseError::OutOfOrderSequenceNumber,
            AppendFault::OldEpoch => ResponseError::InvalidProducerEpoch,
            AppendFault::Storage(_) | AppendFault::NoRoom => ResponseError::KafkaStorageError,
            AppendFault::Closed => ResponseError::NotLeaderOrFollower,
        };
        Self { error, detail: Some(fault.to_string()) }
    }
}

/// Gives out a producer id, or the next epoch of a transactional one.
pub(super) async fn init_producer_id(broker: &Arc<Shared>, header: &Request, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let given = match init(broker, header, &request).await {
        // Versions that do not know it are told of the old epoch.
        Err(ResponseError::ProducerFenced) if header.version < 4 => Err(ResponseError::InvalidProducerEpoch),
        given => given,
    };
    match given {
        Ok((id, epoch)) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(epoch),
        Err(error) => {
            InitProducerIdResponse::default().with_error_code(error.code()).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
        }
    }
}

async fn init(broker: &Arc<Shared>, header: &Request, request: &InitProducerIdRequest) -> Result<(i64, i16), ResponseError> {
    if let Some(id) = &request.transactional_id {
        if !header.may(Act::Transaction(id)) {
            return Err(ResponseError::TransactionalIdAuthorizationFailed);
        }
        let given = (request.producer_id.0 >= 0).then_some((request.producer_id.0, request.producer_epoch));
        return broker.transactions.init(broker, id, request.transaction_timeout_ms, given).await;
    }
    let dir = broker.dir.clone();
    match blocking(move || dir.next_producer_id()).await {
        Some(Ok(id)) => Ok((id, 0)),
        Some(Err(fault)) => {
            tracing::error!(%fault, "no producer id can be given out");
            Err(ResponseError::CoordinatorNotAvailable)
        }
        None => Err(ResponseError::CoordinatorNotAvailable),
    }
}
