//! Input records: kept whole for the lanes, decoded for the engine.

use std::ops::Range;
use std::sync::Arc;

use super::error::TaskError;
use crate::engine::Input;
use crate::format::decode::{Decoded, Decoder, Payloads};

/// Records of one partition in log order, whole, in a few large buffers instead of many small ones.
#[derive(Debug)]
pub(crate) struct Records {
    topic: Arc<str>,
    partition: i32,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    timestamps: Vec<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    /// Where the key starts in `bytes`; the payload follows it.
    start: usize,
    /// Lengths; `None` is Kafka's null.
    key: Option<u32>,
    payload: Option<u32>,
}

impl Entry {
    /// Where the payload stands in `bytes`.
    fn payload(&self) -> Option<Range<usize>> {
        let start = self.start + self.key.unwrap_or(0) as usize;
        self.payload.map(|len| start..start + len as usize)
    }
}

/// One record as it came.
pub(crate) struct Record<'a> {
    pub(crate) offset: i64,
    /// Milliseconds; negative when the record has none.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) payload: Option<&'a [u8]>,
}

impl Records {
    pub(crate) fn new(topic: &Arc<str>, partition: i32) -> Self {
        Self { topic: Arc::clone(topic), partition, bytes: Vec::new(), entries: Vec::new(), timestamps: Vec::new() }
    }

    pub(crate) fn push(&mut self, offset: i64, timestamp: i64, key: Option<&[u8]>, payload: Option<&[u8]>) {
        let start = self.bytes.len();
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(payload.unwrap_or_default());
        self.entries.push(Entry { offset, start, key: key.map(len), payload: payload.map(len) });
        self.timestamps.push(timestamp);
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn partition(&self) -> i32 {
        self.partition
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of keys and payloads.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn get(&self, index: usize) -> Record<'_> {
        let entry = self.entries[index];
        Record {
            offset: entry.offset,
            timestamp: self.timestamps[index],
            key: entry.key.map(|len| &self.bytes[entry.start..entry.start + len as usize]),
            payload: entry.payload().map(|range| &self.bytes[range]),
        }
    }

    /// The offset behind the newest record.
    pub(crate) fn next_offset(&self) -> Option<i64> {
        self.entries.last().map(|newest| newest.offset + 1)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.timestamps.clear();
    }

    /// Decodes all records.
    pub(crate) fn decode(&self, decoder: &mut Decoder) -> Result<Input, TaskError> {
        let decoded = decoder
            .decode_all(Blocks { records: self, start: 0, text: None })
            .map_err(|error| TaskError::Fatal(format!("a batch of records cannot be decoded: {error}")))?;
        Ok(self.input(decoded))
    }

    /// The records with what became of them.
    pub(crate) fn input(&self, decoded: Decoded) -> Input {
        let offsets = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.offset);
        Input {
            partition: self.partition,
            from: offsets(self.entries.first()),
            to: offsets(self.entries.last()) + 1,
            received: self.timestamps.clone(),
            decoded,
        }
    }
}

/// Records that are looked at by blocks. Whether a block is text is asked at once, which takes a fifth of the time that it takes record by
/// record; where records are small, it also brings them near the processor for whoever reads them next.
struct Blocks<'a> {
    records: &'a Records,
    /// Of the block: where it begins, and what it is if it is text.
    start: usize,
    text: Option<&'a str>,
}

/// So many records are a block.
const BLOCK: usize = 32;

impl<'a> Payloads<'a> for Blocks<'a> {
    fn count(&self) -> usize {
        self.records.len()
    }

    fn payload(&self, index: usize) -> Option<&'a [u8]> {
        self.records.entries[index].payload().map(|range| &self.records.bytes[range])
    }

    fn text(&mut self, index: usize) -> Option<&'a str> {
        let Records { bytes, entries, .. } = self.records;
        let entry = &entries[index];
        if index.is_multiple_of(BLOCK) {
            let end = entries.get(index + BLOCK).map_or(bytes.len(), |next| next.start);
            (self.start, self.text) = (entry.start, std::str::from_utf8(&bytes[entry.start..end]).ok());
        }
        let range = entry.payload()?;
        // A block that is text may have a character that lies in two records: neither of them is text then.
        let text = self.text.and_then(|block| block.get(range.start - self.start..range.end - self.start));
        text.or_else(|| std::str::from_utf8(&bytes[range]).ok())
    }
}

#[cfg(test)]
impl Records {
    /// Keys and payloads as records from offset 0 on.
    pub(crate) fn of<'a>(records: impl Iterator<Item = (Option<&'a [u8]>, Option<&'a [u8]>)>) -> Self {
        let mut all = Self::new(&Arc::from("iot"), 0);
        for (offset, (key, payload)) in (0..).zip(records) {
            all.push(offset, 0, key, payload);
        }
        all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::AsArray as _;
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::query::ddl::parse_ddl;

    /// The values of a column `a`, and for each dead record its index and why.
    fn decode(records: &Records) -> (Vec<i64>, Vec<(u32, String)>) {
        let mut decoder = Decoder::new(parse_ddl("a BIGINT").unwrap());
        let decoded = records.decode(&mut decoder).unwrap().decoded;
        let values = decoded.batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        (values, decoded.dead.into_iter().map(|row| (row.index, row.detail)).collect())
    }

    #[test]
    fn what_is_no_text_is_dead_alone_wherever_it_stands_in_its_block() {
        let count = 3 * BLOCK + 1;
        // The last key makes that no block is text.
        for key in [None, Some(&b"key"[..]), Some(&b"\xc3"[..])] {
            for bad in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7, 3 * BLOCK] {
                let payload = |index: usize| match index {
                    index if index == bad => b"{\"a\":\"\xff\"}".to_vec(),
                    index => format!("{{\"a\":{index}}}").into_bytes(),
                };
                let payloads: Vec<Vec<u8>> = (0..count).map(payload).collect();
                let (values, dead) = decode(&Records::of(payloads.iter().map(|payload| (key, Some(payload.as_slice())))));
                assert_eq!(values, (0..count).filter(|index| *index != bad).map(|index| index as i64).collect::<Vec<_>>());
                assert_eq!(dead, [(bad as u32, "invalid UTF-8 at byte 6".to_owned())]);
            }
        }
    }

    #[test]
    fn a_character_that_lies_in_two_records_makes_a_text_of_neither() {
        for before in [0, BLOCK - 1, BLOCK, BLOCK + 5] {
            let records = std::iter::repeat_n(&b"{\"a\":6}"[..], before).chain([&b"{}\xc3"[..], b"\xa4{}", b"{\"a\":7}"]);
            let (values, dead) = decode(&Records::of(records.map(|record| (None, Some(record)))));
            assert_eq!((values.len(), values.last()), (before + 1, Some(&7)));
            let first = before as u32;
            assert_eq!(dead, [(first, "invalid UTF-8 at byte 2".to_owned()), (first + 1, "invalid UTF-8 at byte 0".to_owned())]);
        }
    }

    #[test]
    fn a_null_is_no_empty_payload() {
        let (_, dead) = decode(&Records::of([(None, None), (Some(&b"k"[..]), Some(&b""[..]))].into_iter()));
        let details: Vec<_> = dead.iter().map(|(_, detail)| detail.as_str()).collect();
        assert_eq!(details, ["the record has no payload", "the payload is empty, expected a JSON object"]);
    }
}
