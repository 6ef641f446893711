//! Fetch: whole batches from the files, waiting for them if there are too few.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use tokio::sync::Notify;

use super::fetch_answer::{FetchAnswer, PartitionAnswer};
use super::fetch_session::{Fetching, Key, Wish};
use super::{Outcome, Request, RequestFault};
use crate::auth::users::Act;
use crate::batch::LEADER_EPOCH;
use crate::broker::Shared;
use crate::log::partition::{Isolation, Partition};
use crate::log::scan::batches;

/// One answer never takes more than this, whatever the client allows.
const MAX_BYTES: usize = 64 << 20;
/// All answers together take little more than this: when clients read slowly, answers become smaller.
const ALL_BYTES: usize = 256 << 20;
/// What an answer may take in any case.
const LEAST_BYTES: usize = 64 << 10;
const MAX_WAIT: Duration = Duration::from_secs(60);
/// From this version on topics have ids, not names.
const BY_ID: i16 = 13;

/// One partition that is asked for.
#[derive(Debug, Clone)]
struct Wanted {
    key: Key,
    wish: Wish,
    partition: Result<Arc<Partition>, ResponseError>,
}

/// Takes a fetch. The frame of the answer comes in parts, so that the records need not be copied into it.
pub(super) async fn fetch(broker: &Arc<Shared>, header: &Request) -> Result<Outcome, RequestFault> {
    let mut request: FetchRequest = header.decode()?;
    let began = Instant::now();
    let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64).min(MAX_WAIT);
    let deadline = tokio::time::Instant::now() + wait;
    let min_bytes = request.min_bytes.max(0) as usize;
    let max_bytes = (request.max_bytes.max(0) as usize).min(MAX_BYTES);
    let isolation = if request.isolation_level == 0 { Isolation::Uncommitted } else { Isolation::Committed };
    let (wishes, forgotten) = wishes(&mut request);
    let begun = broker.fetch_sessions.begin(request.session_id, request.session_epoch, wishes, forgotten, began);
    let fetching = match begun {
        Ok(fetching) => fetching,
        Err(error) => return FetchAnswer::refused(error).frame(header).map(|parts| Outcome::Parts(parts, broker.counters.outgoing(0))),
    };
    let (session, incremental) = (fetching.session, fetching.incremental);
    let wanted = Arc::new(resolve(broker, header, fetching));
    let wake = Arc::new(Notify::new());
    loop {
        // Registered first, so that what becomes durable after the look is not missed.
        wanted.iter().filter_map(|one| one.partition.as_ref().ok()).for_each(|p| p.watch(&wake));
        let expired = tokio::time::Instant::now() >= deadline;
        if expired || min_bytes == 0 || wanted.iter().any(|one| one.has_news(isolation)) {
            let waiting = broker.counters.outgoing.load(Ordering::Acquire);
            let room = max_bytes.min((ALL_BYTES.saturating_sub(waiting) / 4).max(LEAST_BYTES));
            let (partitions, bytes, faults) = read(broker, wanted.clone(), room, isolation).await;
            if expired || faults || bytes >= min_bytes.min(room) {
                let outgoing = broker.counters.outgoing(bytes);
                let answer = FetchAnswer { error: 0, session, partitions };
                return tell(broker, answer, incremental).frame(header).map(|parts| Outcome::Parts(parts, outgoing));
            }
        }
        // Ends by itself at the deadline; the next round answers in any case.
        drop(tokio::time::timeout_at(deadline, wake.notified()).await);
    }
}

fn wishes(request: &mut FetchRequest) -> (Vec<(Key, Wish)>, Vec<Key>) {
    let mut wishes = Vec::new();
    for topic in std::mem::take(&mut request.topics) {
        let id = topic.topic_id.as_u128();
        for p in topic.partitions {
            let key = Key { name: topic.topic.clone(), id, index: p.partition };
            let (offset, max_bytes, leader_epoch) = (p.fetch_offset, p.partition_max_bytes, p.current_leader_epoch);
            wishes.push((key, Wish { offset, max_bytes, leader_epoch, told: None }));
        }
    }
    let forgotten = std::mem::take(&mut request.forgotten_topics_data).into_iter().flat_map(|topic| {
        let (name, id) = (topic.topic, topic.topic_id.as_u128());
        topic.partitions.into_iter().map(move |index| Key { name: name.clone(), id, index })
    });
    (wishes, forgotten.collect())
}

fn resolve(broker: &Shared, header: &Request, fetching: Fetching) -> Vec<Wanted> {
    let by_id = header.version >= BY_ID;
    let unknown = if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
    let find = |key: &Key, wish: &Wish| {
        let topic = if by_id { broker.topics.get_by_id(key.id) } else { broker.topics.get(&key.name) };
        let topic = topic.ok_or(unknown)?;
        if !header.may(Act::Read(&topic.name)) {
            return Err(ResponseError::TopicAuthorizationFailed);
        }
        if wish.leader_epoch > LEADER_EPOCH {
            return Err(ResponseError::UnknownLeaderEpoch);
        }
        topic.partition(key.index).ok_or(ResponseError::UnknownTopicOrPartition)
    };
    let one = |(key, wish): (Key, Wish)| Wanted { partition: find(&key, &wish), key, wish };
    fetching.wishes.into_iter().map(one).collect()
}

impl Wanted {
    /// Whether all there is to read is little and was written just now, so that it need not come from the disk.
    fn is_fresh(&self) -> bool {
        self.partition.as_ref().map_or(true, |partition| partition.is_fresh(self.wish.offset))
    }

    /// Whether there is something to read, or an error to tell.
    fn has_news(&self, isolation: Isolation) -> bool {
        let offset = self.wish.offset;
        self.partition
            .as_ref()
            .map_or(true, |partition| offset < partition.readable(isolation) || offset > partition.end() || offset < partition.start())
    }

    /// Reads up to `left` bytes of the answer's remaining room; the first data of an answer may exceed it.
    fn read(&self, left: usize, first: bool, isolation: Isolation) -> PartitionAnswer {
        let refused = |error: ResponseError, start: i64| PartitionAnswer::refused(self.key.clone(), error, start);
        let partition = match &self.partition {
            Ok(partition) => partition,
            Err(error) => return refused(*error, -1),
        };
        let (start, offset) = (partition.start(), self.wish.offset);
        if offset < start || offset > partition.end() {
            return refused(ResponseError::OffsetOutOfRange, start);
        }
        let room = (self.wish.max_bytes.max(0) as usize).min(left);
        let mut records = Bytes::new();
        if first || room > 0 {
            match partition.read(offset, room, isolation) {
                // A batch larger than the room is sent only when nothing else would be.
                Ok(read) if first || read.len() <= room => records = read,
                Ok(_) => {}
                // Retention has taken the segment just now.
                Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => {}
                Err(fault) => {
                    tracing::error!(partition = %partition.name, %fault, "the log cannot be read");
                    return refused(ResponseError::KafkaStorageError, start);
                }
            }
        }
        let until = batches(&records).last().map_or(offset, |(_, header)| header.next_offset());
        PartitionAnswer {
            key: self.key.clone(),
            error: 0,
            high_watermark: partition.high_watermark(),
            last_stable: partition.readable(Isolation::Committed),
            start,
            aborted: (isolation == Isolation::Committed).then(|| partition.aborted_in(offset, until)),
            told: self.wish.told,
            records,
        }
    }
}

/// Reads once; tells how many bytes there are and whether a partition has a fault, which is not to be waited over.
async fn read(
    broker: &Arc<Shared>,
    wanted: Arc<Vec<Wanted>>,
    max_bytes: usize,
    isolation: Isolation,
) -> (Vec<PartitionAnswer>, usize, bool) {
    let (counters, fresh) = (broker.counters.clone(), wanted.iter().all(Wanted::is_fresh));
    let work = move || {
        let (mut bytes, mut faults) = (0, false);
        let mut answers = Vec::with_capacity(wanted.len());
        for one in wanted.iter() {
            let answer = one.read(max_bytes.saturating_sub(bytes), bytes == 0, isolation);
            counters.fetched(batches(&answer.records).map(|(_, header)| header.records as u64).sum(), answer.records.len());
            bytes += answer.records.len();
            faults |= answer.error != 0;
            answers.push(answer);
        }
        (answers, bytes, faults)
    };
    broker.quick.run(fresh, work).await.unwrap_or_default()
}

/// Leaves out what an incremental fetch need not be told, and notes what it is.
fn tell(broker: &Shared, mut answer: FetchAnswer, incremental: bool) -> FetchAnswer {
    if answer.session == 0 {
        return answer;
    }
    if incremental {
        answer.partitions.retain(PartitionAnswer::is_news);
    }
    let told = answer.partitions.iter().map(|one| (one.key.clone(), one.facts())).collect();
    let with_data = answer.partitions.iter().rfind(|one| !one.records.is_empty()).map(|one| one.key.clone());
    broker.fetch_sessions.told(answer.session, told, with_data);
    answer
}
