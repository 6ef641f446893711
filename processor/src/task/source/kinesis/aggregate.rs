//! Records that hold many, as the Kinesis Producer Library writes them: four bytes that tell them apart, a message of protobuf, and its MD5.

use md5::{Digest as _, Md5};
use prost::Message as _;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const CHECKSUM: usize = 16;

#[derive(Clone, PartialEq, prost::Message)]
struct Aggregated {
    #[prost(string, repeated, tag = "1")]
    partition_keys: Vec<String>,
    /// Decimal numbers of 128 bits.
    #[prost(string, repeated, tag = "2")]
    hash_keys: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<User>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct User {
    #[prost(uint64, tag = "1")]
    partition_key: u64,
    #[prost(uint64, optional, tag = "2")]
    hash_key: Option<u64>,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

/// One of the records of an aggregated one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) key: String,
    pub(super) data: Vec<u8>,
    /// Which shard it belongs to.
    pub(super) hash: u128,
}

/// The parts of a record; `None` when it is one of its own. Whatever is not whole is a record of its own, too, which nobody can read.
pub(super) fn parts(data: &[u8]) -> Option<Vec<Part>> {
    let body = data.strip_prefix(&MAGIC)?;
    let (message, checksum) = body.split_at_checked(body.len().checked_sub(CHECKSUM)?)?;
    if Md5::digest(message).as_slice() != checksum {
        return None;
    }
    let Aggregated { partition_keys, hash_keys, records } = Aggregated::decode(message).ok()?;
    let part = |user: User| {
        let key = partition_keys.get(usize::try_from(user.partition_key).ok()?)?.clone();
        let hash = match user.hash_key {
            Some(place) => hash_keys.get(usize::try_from(place).ok()?)?.parse().ok()?,
            None => hash_of(&key),
        };
        Some(Part { key, data: user.data, hash })
    };
    records.into_iter().map(part).collect()
}

/// How Kinesis chooses a shard by the partition key.
fn hash_of(key: &str) -> u128 {
    Md5::digest(key.as_bytes()).as_slice().iter().fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn aggregated(records: Vec<User>) -> Vec<u8> {
        let message = Aggregated { partition_keys: vec!["a".into(), "b".into()], hash_keys: vec!["7".into()], records }.encode_to_vec();
        let checksum = Md5::digest(&message);
        [&MAGIC[..], &message[..], checksum.as_slice()].concat()
    }

    fn user(partition_key: u64, hash_key: Option<u64>) -> User {
        User { partition_key, hash_key, data: b"x".to_vec() }
    }

    #[test]
    fn an_aggregated_record_has_parts() {
        let found = parts(&aggregated(vec![user(1, None), user(0, Some(0))])).unwrap();
        let part = |key: &str, hash| Part { key: key.into(), data: b"x".to_vec(), hash };
        // MD5 of "b".
        assert_eq!(found, [part("b", 0x92eb_5ffe_e6ae_2fec_3ad7_1c77_7531_578f), part("a", 7)]);
        assert_eq!(parts(&aggregated(Vec::new())), Some(Vec::new()));
    }

    #[test]
    fn what_is_not_whole_is_a_record_of_its_own() {
        let whole = aggregated(vec![user(0, None)]);
        let mut broken = whole.clone();
        broken[8] ^= 1;
        let cut = &whole[..whole.len() - 1];
        for data in [
            &broken[..],
            cut,
            &MAGIC[..],
            &whole[..12],
            &b"{}"[..],
            &[],
            &aggregated(vec![user(2, None)])[..],
            &aggregated(vec![user(0, Some(1))])[..],
        ] {
            assert_eq!(parts(data), None, "{data:?}");
        }
    }
}
