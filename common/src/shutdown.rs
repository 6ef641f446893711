//! One signal to stop that threads can ask for and tasks can wait for.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// A cloneable stop signal. Once set it stays set.
#[derive(Debug, Clone)]
pub struct Shutdown {
    sender: Arc<watch::Sender<bool>>,
    /// The same signal for plain threads.
    threads: Arc<(Mutex<bool>, Condvar)>,
}

impl Shutdown {
    /// A signal that only [`Shutdown::trigger`] sets.
    pub fn manual() -> Self {
        Self { sender: Arc::new(watch::Sender::new(false)), threads: Arc::default() }
    }

    /// A signal set by SIGTERM or Ctrl-C. A second one ends the process at once with code 130, for whoever cannot wait for the drain.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let shutdown = Self::manual();
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let set = shutdown.clone();
        tokio::spawn(async move {
            let mut next = async || tokio::select! { _ = interrupt.recv() => "SIGINT", _ = terminate.recv() => "SIGTERM" };
            let name = next().await;
            set.trigger();
            tracing::info!(signal = name, "stopping: draining what is in flight (a second signal ends at once)");
            next().await;
            std::process::exit(130);
        });
        Ok(shutdown)
    }

    pub fn trigger(&self) {
        *self.threads.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.threads.1.notify_all();
        self.sender.send_replace(true);
    }

    /// For loops on plain threads.
    pub fn is_set(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns when the signal is set; at once if it is already.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives as long as `self`, so the channel cannot close under us.
        let _closed = receiver.wait_for(|set| *set).await.is_err();
    }

    /// For plain threads: sleeps for `timeout`, less when the signal is set meanwhile. Returns whether it is set.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let (set, changed) = &*self.threads;
        let guard = set.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _timed_out) = changed.wait_timeout_while(guard, timeout, |set| !*set).unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_wakes_every_waiter_and_stays_set() {
        let shutdown = Shutdown::manual();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let s = shutdown.clone();
                    async move { s.wait().await }
                })
            })
            .collect();
        assert!(!shutdown.is_set());
        shutdown.trigger();
        for waiter in waiters {
            assert!(waiter.await.is_ok());
        }
        shutdown.wait().await;
        assert!(shutdown.is_set());
        assert!(shutdown.wait_timeout(Duration::from_secs(60)));
    }
}
