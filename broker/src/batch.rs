//! The header of a record batch (magic 2): the only part of a record that this broker ever looks at.
//!
//! ```text
//! 0 base offset i64 | 8 length i32 | 12 leader epoch i32 | 16 magic i8 | 17 crc u32 | 21 attributes i16
//! 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64 | 43 producer id i64
//! 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//! The CRC covers everything from the attributes on, so base offset and leader epoch can be set in place.

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
    #[error("transactions are not supported")]
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
        if header.attributes & ATTRIBUTE_TRANSACTIONAL != 0 {
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

    pub(crate) fn is_compressed(&self) -> bool {
        self.attributes & ATTRIBUTE_CODEC != 0
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

/// First record of an uncompressed batch whose timestamp satisfies `wanted`, as (offset, timestamp).
/// `None` when no record does, or when the records cannot be read.
pub(crate) fn find_record(header: &BatchHeader, batch: &[u8], wanted: impl Fn(i64) -> bool) -> Option<(i64, i64)> {
    let mut rest = batch.get(HEADER..header.size)?;
    for _ in 0..header.records {
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        let mut record = rest.get(..length)?;
        rest = &rest[length..];
        record = record.get(1..)?; // attributes
        let timestamp = header.base_timestamp.checked_add(varint(&mut record)?)?;
        let offset = header.base_offset.checked_add(varint(&mut record)?)?;
        if wanted(timestamp) {
            return Some((offset, timestamp));
        }
    }
    None
}

/// A zigzag varint of up to 64 bits.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Batches made by hand, as a client would send them.
    use super::HEADER;

    #[derive(Debug, Clone)]
    pub(crate) struct Spec {
        pub(crate) records: i32,
        pub(crate) timestamp: i64,
        pub(crate) producer: (i64, i16, i32),
        pub(crate) value: Vec<u8>,
    }

    impl Default for Spec {
        fn default() -> Self {
            Self { records: 1, timestamp: 1_000, producer: (-1, -1, -1), value: b"value".to_vec() }
        }
    }

    fn put_varint(out: &mut Vec<u8>, value: i64) {
        let mut v = ((value << 1) ^ (value >> 63)) as u64;
        while v >= 0x80 {
            out.push((v as u8) | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
    }

    /// A batch whose record i has the timestamp `timestamp + i`.
    pub(crate) fn batch(spec: &Spec) -> Vec<u8> {
        let mut records = Vec::new();
        for i in 0..spec.records {
            let mut record = vec![0];
            put_varint(&mut record, i64::from(i));
            put_varint(&mut record, i64::from(i));
            put_varint(&mut record, -1);
            put_varint(&mut record, spec.value.len() as i64);
            record.extend_from_slice(&spec.value);
            put_varint(&mut record, 0);
            put_varint(&mut records, record.len() as i64);
            records.extend_from_slice(&record);
        }
        let mut out = Vec::new();
        out.extend_from_slice(&0_i64.to_be_bytes());
        out.extend_from_slice(&((HEADER - 12 + records.len()) as i32).to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        out.push(2);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&0_i16.to_be_bytes());
        out.extend_from_slice(&(spec.records - 1).to_be_bytes());
        out.extend_from_slice(&spec.timestamp.to_be_bytes());
        out.extend_from_slice(&(spec.timestamp + i64::from(spec.records) - 1).to_be_bytes());
        out.extend_from_slice(&spec.producer.0.to_be_bytes());
        out.extend_from_slice(&spec.producer.1.to_be_bytes());
        out.extend_from_slice(&spec.producer.2.to_be_bytes());
        out.extend_from_slice(&spec.records.to_be_bytes());
        out.extend_from_slice(&records);
        let crc = crc32c::crc32c(&out[21..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out
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
        assert_eq!(find_record(&header, &bytes, |t| t >= 101), Some((1, 101)));
        assert_eq!(find_record(&header, &bytes, |t| t >= 103), None);
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
