//! Rows for the lanes, until they are worth a request.
//!
//! In a backlog a step of thousands of rows has some that are too late. Sent step by step they were requests of one to eight rows, ten times as
//! many as those of all results.

use std::time::{Duration, Instant};

use common::topics::lane_header;
use rdkafka::message::OwnedHeaders;

use super::super::lanes::Lane;
use super::super::records::Records;
use super::text;
use crate::engine::Refused;

/// So many rows, or bytes of their keys and values, are enough.
pub(super) const ENOUGH: usize = 500;
const ENOUGH_BYTES: usize = 256 * 1024;

/// From this age on the next step sends them.
const OLD: Duration = Duration::from_millis(50);

/// A row on its way into its lane.
pub(super) struct HeldRow {
    pub(super) lane: Lane,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    /// Where it was, and why it is there.
    pub(super) headers: OwnedHeaders,
}

/// In the order in which they were refused.
#[derive(Default)]
pub(super) struct Held {
    rows: Vec<HeldRow>,
    bytes: usize,
    /// Since when the first of them is here.
    since: Option<Instant>,
}

impl Held {
    /// Takes a copy of a refused row of `records`. `stage`: who refuses it.
    pub(super) fn push(&mut self, records: &Records, lane: Lane, refused: &Refused, stage: &str) {
        let record = records.get(refused.index as usize);
        let headers = OwnedHeaders::new_with_capacity(7)
            .insert(text(lane_header::TOPIC, records.topic()))
            .insert(text(lane_header::PARTITION, &records.partition().to_string()))
            .insert(text(lane_header::OFFSET, &record.offset.to_string()))
            .insert(text(lane_header::REASON, refused.reason))
            .insert(text(lane_header::DETAIL, &refused.detail))
            .insert(text(lane_header::STAGE, stage));
        // Its own timestamp goes into a header: with it, a lane's retention would delete what has only just been set aside.
        let headers = headers.insert(text(lane_header::TIMESTAMP, &record.timestamp.to_string()));
        let (key, payload) = (record.key.map(<[u8]>::to_vec), record.payload.map(<[u8]>::to_vec));
        self.bytes += [&key, &payload].into_iter().flatten().map(Vec::len).sum::<usize>();
        self.rows.push(HeldRow { lane, key, payload, headers });
        self.since.get_or_insert_with(Instant::now);
    }

    /// Whether they fill requests.
    pub(super) fn are_enough(&self) -> bool {
        self.rows.len() >= ENOUGH || self.bytes >= ENOUGH_BYTES
    }

    /// Whether the first of them has been held for long.
    pub(super) fn are_old(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= OLD)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Gives up what is held.
    pub(super) fn take(&mut self) -> Vec<HeldRow> {
        std::mem::take(self).rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` late rows of so many bytes.
    fn held(count: usize, bytes: usize) -> Held {
        let payload = vec![b' '; bytes];
        let records = Records::of((0..count).map(|_| (None, Some(payload.as_slice()))));
        let mut held = Held::default();
        for index in (0..).take(count) {
            held.push(&records, Lane::Late, &Refused { index, reason: "late", detail: String::new() }, "q");
        }
        held
    }

    #[test]
    fn rows_leave_when_they_are_many_or_large_or_old() {
        let now = Instant::now();
        assert!(!held(ENOUGH - 1, 1).are_enough() && held(ENOUGH, 1).are_enough());
        assert!(!held(2, ENOUGH_BYTES / 2 - 1).are_enough() && held(2, ENOUGH_BYTES / 2).are_enough());
        assert!(!held(1, 1).are_old(now), "they came after that");
        assert!(held(1, 1).are_old(Instant::now() + OLD));
        assert!(!Held::default().are_old(now + OLD) && !Held::default().are_enough(), "nothing never leaves");
        let mut taken = held(ENOUGH, 1);
        assert_eq!(taken.take().len(), ENOUGH);
        assert!(!taken.are_old(Instant::now() + OLD) && !taken.are_enough(), "what is gone does not leave again");
    }
}
