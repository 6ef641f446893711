//! Clients that end beside whoever has used them.
//!
//! `rdkafka` gives the end of a consumer a tenth of a second, whether it takes that or not, and the end of an admin client up to as much. Whoever
//! has only asked something, or has read a journal to its end, has better things to do.

use std::fmt;
use std::ops::Deref;
use std::thread;

/// Drops what it holds on a thread of its own. A process that ends meanwhile does not wait for it.
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
        let value = self.0.take();
        // Without a thread it is dropped here: a thread that could not be started gives up what it should have done.
        if let Err(error) = thread::Builder::new().name("ends-aside".into()).spawn(move || drop(value)) {
            tracing::debug!(%error, "a client ends where it was used");
        }
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
            self.may.recv().unwrap();
            self.ended.send("ended").unwrap();
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
        assert_eq!(heard.recv().unwrap(), "ended");
    }
}
