//! The requests that are understood: one file per family, and the table that ApiVersions shows.

mod admin;
mod client;
mod configs;
mod coordinator;
mod fetch;
mod fetch_answer;
mod fetch_session;
mod group_offsets;
mod log_dirs;
mod membership;
mod metadata;
mod offsets;
mod operations;
mod partitions;
mod produce;
mod sasl;
mod topics;
mod transaction_admin;
mod transactions;
mod versions;

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, BrokerId, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::auth::users::Act;
use crate::broker::Shared;
use crate::stats::Outgoing;
use crate::wire::shapes::shape_of;

pub(crate) use client::{Advertised, Client};
pub(crate) use fetch_session::FetchSessions;
pub(crate) use produce::Pending;

/// The only node of this cluster.
pub(crate) const NODE: BrokerId = BrokerId(1);

/// What is implemented: (API, first version, last version).
pub(crate) const APIS: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 13),
    (ApiKey::Fetch, 4, 17),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 8),
    (ApiKey::OffsetFetch, 1, 8),
    (ApiKey::FindCoordinator, 0, 5),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::SaslHandshake, 0, 1),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 3),
    (ApiKey::AddOffsetsToTxn, 0, 4),
    (ApiKey::EndTxn, 0, 4),
    (ApiKey::WriteTxnMarkers, 1, 1),
    (ApiKey::TxnOffsetCommit, 0, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::DescribeLogDirs, 1, 4),
    (ApiKey::SaslAuthenticate, 0, 2),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeCluster, 0, 2),
    (ApiKey::DescribeProducers, 0, 0),
    (ApiKey::DescribeTransactions, 0, 0),
    (ApiKey::ListTransactions, 0, 2),
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
    #[error("it sent {0:?} before it had authenticated")]
    Unauthenticated(ApiKey),
    #[error("it did not authenticate itself")]
    Refused,
}

/// A request whose header has been read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    correlation_id: i32,
    client_id: String,
    pub(crate) client: Arc<Client>,
    body: Bytes,
}

/// What a request leads to.
pub(crate) enum Outcome {
    /// A frame to send.
    Answer(Bytes),
    /// A frame to send, in parts.
    Parts(Vec<Bytes>, Outgoing),
    /// A frame to send before the connection is closed.
    Last(Bytes),
    /// A produce: the answer follows when its batches are durable, requests after it need not wait.
    Pending(Pending),
}

impl Request {
    /// Reads the header of a frame and checks the shape of its body.
    pub(crate) fn parse(mut frame: Bytes, client: &Arc<Client>) -> Result<Self, RequestFault> {
        let head: [u8; 8] = frame.get(..8).and_then(|head| head.try_into().ok()).ok_or(RequestFault::Short)?;
        let raw_key = i16::from_be_bytes([head[0], head[1]]);
        let version = i16::from_be_bytes([head[2], head[3]]);
        let correlation_id = i32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let key = ApiKey::try_from(raw_key).map_err(|()| RequestFault::UnknownKey(raw_key))?;
        let known = APIS.iter().find(|(api, _, _)| *api as i16 == raw_key).ok_or(RequestFault::UnknownKey(raw_key))?;
        let client = client.clone();
        let mut request = Self { key, version, correlation_id, client_id: String::new(), client, body: Bytes::new() };
        if !request.client.may_send(key) {
            return Err(RequestFault::Unauthenticated(key));
        }
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

    /// Whether the client may do this.
    fn may(&self, act: Act<'_>) -> bool {
        self.client.principal().may(act)
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
            ApiKey::Fetch => return fetch::fetch(broker, &self).await,
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
            ApiKey::SaslHandshake => with!(sasl::handshake),
            ApiKey::SaslAuthenticate => return sasl::authenticate(&self),
            ApiKey::AddPartitionsToTxn => with!(transactions::add_partitions),
            ApiKey::AddOffsetsToTxn => with!(transactions::add_offsets),
            ApiKey::EndTxn => with!(transactions::end),
            ApiKey::TxnOffsetCommit => with!(transactions::commit_offsets),
            ApiKey::WriteTxnMarkers => with!(transaction_admin::write_markers),
            ApiKey::DescribeProducers => with!(transaction_admin::describe_producers),
            ApiKey::DescribeTransactions => with!(transaction_admin::describe),
            ApiKey::ListTransactions => with!(transaction_admin::list),
            ApiKey::AlterConfigs => with!(configs::alter),
            ApiKey::IncrementalAlterConfigs => with!(configs::alter_incrementally),
            ApiKey::DescribeLogDirs => with!(log_dirs::describe),
            ApiKey::CreatePartitions => with!(partitions::create),
            ApiKey::OffsetDelete => with!(group_offsets::delete),
            ApiKey::DescribeCluster => with!(admin::describe_cluster),
            other => Err(RequestFault::UnknownKey(other as i16)),
        };
        answer.map(Outcome::Answer)
    }
}

/// Reads a frame as far as it goes without doing what it asks: header, shape and body.
pub(crate) fn try_decode(frame: Bytes, client: &Arc<Client>) -> Result<(), RequestFault> {
    use kafka_protocol::messages::*;
    let request = Request::parse(frame, client)?;
    macro_rules! decodes {
        ($($key:ident => $message:ty),* $(,)?) => {
            match request.key {
                $(ApiKey::$key => request.decode::<$message>().map(drop),)*
                other => Err(RequestFault::UnknownKey(other as i16)),
            }
        };
    }
    decodes! {
        Produce => ProduceRequest, Fetch => FetchRequest, ListOffsets => ListOffsetsRequest, Metadata => MetadataRequest,
        OffsetCommit => OffsetCommitRequest, OffsetFetch => OffsetFetchRequest, FindCoordinator => FindCoordinatorRequest,
        JoinGroup => JoinGroupRequest, Heartbeat => HeartbeatRequest, LeaveGroup => LeaveGroupRequest,
        SyncGroup => SyncGroupRequest, DescribeGroups => DescribeGroupsRequest, ListGroups => ListGroupsRequest,
        SaslHandshake => SaslHandshakeRequest, ApiVersions => ApiVersionsRequest, CreateTopics => CreateTopicsRequest,
        DeleteTopics => DeleteTopicsRequest, DeleteRecords => DeleteRecordsRequest, InitProducerId => InitProducerIdRequest,
        OffsetForLeaderEpoch => OffsetForLeaderEpochRequest, AddPartitionsToTxn => AddPartitionsToTxnRequest,
        AddOffsetsToTxn => AddOffsetsToTxnRequest, EndTxn => EndTxnRequest, WriteTxnMarkers => WriteTxnMarkersRequest,
        TxnOffsetCommit => TxnOffsetCommitRequest, DescribeConfigs => DescribeConfigsRequest, AlterConfigs => AlterConfigsRequest,
        DescribeLogDirs => DescribeLogDirsRequest, SaslAuthenticate => SaslAuthenticateRequest,
        CreatePartitions => CreatePartitionsRequest, DeleteGroups => DeleteGroupsRequest,
        IncrementalAlterConfigs => IncrementalAlterConfigsRequest, OffsetDelete => OffsetDeleteRequest,
        DescribeCluster => DescribeClusterRequest, DescribeProducers => DescribeProducersRequest,
        DescribeTransactions => DescribeTransactionsRequest, ListTransactions => ListTransactionsRequest,
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

/// A frame as a client sends it, without its length.
#[cfg(test)]
pub(crate) fn frame(key: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    out.extend((key as i16).to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(99_i32.to_be_bytes());
    out.extend((-1_i16).to_be_bytes());
    if key.request_header_version(version) >= 2 {
        out.push(0);
    }
    out.extend(body);
    out.into()
}

/// What a request names more than once.
fn doubled<K: Eq + Hash + Copy>(named: impl Iterator<Item = K>) -> HashSet<K> {
    let mut seen = HashSet::new();
    named.filter(|one| !seen.insert(*one)).collect()
}

/// What tests of the requests share.
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod fixture {
    use super::*;
    use crate::{Broker, BrokerConfig};

    pub(super) async fn broker() -> (tempfile::TempDir, Broker) {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerConfig::new(dir.path(), "127.0.0.1:0".parse().unwrap())).await.unwrap();
        (dir, broker)
    }

    /// A request of somebody who may do everything.
    pub(super) fn header(key: ApiKey, version: i16) -> Request {
        Request { key, version, correlation_id: 99, client_id: String::new(), client: Client::local("test"), body: Bytes::new() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::shape::fixture;
    use crate::{Broker, BrokerConfig};

    async fn ask(broker: &Broker, key: ApiKey, version: i16, topic: &str) -> Result<Option<Bytes>, RequestFault> {
        let body = fixture::request(&shape_of(key).unwrap(), version, topic);
        let request = Request::parse(frame(key, version, &body), &Client::local("test"))?;
        let left = shape_of(key).unwrap().check(&request.body, version).unwrap();
        assert_eq!(left, 0, "{key:?} {version}");
        match request.handle(broker.shared()).await? {
            Outcome::Answer(answer) | Outcome::Last(answer) => Ok(Some(answer)),
            Outcome::Parts(parts, _) => Ok(Some(parts.concat().into())),
            Outcome::Pending(pending) => pending.await,
        }
    }

    #[tokio::test]
    async fn every_advertised_version_is_read_and_answered() {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerConfig::new(dir.path(), "127.0.0.1:0".parse().unwrap())).await.unwrap();
        let config = crate::topic_config::TopicConfig::new(Default::default(), 1 << 20).unwrap();
        for (key, first, last) in APIS {
            for version in *first..=*last {
                // Once for something that does not exist, once for a topic that does.
                for topic in ["x", "t"] {
                    if broker.shared().topics.get("t").is_none() {
                        broker.shared().topics.create("t", 1, &config).unwrap();
                    }
                    let answer = ask(&broker, *key, version, topic).await;
                    let answer = match (key, answer) {
                        // The smallest produce asks for no acknowledgement and has an error.
                        (ApiKey::Produce, Err(RequestFault::Unacknowledged(_))) => continue,
                        (_, answer) => answer.unwrap_or_else(|f| panic!("{key:?} {version}: {f}")).unwrap(),
                    };
                    assert_eq!(answer[..4], ((answer.len() - 4) as i32).to_be_bytes(), "{key:?} {version}");
                    assert_eq!(answer[4..8], 99_i32.to_be_bytes(), "{key:?} {version}");
                }
            }
        }
        broker.shutdown().await.unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 6000, ..ProptestConfig::default() })]

        /// What the shapes let through, the codec reads without taking memory for what is not there.
        #[test]
        fn what_passes_the_shapes_can_be_decoded(
            api in 0..APIS.len(),
            version in 0..17_i16,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let (key, first, last) = APIS[api];
            let version = version.clamp(first, last);
            let mut body = fixture::request(&shape_of(key).unwrap(), version, "t");
            if !body.is_empty() {
                for (at, byte) in changes {
                    let at = at.index(body.len());
                    body[at] = byte;
                }
                if let Some(cut) = cut {
                    body.truncate(cut.index(body.len()));
                }
            }
            check_decodes(try_decode(frame(key, version, &body), &Client::local("test")).err());
        }
    }

    fn check_decodes(fault: Option<RequestFault>) {
        // What a value means (a null, text that is no UTF-8, a tag of another version) is left for the codec to refuse. That bytes
        // are missing is what the shapes are there to see first: the codec takes memory for an array before it looks.
        if let Some(RequestFault::Malformed { key, version, detail }) = fault {
            assert!(!detail.contains("enough bytes"), "{key:?} {version}: {detail}");
        }
    }
}
