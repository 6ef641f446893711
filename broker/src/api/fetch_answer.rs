//! The answer to a fetch, encoded by hand: the records go from the file to the socket without being copied into a frame.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

use super::fetch_session::Key;
use super::{Request, RequestFault};
use crate::log::producers::Aborted;

/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;

/// What is told of one partition.
#[derive(Debug, Clone)]
pub(super) struct PartitionAnswer {
    pub(super) key: Key,
    pub(super) error: i16,
    pub(super) high_watermark: i64,
    pub(super) last_stable: i64,
    pub(super) start: i64,
    /// `None` when nobody asked.
    pub(super) aborted: Option<Vec<Aborted>>,
    /// What was told of it before.
    pub(super) told: Option<(i64, i64, i64)>,
    pub(super) records: Bytes,
}

impl PartitionAnswer {
    pub(super) fn refused(key: Key, error: ResponseError, start: i64) -> Self {
        let (error, records) = (error.code(), Bytes::new());
        Self { key, error, high_watermark: -1, last_stable: -1, start, aborted: None, told: None, records }
    }

    pub(super) fn facts(&self) -> (i64, i64, i64) {
        (self.high_watermark, self.last_stable, self.start)
    }

    /// Whether a client that knows the rest has to hear of it.
    pub(super) fn is_news(&self) -> bool {
        self.error != 0 || !self.records.is_empty() || self.told != Some(self.facts())
    }
}

/// An answer before it is encoded.
#[derive(Debug, Clone)]
pub(super) struct FetchAnswer {
    pub(super) error: i16,
    pub(super) session: i32,
    /// Those of one topic follow each other.
    pub(super) partitions: Vec<PartitionAnswer>,
}

impl FetchAnswer {
    pub(super) fn refused(error: ResponseError) -> Self {
        Self { error: error.code(), session: 0, partitions: Vec::new() }
    }

    /// The frame, its length included, in parts.
    pub(super) fn frame(self, header: &Request) -> Result<Vec<Bytes>, RequestFault> {
        let parts = self.encode(header.version, header.correlation_id);
        let length: usize = parts.iter().map(Bytes::len).sum();
        let detail = || format!("it would have {length} bytes");
        let fault = |_| RequestFault::Answer { key: header.key, version: header.version, detail: detail() };
        let length = i32::try_from(length).map_err(fault)?;
        Ok(std::iter::once(Bytes::copy_from_slice(&length.to_be_bytes())).chain(parts).collect())
    }

    fn encode(self, version: i16, correlation_id: i32) -> Vec<Bytes> {
        let mut out = Out { parts: Vec::new(), now: BytesMut::new(), flexible: version >= FLEXIBLE };
        out.now.put_i32(correlation_id);
        out.tags();
        out.now.put_i32(0);
        if version >= 7 {
            out.now.put_i16(self.error);
            out.now.put_i32(self.session);
        }
        let topics: Vec<_> = self.partitions.chunk_by(|a, b| a.key.id == b.key.id && a.key.name == b.key.name).collect();
        out.length(topics.len());
        for partitions in topics {
            if version >= 13 {
                out.now.put_u128(partitions[0].key.id);
            } else {
                out.text(&partitions[0].key.name);
            }
            out.length(partitions.len());
            partitions.iter().for_each(|partition| out.partition(partition, version));
            out.tags();
        }
        out.tags();
        out.flush();
        out.parts
    }
}

struct Out {
    parts: Vec<Bytes>,
    now: BytesMut,
    flexible: bool,
}

impl Out {
    fn partition(&mut self, partition: &PartitionAnswer, version: i16) {
        self.now.put_i32(partition.key.index);
        self.now.put_i16(partition.error);
        self.now.put_i64(partition.high_watermark);
        self.now.put_i64(partition.last_stable);
        if version >= 5 {
            self.now.put_i64(partition.start);
        }
        match &partition.aborted {
            None if self.flexible => self.now.put_u8(0),
            None => self.now.put_i32(-1),
            Some(aborted) => {
                self.length(aborted.len());
                for one in aborted {
                    self.now.put_i64(one.producer_id);
                    self.now.put_i64(one.first_offset);
                    self.tags();
                }
            }
        }
        if version >= 11 {
            // No replica is nearer than this one.
            self.now.put_i32(-1);
        }
        self.length(partition.records.len());
        if !partition.records.is_empty() {
            self.flush();
            self.parts.push(partition.records.clone());
        }
        self.tags();
    }

    fn flush(&mut self) {
        if !self.now.is_empty() {
            self.parts.push(self.now.split().freeze());
        }
    }

    /// A length that is never null.
    fn length(&mut self, length: usize) {
        if !self.flexible {
            self.now.put_i32(length as i32);
            return;
        }
        let mut left = length as u64 + 1;
        while left >= 0x80 {
            self.now.put_u8(left as u8 | 0x80);
            left >>= 7;
        }
        self.now.put_u8(left as u8);
    }

    fn text(&mut self, text: &str) {
        if self.flexible {
            self.length(text.len());
        } else {
            self.now.put_i16(text.len() as i16);
        }
        self.now.put_slice(text.as_bytes());
    }

    /// No tagged fields.
    fn tags(&mut self) {
        if self.flexible {
            self.now.put_u8(0);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::{BrokerId, FetchResponse, ProducerId, TopicName};
    use kafka_protocol::protocol::Encodable;

    use super::*;
    use crate::api::text;
    use crate::ids::wire_id;

    fn one(id: u128, index: i32, records: usize) -> PartitionAnswer {
        let aborted = (index > 0).then(|| vec![Aborted { producer_id: 7, first_offset: 3, last_offset: 9 }]);
        let key = Key { name: TopicName(text(format!("topic{id}"))), id, index };
        let records = Bytes::from(vec![5; records]);
        PartitionAnswer { key, error: index as i16, high_watermark: 10, last_stable: 8, start: 2, aborted, told: None, records }
    }

    fn by_the_codec(answer: &FetchAnswer, version: i16) -> Bytes {
        let partition = |one: &PartitionAnswer| {
            let aborted = one.aborted.as_ref().map(|list| {
                let entry = |a: &Aborted| {
                    AbortedTransaction::default().with_producer_id(ProducerId(a.producer_id)).with_first_offset(a.first_offset)
                };
                list.iter().map(entry).collect()
            });
            PartitionData::default()
                .with_partition_index(one.key.index)
                .with_error_code(one.error)
                .with_high_watermark(one.high_watermark)
                .with_last_stable_offset(one.last_stable)
                .with_log_start_offset(one.start)
                .with_aborted_transactions(aborted)
                .with_preferred_read_replica(BrokerId(-1))
                .with_records(Some(one.records.clone()))
        };
        let topics = answer.partitions.chunk_by(|a, b| a.key.id == b.key.id).map(|list| {
            let topic = FetchableTopicResponse::default().with_topic(list[0].key.name.clone()).with_topic_id(wire_id(list[0].key.id));
            topic.with_partitions(list.iter().map(partition).collect())
        });
        let response = FetchResponse::default().with_session_id(if version >= 7 { answer.session } else { 0 });
        let mut out = BytesMut::new();
        response.with_responses(topics.collect()).encode(&mut out, version).unwrap();
        out.freeze()
    }

    #[test]
    fn it_is_what_the_codec_would_write() {
        for version in 4..=17 {
            let partitions = vec![one(1, 0, 0), one(1, 1, 300), one(2, 0, 20_000), one(2, 2, 1)];
            let answer = FetchAnswer { error: 0, session: 5, partitions };
            let wanted = by_the_codec(&answer, version);
            let head = if version >= FLEXIBLE { 5 } else { 4 };
            let written: Vec<u8> = answer.encode(version, 9).concat();
            assert_eq!(written[..4], 9_i32.to_be_bytes());
            assert_eq!(written[head..], wanted[..], "version {version}");
        }
    }
}
