//! `/api/sql`: questions over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `POST /api/sql`, the statement or `{"sql": "..."}` as the body; `GET /api/sql?q=...` | `{columns, types, rows, truncated, elapsed_ms}` |
//! | `GET /api/sql/tables` | `{tables: [{name, schema, columns, rows}]}` |
//!
//! A fault is `{error}` with 400 (the statement), 403 (a browser on somebody else's page), 408 (time) or 503 (memory, or not now).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use common::settings;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use super::ask::{self, Limits};
use super::database::Program;
use super::fault::Fault;

/// One question at a time, and others wait: what SQLite holds in the process is then what this one made it hold.
const AT_ONCE: usize = 1;
/// Largest body of a request, bytes.
const MOST: usize = 64 << 10;
/// A single instruction of the engine cannot be interrupted: so long after its time a question is given up, and its thread ends by itself.
const GRACE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
struct Shared {
    program: Program,
    limits: Limits,
    turns: Arc<Semaphore>,
}

/// The routes, unless `sql.enabled` is off.
pub fn router(program: Program, settings: &settings::Sql) -> Router {
    if !settings.enabled {
        return Router::new();
    }
    let shared = Shared { program, limits: Limits::from(settings), turns: Arc::new(Semaphore::new(AT_ONCE)) };
    Router::new()
        .route("/api/sql", get(asked).post(posted))
        .route("/api/sql/tables", get(tables))
        .layer(DefaultBodyLimit::max(MOST))
        .with_state(shared)
}

#[derive(Deserialize)]
struct Asked {
    q: Option<String>,
}

#[derive(Deserialize)]
struct Posted {
    sql: String,
}

async fn asked(State(shared): State<Shared>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    let Some(statement) = asked.q else {
        return refusal(StatusCode::BAD_REQUEST, "there is no question; write /api/sql?q=SELECT..., or POST the statement");
    };
    question(&shared, &headers, statement).await
}

async fn posted(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(text) = String::from_utf8(body.into()) else {
        return refusal(StatusCode::BAD_REQUEST, "the statement is no UTF-8");
    };
    // No statement begins with a brace.
    let statement = if text.trim_start().starts_with('{') {
        match serde_json::from_str::<Posted>(&text) {
            Ok(posted) => posted.sql,
            Err(error) => return refusal(StatusCode::BAD_REQUEST, &format!("the body is no {{\"sql\": \"SELECT ...\"}} ({error})")),
        }
    } else {
        text
    };
    question(&shared, &headers, statement).await
}

async fn question(shared: &Shared, headers: &HeaderMap, statement: String) -> Response {
    let (program, limits) = (shared.program.clone(), shared.limits);
    take_turn(shared, headers, move || ask::answer(&program, limits, &statement)).await
}

async fn tables(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let (program, limits) = (shared.program.clone(), shared.limits);
    take_turn(&shared, &headers, move || Ok(json!({ "tables": ask::tables(&program, limits)? }))).await
}

/// Does `work` where it may block, when it is its turn.
async fn take_turn<T: Serialize + Send + 'static>(
    shared: &Shared,
    headers: &HeaderMap,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Response {
    if is_foreign(headers) {
        return refusal(StatusCode::FORBIDDEN, "another web page may not ask here");
    }
    let patience = shared.limits.max_time;
    let turn = match tokio::time::timeout(patience, Arc::clone(&shared.turns).acquire_owned()).await {
        Ok(Ok(turn)) => turn,
        _ => return fault(&Fault::Busy),
    };
    let work = tokio::task::spawn_blocking(move || {
        let answer = work();
        drop(turn);
        answer
    });
    match tokio::time::timeout(patience + GRACE, work).await {
        Err(_) => fault(&Fault::Time(patience)),
        Ok(Err(_)) => fault(&Fault::Away("the question was not answered, by a fault of the program".into())),
        Ok(Ok(Err(error))) => fault(&error),
        Ok(Ok(Ok(answer))) => {
            let headers = [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
            (headers, Json(answer)).into_response()
        }
    }
}

/// Whether a browser sends this for a page from elsewhere. That page could not read the answer, but it could keep the machine busy.
fn is_foreign(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site")
}

fn fault(fault: &Fault) -> Response {
    refusal(StatusCode::from_u16(fault.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &fault.to_string())
}

fn refusal(code: StatusCode, words: &str) -> Response {
    (code, Json(json!({ "error": words }))).into_response()
}
