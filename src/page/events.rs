//! `/api/events`: what has changed, as it changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::changes::{LOOK_BACK, Sent};
use super::points::{parse_ids, to_json};

/// How often a change is looked for.
const TICK: Duration = Duration::from_millis(500);
/// How soon a browser comes back after the server has gone.
const RECONNECT: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// Numbers of the series whose points are wanted, with commas.
    #[serde(default)]
    series: String,
}

/// Events: `pipeline` (the parts' state), `points` (points that are new or have changed), `changed` (the database has), `fault`
/// (it cannot be read). The stream is work of this request alone: it ends with the connection.
pub(super) async fn events(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Response {
    let sse =
        Sse::new(stream(Listener::new(shared, parse_ids(&asked.series)))).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)));
    ([(header::CACHE_CONTROL, "no-store")], sse).into_response()
}

struct Listener {
    shared: Shared,
    series: Vec<i64>,
    sent: Sent,
    /// The database's version that was looked at last.
    version: Option<i64>,
    status: Option<Arc<Value>>,
    fault: Option<String>,
    waiting: Vec<Event>,
    ticks: tokio::time::Interval,
}

fn stream(listener: Listener) -> impl Stream<Item = Result<Event, Infallible>> {
    futures::stream::unfold(listener, |mut listener| async move {
        // Taken from the end; the order within one tick does not matter.
        while listener.waiting.is_empty() {
            listener.ticks.tick().await;
            listener.look().await;
        }
        listener.waiting.pop().map(|event| (Ok(event), listener))
    })
}

impl Listener {
    fn new(shared: Shared, series: Vec<i64>) -> Self {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (sent, version, status, fault, waiting) = (Sent::default(), None, None, None, Vec::new());
        Self { shared, series, sent, version, status, fault, waiting, ticks }
    }

    async fn look(&mut self) {
        let status = self.shared.pipeline.status();
        if self.status.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &status)) {
            self.push("pipeline", &status);
            self.status = Some(status);
        }
        let (seen, ids) = (self.version, self.series.clone());
        let looked = self.shared.reader.ask_live(move |store| {
            let version = store.version()?;
            let recent = if Some(version) == seen { Vec::new() } else { store.recent(&ids, LOOK_BACK)? };
            Ok((version, recent))
        });
        match looked.await {
            Ok((version, _)) if Some(version) == self.version => {}
            Ok((version, recent)) => {
                self.version = Some(version);
                self.fault = None;
                let changed = self.sent.only_new(recent);
                if !changed.is_empty() {
                    self.push("points", &json!({ "series": changed.iter().map(to_json).collect::<Vec<_>>() }));
                }
                self.push("changed", &json!({ "version": version }));
            }
            Err(unreadable) => {
                if self.fault.as_ref() != Some(&unreadable.0) {
                    self.push("fault", &json!({ "error": unreadable.0 }));
                    self.fault = Some(unreadable.0);
                    self.version = None;
                }
            }
        }
    }

    fn push(&mut self, name: &str, data: &Value) {
        self.waiting.push(Event::default().event(name).retry(RECONNECT).data(data.to_string()));
    }
}
