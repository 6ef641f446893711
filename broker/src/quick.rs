//! Short work with the disk, done by the thread that was asked.
//!
//! Handing work to another thread and hearing of its end costs more than writing or reading some kilobytes of the page cache, and on a busy
//! machine each of the two waits for its turn. But a disk may also stand still, and with it who works with it. So only one thread of the
//! runtime at a time does such work itself, and only where there are others that go on; all else is done where blocking is allowed.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

/// Larger work goes to another thread: there it is worth it, and it holds nobody up.
pub(crate) const MOST_BYTES: usize = 64 << 10;

/// Whether some thread works with the disk itself just now.
#[derive(Debug, Default)]
pub(crate) struct Quick(AtomicBool);

/// Given back when dropped.
struct Turn<'a>(&'a Quick);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

impl Quick {
    fn turn(&self) -> Option<Turn<'_>> {
        let others = Handle::try_current().is_ok_and(|runtime| runtime.metrics().num_workers() > 1);
        (others && !self.0.swap(true, Ordering::AcqRel)).then(|| Turn(self))
    }

    /// Does `work`; here, when it is `small` and nobody else does so. `None`: it has panicked.
    pub(crate) async fn run<T: Send + 'static>(&self, small: bool, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match small.then(|| self.turn()).flatten() {
            Some(_turn) => Some(work()),
            None => tokio::task::spawn_blocking(work).await.ok(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::thread::ThreadId;

    use super::*;

    fn here() -> ThreadId {
        std::thread::current().id()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_one_thread_of_the_runtime_works_with_the_disk() {
        let quick = Arc::new(Quick::default());
        let inner = quick.clone();
        let task = tokio::spawn(async move {
            let asked = here();
            assert_eq!(inner.run(true, here).await, Some(asked));
            assert_ne!(inner.run(false, here).await, Some(here()));
            // As while another one is at it.
            let _turn = inner.turn().unwrap();
            assert!(inner.turn().is_none());
            let other = inner.run(true, here).await.unwrap();
            assert_ne!(other, here());
        });
        task.await.unwrap();
        assert!(quick.turn().is_some(), "it was given back");
    }

    #[tokio::test]
    async fn the_only_thread_of_a_runtime_never_does() {
        assert_ne!(Quick::default().run(true, here).await, Some(here()));
    }
}
