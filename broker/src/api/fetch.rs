//! Fetch: whole batches from the files, waiting for them if there are too few. No sessions: every fetch names all it wants.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Request, blocking};
use crate::batch::LEADER_EPOCH;
use crate::broker::Shared;
use crate::ids::wire_id;
use crate::log::partition::Partition;
use crate::log::scan::batches;

/// One answer never takes more than this, whatever the client allows.
const MAX_BYTES: usize = 64 << 20;
const MAX_WAIT: Duration = Duration::from_secs(60);

/// One partition that is asked for.
#[derive(Debug, Clone)]
struct Wanted {
    partition: Result<Arc<Partition>, ResponseError>,
    index: i32,
    offset: i64,
    max_bytes: usize,
}

struct WantedTopic {
    name: TopicName,
    id: u128,
    partitions: Vec<Wanted>,
}

pub(super) async fn fetch(broker: &Arc<Shared>, header: &Request, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 && request.session_epoch > 0 {
        return FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
    }
    let deadline = Instant::now() + Duration::from_millis(request.max_wait_ms.max(0) as u64).min(MAX_WAIT);
    let min_bytes = request.min_bytes.max(0) as usize;
    let max_bytes = (request.max_bytes.max(0) as usize).min(MAX_BYTES);
    let topics = Arc::new(resolve(broker, header.version, request));
    let wake = Arc::new(Notify::new());
    loop {
        // Registered first, so that what becomes durable after the look is not missed.
        let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
        partitions().filter_map(|wanted| wanted.partition.as_ref().ok()).for_each(|p| p.watch(&wake));
        let expired = Instant::now() >= deadline;
        if expired || min_bytes == 0 || partitions().any(Wanted::has_news) {
            let (response, bytes, faults) = read(broker, topics.clone(), max_bytes).await;
            if expired || faults || bytes >= min_bytes {
                return response;
            }
        }
        // Ends by itself at the deadline; the next round answers in any case.
        drop(tokio::time::timeout_at(deadline, wake.notified()).await);
    }
}

fn resolve(broker: &Shared, version: i16, request: FetchRequest) -> Vec<WantedTopic> {
    let topics = request.topics.into_iter().map(|topic| {
        let by_id = version >= 13;
        let found = if by_id { broker.topics.get_by_id(topic.topic_id.as_u128()) } else { broker.topics.get(&topic.topic) };
        let unknown = if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
        let wanted = |p: FetchPartition| {
            let partition = match &found {
                None => Err(unknown),
                Some(_) if p.current_leader_epoch > LEADER_EPOCH => Err(ResponseError::UnknownLeaderEpoch),
                Some(topic) => topic.partition(p.partition).ok_or(ResponseError::UnknownTopicOrPartition),
            };
            let max_bytes = p.partition_max_bytes.max(0) as usize;
            Wanted { partition, index: p.partition, offset: p.fetch_offset, max_bytes }
        };
        let partitions = topic.partitions.into_iter().map(wanted).collect();
        WantedTopic { name: topic.topic, id: topic.topic_id.as_u128(), partitions }
    });
    topics.collect()
}

impl Wanted {
    /// Whether there is something to read, or an error to tell.
    fn has_news(&self) -> bool {
        self.partition.as_ref().map_or(true, |partition| {
            self.offset < partition.high_watermark() || self.offset > partition.end() || self.offset < partition.start()
        })
    }

    /// Reads up to `left` bytes of the answer's remaining room; the first data of an answer may exceed it.
    fn read(&self, left: usize, first: bool) -> PartitionData {
        let answer = PartitionData::default().with_partition_index(self.index).with_preferred_read_replica(BrokerId(-1));
        let refused = |error: ResponseError| {
            answer.clone().with_error_code(error.code()).with_high_watermark(-1).with_records(Some(bytes::Bytes::new()))
        };
        let partition = match &self.partition {
            Ok(partition) => partition,
            Err(error) => return refused(*error),
        };
        let start = partition.start();
        if self.offset < start || self.offset > partition.end() {
            return refused(ResponseError::OffsetOutOfRange).with_log_start_offset(start);
        }
        let room = self.max_bytes.min(left);
        let mut records = Vec::new();
        if first || room > 0 {
            match partition.read(self.offset, room) {
                // A batch larger than the room is sent only when nothing else would be.
                Ok(read) if first || read.len() <= room => records = read,
                Ok(_) => {}
                Err(fault) => {
                    tracing::error!(partition = %partition.name, %fault, "the log cannot be read");
                    return refused(ResponseError::KafkaStorageError);
                }
            }
        }
        let high_watermark = partition.high_watermark();
        answer
            .with_high_watermark(high_watermark)
            .with_last_stable_offset(high_watermark)
            .with_log_start_offset(start)
            .with_records(Some(records.into()))
    }
}

/// Reads once; tells how many bytes there are and whether a partition has a fault, which is not to be waited over.
async fn read(broker: &Arc<Shared>, topics: Arc<Vec<WantedTopic>>, max_bytes: usize) -> (FetchResponse, usize, bool) {
    let counters = broker.counters.clone();
    let work = move || {
        let (mut bytes, mut faults) = (0, false);
        let mut responses = Vec::with_capacity(topics.len());
        for topic in topics.iter() {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let data = wanted.read(max_bytes.saturating_sub(bytes), bytes == 0);
                let records = data.records.as_deref().unwrap_or_default();
                counters.fetched(batches(records).map(|(_, header)| header.records as u64).sum(), records.len());
                bytes += records.len();
                faults |= data.error_code != 0;
                partitions.push(data);
            }
            let response = FetchableTopicResponse::default().with_topic(topic.name.clone()).with_topic_id(wire_id(topic.id));
            responses.push(response.with_partitions(partitions));
        }
        (FetchResponse::default().with_responses(responses), bytes, faults)
    };
    blocking(work).await.unwrap_or_else(|| (FetchResponse::default().with_error_code(ResponseError::UnknownServerError.code()), 0, true))
}
