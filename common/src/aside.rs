//! Clients that end beside whoever has used them.
//!
//! `rdkafka` gives the end of a consumer a tenth of a second, whether it takes that or not, and the end of an admin client up to as much. Whoever
//! has only asked something, or has read a journal to its end, has better things to do.

use std::fmt;
use std::ops::Deref;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How many ends are under way.
static UNDER_WAY: Mutex<usize> = Mutex::new(0);
static ONE_IS_OVER: Condvar = Condvar::new();

/// A client of a log that is away may take long to end.
const PATIENCE: Duration = Duration::from_secs(2);

fn under_way() -> MutexGuard<'static, usize> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the ends that are under way, for a while. To be called before the process ends: what OpenSSL cleans up at its exit, a client that
/// is still at work with TLS would use.
pub fn wait_for_ends() {
    drop(ONE_IS_OVER.wait_timeout_while(under_way(), PATIENCE, |ends| *ends > 0));
}

/// Drops what it holds on a thread of its own.
pub struct EndsAside<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> EndsAside<T> {
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Send + 'static> fmt::Debug for EndsAside<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndsAside")
    }
}

impl<T: Send + 'static> Deref for EndsAside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let Some(value) = &self.0 else { unreachable!("it is taken when this is dropped, and never before") };
        value
    }
}

impl<T: Send + 'static> Drop for EndsAside<T> {
    fn drop(&mut self) {
        let end = (self.0.take(), End::begin());
        // Without a thread it is dropped here: a thread that could not be started gives up what it should have done.
        if let Err(error) = thread::Builder::new().name("ends-aside".into()).spawn(move || drop(end)) {
            tracing::debug!(%error, "a client ends where it was used");
        }
    }
}

/// One that is under way, until it is dropped.
struct End;

impl End {
    fn begin() -> Self {
        *under_way() += 1;
        Self
    }
}

impl Drop for End {
    fn drop(&mut self) {
        *under_way() -= 1;
        ONE_IS_OVER.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Does not end before it may.
    struct Slow {
        may: Receiver<()>,
        ended: Sender<&'static str>,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            let may = self.may.recv_timeout(Duration::from_secs(60));
            self.ended.send(if may.is_ok() { "ended" } else { "was waited for" }).unwrap();
        }
    }

    #[test]
    fn nobody_waits_for_the_end_and_it_comes() {
        let ((allow, may), (ended, heard)) = (channel(), channel());
        let slow = EndsAside::new(Slow { may, ended });
        assert!(slow.may.try_recv().is_err(), "it is there until it is dropped");
        drop(slow);
        assert!(heard.try_recv().is_err());
        allow.send(()).unwrap();
        wait_for_ends();
        assert_eq!(heard.try_recv().unwrap(), "ended");
    }
}
