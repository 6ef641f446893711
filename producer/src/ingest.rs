//! Readings by HTTP: `POST /ingest`, answered when the log has them.
//!
//! | answer | when |
//! |---|---|
//! | 202 | all is in the log; what could not be read, in the dead lane: `{"accepted":2,"dead":1}` |
//! | 400, 422 | the request names an unknown unit, or its gzip is broken; nothing in it could be read (it is in the dead lane) |
//! | 401 | no token, or a wrong one |
//! | 405, 408 | not POST; the body does not come |
//! | 413, 415 | too large; a type or an encoding of content that is not known |
//! | 429 | the buffer is full; `Retry-After` |
//! | 503 | not started yet, or stopping; the log gave it up: send again |

use std::future::poll_fn;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use common::mqtt::options::secret;
use common::settings::{self, PayloadFormat, Secret, TimeUnit};
use flate2::read::MultiGzDecoder;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use crate::intake::{Fate, Feeder, Hold};
use crate::metrics::Doors;
use crate::payload::{Reader, usual_unit};
use crate::source::Content;

/// Seconds after which a sender may try again.
const RETRY_AFTER: &str = "1";
/// Where a dead row says that it came from.
const FROM: &str = "/ingest";
/// Most lines of a body: what a few bytes become takes a hundred times their size in memory.
const MAX_LINES: usize = 100_000;
/// A body of which nothing comes for so long is given up: it holds its share of the buffer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are unpacked at once.
const PIECE: usize = 64 * 1024;

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
    /// Most bytes of a body, also when it is unpacked.
    max_body: usize,
}

/// Why a request is not taken: nothing of it is in the log then, nor in the dead lane.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl Refusal {
    fn new(code: StatusCode, what: impl Into<String>) -> Self {
        Self(code, what.into())
    }

    fn full() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "the buffer is full until the log has taken what is here; send it again later")
    }

    fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {limit} bytes (producer.ingest.max_body)"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(code, what) = self;
        let body = Json(json!({ "error": what }));
        let header = match code {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, RETRY_AFTER)),
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "POST")),
            _ => None,
        };
        match header {
            Some(header) => (code, [header], body).into_response(),
            None => (code, body).into_response(),
        }
    }
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
        let not_post = || async { Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "readings come by POST") };
        Router::new().route("/ingest", post(ingest).fallback(not_post)).with_state(self.clone())
    }

    pub(crate) fn open(&self, settings: &settings::Ingest, reader: Arc<Reader>, feeder: Feeder, metrics: Doors) -> Result<(), String> {
        let token = secret(settings.token.as_ref().map(Secret::reveal), settings.token_file.as_deref(), "producer.ingest.token_file")?;
        let token = token.map(|token| digest(&SHA256, token.as_bytes()).as_ref().to_vec());
        let max_body = usize::try_from(settings.max_body.bytes()).unwrap_or(usize::MAX);
        let door = Door { reader, feeder, metrics, token, max_body };
        self.0.set(door).map_err(|_| "the HTTP door is open already; run one producer for each".to_owned())
    }
}

async fn ingest(State(ingest): State<Ingest>, request: Request) -> Response {
    let Some(door) = ingest.0.get().filter(|door| !door.feeder.is_closed()) else {
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "readings are not taken at the moment; send them again").into_response();
    };
    match door.receive(request).await {
        Ok((hold, contents)) => door.deliver(hold, contents).await,
        Err(refusal) => refusal.into_response(),
    }
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

/// Whether the body is packed with gzip.
fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(false) };
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(false),
        "gzip" | "x-gzip" => Ok(true),
        other => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the Content-Encoding '{}' is not known; send gzip, or the body as it is", other.chars().take(40).collect::<String>()),
        )),
    }
}

/// The next bytes of a body.
async fn chunk(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

impl Door {
    /// From a request to its readings and their share of the buffer. Each step is taken only when the one before allows it: nobody without
    /// the token gets memory, and nobody gets more than the buffer has.
    async fn receive(&self, request: Request) -> Result<(Hold, Vec<Content>), Refusal> {
        let headers = request.headers();
        if !self.allows(headers) {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "this needs the header 'Authorization: Bearer TOKEN'"));
        }
        let Ok(Query(parameters)) = Query::<Parameters>::try_from_uri(request.uri()) else {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "time_unit is one of s, ms, us, ns"));
        };
        let Some((format, lines)) = content_type(headers) else {
            let what = "send application/json, application/x-ndjson, application/senml+json, or text/plain for line protocol";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
        };
        let gzip = is_gzip(headers)?;
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
        if announced > self.max_body {
            return Err(Refusal::too_large(self.max_body));
        }
        let mut hold = self.feeder.try_hold(announced).ok_or_else(Refusal::full)?;
        let mut body = self.read(request.into_body(), announced, &mut hold).await?;
        if gzip {
            body = self.unpack(&body, &mut hold)?;
        }
        self.metrics.messages.with_label_values(&["http"]).inc();
        let unit = parameters.time_unit.unwrap_or_else(|| usual_unit(format));
        let now = chrono::Utc::now().timestamp_millis();
        let contents = if lines {
            self.read_lines(&body, &mut hold, |line| self.reader.read_as(format, unit, FROM, line, now))?
        } else {
            self.reader.read_as(format, unit, FROM, &body, now)
        };
        if contents.is_empty() {
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "the body has no reading"));
        }
        if !self.feeder.try_grow(&mut hold, Feeder::weight(body.len(), &contents)) {
            return Err(Refusal::full());
        }
        Ok((hold, contents))
    }

    async fn read(&self, mut body: Body, announced: usize, hold: &mut Hold) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::with_capacity(announced);
        loop {
            let Ok(next) = tokio::time::timeout(PATIENCE, chunk(&mut body)).await else {
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("nothing of the body came for {PATIENCE:?}")));
            };
            let Some(next) = next else { return Ok(bytes) };
            let next = next.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")))?;
            if bytes.len() + next.len() > self.max_body {
                return Err(Refusal::too_large(self.max_body));
            }
            if !self.feeder.try_grow(hold, bytes.len() + next.len()) {
                return Err(Refusal::full());
            }
            bytes.extend_from_slice(&next);
        }
    }

    /// A few packed bytes can be very many: each piece takes its share before the next.
    fn unpack(&self, packed: &[u8], hold: &mut Hold) -> Result<Vec<u8>, Refusal> {
        let mut decoder = MultiGzDecoder::new(packed);
        let mut bytes = Vec::new();
        loop {
            if !self.feeder.try_grow(hold, packed.len() + bytes.len() + PIECE) {
                return Err(Refusal::full());
            }
            let read = decoder.by_ref().take(PIECE as u64).read_to_end(&mut bytes);
            let read = read.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body is no gzip: {error}")))?;
            if bytes.len() > self.max_body {
                return Err(Refusal::too_large(self.max_body));
            }
            if read == 0 {
                return Ok(bytes);
            }
        }
    }

    /// Each line for itself.
    fn read_lines(&self, body: &[u8], hold: &mut Hold, read: impl Fn(&[u8]) -> Vec<Content>) -> Result<Vec<Content>, Refusal> {
        let lines = || body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let count = lines().count();
        if count > MAX_LINES {
            let what = format!("the body has {count} lines; send at most {MAX_LINES} at a time");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, what));
        }
        let (mut contents, mut weight) = (Vec::new(), body.len());
        for line in lines() {
            let new = read(line);
            weight += Feeder::weight(0, &new);
            if !self.feeder.try_grow(hold, weight) {
                return Err(Refusal::full());
            }
            contents.extend(new);
        }
        Ok(contents)
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        // InfluxDB's clients say `Token`; the scheme's case does not matter (RFC 9110).
        let given = given.and_then(|value| value.trim().split_once(' '));
        let given = given.filter(|(scheme, _)| ["Bearer", "Token"].iter().any(|known| known.eq_ignore_ascii_case(scheme)));
        given.is_some_and(|(_, given)| digest(&SHA256, given.trim().as_bytes()).as_ref() == token.as_slice())
    }

    async fn deliver(&self, hold: Hold, contents: Vec<Content>) -> Response {
        let dead = contents.iter().filter(|content| matches!(content, Content::Dead(_))).count();
        let why = contents.iter().find_map(|content| match content {
            Content::Dead(row) => Some(row.detail.clone()),
            Content::Reading(_) => None,
        });
        let count = contents.len();
        let (settled, fate) = oneshot::channel();
        self.feeder.push_telling(contents, hold, move |fate| {
            if settled.send(fate).is_err() {
                tracing::debug!("a sender did not wait for its answer");
            }
        });
        let Ok(Fate::Kept { cut }) = fate.await else {
            return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the log did not take all of it; send it again").into_response();
        };
        let dead = dead + cut;
        let why = why.or_else(|| (cut > 0).then(|| "a reading is too large for the log".to_owned()));
        let code = if dead == count { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::ACCEPTED };
        (code, Json(json!({ "accepted": count - dead, "dead": dead, "error": why }))).into_response()
    }
}
