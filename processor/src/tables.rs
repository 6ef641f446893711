//! The tables of `memory` sinks over HTTP, as JSON. Nothing can be changed here.

use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::task::Tables;

/// Rows that are shown unless the request says otherwise, and at most.
const ROWS: usize = 1000;
const MOST: usize = 100_000;

#[derive(Deserialize)]
struct Wanted {
    limit: Option<usize>,
}

/// `/tables` and `/tables/{name}?limit=N`.
pub fn router() -> Router {
    Router::new().route("/tables", get(names)).route("/tables/{name}", get(rows))
}

async fn names() -> Response {
    Json(json!({ "tables": Tables::shared().names() })).into_response()
}

async fn rows(Path(name): Path<String>, Query(wanted): Query<Wanted>) -> Response {
    match Tables::shared().rows(&name, wanted.limit.unwrap_or(ROWS).min(MOST)) {
        Some(table) => Json(table).into_response(),
        None => {
            let known = Tables::shared().names().join(", ");
            let text = format!("there is no table '{name}'; those of this processor: {known}\n");
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}
