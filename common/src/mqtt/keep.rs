//! Keeps a connection to a broker: connects, and connects again, until it is told to stop; what the doors of the producer and a query have in
//! common.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Notify;

use super::link::{Client, Event, Link, Message};
use super::session::{Backoff, longest_silence};
use crate::Shutdown;
use crate::settings::MqttConnection;

/// One who reads a broker. Its answers belong to the connection that was opened last.
pub trait Reader {
    /// Whose it is, for the log; a door of the producer has no name.
    fn query(&self) -> Option<&str>;

    fn settings(&self) -> &MqttConnection;

    /// The topic filters, and whether the retained messages are wanted that a subscription begins with.
    fn topics(&self) -> (Vec<String>, bool);

    /// Opens the next connection.
    ///
    /// # Errors
    /// What is wrong with the settings or their files.
    fn open(&mut self) -> Result<(Link, Client), String>;

    /// The broker has answered, and has kept the session or not.
    fn connected(&mut self, session_present: bool);

    /// Its topics are subscribed.
    fn subscribed(&mut self);

    /// Why there is no connection; `None`: there is one.
    fn troubled(&mut self, trouble: Option<&str>) {
        let _ = trouble;
    }

    fn take(&mut self, message: Message, client: &Client);

    /// Told when something has happened elsewhere that may end the connection.
    fn changes(&self) -> Arc<Notify>;

    /// Whether the connection should end, so that the broker sends again what could not be taken.
    fn is_through(&self) -> bool;

    /// After each event.
    fn turned(&mut self) {}

    /// The connection is over; returns whether it was one of use: pauses are for those that are not.
    fn ended(&mut self) -> bool;
}

/// Serves until `stop`, then says farewell after the last acknowledgement.
pub async fn keep<R: Reader>(reader: &mut R, stop: &Shutdown) {
    let (mut backoff, mut trouble) = (Backoff::default(), None);
    while !stop.is_set() {
        let ended = serve(reader, stop, &mut trouble).await;
        let served = reader.ended();
        match ended {
            _ if stop.is_set() => return,
            Ok(()) => {
                tracing::info!(
                    query = reader.query(),
                    "connecting to the MQTT broker anew, so that it sends again what could not be taken"
                );
            }
            Err(cause) => {
                say(reader, &cause, trouble.as_ref() == Some(&cause));
                reader.troubled(Some(&cause));
                trouble = Some(cause);
            }
        }
        if tokio::time::timeout(backoff.after(served), stop.wait()).await.is_ok() {
            return;
        }
    }
}

/// The same trouble is said once.
fn say<R: Reader>(reader: &R, trouble: &str, known: bool) {
    let (query, url) = (reader.query(), reader.settings().url.as_deref().unwrap_or_default());
    if known {
        tracing::debug!(query, url, trouble, "no MQTT broker yet");
    } else {
        tracing::warn!(query, url, trouble, "no connection to the MQTT broker; trying again");
    }
}

/// One connection from its beginning to its end; `trouble` is that of those before it.
async fn serve<R: Reader>(reader: &mut R, stop: &Shutdown, trouble: &mut Option<String>) -> Result<(), String> {
    let (mut link, client) = reader.open()?;
    let (silence, mut leaving) = (longest_silence(reader.settings()), false);
    loop {
        let event = {
            let mut next = pin!(tokio::time::timeout(silence, link.next()));
            loop {
                let changes = reader.changes();
                let leave = tokio::select! {
                    biased;
                    event = &mut next => break event,
                    () = stop.wait(), if !leaving => true,
                    () = changes.notified(), if !leaving => reader.is_through(),
                };
                if leave {
                    leaving = true;
                    client.disconnect();
                }
            }
        };
        match event {
            Err(_elapsed) => return Err(format!("no sign of life from the MQTT broker for {silence:?}")),
            Ok(Err(_)) if leaving => return Ok(()),
            Ok(Err(trouble)) => return Err(trouble),
            Ok(Ok(Event::Closed)) => return Ok(()),
            Ok(Ok(Event::Connected { session_present })) => {
                reader.connected(session_present);
                let (filters, retained) = reader.topics();
                // Also with a session: it may name other topics than last time.
                if !client.subscribe(&filters, retained) {
                    return Err("the subscriptions cannot be sent".into());
                }
            }
            Ok(Ok(Event::Subscribed { refused: 0 })) => {
                *trouble = None;
                reader.troubled(None);
                reader.subscribed();
            }
            Ok(Ok(Event::Subscribed { refused })) => {
                let filters = reader.topics().0;
                return Err(format!(
                    "the broker refused {refused} of the subscriptions {filters:?}; give this user the right to read them"
                ));
            }
            Ok(Ok(Event::Message(message))) if !leaving => reader.take(message, &client),
            Ok(Ok(_)) => {}
        }
        reader.turned();
        if !leaving && reader.is_through() {
            leaving = true;
            client.disconnect();
        }
    }
}
