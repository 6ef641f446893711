//! How much room the disk has left. Below the mark produces are refused, so that a full disk never meets the broker's own
//! book-keeping; above it they are taken again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The mark when none is set: this part of the file system, and never more than `MOST`.
const PART: u64 = 20;
const MOST: u64 = 256 << 20;

#[derive(Debug, Default)]
struct State {
    dir: PathBuf,
    /// Free bytes that must stay; `None` takes a part of the file system.
    mark: Option<u64>,
    /// Bytes above the mark at the last look, less what has been written since.
    left: AtomicI64,
    /// Nobody looks: a test's partition without a broker.
    unwatched: bool,
    refusing: AtomicBool,
    free: AtomicI64,
}

/// The room of one data directory; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<State>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(State { unwatched: true, ..State::default() }))
    }
}

impl Room {
    /// Looks at the file system of `dir` for the first time.
    pub(crate) fn new(dir: &Path, mark: Option<u64>) -> Self {
        let room = Self(Arc::new(State { dir: dir.to_path_buf(), mark, ..State::default() }));
        room.look();
        room
    }

    /// Looks again, and says when the disk has become too full or has room again.
    pub(crate) fn look(&self) {
        let state = &self.0;
        if state.unwatched {
            return;
        }
        let (free, total) = match free_and_total(&state.dir) {
            Ok(found) => found,
            Err(fault) => {
                tracing::warn!(dir = %state.dir.display(), %fault, "how much room the disk has cannot be found out");
                return;
            }
        };
        let mark = state.mark.unwrap_or((total / PART).min(MOST));
        let left = free as i64 - mark as i64;
        state.left.store(left, Ordering::Release);
        state.free.store(free as i64, Ordering::Release);
        let refuse = left <= 0;
        if state.refusing.swap(refuse, Ordering::AcqRel) != refuse {
            if refuse {
                tracing::error!(
                    dir = %state.dir.display(), free, mark,
                    "the disk is nearly full: produces are answered with a retriable error, reading goes on; free some space and \
                     it goes on by itself"
                );
            } else {
                tracing::info!(dir = %state.dir.display(), free, mark, "the disk has room again: produces are taken");
            }
        }
    }

    /// Takes `bytes` of the room; `false` when there are too few.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let state = &self.0;
        if state.unwatched {
            return true;
        }
        let bytes = bytes as i64;
        if state.left.load(Ordering::Acquire) < bytes {
            return false;
        }
        state.left.fetch_sub(bytes, Ordering::AcqRel);
        true
    }

    /// Free bytes at the last look.
    pub(crate) fn free(&self) -> u64 {
        self.0.free.load(Ordering::Acquire).max(0) as u64
    }

    /// Whether produces are refused now.
    pub(crate) fn is_refusing(&self) -> bool {
        self.0.refusing.load(Ordering::Acquire)
    }
}

/// Bytes that this user may still write, and the size of the file system.
pub(crate) fn free_and_total(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_between_two_looks_counts() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::new(dir.path(), Some(0));
        assert!(room.take(100) && !room.is_refusing());
        let (free, _) = free_and_total(dir.path()).unwrap();
        let tight = Room::new(dir.path(), Some(free.saturating_sub(1 << 30)));
        assert!(tight.take(1 << 20));
        assert!(!tight.take(1 << 31), "more than there is above the mark");
        let full = Room::new(dir.path(), Some(u64::MAX >> 1));
        assert!(full.is_refusing() && !full.take(1));
    }
}
