//! Headers of records, whatever bytes their names are.
//!
//! A header's name is text by Kafka's protocol, but no log looks at it, and `rdkafka`'s own iteration panics when it is none. One such record,
//! which anybody who may produce can write, would end a program for good: it comes again after each restart.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::ptr;

use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_header_get_all, rd_kafka_headers_t};
use rdkafka::error::IsError as _;
use rdkafka::message::{BorrowedHeaders, Message, OwnedHeaders};

/// Headers in librdkafka's own form, which both kinds of messages have.
pub trait Native {
    fn native(&self) -> &BorrowedHeaders;
}

impl Native for BorrowedHeaders {
    fn native(&self) -> &BorrowedHeaders {
        self
    }
}

impl Native for OwnedHeaders {
    fn native(&self) -> &BorrowedHeaders {
        self.as_borrowed()
    }
}

/// Name and value of each header, in their order.
pub struct Raw<'a> {
    headers: Option<&'a BorrowedHeaders>,
    at: usize,
}

impl fmt::Debug for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The headers of `message` as they came.
pub fn raw<M: Message<Headers: Native>>(message: &M) -> Raw<'_> {
    Raw { headers: message.headers().map(Native::native), at: 0 }
}

/// The headers whose names are text: all that a program can look for by name.
pub fn named<M: Message<Headers: Native>>(message: &M) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    raw(message).filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
}

/// The first header of this name, when its value is text.
pub fn text<'a, M: Message<Headers: Native>>(message: &'a M, name: &str) -> Option<&'a str> {
    let (_, value) = raw(message).find(|(known, _)| *known == name.as_bytes())?;
    std::str::from_utf8(value?).ok()
}

impl<'a> Iterator for Raw<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let headers = native(self.headers?);
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers live for `'a`, and the call only writes the three results. Beyond the last header it says so.
        let code = unsafe { rd_kafka_header_get_all(headers, self.at, &raw mut name, &raw mut value, &raw mut length) };
        if code.is_error() {
            return None;
        }
        self.at += 1;
        // SAFETY: librdkafka ends every name with a null. Its value is null or has that many bytes. Both live as long as the headers.
        let (name, value) = unsafe {
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), length));
            (CStr::from_ptr(name).to_bytes(), value)
        };
        Some((name, value))
    }
}

/// Adds a header whose name may be any bytes; `rdkafka`'s own way takes text only.
pub fn insert(headers: OwnedHeaders, name: &[u8], value: Option<&[u8]>) -> OwnedHeaders {
    let (start, length) = value.map_or((ptr::null(), 0), |value| (value.as_ptr().cast(), value.len().cast_signed()));
    // SAFETY: both are bytes of the lengths beside them, which the call copies; the headers are ours alone.
    let code = unsafe { rd_kafka_header_add(native(headers.as_borrowed()), name.as_ptr().cast(), name.len().cast_signed(), start, length) };
    // It fails for headers that must not be written, and owned ones may be.
    debug_assert!(!code.is_error());
    headers
}

/// `rdkafka` gives a reference to what librdkafka points to, under a type of its own without a size.
fn native(headers: &BorrowedHeaders) -> *mut rd_kafka_headers_t {
    ptr::from_ref(headers).cast_mut().cast()
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedMessage};

    use super::*;

    fn message(headers: Option<OwnedHeaders>) -> OwnedMessage {
        OwnedMessage::new(None, None, "t".into(), Timestamp::NotAvailable, 0, 0, headers)
    }

    #[test]
    fn names_of_any_bytes_are_read_and_kept() {
        let headers = OwnedHeaders::new().insert(Header { key: "a", value: Some("1") });
        let headers = insert(insert(headers, b"\xff\xfe", Some(b"odd")), "ä".as_bytes(), None);
        let headers = insert(headers.insert(Header { key: "a", value: Some("2") }), b"", Some(b""));
        let message = message(Some(headers.clone()));
        let all: Vec<(&[u8], Option<&[u8]>)> = raw(&message).collect();
        let expected: [(&[u8], Option<&[u8]>); 5] =
            [(b"a", Some(b"1")), (b"\xff\xfe", Some(b"odd")), ("ä".as_bytes(), None), (b"a", Some(b"2")), (b"", Some(b""))];
        assert_eq!(all, expected);
        assert_eq!(named(&message).map(|(name, _)| name).collect::<Vec<_>>(), ["a", "ä", "a", ""]);
        assert_eq!((text(&message, "a"), text(&message, "ä"), text(&message, "b")), (Some("1"), None, None));
    }

    #[test]
    fn a_record_without_headers_has_none() {
        assert_eq!(raw(&message(None)).count(), 0);
        assert_eq!(raw(&message(Some(OwnedHeaders::new()))).count(), 0);
    }
}
