//! The store, for many requests at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sink::store::{Store, StoreError};

/// Two connections: a long question about a wide range must not hold up the live view.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    questions: Arc<Mutex<Store>>,
    live: Arc<Mutex<Store>>,
}

impl Reader {
    pub(super) fn new(path: &Path) -> Self {
        let store = || Arc::new(Mutex::new(Store::open(path)));
        Self { questions: store(), live: store() }
    }

    /// Asks the store on a thread where it may block.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Unreadable> {
        ask(Arc::clone(&self.questions), question).await
    }

    /// As [`Reader::ask`], for the short questions of the event streams.
    pub(super) async fn ask_live<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Unreadable> {
        ask(Arc::clone(&self.live), question).await
    }
}

async fn ask<T: Send + 'static>(
    store: Arc<Mutex<Store>>,
    question: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Unreadable> {
    let asked = tokio::task::spawn_blocking(move || question(&mut store.lock().unwrap_or_else(PoisonError::into_inner))).await;
    match asked {
        Ok(answer) => answer.map_err(|error| Unreadable(error.to_string())),
        Err(_) => Err(Unreadable("the question to the database was not answered".into())),
    }
}

/// The database cannot be read; the sentence says why.
#[derive(Debug)]
pub(super) struct Unreadable(pub(super) String);

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": self.0 }))).into_response()
    }
}
