//! What every file with state begins with, so that damage is seen.
//!
//! ```text
//! "TDMK" | version u8 | kind u8 | number i64 | CRC-32C of the bytes u32 | bytes ...        big endian
//! ```

const MAGIC: &[u8; 4] = b"TDMK";
const VERSION: u8 = 1;
const HEAD: usize = 18;

/// The bytes of a file that holds `bytes` as the `number`th of its `kind`.
pub(crate) fn seal(kind: u8, number: i64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + bytes.len());
    out.extend(MAGIC);
    out.extend([VERSION, kind]);
    out.extend(number.to_be_bytes());
    out.extend(crc32c::crc32c(bytes).to_be_bytes());
    out.extend(bytes);
    out
}

/// What a file holds, when it is whole and the one that it should be.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open_frame(kind: u8, number: i64, file: &[u8]) -> Result<&[u8], String> {
    let (head, bytes) = file.split_at_checked(HEAD).ok_or("it is shorter than its head")?;
    if &head[..4] != MAGIC {
        return Err("it does not begin as a checkpoint's file does".into());
    }
    if head[4] != VERSION {
        return Err(format!("it has format version {}, and this program reads version {VERSION}", head[4]));
    }
    if head[5] != kind || head[6..14] != number.to_be_bytes() {
        return Err("it is another file than its name says".into());
    }
    if head[14..18] != crc32c::crc32c(bytes).to_be_bytes() {
        return Err("its bytes do not match their checksum".into());
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_tells_damage_of_every_byte() {
        let sealed = seal(1, 7, b"state");
        assert_eq!(open_frame(1, 7, &sealed).unwrap(), b"state");
        for place in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[place] ^= 1;
            assert!(open_frame(1, 7, &broken).is_err(), "byte {place}");
            assert!(open_frame(1, 7, &sealed[..place]).is_err(), "cut at {place}");
        }
        assert!(open_frame(2, 7, &sealed).is_err() && open_frame(1, 8, &sealed).is_err());
    }
}
