//! What the broker remembers of us from one connection to the next, and how it is told.

use std::time::Duration;

use crate::settings::MqttConnection;

/// Pauses between attempts to connect grow from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pauses between attempts to connect.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    /// The pause after a connection; `served`: it was one that messages came over.
    pub fn after(&mut self, served: bool) -> Duration {
        self.0 = if served { FIRST_PAUSE } else { (self.0 * 2).min(LONGEST_PAUSE) };
        self.0
    }
}

/// Whether the broker has a session of this client.
#[derive(Debug, Default)]
pub struct Session {
    had: bool,
}

impl Session {
    /// Says what a new connection has found. Returns whether the broker has lost a session that it had.
    pub fn connected(&mut self, connection: &MqttConnection, generation: u64, present: bool) -> bool {
        let (url, client_id) = (connection.url.as_deref().unwrap_or_default(), &connection.client_id);
        let lost = std::mem::replace(&mut self.had, true) && !present;
        if present {
            tracing::info!(url, client_id, generation, "connected to the MQTT broker; it has kept the session");
        } else if lost {
            tracing::error!(
                url,
                client_id,
                generation,
                "the MQTT broker has lost the session: what it had for us is gone; check its persistence and its session limits"
            );
        } else {
            tracing::warn!(
                url,
                client_id,
                "the MQTT broker has no session of this client: the first connection, or what it had kept for us is gone"
            );
        }
        lost
    }
}

/// How long a connection may be without any sign of life. rumqttc pings by itself; but a broker that hangs with a full socket would hold it
/// in a write for ever.
pub fn longest_silence(connection: &MqttConnection) -> Duration {
    connection.keep_alive.duration() * 2 + Duration::from_secs(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_connection_serves() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.after(false).as_millis()).collect();
        assert_eq!(pauses, [400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
        assert_eq!(backoff.after(true), FIRST_PAUSE);
    }

    #[test]
    fn a_session_is_lost_when_it_was_there() {
        let (mut session, connection) = (Session::default(), MqttConnection::default());
        let lost: Vec<bool> = [false, true, false].into_iter().map(|present| session.connected(&connection, 1, present)).collect();
        assert_eq!(lost, [false, false, true]);
    }
}
