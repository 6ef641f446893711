//! The header of a record batch (magic 2): the only part of a record that this broker ever looks at.
//!
//! ```text
//! 0 base offset i64 | 8 length i32 | 12 leader epoch i32 | 16 magic i8 | 17 crc u32 | 21 attributes i16
//! 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64 | 43 producer id i64
//! 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//! The CRC covers everything from the attributes on, so base offset and leader epoch can be set in place.

use crate::records::{RecordFault, compress, unpack};

/// Bytes before the first record.
pub(crate) const HEADER: usize = 61;
/// Bytes that `length` does not count: base offset and length itself.
pub(crate) const PREFIX: usize = 12;
/// The first bytes, which the broker rewrites when it places a batch: base offset, length, leader epoch.
pub(crate) const PLACED: usize = 16;
/// One node never changes leaders, so every batch carries the same epoch.
pub(crate) const LEADER_EPOCH: i32 = 0;

const ATTRIBUTE_CODEC: i16 = 0x07;
const ATTRIBUTE_LOG_APPEND_TIME: i16 = 0x08;
const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
const ATTRIBUTE_CONTROL: i16 = 0x20;
/// The base timestamp is the time from which on compaction drops the batch's tombstones.
const ATTRIBUTE_DELETE_HORIZON: i16 = 0x40;

/// Why bytes are not a batch that can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchFault {
    #[error("the batch is cut short")]
    Short,
    #[error("the length field is impossible")]
    Length,
    #[error("the batch has an old format (magic {0}); only magic 2 is kept")]
    Magic(i8),
    #[error("the batch is not where its offset belongs")]
    Place,
    #[error("the checksum does not match")]
    Crc,
    #[error("the record count and the offsets of the batch do not agree")]
    Count,
    #[error("exactly one batch per partition is expected")]
    NotOne,
    #[error("the compression type is unknown")]
    Codec,
    #[error("a transactional batch names its producer, its epoch and a sequence number")]
    Transactional,
    #[error("only a broker writes control batches")]
    Control,
    #[error("log append time is not a client's to set")]
    AppendTime,
    #[error("the producer's sequence number is negative")]
    Sequence,
}

/// The fields of a batch header, host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    /// Whole size on disk, in bytes, prefix included.
    pub(crate) size: usize,
    pub(crate) leader_epoch: i32,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) records: i32,
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; says nothing about the records yet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BatchFault> {
        if bytes.len() < HEADER {
            return Err(BatchFault::Short);
        }
        let length = i32::from_be_bytes(be(bytes, 8));
        let magic = bytes[16] as i8;
        if magic != 2 {
            return Err(BatchFault::Magic(magic));
        }
        if length < (HEADER - PREFIX) as i32 {
            return Err(BatchFault::Length);
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(be(bytes, 0)),
            size: length as usize + PREFIX,
            leader_epoch: i32::from_be_bytes(be(bytes, 12)),
            crc: u32::from_be_bytes(be(bytes, 17)),
            attributes: i16::from_be_bytes(be(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(be(bytes, 23)),
            base_timestamp: i64::from_be_bytes(be(bytes, 27)),
            max_timestamp: i64::from_be_bytes(be(bytes, 35)),
            producer_id: i64::from_be_bytes(be(bytes, 43)),
            producer_epoch: i16::from_be_bytes(be(bytes, 51)),
            base_sequence: i32::from_be_bytes(be(bytes, 53)),
            records: i32::from_be_bytes(be(bytes, 57)),
        })
    }

    /// Checks that `bytes` is exactly one batch that a client may send, checksum included.
    pub(crate) fn parse_produced(bytes: &[u8]) -> Result<Self, BatchFault> {
        let header = Self::parse(bytes)?;
        match header.size {
            size if size > bytes.len() => return Err(BatchFault::Short),
            size if size < bytes.len() => return Err(BatchFault::NotOne),
            _ => {}
        }
        header.verify(bytes)?;
        if header.attributes & ATTRIBUTE_CODEC > 4 {
            return Err(BatchFault::Codec);
        }
        if header.attributes & ATTRIBUTE_CONTROL != 0 {
            return Err(BatchFault::Control);
        }
        if header.is_transactional() && header.producer_id < 0 {
            return Err(BatchFault::Transactional);
        }
        if header.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0 {
            return Err(BatchFault::AppendTime);
        }
        if header.records < 1 || header.last_offset_delta != header.records - 1 {
            return Err(BatchFault::Count);
        }
        if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
            return Err(BatchFault::Sequence);
        }
        Ok(header)
    }

    /// Checks the checksum of the whole batch, which `batch` starts with.
    pub(crate) fn verify(&self, batch: &[u8]) -> Result<(), BatchFault> {
        let body = batch.get(21..self.size).ok_or(BatchFault::Short)?;
        if self.last_offset_delta < 0 {
            return Err(BatchFault::Count);
        }
        if crc32c::crc32c(body) == self.crc { Ok(()) } else { Err(BatchFault::Crc) }
    }

    /// Offset after the last record.
    pub(crate) fn next_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta)).saturating_add(1)
    }

    /// Number of the compression: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub(crate) fn codec(&self) -> i16 {
        self.attributes & ATTRIBUTE_CODEC
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether it is a transaction's marker, which no consumer shows.
    pub(crate) fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// Whether all its records have the batch's largest timestamp, the time of arrival.
    pub(crate) fn is_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    /// Milliseconds since 1970 from which on compaction drops the batch's tombstones; `None` when that is still open.
    pub(crate) fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & ATTRIBUTE_DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Sequence number of the last record; sequences wrap from `i32::MAX` to 0.
    pub(crate) fn last_sequence(&self) -> i32 {
        wrap_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// `sequence + by` in the ring 0..=i32::MAX.
pub(crate) fn wrap_sequence(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) % (i64::from(i32::MAX) + 1)) as i32
}

/// The first bytes of a batch that is placed at `base_offset`; the rest of it stays as it came.
pub(crate) fn placed_prefix(base_offset: i64, size: usize) -> [u8; PLACED] {
    let mut out = [0; PLACED];
    out[..8].copy_from_slice(&base_offset.to_be_bytes());
    out[8..12].copy_from_slice(&((size - PREFIX) as i32).to_be_bytes());
    out[12..].copy_from_slice(&LEADER_EPOCH.to_be_bytes());
    out
}

/// The batch that `header` and `records` make, checksum included. `header.size` and `header.crc` are found out here.
pub(crate) fn seal(header: &BatchHeader, records: &[u8]) -> Vec<u8> {
    let size = HEADER + records.len();
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&placed_prefix(header.base_offset, size));
    out.push(2);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&header.attributes.to_be_bytes());
    out.extend_from_slice(&header.last_offset_delta.to_be_bytes());
    out.extend_from_slice(&header.base_timestamp.to_be_bytes());
    out.extend_from_slice(&header.max_timestamp.to_be_bytes());
    out.extend_from_slice(&header.producer_id.to_be_bytes());
    out.extend_from_slice(&header.producer_epoch.to_be_bytes());
    out.extend_from_slice(&header.base_sequence.to_be_bytes());
    out.extend_from_slice(&header.records.to_be_bytes());
    out.extend_from_slice(records);
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out
}

impl BatchHeader {
    /// A header for [`seal`], without a producer.
    pub(crate) fn blank(base_offset: i64, last_offset_delta: i32, records: i32) -> Self {
        Self {
            base_offset,
            size: 0,
            leader_epoch: LEADER_EPOCH,
            crc: 0,
            attributes: 0,
            last_offset_delta,
            base_timestamp: -1,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records,
        }
    }

    /// The same with the horizon from which on tombstones go; record timestamps are relative to it.
    pub(crate) fn with_horizon(mut self, horizon: i64) -> Self {
        self.attributes |= ATTRIBUTE_DELETE_HORIZON;
        self.base_timestamp = horizon;
        self
    }
}

/// A transaction's end, as a control batch with one record. Its offset is set when it is placed.
pub(crate) fn marker(producer_id: i64, producer_epoch: i16, commit: bool, timestamp: i64) -> Vec<u8> {
    // Attributes, timestamp delta, offset delta; key: version and type; value: version and coordinator epoch; no headers.
    let record: [u8; 17] = [32, 0, 0, 0, 8, 0, 0, 0, commit as u8, 12, 0, 0, 0, 0, 0, 0, 0];
    let header = BatchHeader {
        attributes: ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id,
        producer_epoch,
        ..BatchHeader::blank(0, 0, 1)
    };
    seal(&header, &record)
}

/// Whether a control batch commits (`Some(true)`) or aborts; `None` when it is neither.
pub(crate) fn marker_of(header: &BatchHeader, batch: &[u8]) -> Option<bool> {
    let record = crate::records::Records::new(batch.get(HEADER..header.size)?).next()?.ok()?;
    match record.key? {
        [_, _, 0, 0, ..] => Some(false),
        [_, _, 0, 1, ..] => Some(true),
        _ => None,
    }
}

/// The batch with its records packed in another way.
pub(crate) fn repacked(header: &BatchHeader, batch: &[u8], codec: i16) -> Result<Vec<u8>, RecordFault> {
    let records = compress(codec, &unpack(header, batch)?)?;
    let header = BatchHeader { attributes: header.attributes & !ATTRIBUTE_CODEC | codec, ..*header };
    Ok(seal(&header, &records))
}

/// The batch with the time of its arrival as the timestamp of all its records.
pub(crate) fn stamped(batch: &[u8], now_millis: i64) -> Vec<u8> {
    let mut out = batch.to_vec();
    out[22] |= ATTRIBUTE_LOG_APPEND_TIME as u8;
    out[35..43].copy_from_slice(&now_millis.to_be_bytes());
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Batches made by hand, as a client would send them.
    use super::{ATTRIBUTE_TRANSACTIONAL, BatchHeader, seal};
    use crate::records::{compress, put_varint};

    #[derive(Debug, Clone)]
    pub(crate) struct Spec {
        pub(crate) records: i32,
        pub(crate) timestamp: i64,
        pub(crate) producer: (i64, i16, i32),
        pub(crate) key: Option<Vec<u8>>,
        pub(crate) value: Option<Vec<u8>>,
        pub(crate) transactional: bool,
        pub(crate) codec: i16,
    }

    impl Default for Spec {
        fn default() -> Self {
            let value = Some(b"value".to_vec());
            Self { records: 1, timestamp: 1_000, producer: (-1, -1, -1), key: None, value, transactional: false, codec: 0 }
        }
    }

    fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
        put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
        out.extend_from_slice(bytes.unwrap_or_default());
    }

    /// A batch whose record i has the timestamp `timestamp + i`.
    pub(crate) fn batch(spec: &Spec) -> Vec<u8> {
        let mut records = Vec::new();
        for i in 0..spec.records {
            let mut record = vec![0];
            put_varint(&mut record, i64::from(i));
            put_varint(&mut record, i64::from(i));
            put_bytes(&mut record, spec.key.as_deref());
            put_bytes(&mut record, spec.value.as_deref());
            put_varint(&mut record, 0);
            put_varint(&mut records, record.len() as i64);
            records.extend_from_slice(&record);
        }
        let header = BatchHeader {
            attributes: spec.codec | if spec.transactional { ATTRIBUTE_TRANSACTIONAL } else { 0 },
            base_timestamp: spec.timestamp,
            max_timestamp: spec.timestamp + i64::from(spec.records) - 1,
            producer_id: spec.producer.0,
            producer_epoch: spec.producer.1,
            base_sequence: spec.producer.2,
            ..BatchHeader::blank(0, spec.records - 1, spec.records)
        };
        seal(&header, &compress(spec.codec, &records).unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_well_made_batch_is_accepted_and_its_records_found_by_time() {
        let bytes = fixture::batch(&fixture::Spec { records: 3, timestamp: 100, ..Default::default() });
        let header = BatchHeader::parse_produced(&bytes).unwrap();
        assert_eq!((header.records, header.max_timestamp, header.next_offset()), (3, 102, 3));
    }

    #[test]
    fn a_marker_says_how_the_transaction_ended() {
        for commit in [true, false] {
            let bytes = marker(7, 3, commit, 5);
            let header = BatchHeader::parse(&bytes).unwrap();
            header.verify(&bytes).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!(marker_of(&header, &bytes), Some(commit));
            assert_eq!(BatchHeader::parse_produced(&bytes), Err(BatchFault::Control));
        }
    }

    #[test]
    fn the_time_of_arrival_is_put_in_place() {
        let bytes = stamped(&fixture::batch(&fixture::Spec::default()), 77);
        let header = BatchHeader::parse(&bytes).unwrap();
        header.verify(&bytes).unwrap();
        assert_eq!((header.max_timestamp, header.is_append_time()), (77, true));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = fixture::batch(&fixture::Spec::default());
        for at in (8..12).chain(16..bytes.len()) {
            for bit in 0..8 {
                let mut broken = bytes.clone();
                broken[at] ^= 1 << bit;
                assert!(BatchHeader::parse_produced(&broken).is_err(), "byte {at} bit {bit}");
            }
        }
        for cut in 0..bytes.len() {
            assert!(BatchHeader::parse_produced(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(wrap_sequence(i32::MAX, 1), 0);
        assert_eq!(wrap_sequence(i32::MAX - 1, 1), i32::MAX);
    }
}
