//! The records inside a batch. They are unpacked only where somebody asks for one: a time, a key, the outcome of a transaction.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use crate::batch::{BatchHeader, HEADER};

/// A batch that unpacks to more than this is left closed: its client is not trusted with the broker's memory.
const MAX_UNPACKED: u64 = 256 << 20;
const GZIP: i16 = 1;
const SNAPPY: i16 = 2;
const LZ4: i16 = 3;
const ZSTD: i16 = 4;
/// What the Java client's snappy streams begin with, then two versions (i32 each), then blocks with their length (i32).
const XERIAL: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEAD: usize = 16;
const XERIAL_BLOCK: usize = 32 << 10;

/// The records of a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordFault {
    #[error("the records cannot be unpacked: {0}")]
    Unpack(#[from] io::Error),
    #[error("a record is cut short")]
    Short,
}

/// One record of an unpacked batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) offset_delta: i64,
    pub(crate) timestamp_delta: i64,
    pub(crate) key: Option<&'a [u8]>,
    /// A record without a value is a tombstone: it deletes its key.
    pub(crate) has_value: bool,
    attributes: u8,
    /// Everything after the timestamp.
    rest: &'a [u8],
}

/// Walks unpacked records; ends after the first fault.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    left: &'a [u8],
}

impl<'a> Records<'a> {
    pub(crate) fn new(unpacked: &'a [u8]) -> Self {
        Self { left: unpacked }
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let length = usize::try_from(varint(&mut self.left)?).ok()?;
        let body = self.left.get(..length)?;
        self.left = &self.left[length..];
        let (&attributes, mut body) = body.split_first()?;
        let timestamp_delta = varint(&mut body)?;
        let rest = body;
        let offset_delta = varint(&mut body)?;
        let key = match varint(&mut body)? {
            length if length < 0 => None,
            length => {
                let length = usize::try_from(length).ok()?;
                let key = body.get(..length)?;
                body = &body[length..];
                Some(key)
            }
        };
        let has_value = varint(&mut body)? >= 0;
        Some(Record { offset_delta, timestamp_delta, key, has_value, attributes, rest })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_none() {
            self.left = &[];
        }
        Some(record.ok_or(RecordFault::Short))
    }
}

impl Record<'_> {
    /// Writes the record with another timestamp delta.
    pub(crate) fn write(&self, out: &mut Vec<u8>, timestamp_delta: i64) {
        let mut delta = Vec::with_capacity(10);
        put_varint(&mut delta, timestamp_delta);
        put_varint(out, (1 + delta.len() + self.rest.len()) as i64);
        out.push(self.attributes);
        out.extend_from_slice(&delta);
        out.extend_from_slice(self.rest);
    }
}

/// The records of a batch without their compression.
pub(crate) fn unpack<'a>(header: &BatchHeader, batch: &'a [u8]) -> Result<Cow<'a, [u8]>, RecordFault> {
    let packed = batch.get(HEADER..header.size).ok_or(RecordFault::Short)?;
    let unpacked = match header.codec() {
        0 => return Ok(Cow::Borrowed(packed)),
        GZIP => read_all(flate2::read::MultiGzDecoder::new(packed))?,
        SNAPPY => unpack_snappy(packed)?,
        LZ4 => read_all(lz4_flex::frame::FrameDecoder::new(packed))?,
        ZSTD => read_all(zstd::stream::read::Decoder::new(packed)?)?,
        _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
    };
    Ok(Cow::Owned(unpacked))
}

fn too_large() -> io::Error {
    io::Error::other(format!("they take more than {} MiB", MAX_UNPACKED >> 20))
}

fn read_all(packed: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let read = packed.take(MAX_UNPACKED + 1).read_to_end(&mut out)?;
    if read as u64 > MAX_UNPACKED { Err(too_large()) } else { Ok(out) }
}

fn unpack_snappy(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    if !packed.starts_with(XERIAL) {
        unpack_block(packed, &mut out)?;
        return Ok(out);
    }
    let mut rest = packed.get(XERIAL_HEAD..).ok_or(io::ErrorKind::UnexpectedEof)?;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        unpack_block(after.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?, &mut out)?;
        rest = &after[length..];
    }
    Ok(out)
}

fn unpack_block(block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    if (out.len() + length) as u64 > MAX_UNPACKED {
        return Err(too_large());
    }
    out.extend(snap::raw::Decoder::new().decompress_vec(block).map_err(io::Error::other)?);
    Ok(())
}

/// Packs records with the compression of that number.
pub(crate) fn compress(codec: i16, records: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        0 => Ok(records.to_vec()),
        GZIP => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(records)?;
            writer.finish()
        }
        SNAPPY => {
            let mut out = [XERIAL, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
            for block in records.chunks(XERIAL_BLOCK) {
                let packed = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
                out.extend((packed.len() as u32).to_be_bytes());
                out.extend(packed);
            }
            Ok(out)
        }
        LZ4 => {
            let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
            writer.write_all(records)?;
            writer.finish().map_err(io::Error::other)
        }
        ZSTD => zstd::stream::encode_all(records, 3),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// First record of a batch whose timestamp satisfies `wanted`, as (offset, timestamp). `None` when no record does, or when the
/// records cannot be read.
pub(crate) fn find_record(header: &BatchHeader, batch: &[u8], wanted: impl Fn(i64) -> bool) -> Option<(i64, i64)> {
    let unpacked = unpack(header, batch).ok()?;
    for record in Records::new(&unpacked) {
        let record = record.ok()?;
        let own = header.base_timestamp.checked_add(record.timestamp_delta)?;
        let timestamp = if header.is_append_time() { header.max_timestamp } else { own };
        if wanted(timestamp) {
            return Some((header.base_offset.checked_add(record.offset_delta)?, timestamp));
        }
    }
    None
}

/// Whether every record of a batch has a key, as a compacted topic needs.
pub(crate) fn all_have_keys(header: &BatchHeader, batch: &[u8]) -> Result<bool, RecordFault> {
    let unpacked = unpack(header, batch)?;
    let mut records = Records::new(&unpacked);
    records.try_fold(true, |all, record| Ok(all && record?.key.is_some()))
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

pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut v = ((value << 1) ^ (value >> 63)) as u64;
    while v >= 0x80 {
        out.push((v as u8) | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::fixture::{Spec, batch};

    #[test]
    fn records_are_found_by_time_in_every_compression() {
        for codec in 0..=4 {
            let bytes = batch(&Spec { records: 3, timestamp: 100, codec, value: Some(vec![7; 100_000]), ..Spec::default() });
            let header = BatchHeader::parse_produced(&bytes).unwrap();
            assert_eq!(find_record(&header, &bytes, |t| t >= 101), Some((1, 101)), "{codec}");
            assert_eq!(find_record(&header, &bytes, |t| t >= 103), None, "{codec}");
            assert!(!all_have_keys(&header, &bytes).unwrap());
        }
    }

    #[test]
    fn a_batch_that_unpacks_without_end_is_left_closed() {
        let zeros = vec![0; (MAX_UNPACKED + 1) as usize];
        for codec in [GZIP, LZ4, ZSTD] {
            let packed = compress(codec, &zeros).unwrap();
            let header = BatchHeader { attributes: codec, size: HEADER + packed.len(), ..BatchHeader::blank(0, 0, 1) };
            let bytes = [&[0; HEADER][..], &packed].concat();
            assert!(unpack(&header, &bytes).is_err(), "{codec}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_never_a_panic(codec in 0..6_i16, bytes in proptest::collection::vec(any::<u8>(), 0..300), xerial in any::<bool>()) {
            let body = if xerial { [XERIAL, &bytes].concat() } else { bytes };
            let header = BatchHeader { attributes: codec, size: HEADER + body.len(), ..BatchHeader::blank(0, 0, 1) };
            let batch = [&[0; HEADER][..], &body].concat();
            find_record(&header, &batch, |_| false);
            all_have_keys(&header, &batch).ok();
        }

        #[test]
        fn varints_come_back(value in any::<i64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(varint(&mut &out[..]), Some(value));
        }
    }
}
