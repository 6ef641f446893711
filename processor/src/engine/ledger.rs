//! The ledger: what became of every row that was read.

use std::ops::Add;

use serde::{Deserialize, Serialize};

/// Counts of input rows since the query began; they are part of every journal entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) read: u64,
    /// Folded into a group.
    pub(crate) used: u64,
    /// Came after every window they belong to had closed.
    pub(crate) late: u64,
    /// Could not be read or used.
    pub(crate) dead: u64,
    /// Did not match WHERE, or were there before.
    pub(crate) filtered: u64,
    /// How many of the filtered rows were there before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) duplicates: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Ledger {
    /// `read - (used + late + dead + filtered)`: anything but 0 is a fault of ours.
    pub(crate) fn imbalance(&self) -> i64 {
        let known = self.used + self.late + self.dead + self.filtered;
        i64::try_from(i128::from(self.read) - i128::from(known)).unwrap_or(i64::MAX)
    }

    /// What has come since `before`; 0 where that was more, as after a new start from an older entry.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            read: self.read.saturating_sub(before.read),
            used: self.used.saturating_sub(before.used),
            late: self.late.saturating_sub(before.late),
            dead: self.dead.saturating_sub(before.dead),
            filtered: self.filtered.saturating_sub(before.filtered),
            duplicates: self.duplicates.saturating_sub(before.duplicates),
        }
    }
}

impl Add for Ledger {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            used: self.used + other.used,
            late: self.late + other.late,
            dead: self.dead + other.dead,
            filtered: self.filtered + other.filtered,
            duplicates: self.duplicates + other.duplicates,
        }
    }
}
