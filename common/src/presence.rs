//! Whether the log is there, said once by a process, however many of its clients have lost it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use crate::client_log;
use crate::units::Span;

/// Of the clients that watch for it.
#[derive(Debug, Default)]
struct Away {
    clients: usize,
    /// Since when; `None`: it is there as far as anybody knows.
    since: Option<Instant>,
}

static AWAY: Mutex<Away> = Mutex::new(Away { clients: 0, since: None });

fn away() -> MutexGuard<'static, Away> {
    AWAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one client knows of it. The first client that loses the log says so, and the last one that has it back.
#[derive(Debug)]
pub struct Presence {
    servers: String,
    away: bool,
}

impl Presence {
    /// Of a client that knows the log by these bootstrap servers, and has not lost it.
    pub fn new(servers: &str) -> Self {
        Self { servers: servers.to_owned(), away: false }
    }

    pub fn is_away(&self) -> bool {
        self.away
    }

    /// The client has lost the log, which it knows by `error`. Gives whether that is new.
    pub fn lost(&mut self, error: &KafkaError) -> bool {
        if self.away {
            return false;
        }
        self.away = true;
        if away().lost(Instant::now()) {
            let cause = client_log::trouble_behind(error);
            tracing::warn!(
                servers = self.servers,
                cause,
                "the Kafka log does not answer; what needs it waits, and goes on when it is back"
            );
        }
        true
    }

    /// The log has answered. Gives whether that is new.
    pub fn found(&mut self) -> bool {
        if !self.away {
            return false;
        }
        self.away = false;
        if let Some(time) = away().found(Instant::now()) {
            client_log::forget_trouble();
            tracing::info!(servers = self.servers, after = %Span::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)), "the Kafka log is back");
        }
        true
    }
}

impl Drop for Presence {
    /// A client that ends knows nothing of the log.
    fn drop(&mut self) {
        if self.away {
            away().forget();
        }
    }
}

impl Away {
    /// One that missed it has ended. When it was the last one, whoever loses the log next says so again.
    fn forget(&mut self) {
        self.clients -= 1;
        if self.clients == 0 {
            self.since = None;
        }
    }

    /// Whether nobody has said so.
    fn lost(&mut self, now: Instant) -> bool {
        self.clients += 1;
        let new = self.since.is_none();
        self.since.get_or_insert(now);
        new
    }

    /// For how long it was away, when nobody misses it any more.
    fn found(&mut self, now: Instant) -> Option<Duration> {
        self.clients -= 1;
        let since = if self.clients == 0 { self.since.take() } else { None };
        since.map(|since| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_lose_it_says_so_and_the_last_to_find_it() {
        let (mut away, start) = (Away::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(away.lost(at(1)) && !away.lost(at(2)));
        assert_eq!(away.found(at(3)), None);
        assert!(!away.lost(at(4)));
        assert_eq!((away.found(at(5)), away.found(at(6))), (None, Some(Duration::from_secs(5))));
        assert!(away.lost(at(7)) && !away.lost(at(8)));
        away.forget();
        assert_eq!(away.found(at(9)), Some(Duration::from_secs(2)));
        assert!(away.lost(at(10)));
        away.forget();
        assert!(away.lost(at(11)), "nobody was left who would have said that it is back");
    }

    #[test]
    fn a_client_loses_the_log_once_until_it_has_it_back() {
        let mut presence = Presence::new("kafka:9092");
        let error = KafkaError::Canceled;
        assert!(!presence.found() && presence.lost(&error) && !presence.lost(&error) && presence.is_away());
        assert!(presence.found() && !presence.found() && !presence.is_away());
    }
}
