//! The named steps of the commit path and of a recovery.
//!
//! A worker says where it is: `/status` shows it when the worker stands still, and the tests kill the process at each of the steps. For
//! that, and for nothing else, the environment variable [`CRASH`] names a step; it is no setting, and a process that sees it says so.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// `point:count:query`: the process kills itself when a worker of the query reaches the point for the count-th time.
pub(crate) const CRASH: &str = "_TIDEMARK_TEST_CRASH";

/// A place on the commit path or in a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The rows of the lanes, and the results of all entries but the newest, are in their topics.
    AfterLanes,
    /// The entry is in the journal.
    AfterJournal,
    /// The results are computed and not sent.
    BeforeResults,
    /// The results are sent; nobody knows whether they have arrived.
    AfterResults,
    BeforeSnapshot,
    /// The snapshot is in the journal behind all that it replaces.
    AfterSnapshot,
    /// What lies before the snapshot is deleted. That of a journal topic is deleted beside the worker, which does not say it then.
    AfterCut,
    /// A new owner has its epoch.
    AfterFence,
    /// The first entry of the journal is in the state.
    MidRestore,
    /// The state is restored up to the newest entries, whose results are not sent again yet.
    BeforeRedelivery,
    /// They are sent.
    AfterRedelivery,
}

impl Point {
    const ALL: [Self; 11] = [
        Self::AfterLanes,
        Self::AfterJournal,
        Self::BeforeResults,
        Self::AfterResults,
        Self::BeforeSnapshot,
        Self::AfterSnapshot,
        Self::AfterCut,
        Self::AfterFence,
        Self::MidRestore,
        Self::BeforeRedelivery,
        Self::AfterRedelivery,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AfterLanes => "after_lanes",
            Self::AfterJournal => "after_journal",
            Self::BeforeResults => "before_results",
            Self::AfterResults => "after_results",
            Self::BeforeSnapshot => "before_snapshot",
            Self::AfterSnapshot => "after_snapshot",
            Self::AfterCut => "after_cut",
            Self::AfterFence => "after_fence",
            Self::MidRestore => "mid_restore",
            Self::BeforeRedelivery => "before_redelivery",
            Self::AfterRedelivery => "after_redelivery",
        }
    }
}

#[derive(Debug, PartialEq)]
struct Crash {
    point: Point,
    count: u64,
    query: String,
}

impl Crash {
    fn parse(text: &str) -> Option<Self> {
        let (point, rest) = text.split_once(':')?;
        let (count, query) = rest.split_once(':')?;
        let point = Point::ALL.into_iter().find(|known| known.name() == point)?;
        Some(Self { point, count: count.parse().ok()?, query: query.to_owned() })
    }
}

fn wanted() -> Option<&'static Crash> {
    static WANTED: OnceLock<Option<Crash>> = OnceLock::new();
    let read = || {
        let text = std::env::var(CRASH).ok()?;
        let crash = Crash::parse(&text);
        tracing::warn!(text, known = crash.is_some(), "this process is told to kill itself: the environment has {CRASH}");
        crash
    };
    WANTED.get_or_init(read).as_ref()
}

/// Kills this process when the tests want it to die here.
pub(crate) fn reached(point: Point, query: &str) {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let Some(crash) = wanted().filter(|crash| crash.point == point && crash.query == query) else { return };
    if SEEN.fetch_add(1, Ordering::Relaxed) + 1 < crash.count {
        return;
    }
    // SIGKILL, as the kernel would: the shell's parent is this process. Its end comes while it waits here.
    let killed = std::process::Command::new("sh").args(["-c", "kill -KILL $PPID"]).status();
    tracing::error!(?killed, "the process could not kill itself");
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_found_by_its_name() {
        for point in Point::ALL {
            let wanted = Crash { point, count: 2, query: "a:b".into() };
            assert_eq!(Crash::parse(&format!("{}:2:a:b", point.name())), Some(wanted));
        }
        assert_eq!(Crash::parse("somewhere:1:q"), None);
    }
}
