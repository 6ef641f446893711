//! Readings by HTTP: `POST /ingest`, answered when the log has them.
//!
//! | answer | when |
//! |---|---|
//! | 202 | all is in the log; what could not be read, in the dead lane: `{"accepted":2,"dead":1}` |
//! | 400, 422 | the request names an unknown unit; nothing in it could be read (it is in the dead lane) |
//! | 401 | no token, or a wrong one |
//! | 413, 415 | too large; a type of content that is not known |
//! | 429 | the buffer is full; `Retry-After` |
//! | 503 | not started yet, or stopping; the log gave it up: send again |

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use common::mqtt::options::secret;
use common::settings::{self, PayloadFormat, Secret, TimeUnit};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use crate::intake::Feeder;
use crate::metrics::Doors;
use crate::payload::{Reader, usual_unit};
use crate::source::Content;

/// Seconds after which a sender may try again.
const RETRY_AFTER: &str = "1";
/// Where a dead row says that it came from.
const FROM: &str = "/ingest";

/// The HTTP door. It is made before the listener that it belongs to, and opened by the run; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Ingest(Arc<OnceLock<Door>>);

#[derive(Debug)]
struct Door {
    reader: Arc<Reader>,
    feeder: Feeder,
    metrics: Doors,
    /// The token's digest: comparing digests tells nothing by the time it takes.
    token: Option<Vec<u8>>,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    /// The unit of times that are numbers; `precision` is InfluxDB's name for it.
    #[serde(alias = "precision")]
    time_unit: Option<TimeUnit>,
}

impl Ingest {
    /// The route, to be merged into the program's own; without `producer.ingest.enabled`, nothing.
    pub fn router(&self, settings: &settings::Ingest) -> Router {
        if !settings.enabled {
            return Router::new();
        }
        let limit = usize::try_from(settings.max_body.bytes()).unwrap_or(usize::MAX);
        Router::new().route("/ingest", post(ingest)).layer(DefaultBodyLimit::max(limit)).with_state(self.clone())
    }

    pub(crate) fn open(&self, settings: &settings::Ingest, reader: Arc<Reader>, feeder: Feeder, metrics: Doors) -> Result<(), String> {
        let token = secret(settings.token.as_ref().map(Secret::reveal), settings.token_file.as_deref(), "producer.ingest.token_file")?;
        let token = token.map(|token| digest(&SHA256, token.as_bytes()).as_ref().to_vec());
        let door = Door { reader, feeder, metrics, token };
        self.0.set(door).map_err(|_| "the HTTP door is open already; run one producer for each".to_owned())
    }
}

async fn ingest(
    State(ingest): State<Ingest>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
    body: Bytes,
) -> Response {
    let Some(door) = ingest.0.get().filter(|door| !door.feeder.is_closed()) else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "readings are not taken at the moment; send them again");
    };
    if !door.allows(&headers) {
        return refusal(StatusCode::UNAUTHORIZED, "this needs the header 'Authorization: Bearer TOKEN'");
    }
    let Ok(Query(parameters)) = parameters else {
        return refusal(StatusCode::BAD_REQUEST, "time_unit is one of s, ms, us, ns");
    };
    let Some((format, lines)) = content_type(&headers) else {
        let what = "send application/json, application/x-ndjson, application/senml+json, or text/plain for line protocol";
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    };
    door.metrics.messages.with_label_values(&["http"]).inc();
    let unit = parameters.time_unit.unwrap_or_else(|| usual_unit(format));
    let now = chrono::Utc::now().timestamp_millis();
    let read = |payload: &[u8]| door.reader.read_as(format, unit, FROM, payload, now);
    let contents: Vec<Content> = if lines {
        body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).flat_map(read).collect()
    } else {
        read(&body)
    };
    if contents.is_empty() {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY, "the body has no reading");
    }
    door.take(body.len(), contents).await
}

fn refusal(code: StatusCode, what: &str) -> Response {
    let body = Json(json!({ "error": what }));
    if matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return (code, [(header::RETRY_AFTER, RETRY_AFTER)], body).into_response();
    }
    if code == StatusCode::UNAUTHORIZED {
        return (code, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response();
    }
    (code, body).into_response()
}

/// The format, and whether each line is a payload of its own. Without a type it is JSON.
fn content_type(headers: &HeaderMap) -> Option<(PayloadFormat, bool)> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Some((PayloadFormat::Json, false)) };
    let name = value.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
    match name.as_str() {
        // What curl says when it is told nothing.
        "application/json" | "application/x-www-form-urlencoded" => Some((PayloadFormat::Json, false)),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some((PayloadFormat::Json, true)),
        "application/senml+json" => Some((PayloadFormat::Senml, false)),
        "text/plain" | "application/vnd.influxdata.line-protocol" => Some((PayloadFormat::LineProtocol, false)),
        _ => None,
    }
}

impl Door {
    fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        // InfluxDB's clients say `Token`.
        let given = given.and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("Token ")));
        given.is_some_and(|given| digest(&SHA256, given.trim().as_bytes()).as_ref() == token.as_slice())
    }

    async fn take(&self, bytes: usize, contents: Vec<Content>) -> Response {
        let Some(hold) = self.feeder.try_hold(Feeder::weight(bytes, &contents)) else {
            return refusal(StatusCode::TOO_MANY_REQUESTS, "the buffer is full until the log has taken what is here; send it again later");
        };
        let dead = contents.iter().filter(|content| matches!(content, Content::Dead(_))).count();
        let why = contents.iter().find_map(|content| match content {
            Content::Dead(row) => Some(row.detail.clone()),
            Content::Reading(_) => None,
        });
        let accepted = contents.len() - dead;
        let (settled, fate) = oneshot::channel();
        self.feeder.push(contents, hold, move |whole| {
            if settled.send(whole).is_err() {
                tracing::debug!("a sender did not wait for its answer");
            }
        });
        if fate.await != Ok(true) {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "the log did not take all of it; send it again");
        }
        let code = if accepted == 0 { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::ACCEPTED };
        (code, Json(json!({ "accepted": accepted, "dead": dead, "error": why }))).into_response()
    }
}
