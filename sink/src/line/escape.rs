//! What must be escaped where, and how it reads back.
//!
//! Space, comma and equals sign have an escape in the protocol. A line break has none, and neither has, in InfluxDB, a backslash at the end of a
//! name: the first becomes the two characters `\n` (Telegraf's way), a carriage return `\r`, and a backslash that could be taken for either,
//! or that ends the text, becomes the four characters `\x5c`. So different texts stay different, and [`readable`] gives the text back.

/// How a database reads a backslash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// It stands for itself unless it is before a character that needs escaping.
    Influxdb,
    /// It is always an escape, also of itself.
    Victoriametrics,
}

/// A measurement. The equals sign needs no escape here, and in InfluxDB it would keep it.
pub(super) fn name(text: &str, dialect: Dialect, out: &mut Vec<u8>) {
    escape(text, dialect, b", ", out);
}

/// A tag's name or value, or a field's name.
pub(super) fn key(text: &str, dialect: Dialect, out: &mut Vec<u8>) {
    escape(text, dialect, b", =", out);
}

fn escape(text: &str, dialect: Dialect, special: &[u8], out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    // Hardly any text needs it.
    if !bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r' | b'\\') || special.contains(byte)) {
        return out.extend_from_slice(bytes);
    }
    let backslash: &[u8] = if dialect == Dialect::Victoriametrics { b"\\\\" } else { b"\\" };
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' => {
                out.extend_from_slice(backslash);
                out.push(b'n');
            }
            b'\r' => {
                out.extend_from_slice(backslash);
                out.push(b'r');
            }
            b'\\' => {
                out.extend_from_slice(backslash);
                if is_ambiguous(&bytes[at + 1..]) {
                    out.extend_from_slice(b"x5c");
                }
            }
            byte if special.contains(byte) => out.extend_from_slice(&[b'\\', *byte]),
            byte => out.push(*byte),
        }
    }
}

/// Whether a backslash before `rest` could be taken for one of our own escapes, or for that of the sign after the text.
fn is_ambiguous(rest: &[u8]) -> bool {
    rest.is_empty() || matches!(rest[0], b'n' | b'r' | b'\n' | b'\r') || rest.starts_with(b"x5c")
}

/// A field's text: in quotes, which a line break does not end.
pub(super) fn text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// The text behind a name or a tag's value as the database holds it.
pub(crate) fn readable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (character, length) = match rest.as_bytes() {
            [b'n', ..] => ('\n', 1),
            [b'r', ..] => ('\r', 1),
            [b'x', b'5', b'c', ..] => ('\\', 3),
            _ => ('\\', 0),
        };
        out.push(character);
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

/// A name or a tag's value as the database holds it: [`readable`] turned round.
pub(crate) fn stored(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    escape(text, Dialect::Influxdb, b"", &mut out);
    // Only whole characters were put in.
    String::from_utf8(out).unwrap_or_default()
}
