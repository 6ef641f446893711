//! What has been read of some partitions for the next step, and what is known of their ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::error::KafkaError;

use super::drain::Taken;
use super::records::Records;

/// The records of the next step, by partition.
pub(super) struct Pile(BTreeMap<i32, PartitionPile>);

/// The records of one partition, and where it ends.
struct PartitionPile {
    records: Records,
    /// Since when its end is known to be behind its newest record.
    at_end: Option<Instant>,
    /// Of a bounded run: where it ended at the start.
    end: Option<i64>,
}

/// What a look at the log has brought besides rows.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The log has answered.
    pub(super) answered: bool,
    /// A record came that a bounded run leaves.
    pub(super) beyond: bool,
    pub(super) errors: Vec<KafkaError>,
}

impl Pile {
    /// An empty one of these partitions. `ends` are those of a bounded run.
    pub(super) fn new(topic: &Arc<str>, partitions: impl Iterator<Item = i32>, ends: &BTreeMap<i32, i64>) -> Self {
        let empty = |number: i32| {
            let records = Records::new(topic, number);
            (number, PartitionPile { records, at_end: None, end: ends.get(&number).copied() })
        };
        Self(partitions.map(empty).collect())
    }

    /// Takes a record, unless it lies beyond the end of a bounded run.
    pub(super) fn hear(&mut self, came: Result<Taken<'_>, KafkaError>, heard: &mut Heard) {
        match came {
            Ok(record) => {
                heard.answered = true;
                let Some(own) = self.0.get_mut(&record.partition) else { return };
                if own.end.is_some_and(|end| record.offset >= end) {
                    own.at_end.get_or_insert_with(Instant::now);
                    heard.beyond = true;
                    return;
                }
                own.at_end = None;
                own.records.push(record.offset, record.timestamp, record.key, record.payload);
            }
            Err(KafkaError::PartitionEOF(number)) => {
                heard.answered = true;
                if let Some(own) = self.0.get_mut(&number) {
                    own.at_end.get_or_insert_with(Instant::now);
                }
            }
            Err(error) => heard.errors.push(error),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.0.values().map(|own| own.records.len()).sum()
    }

    /// Bytes of keys and payloads.
    pub(super) fn bytes(&self) -> usize {
        self.0.values().map(|own| own.records.bytes()).sum()
    }

    /// The records by partition; partitions without any are left out.
    pub(super) fn records(&self) -> impl Iterator<Item = &Records> {
        self.0.values().map(|own| &own.records).filter(|records| records.len() > 0)
    }

    /// The offset behind the newest record of a partition; `None` when the step has none of it.
    pub(super) fn next_offset(&self, partition: i32) -> Option<i64> {
        self.0.get(&partition)?.records.next_offset()
    }

    /// Of a bounded run: where each partition ended at the start.
    pub(super) fn ends(&self) -> impl Iterator<Item = (i32, i64)> {
        self.0.iter().filter_map(|(number, own)| Some((*number, own.end?)))
    }

    /// The same of one partition.
    pub(super) fn end(&self, partition: i32) -> Option<i64> {
        self.0.get(&partition)?.end
    }

    /// Whether the end of a partition was reached since its newest record.
    pub(super) fn is_at_end(&self, partition: i32) -> bool {
        self.at_end_since(partition).is_some()
    }

    /// Since when that is known; `None` when it is not so.
    pub(super) fn at_end_since(&self, partition: i32) -> Option<Instant> {
        self.0.get(&partition)?.at_end
    }

    /// Whether a partition is read to its end and steps have taken all its records.
    pub(super) fn is_through(&self, partition: i32) -> bool {
        self.0.get(&partition).is_some_and(|own| own.at_end.is_some() && own.records.len() == 0)
    }

    /// Whoever cannot hear the log does not know that it is quiet.
    pub(super) fn forget_ends(&mut self) {
        self.0.values_mut().for_each(|own| own.at_end = None);
    }

    /// The log could not be asked whether a partition still ends there.
    pub(super) fn doubt_end(&mut self, partition: i32) {
        if let Some(since) = self.0.get_mut(&partition).and_then(|own| own.at_end.as_mut()) {
            *since = Instant::now();
        }
    }

    /// Forgets the records; their buffers stay.
    pub(super) fn clear(&mut self) {
        self.0.values_mut().for_each(|own| own.records.clear());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pile(ends: &[(i32, i64)]) -> Pile {
        Pile::new(&Arc::from("iot"), [0, 1].into_iter(), &ends.iter().copied().collect())
    }

    fn record(partition: i32, offset: i64) -> Result<Taken<'static>, KafkaError> {
        Ok(Taken { partition, offset, timestamp: 7, key: Some(b"key"), payload: Some(b"payload") })
    }

    /// What is heard of `came`.
    fn hear(pile: &mut Pile, came: Result<Taken<'_>, KafkaError>) -> Heard {
        let mut heard = Heard::default();
        pile.hear(came, &mut heard);
        heard
    }

    #[test]
    fn records_are_kept_by_partition_and_counted_until_they_are_taken() {
        let mut pile = pile(&[]);
        for (partition, offset) in [(0, 5), (1, 9), (0, 8)] {
            let heard = hear(&mut pile, record(partition, offset));
            assert!(heard.answered && !heard.beyond && heard.errors.is_empty());
        }
        assert_eq!((pile.rows(), pile.bytes()), (3, 30));
        assert_eq!((pile.next_offset(0), pile.next_offset(1), pile.next_offset(2)), (Some(9), Some(10), None));
        assert_eq!(pile.records().map(|records| (records.partition(), records.len())).collect::<Vec<_>>(), [(0, 2), (1, 1)]);
        pile.clear();
        assert_eq!((pile.rows(), pile.bytes(), pile.next_offset(0), pile.records().count()), (0, 0, None, 0));
    }

    #[test]
    fn an_end_counts_until_the_next_record_and_no_row_may_wait() {
        let mut pile = pile(&[]);
        assert!(!pile.is_at_end(0) && !pile.is_through(0));
        hear(&mut pile, record(0, 5));
        assert!(hear(&mut pile, Err(KafkaError::PartitionEOF(0))).answered);
        assert!(pile.is_at_end(0) && !pile.is_through(0) && !pile.is_at_end(1));
        pile.clear();
        assert!(pile.is_at_end(0) && pile.is_through(0));
        hear(&mut pile, record(0, 6));
        assert!(!pile.is_at_end(0) && !pile.is_through(0));
        hear(&mut pile, Err(KafkaError::PartitionEOF(0)));
        pile.forget_ends();
        assert!(!pile.is_at_end(0));
    }

    #[test]
    fn the_time_at_an_end_begins_when_it_is_told_and_anew_after_a_doubt() {
        let mut pile = pile(&[]);
        pile.doubt_end(0);
        assert_eq!(pile.at_end_since(0), None, "who does not know of an end has no doubts about it");
        hear(&mut pile, Err(KafkaError::PartitionEOF(0)));
        let told = pile.at_end_since(0);
        let after_now = || while Some(Instant::now()) <= told {};
        after_now();
        hear(&mut pile, Err(KafkaError::PartitionEOF(0)));
        assert_eq!(pile.at_end_since(0), told, "told once more");
        pile.doubt_end(0);
        assert!(pile.at_end_since(0) > told);
        pile.forget_ends();
        hear(&mut pile, Err(KafkaError::PartitionEOF(0)));
        assert!(pile.at_end_since(0) > told);
    }

    #[test]
    fn a_bounded_run_leaves_what_lies_beyond() {
        let mut pile = pile(&[(0, 6)]);
        assert!(!hear(&mut pile, record(0, 5)).beyond);
        assert!(!pile.is_at_end(0));
        let heard = hear(&mut pile, record(0, 6));
        assert!(heard.beyond && heard.answered && pile.is_at_end(0));
        assert_eq!((pile.rows(), pile.next_offset(0), pile.end(0), pile.end(1)), (1, Some(6), Some(6), None));
        assert_eq!(pile.ends().collect::<Vec<_>>(), [(0, 6)]);
    }

    #[test]
    fn what_is_not_of_its_partitions_is_left_and_errors_are_passed_on() {
        let mut pile = pile(&[]);
        assert!(hear(&mut pile, record(7, 0)).answered);
        assert!(hear(&mut pile, Err(KafkaError::PartitionEOF(7))).answered);
        let heard = hear(&mut pile, Err(KafkaError::Canceled));
        assert!(!heard.answered && heard.errors == [KafkaError::Canceled]);
        assert_eq!((pile.rows(), pile.is_at_end(7), pile.is_through(7)), (0, false, false));
    }
}
