//! The records behind a batch's points, whole, in one piece of memory.
//!
//! Hardly any is ever looked at again: only those that the database refuses. So keeping one costs a copy of its bytes, and no allocation.

use common::headers::{self, Native};
use rdkafka::Timestamp;
use rdkafka::message::{Message, OwnedHeaders, OwnedMessage};

#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Per record: key, payload, then of each header the place of its name and its value; parts are their length and their bytes.
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// Names that occur; there are few.
    topics: Vec<String>,
    /// Of headers. Once there are many, the rest stands in the bytes.
    names: Vec<Vec<u8>>,
}

/// Most names of headers that are kept apart.
const NAMES: usize = 32;

#[derive(Debug)]
struct Place {
    topic: usize,
    partition: i32,
    offset: i64,
    timestamp: Timestamp,
    begin: usize,
    end: usize,
}

/// Stands for the length of a part that is absent, which differs from an empty one.
const ABSENT: u32 = u32::MAX;

impl Records {
    pub(crate) fn push(&mut self, record: &impl Message<Headers: Native>) {
        let begin = self.bytes.len();
        self.part(record.key());
        self.part(record.payload());
        for (name, value) in headers::raw(record) {
            self.name(name);
            self.part(value);
        }
        let topic = match self.topics.iter().position(|known| known == record.topic()) {
            Some(at) => at,
            None => {
                self.topics.push(record.topic().to_owned());
                self.topics.len() - 1
            }
        };
        let (partition, offset, timestamp) = (record.partition(), record.offset(), record.timestamp());
        self.places.push(Place { topic, partition, offset, timestamp, begin, end: self.bytes.len() });
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The record at `at` as it came.
    pub(crate) fn get(&self, at: usize) -> Option<OwnedMessage> {
        let place = self.places.get(at)?;
        let mut rest = self.bytes.get(place.begin..place.end)?;
        let (key, payload) = (take(&mut rest)?, take(&mut rest)?);
        let mut headers = None;
        while !rest.is_empty() {
            let (at, after) = rest.split_first()?;
            rest = after;
            let name = match self.names.get(usize::from(*at)) {
                Some(name) => name.as_slice(),
                None => take(&mut rest)??,
            };
            headers = Some(headers::insert(headers.unwrap_or_else(OwnedHeaders::new), name, take(&mut rest)?));
        }
        let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
        let topic = self.topics.get(place.topic)?.clone();
        Some(OwnedMessage::new(owned(payload), owned(key), topic, place.timestamp, place.partition, place.offset, headers))
    }

    /// Keeps those of which `keep` says so, in their order. Their bytes stay until the batch goes.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut at = 0;
        self.places.retain(|_| {
            at += 1;
            keep(at - 1)
        });
    }

    /// One byte for a name that is known.
    fn name(&mut self, name: &[u8]) {
        let known = self.names.iter().position(|known| known == name);
        let at = known.unwrap_or(self.names.len());
        if known.is_none() && at < NAMES {
            self.names.push(name.to_owned());
        }
        // At most `NAMES`, which stands for a name that follows.
        self.bytes.push(u8::try_from(at).unwrap_or(u8::MAX));
        if at >= NAMES {
            self.part(Some(name));
        }
    }

    fn part(&mut self, part: Option<&[u8]>) {
        // A Kafka record is far smaller than 4 GiB.
        let length = part.map_or(ABSENT, |part| u32::try_from(part.len()).unwrap_or(ABSENT));
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(part.unwrap_or_default());
    }
}

/// The next part: `None` when there is none, `Some(None)` when it is absent from the record.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    if length == ABSENT {
        *rest = after;
        return Some(None);
    }
    let (part, after) = after.split_at_checked(length as usize)?;
    *rest = after;
    Some(Some(part))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let with = |all: OwnedHeaders, name: &[u8], value: Option<&str>| headers::insert(all, name, value.map(str::as_bytes));
        let headers = [("a", Some("1")), ("a", None), ("", Some(""))];
        let headers = headers.iter().fold(OwnedHeaders::new(), |all, (name, value)| with(all, name.as_bytes(), *value));
        let headers = with(headers, b"\xff no text", Some("odd"));
        // More names than are kept apart.
        let headers = (0..40).fold(headers, |all, at| with(all, format!("name {at}").as_bytes(), Some("x")));
        let make = |topic: &str, offset, key: Option<&str>, payload: Option<&str>, headers| {
            let bytes = |part: Option<&str>| part.map(|part| part.as_bytes().to_vec());
            OwnedMessage::new(bytes(payload), bytes(key), topic.into(), Timestamp::CreateTime(offset), 3, offset, headers)
        };
        let all =
            [make("t", 1, Some("k"), Some("v"), Some(headers)), make("u", 2, None, None, None), make("t", 3, Some(""), Some("🌡"), None)];
        let mut records = Records::default();
        all.iter().for_each(|record| records.push(record));
        // The headers' own form shows their address.
        let headers =
            |record: &OwnedMessage| record.headers().map(|_| headers::raw(record).map(|one| format!("{one:?}")).collect::<Vec<_>>());
        let form = |record: &OwnedMessage| format!("{:?} {:?}", record.clone().replace_headers(None), headers(record));
        for (at, record) in all.iter().enumerate() {
            assert_eq!(form(&records.get(at).unwrap()), form(record));
        }
        records.retain(|at| at != 1);
        assert_eq!(records.get(1).unwrap().offset(), 3);
        assert!(records.get(2).is_none());
    }
}
