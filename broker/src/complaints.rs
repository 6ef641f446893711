//! Complaints that may come a thousand times a second, and are said now and then.

use std::sync::atomic::{AtomicU64, Ordering};

/// At least so many milliseconds lie between two complaints of one kind.
const PAUSE_MS: u64 = 10_000;

/// Complaints of one kind.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    /// Milliseconds since 1970 of the last one that was said; 0 before the first.
    said: AtomicU64,
    unsaid: AtomicU64,
}

impl Complaints {
    /// Whether this one is said: then with how many went unsaid since the last one that was.
    pub(crate) fn next(&self, now_millis: i64) -> Option<u64> {
        let (now, last) = (now_millis.unsigned_abs(), self.said.load(Ordering::Relaxed));
        // A clock that was set back keeps nobody silent for longer.
        let due = now.abs_diff(last) >= PAUSE_MS;
        if due && self.said.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.unsaid.swap(0, Ordering::Relaxed));
        }
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_ten_seconds_is_said_and_counts_the_others() {
        let complaints = Complaints::default();
        let said: Vec<_> = (0..250).filter_map(|i| complaints.next(1_000_000 + i * 100)).collect();
        assert_eq!(said, [0, 99, 99]);
        assert_eq!(complaints.next(5_000), Some(49), "the clock was set back");
    }
}
