//! The ledger: what became of every row that was read.

use std::ops::Add;

use serde::{Deserialize, Serialize};

/// Counts of input rows since the query began; they are part of every journal entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub read: u64,
    /// Folded into a group.
    pub used: u64,
    /// Came after every window they belong to had closed.
    pub late: u64,
    /// Could not be read or used.
    pub dead: u64,
    /// Did not match WHERE.
    pub filtered: u64,
}

impl Ledger {
    /// `read - (used + late + dead + filtered)`: anything but 0 is a fault of ours.
    pub fn imbalance(&self) -> i64 {
        let known = self.used + self.late + self.dead + self.filtered;
        i64::try_from(i128::from(self.read) - i128::from(known)).unwrap_or(i64::MAX)
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
        }
    }
}
