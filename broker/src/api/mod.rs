//! The requests that are understood: one file per family, and the table that ApiVersions shows.

mod configs;
mod coordinator;
mod fetch;
mod group_offsets;
mod membership;
mod metadata;
mod offsets;
mod produce;
mod topics;
mod versions;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, BrokerId, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::broker::Shared;
use crate::wire::shapes::shape_of;

pub(crate) use produce::Pending;

/// The only node of this cluster.
pub(crate) const NODE: BrokerId = BrokerId(1);

/// What is implemented: (API, first version, last version).
pub(crate) const APIS: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 10),
    (ApiKey::Fetch, 4, 16),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::OffsetCommit, 2, 8),
    (ApiKey::OffsetFetch, 1, 8),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 4),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::DeleteGroups, 0, 2),
];

/// Why a request gets no answer: the connection is closed, as Kafka does.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestFault {
    #[error("it sent a request that is cut short")]
    Short,
    #[error("it sent a request with the unknown API key {0}")]
    UnknownKey(i16),
    #[error("it sent {0:?} in version {1}, which is not supported")]
    Version(ApiKey, i16),
    #[error("it sent a {key:?} request (version {version}) that cannot be read: {detail}")]
    Malformed { key: ApiKey, version: i16, detail: String },
    #[error("the answer to {key:?} (version {version}) cannot be written: {detail}")]
    Answer { key: ApiKey, version: i16, detail: String },
    #[error("its unacknowledged produce was refused: {0}")]
    Unacknowledged(String),
}

/// A request whose header has been read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    correlation_id: i32,
    client_id: String,
    /// Address of the client, for the description of groups.
    client_host: String,
    body: Bytes,
}

/// What a request leads to.
pub(crate) enum Outcome {
    /// A frame to send.
    Answer(Bytes),
    /// A produce: the answer follows when its batches are durable, requests after it need not wait.
    Pending(Pending),
}

impl Request {
    /// Reads the header of a frame and checks the shape of its body.
    pub(crate) fn parse(mut frame: Bytes, client_host: String) -> Result<Self, RequestFault> {
        let head: [u8; 8] = frame.get(..8).and_then(|head| head.try_into().ok()).ok_or(RequestFault::Short)?;
        let raw_key = i16::from_be_bytes([head[0], head[1]]);
        let version = i16::from_be_bytes([head[2], head[3]]);
        let correlation_id = i32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let key = ApiKey::try_from(raw_key).map_err(|()| RequestFault::UnknownKey(raw_key))?;
        let known = APIS.iter().find(|(api, _, _)| *api as i16 == raw_key).ok_or(RequestFault::UnknownKey(raw_key))?;
        let mut request = Self { key, version, correlation_id, client_id: String::new(), client_host, body: Bytes::new() };
        if !(known.1..=known.2).contains(&version) {
            // Only ApiVersions answers: the client learns there what to ask instead.
            return if key == ApiKey::ApiVersions { Ok(request) } else { Err(RequestFault::Version(key, version)) };
        }
        let header = RequestHeader::decode(&mut frame, key.request_header_version(version));
        let header = header.map_err(|fault| request.malformed(&fault))?;
        request.client_id = header.client_id.map(|id| id.to_string()).unwrap_or_default();
        let shape = shape_of(key).ok_or(RequestFault::UnknownKey(raw_key))?;
        shape.check(&frame, version).map_err(|fault| request.malformed(&fault))?;
        request.body = frame;
        Ok(request)
    }

    fn malformed(&self, detail: &impl ToString) -> RequestFault {
        RequestFault::Malformed { key: self.key, version: self.version, detail: detail.to_string() }
    }

    fn decode<T: Decodable>(&self) -> Result<T, RequestFault> {
        T::decode(&mut self.body.clone(), self.version).map_err(|fault| self.malformed(&fault))
    }

    /// The frame of an answer, its length included.
    fn answer(&self, body: &impl Encodable) -> Result<Bytes, RequestFault> {
        self.answer_in(body, self.version)
    }

    fn answer_in(&self, body: &impl Encodable, version: i16) -> Result<Bytes, RequestFault> {
        let header = ResponseHeader::default().with_correlation_id(self.correlation_id);
        let mut frame = BytesMut::new();
        let fault = |fault: &dyn std::fmt::Display| RequestFault::Answer { key: self.key, version, detail: fault.to_string() };
        frame.reserve(body.compute_size(version).map_err(|f| fault(&f))? + 16);
        frame.extend_from_slice(&[0; 4]);
        header.encode(&mut frame, self.key.response_header_version(version)).map_err(|f| fault(&f))?;
        body.encode(&mut frame, version).map_err(|f| fault(&f))?;
        let length = i32::try_from(frame.len() - 4).map_err(|f| fault(&f))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame.freeze())
    }

    /// Does what is asked.
    pub(crate) async fn handle(self, broker: &Arc<Shared>) -> Result<Outcome, RequestFault> {
        macro_rules! with {
            ($handler:expr) => {{
                let request = self.decode()?;
                let response = $handler(broker, &self, request).await;
                self.answer(&response)
            }};
        }
        let answer = match self.key {
            ApiKey::Produce => return produce::produce(broker, self).await.map(Outcome::Pending),
            ApiKey::ApiVersions => versions::api_versions(&self),
            ApiKey::Fetch => with!(fetch::fetch),
            ApiKey::ListOffsets => with!(offsets::list_offsets),
            ApiKey::Metadata => with!(metadata::metadata),
            ApiKey::OffsetCommit => with!(group_offsets::commit),
            ApiKey::OffsetFetch => with!(group_offsets::fetch),
            ApiKey::FindCoordinator => with!(coordinator::find),
            ApiKey::JoinGroup => with!(membership::join),
            ApiKey::Heartbeat => with!(membership::heartbeat),
            ApiKey::LeaveGroup => with!(membership::leave),
            ApiKey::SyncGroup => with!(membership::sync),
            ApiKey::DescribeGroups => with!(coordinator::describe),
            ApiKey::ListGroups => with!(coordinator::list),
            ApiKey::CreateTopics => with!(topics::create),
            ApiKey::DeleteTopics => with!(topics::delete),
            ApiKey::DeleteRecords => with!(offsets::delete_records),
            ApiKey::InitProducerId => with!(produce::init_producer_id),
            ApiKey::OffsetForLeaderEpoch => with!(offsets::for_leader_epoch),
            ApiKey::DescribeConfigs => with!(configs::describe),
            ApiKey::DeleteGroups => with!(coordinator::delete),
            other => Err(RequestFault::UnknownKey(other as i16)),
        };
        answer.map(Outcome::Answer)
    }
}

/// A string of ours in the codec's type.
fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}

/// Runs disk work where it does not hold up the network. `None` when the runtime is shutting down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
