//! Bytes in JSON: base64 with padding (RFC 4648), as Spark's `to_json` writes them.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0_usize, |group, at| group << 8 | chunk.get(at).map_or(0, |byte| usize::from(*byte)));
        let digit = |place: usize| if place <= chunk.len() { ALPHABET[group >> (18 - 6 * place) & 63] } else { b'=' };
        out.extend_from_slice(&[digit(0), digit(1), digit(2), digit(3)]);
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    write(bytes, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    #[test]
    fn the_examples_of_rfc_4648() {
        for (plain, wanted) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            let mut out = Vec::new();
            super::write(plain.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        }
    }
}
