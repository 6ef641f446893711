//! One transactional id, without I/O and without a clock: `now` is an argument.
//!
//! ```text
//!           first partition or group            EndTxn, a newer producer, time is up
//!  Empty ──────────────────────────▶ Ongoing ─────────────────────────────────────────▶ PrepareCommit / PrepareAbort
//!    ▲                                  ▲                                                           │ markers are durable
//!    └── InitProducerId ────────────────┴──────────────────────────────── CompleteCommit / CompleteAbort
//! ```

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};

use crate::group::offsets::Offsets;

/// The last epoch that a producer gets; then it gets a new producer id. One is left to fence that producer with.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl Status {
    /// Kafka's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether its end is decided and its markers are still to be written: `Some(commit)`.
    pub(crate) fn prepared(self) -> Option<bool> {
        match self {
            Self::PrepareCommit => Some(true),
            Self::PrepareAbort => Some(false),
            _ => None,
        }
    }
}

/// A transactional id and its present or last transaction. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptTransaction {
    pub(crate) id: String,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// The epoch before, for a producer that has not heard of the present one.
    pub(crate) last_epoch: i16,
    pub(crate) timeout_ms: i64,
    pub(crate) status: Status,
    pub(crate) partitions: BTreeSet<(String, i32)>,
    /// Groups whose offsets may be part of it.
    pub(crate) groups: BTreeSet<String>,
    /// Offsets that it commits, by group.
    pub(crate) offsets: BTreeMap<String, Offsets>,
    pub(crate) started: i64,
    pub(crate) updated: i64,
}

impl KeptTransaction {
    pub(crate) fn new(id: &str, producer_id: i64, timeout_ms: i64, now: i64) -> Self {
        Self {
            id: id.to_owned(),
            producer_id,
            epoch: 0,
            last_epoch: -1,
            timeout_ms,
            status: Status::Empty,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            offsets: BTreeMap::new(),
            started: -1,
            updated: now,
        }
    }

    /// Checks that a request comes from the present producer.
    pub(crate) fn check(&self, producer_id: i64, epoch: i16) -> Result<(), ResponseError> {
        if self.producer_id != producer_id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if self.epoch != epoch { Err(ResponseError::ProducerFenced) } else { Ok(()) }
    }

    /// Begins a transaction, if none is open.
    ///
    /// # Errors
    /// `ConcurrentTransactions` while the one before it ends.
    pub(crate) fn begin(&mut self, now: i64) -> Result<(), ResponseError> {
        match self.status {
            Status::PrepareCommit | Status::PrepareAbort => return Err(ResponseError::ConcurrentTransactions),
            Status::Ongoing => {}
            Status::Empty | Status::CompleteCommit | Status::CompleteAbort => {
                self.clear();
                self.status = Status::Ongoing;
                self.started = now;
            }
        }
        self.updated = now;
        Ok(())
    }

    fn clear(&mut self) {
        self.partitions.clear();
        self.groups.clear();
        self.offsets.clear();
    }

    /// Decides the end of the open transaction. `Ok(false)`: it was decided so before.
    ///
    /// # Errors
    /// `InvalidTxnState` when there is nothing to end, or the other end has been decided.
    pub(crate) fn decide(&mut self, commit: bool, now: i64) -> Result<bool, ResponseError> {
        match (self.status, commit) {
            (Status::Ongoing, _) => {
                self.status = if commit { Status::PrepareCommit } else { Status::PrepareAbort };
                self.updated = now;
                Ok(true)
            }
            (Status::PrepareCommit | Status::CompleteCommit, true) | (Status::PrepareAbort | Status::CompleteAbort, false) => Ok(false),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// The open transaction is aborted, and its producer shut out.
    pub(crate) fn fence(&mut self, now: i64) {
        self.last_epoch = self.epoch;
        self.epoch = self.epoch.saturating_add(1);
        self.status = Status::PrepareAbort;
        self.updated = now;
    }

    /// The markers are written.
    pub(crate) fn complete(&mut self, now: i64) {
        self.status = if self.status == Status::PrepareCommit { Status::CompleteCommit } else { Status::CompleteAbort };
        if self.status == Status::CompleteAbort {
            self.offsets.clear();
        }
        self.partitions.clear();
        self.groups.clear();
        self.updated = now;
    }

    /// Whether it takes a new producer id to go on.
    pub(crate) fn is_worn_out(&self) -> bool {
        self.epoch >= LAST_EPOCH
    }

    /// A producer begins anew under this id. `fresh`: a producer id for it, when the old one is worn out.
    pub(crate) fn renew(&mut self, fresh: Option<i64>, timeout_ms: i64, now: i64) {
        self.clear();
        match fresh {
            Some(producer_id) => (self.producer_id, self.epoch, self.last_epoch) = (producer_id, 0, -1),
            None => (self.epoch, self.last_epoch) = (self.epoch + 1, self.epoch),
        }
        (self.status, self.timeout_ms, self.started, self.updated) = (Status::Empty, timeout_ms, -1, now);
    }

    /// Whether its time is up.
    pub(crate) fn is_overdue(&self, now: i64) -> bool {
        self.status == Status::Ongoing && self.started.saturating_add(self.timeout_ms) <= now
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn begun() -> KeptTransaction {
        let mut kept = KeptTransaction::new("t", 7, 1_000, 0);
        kept.begin(10).unwrap();
        kept.partitions.insert(("iot".to_owned(), 0));
        kept
    }

    #[test]
    fn an_end_is_decided_once_and_may_be_asked_for_again() {
        let mut kept = begun();
        assert_eq!(kept.decide(true, 20), Ok(true));
        assert_eq!(kept.begin(21), Err(ResponseError::ConcurrentTransactions));
        assert_eq!(kept.decide(true, 22), Ok(false));
        assert_eq!(kept.decide(false, 23), Err(ResponseError::InvalidTxnState));
        kept.complete(30);
        assert_eq!(kept.decide(true, 31), Ok(false), "the answer was lost");
        assert_eq!(kept.decide(false, 31), Err(ResponseError::InvalidTxnState));
        kept.begin(40).unwrap();
        assert!(kept.partitions.is_empty());
    }

    #[test]
    fn time_and_a_newer_producer_shut_the_old_one_out() {
        let mut kept = begun();
        assert!(!kept.is_overdue(1_009) && kept.is_overdue(1_010));
        kept.fence(2_000);
        assert_eq!(kept.check(7, 0), Err(ResponseError::ProducerFenced));
        kept.complete(2_001);
        kept.renew(None, 1_000, 2_002);
        assert_eq!((kept.epoch, kept.status), (2, Status::Empty));
        kept.epoch = LAST_EPOCH;
        assert!(kept.is_worn_out());
        kept.renew(Some(9), 1_000, 2_003);
        assert_eq!((kept.producer_id, kept.epoch), (9, 0));
        assert_eq!(kept.check(7, 0), Err(ResponseError::InvalidProducerIdMapping));
    }
}
