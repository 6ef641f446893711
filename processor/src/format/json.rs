//! A walk over the text of one JSON record: one look at each byte, no tree, no allocation, no recursion.

use super::number::{self, Number};

/// Arrays and objects within each other, the record itself included; `serde_json` draws the line at the same place.
const MAX_DEPTH: u32 = 127;

/// Where a record stops being JSON, and what should have stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) wanted: &'static str,
}

impl Fault {
    #[cold]
    pub(super) fn new(at: usize, wanted: &'static str) -> Self {
        Self { at, wanted }
    }
}

/// A value of a field. What is nested is only checked: no column can hold it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    /// A string without escapes: what stands between the quotes is its text.
    Text(&'a str),
    /// A string with escapes, all of them valid; see `unescape`.
    Escaped(&'a str),
    Array,
    Object,
}

/// A field's name as it mostly stands in a record, with its quotes and its colon. One with a space between them is looked up.
#[derive(Debug)]
pub(super) struct Quoted {
    text: Vec<u8>,
    /// Its first sixteen bytes, zeros behind its end, and the bits that it has of them: most names are compared at once.
    head: [u64; 2],
    mask: [u64; 2],
}

impl Quoted {
    /// Of a name in quotes.
    pub(super) fn new(mut text: Vec<u8>) -> Self {
        text.push(b':');
        let (mut head, mut mask) = ([0; 16], [0; 16]);
        head.iter_mut().zip(&text).for_each(|(byte, of_text)| *byte = *of_text);
        mask.iter_mut().zip(&text).for_each(|(byte, _)| *byte = 0xFF);
        Self { text, head: halves(head), mask: halves(mask) }
    }

    #[inline]
    fn begins(&self, record: &[u8]) -> bool {
        let (mask, head) = (self.mask, self.head);
        if self.text.len() <= 8
            && let Some(found) = record.first_chunk()
        {
            // The last field of a record often has no sixteen bytes.
            return u64::from_le_bytes(*found) & mask[0] == head[0];
        }
        match record.first_chunk() {
            Some(found) if self.text.len() <= found.len() => {
                let [low, high] = halves(*found);
                ((low & mask[0]) ^ head[0]) | ((high & mask[1]) ^ head[1]) == 0
            }
            _ => record.starts_with(&self.text),
        }
    }
}

/// As two numbers: a single one of 128 bits would be put into a vector register, which is slow to be compared.
#[inline]
fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let all = u128::from_le_bytes(bytes);
    [all as u64, (all >> 64) as u64]
}

/// How many bytes stand before the first that a string may not simply hold: a quote, a backslash, a control character. Looks at eight at a time,
/// and leaves the last few.
#[inline]
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // In each byte that is less than `limit` the highest bit is set; the first that is set is right, those after it need not be.
    let less = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let (words, _) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = less(word, 0x20) | less(word ^ (ONES * u64::from(b'"')), 1) | less(word ^ (ONES * u64::from(b'\\')), 1);
        if found != 0 {
            return 8 * place + found.trailing_zeros() as usize / 8;
        }
    }
    8 * words.len()
}

/// A position in the text of a record.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0 }
    }

    /// Steps into the record; false if it has no fields.
    pub(super) fn open(&mut self) -> Result<bool, Fault> {
        self.space();
        self.want(b'{', "an object")?;
        self.space();
        Ok(!self.take(b'}'))
    }

    /// Steps over the next field's name and its colon if it is `quoted`, the expected one.
    #[inline]
    pub(super) fn take_name(&mut self, quoted: &Quoted) -> bool {
        let same = self.bytes.get(self.at..).is_some_and(|rest| quoted.begins(rest));
        self.at += if same { quoted.text.len() } else { 0 };
        same
    }

    /// The next field's name, whatever it is, and its colon.
    pub(super) fn name(&mut self) -> Result<Token<'a>, Fault> {
        self.want(b'"', "a field's name")?;
        let name = self.string()?;
        self.space();
        self.want(b':', "':'")?;
        Ok(name)
    }

    /// Leaves the value behind a field's name in `slot`: a token is several words, and handing it on as a result copies it while it is still being
    /// written, which a processor has to wait for.
    #[inline]
    pub(super) fn value(&mut self, slot: &mut Token<'a>) -> Result<(), Fault> {
        self.space();
        match self.peek() {
            Some(b'{') => {
                self.nested()?;
                *slot = Token::Object;
            }
            Some(b'[') => {
                self.nested()?;
                *slot = Token::Array;
            }
            _ => self.scalar(slot)?,
        }
        Ok(())
    }

    /// Steps over the comma to the next field; false at the end of the record.
    #[inline]
    pub(super) fn more(&mut self) -> Result<bool, Fault> {
        self.space();
        if self.take(b',') {
            self.space();
            return Ok(true);
        }
        self.want(b'}', "',' or '}'").map(|()| false)
    }

    /// Nothing but white space may follow the record.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(Fault::new(self.at, "the end of the record")) }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let same = self.peek() == Some(byte);
        self.at += usize::from(same);
        same
    }

    #[inline]
    fn want(&mut self, byte: u8, wanted: &'static str) -> Result<(), Fault> {
        if self.take(byte) { Ok(()) } else { Err(Fault::new(self.at, wanted)) }
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Always inlined where the values of fields are read: most records are nothing but scalars.
    #[inline(always)]
    fn scalar(&mut self, slot: &mut Token<'a>) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                *slot = self.string()?;
            }
            Some(b'n') => *slot = self.word("null", Token::Null)?,
            Some(b't') => *slot = self.word("true", Token::Bool(true))?,
            Some(b'f') => *slot = self.word("false", Token::Bool(false))?,
            _ => {
                let (number, end) = number::scan(self.text, self.at)?;
                self.at = end;
                *slot = Token::Number(number);
            }
        }
        Ok(())
    }

    fn word(&mut self, word: &'static str, token: Token<'a>) -> Result<Token<'a>, Fault> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return Err(Fault::new(self.at, "a value"));
        }
        self.at += word.len();
        Ok(token)
    }

    /// The rest of a string, behind its opening quote. Always inlined: the result is then not copied on its way into its slot.
    #[inline(always)]
    fn string(&mut self) -> Result<Token<'a>, Fault> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at = escape(self.bytes, self.at)?.1;
                }
                Some(0..0x20) => return Err(Fault::new(self.at, "no control character in a string")),
                Some(_) => self.at += 1,
                None => return Err(Fault::new(self.at, "the end of a string")),
            }
        }
        let inner = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok(if escaped { Token::Escaped(inner) } else { Token::Text(inner) })
    }

    /// Steps over an array or an object. One bit per open level remembers which of the two it is, so that a hostile record
    /// costs no stack.
    fn nested(&mut self) -> Result<(), Fault> {
        let mut objects: u128 = 0;
        let mut depth = 1;
        loop {
            if let Some(open @ (b'{' | b'[')) = self.peek() {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Fault::new(self.at, "at most 127 levels of nesting"));
                }
                let object = open == b'{';
                objects = objects << 1 | u128::from(object);
                self.at += 1;
                self.space();
                if !matches!((self.peek(), object), (Some(b'}'), true) | (Some(b']'), false)) {
                    self.start_element(object)?;
                    continue;
                }
            } else {
                self.unwanted()?;
            }
            // Behind a value: close what ends here, or go on with the next element.
            loop {
                if depth == 1 {
                    return Ok(());
                }
                self.space();
                let object = objects & 1 == 1;
                if self.take(b',') {
                    self.space();
                    self.start_element(object)?;
                    break;
                }
                self.want(if object { b'}' } else { b']' }, if object { "',' or '}'" } else { "',' or ']'" })?;
                objects >>= 1;
                depth -= 1;
            }
        }
    }

    /// Steps over a scalar.
    #[inline(never)]
    fn unwanted(&mut self) -> Result<(), Fault> {
        self.scalar(&mut Token::Null)
    }

    fn start_element(&mut self, object: bool) -> Result<(), Fault> {
        if object {
            self.name()?;
            self.space();
        }
        Ok(())
    }
}

/// The character that the escape at `at` stands for, and the position behind it.
fn escape(bytes: &[u8], at: usize) -> Result<(char, usize), Fault> {
    let plain = match bytes.get(at + 1) {
        Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(bytes, at),
        _ => return Err(Fault::new(at, "a valid escape")),
    };
    Ok((plain, at + 2))
}

/// `\u0041`, or a pair of surrogates such as `\ud83d\ude00`.
fn unicode_escape(bytes: &[u8], at: usize) -> Result<(char, usize), Fault> {
    let fault = || Fault::new(at, "a valid escape");
    let first = hex4(bytes, at).ok_or_else(fault)?;
    if let Some(single) = char::from_u32(first) {
        return Ok((single, at + 6));
    }
    let second = hex4(bytes, at + 6).filter(|second| (0xDC00..0xE000).contains(second) && first < 0xDC00).ok_or_else(fault)?;
    let pair = char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or_else(fault)?;
    Ok((pair, at + 12))
}

/// The four hexadecimal digits behind the `\u` at `at`.
fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Appends the text of a string with escapes. It never gets longer by that.
pub(super) fn unescape(inner: &str, out: &mut Vec<u8>) {
    let bytes = inner.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'\\'
            && let Ok((character, end)) = escape(bytes, at)
        {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            at = end;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
}
