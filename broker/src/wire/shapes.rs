//! The shapes of the requests that this broker takes, from Kafka's message definitions.

use kafka_protocol::messages::ApiKey;

use super::shape::{Field, Kind, Shape};

const ALL: i16 = i16::MAX;
const I8: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const ID: Kind = Kind::Fixed(16);
const STR: Kind = Kind::Str;

const fn all(kind: Kind) -> Field {
    (kind, 0, ALL)
}

const fn since(kind: Kind, first: i16) -> Field {
    (kind, first, ALL)
}

/// An array of plain values.
macro_rules! plain {
    ($kind:expr) => {
        Kind::Array(const { &[($kind, -1, -1)] })
    };
}

macro_rules! array {
    ($($field:expr),* $(,)?) => { Kind::Array(const { &[$($field),*] }) };
}

macro_rules! shape {
    ($flexible:expr; $($field:expr),* $(,)?) => {
        const { Shape { flexible: $flexible, fields: &[$($field),*], codec_tags: 0 } }
    };
}

/// The shape of a request; `None` for an API that this broker does not have.
pub(crate) fn shape_of(key: ApiKey) -> Option<Shape> {
    let shape = match key {
        ApiKey::Produce => shape![9; since(STR, 3), all(I16), all(I32),
            all(array![(STR, 0, 12), since(ID, 13), all(array![all(I32), all(Kind::Blob)])])],
        ApiKey::Fetch => Shape {
            codec_tags: 2,
            ..shape![12; (I32, 0, 14), all(I32), all(I32), since(I32, 3), since(I8, 4), since(I32, 7), since(I32, 7),
            all(array![(STR, 0, 12), since(ID, 13), all(array![all(I32), since(I32, 9), all(I64), since(I32, 12), since(I64, 5), all(I32)])]),
            since(array![(STR, 7, 12), since(ID, 13), all(plain![I32])], 7), since(STR, 11)]
        },
        ApiKey::ListOffsets => shape![6; all(I32), since(I8, 2),
            all(array![all(STR), all(array![all(I32), since(I32, 4), all(I64)])]), since(I32, 10)],
        ApiKey::Metadata => shape![9; all(array![since(ID, 10), all(STR)]), since(I8, 4), (I8, 8, 10), since(I8, 8)],
        ApiKey::OffsetCommit => shape![8; all(STR), since(I32, 1), since(STR, 1), since(STR, 7), (I64, 2, 4),
            all(array![all(STR), all(array![all(I32), all(I64), since(I32, 6), all(STR)])])],
        ApiKey::OffsetFetch => shape![6; (STR, 0, 7), (array![all(STR), all(plain![I32])], 0, 7),
            since(array![all(STR), since(STR, 9), since(I32, 9), all(array![all(STR), all(plain![I32])])], 8), since(I8, 7)],
        ApiKey::FindCoordinator => shape![3; (STR, 0, 3), since(I8, 1), since(plain![STR], 4)],
        ApiKey::JoinGroup => shape![6; all(STR), all(I32), since(I32, 1), all(STR), since(STR, 5), all(STR),
            all(array![all(STR), all(Kind::Blob)]), since(STR, 8)],
        ApiKey::Heartbeat => shape![4; all(STR), all(I32), all(STR), since(STR, 3)],
        ApiKey::LeaveGroup => shape![4; all(STR), (STR, 0, 2), since(array![all(STR), all(STR), since(STR, 5)], 3)],
        ApiKey::SyncGroup => shape![4; all(STR), all(I32), all(STR), since(STR, 3), since(STR, 5), since(STR, 5),
            all(array![all(STR), all(Kind::Blob)])],
        ApiKey::DescribeGroups => shape![5; all(plain![STR]), since(I8, 3)],
        ApiKey::ListGroups => shape![3; since(plain![STR], 4), since(plain![STR], 5)],
        ApiKey::ApiVersions => shape![3; since(STR, 3), since(STR, 3)],
        ApiKey::CreateTopics => shape![5; all(array![all(STR), all(I32), all(I16), all(array![all(I32), all(plain![I32])]),
            all(array![all(STR), all(STR)])]), all(I32), since(I8, 1)],
        ApiKey::DeleteTopics => shape![4; since(array![all(STR), all(ID)], 6), (plain![STR], 0, 5), all(I32)],
        ApiKey::DeleteRecords => shape![2; all(array![all(STR), all(array![all(I32), all(I64)])]), all(I32)],
        ApiKey::InitProducerId => shape![2; all(STR), all(I32), since(I64, 3), since(I16, 3)],
        ApiKey::OffsetForLeaderEpoch => shape![4; since(I32, 3),
            all(array![all(STR), all(array![all(I32), since(I32, 2), all(I32)])])],
        ApiKey::DescribeConfigs => shape![4; all(array![all(I8), all(STR), all(plain![STR])]), since(I8, 1), since(I8, 3)],
        ApiKey::AddPartitionsToTxn => shape![3; all(STR), all(I64), all(I16), all(array![all(STR), all(plain![I32])])],
        ApiKey::AddOffsetsToTxn => shape![3; all(STR), all(I64), all(I16), all(STR)],
        ApiKey::EndTxn => shape![3; all(STR), all(I64), all(I16), all(I8)],
        ApiKey::TxnOffsetCommit => shape![3; all(STR), all(STR), all(I64), all(I16), since(I32, 3), since(STR, 3), since(STR, 3),
            all(array![all(STR), all(array![all(I32), all(I64), since(I32, 2), all(STR)])])],
        ApiKey::WriteTxnMarkers => shape![1; all(array![all(I64), all(I16), all(I8), all(array![all(STR), all(plain![I32])]), all(I32)])],
        ApiKey::DescribeProducers => shape![0; all(array![all(STR), all(plain![I32])])],
        ApiKey::DescribeTransactions => shape![0; all(plain![STR])],
        ApiKey::ListTransactions => shape![0; all(plain![STR]), all(plain![I64]), since(I64, 1), since(STR, 2)],
        ApiKey::DescribeCluster => shape![0; all(I8), since(I8, 1), since(I8, 2)],
        ApiKey::DescribeLogDirs => shape![2; all(array![all(STR), all(plain![I32])])],
        ApiKey::CreatePartitions => shape![2; all(array![all(STR), all(I32), all(array![all(plain![I32])])]), all(I32), all(I8)],
        ApiKey::AlterConfigs => shape![2; all(array![all(I8), all(STR), all(array![all(STR), all(STR)])]), all(I8)],
        ApiKey::IncrementalAlterConfigs => shape![1; all(array![all(I8), all(STR), all(array![all(STR), all(I8), all(STR)])]), all(I8)],
        ApiKey::OffsetDelete => shape![ALL; all(STR), all(array![all(STR), all(array![all(I32)])])],
        ApiKey::SaslHandshake => shape![ALL; all(STR)],
        ApiKey::SaslAuthenticate => shape![2; all(Kind::Blob)],
        ApiKey::DeleteGroups => shape![2; all(plain![STR])],
        _ => return None,
    };
    Some(shape)
}
