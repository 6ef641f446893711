//! What a binary shows of itself: metrics, health, status, logs.
//!
//! One [`Telemetry`] a process. Each house registers its metrics in the shared registry and takes a [`Part`], through which it says
//! that it is alive, whether it is ready, and what it is doing. `/livez` never depends on peers: it asks only whether our own loops turn.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::{Map, Value, json};

use crate::Shutdown;
use crate::http_tls::{TlsListener, acceptor};
use crate::settings::Http;

/// A loop that has not turned for this long makes `/livez` fail.
const STALLED: Duration = Duration::from_secs(60);

type Status = Box<dyn Fn() -> Value + Send + Sync>;

/// Shared by all houses of a process; clones are the same thing.
#[derive(Clone, Default)]
pub struct Telemetry {
    registry: Registry,
    parts: Arc<Mutex<BTreeMap<String, Part>>>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

/// One house's voice.
#[derive(Clone)]
pub struct Part {
    ready: Arc<AtomicBool>,
    /// `None`: the part has no loop, or it has ended in good order.
    beat: Arc<Mutex<Option<Instant>>>,
    status: Arc<Status>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Part")
    }
}

impl Part {
    /// Whether the part can do its work durably now.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Called by the part's loop at each turn, at least every few seconds.
    pub fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The loop has ended in good order: its silence is no stall.
    pub fn ended(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn stalled(&self) -> bool {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|beat| beat.elapsed() > STALLED)
    }
}

impl Telemetry {
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Adds a part with a function that tells its status as JSON; the same name again replaces it.
    pub fn part(&self, name: &str, status: impl Fn() -> Value + Send + Sync + 'static) -> Part {
        let part = Part { ready: Arc::default(), beat: Arc::default(), status: Arc::new(Box::new(status)) };
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), part.clone());
        part
    }

    fn parts(&self) -> BTreeMap<String, Part> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every part's status under its name, and whether it is ready.
    pub fn status(&self) -> Value {
        let parts = self.parts();
        let mut status = Map::new();
        for (name, part) in parts {
            status.insert(name, json!({ "ready": part.ready.load(Ordering::Relaxed), "status": (part.status)() }));
        }
        json!({ "version": env!("CARGO_PKG_VERSION"), "parts": status })
    }

    /// The metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        let mut text = Vec::new();
        // Encoding into memory fails only for a metric family without metrics, which the registry does not gather.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics cannot be encoded");
        }
        String::from_utf8(text).unwrap_or_default()
    }

    /// `/metrics`, `/livez`, `/readyz`, `/status`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/status", get(status))
            .with_state(self.clone())
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], telemetry.metrics()).into_response()
}

async fn livez(State(telemetry): State<Telemetry>) -> Response {
    verdict(telemetry.parts().into_iter().filter(|(_, part)| part.stalled()).map(|(name, _)| format!("{name}: its loop stands still")))
}

async fn readyz(State(telemetry): State<Telemetry>) -> Response {
    let waiting = |part: &Part| !part.ready.load(Ordering::Relaxed);
    verdict(telemetry.parts().into_iter().filter(|(_, part)| waiting(part)).map(|(name, _)| format!("{name}: not ready")))
}

fn verdict(faults: impl Iterator<Item = String>) -> Response {
    let faults: Vec<String> = faults.collect();
    if faults.is_empty() {
        (StatusCode::OK, "ok\n".to_owned()).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, faults.join("\n") + "\n").into_response()
    }
}

async fn status(State(telemetry): State<Telemetry>) -> Json<Value> {
    Json(telemetry.status())
}

/// An HTTP listener that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen for HTTP on {address}: {cause}; choose another port (0 takes a free one) or end what uses it")]
    Bind { address: SocketAddr, cause: std::io::Error },
    #[error("cannot listen for HTTP with TLS: {0}; check the section [http] of the settings")]
    Tls(String),
}

/// As [`serve`], at the address that the settings name or else at `default`, with TLS when they have a certificate. Returns the URL and the task.
///
/// # Errors
/// When the address cannot be bound, or a file cannot be used.
pub async fn serve_as(
    settings: &Http,
    default: SocketAddr,
    router: Router,
    shutdown: Shutdown,
) -> Result<(String, tokio::task::JoinHandle<()>), ListenError> {
    let address = settings.listen.unwrap_or(default);
    let Some(acceptor) = acceptor(settings).map_err(ListenError::Tls)? else {
        let (bound, task) = serve(address, router, shutdown).await?;
        return Ok((format!("http://{bound}"), task));
    };
    let fault = |cause| ListenError::Bind { address, cause };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    let listener = TlsListener::new(listener, acceptor).map_err(fault)?;
    Ok((format!("https://{bound}"), tokio::spawn(answer(listener, router, shutdown))))
}

/// Binds `address` and serves `router` in a task of its own until `shutdown`. Returns the bound address and the task.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    router: Router,
    shutdown: Shutdown,
) -> Result<(SocketAddr, tokio::task::JoinHandle<()>), ListenError> {
    let fault = |cause| ListenError::Bind { address, cause };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    Ok((bound, tokio::spawn(answer(listener, router, shutdown))))
}

async fn answer<L>(listener: L, router: Router, shutdown: Shutdown)
where
    L: axum::serve::Listener,
    L::Addr: fmt::Debug,
{
    let stop = shutdown.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stop.wait().await });
    // Streams such as server-sent events have no end of their own: after the signal they get a moment, then the listener goes.
    let served = tokio::select! {
        served = serving => served,
        () = async { shutdown.wait().await; tokio::time::sleep(Duration::from_millis(300)).await } => Ok(()),
    };
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP listener ended");
    }
}

/// Sends `tracing` events, and librdkafka's own, to standard error. `RUST_LOG` wins over `level`.
pub fn init_logs(level: &str) {
    use std::io::IsTerminal as _;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let ansi = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    // An event that cannot be written would be told to standard error, by a call that panics when that has no reader any more.
    let subscriber = subscriber.log_internal_errors(false);
    // Tests call `run` several times in one process; the first subscriber stays.
    if subscriber.try_init().is_err() {
        tracing::debug!("logging was set up before");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::status_page;

    async fn get_text(address: SocketAddr, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Made for 127.0.0.1 and for clients, too, signed by itself.
    fn tls() -> Http {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
        let file = |name: &str| Some(format!("{folder}/{name}").into());
        let (certificate_file, key_file, client_ca_file) = (file("local.pem"), file("local.key"), file("local.pem"));
        Http { listen: None, certificate_file, key_file, client_ca_file }
    }

    #[tokio::test]
    async fn over_tls_only_those_with_a_certificate_are_answered() {
        let (telemetry, stop) = (Telemetry::default(), Shutdown::manual());
        let (url, task) = serve_as(&tls(), "127.0.0.1:0".parse().unwrap(), telemetry.router(), stop.clone()).await.unwrap();
        assert!(url.starts_with("https://"), "{url}");
        // One that says nothing holds nobody.
        let silent = std::net::TcpStream::connect(url.trim_start_matches("https://")).unwrap();
        let asked = |settings: Http, url: String| tokio::task::spawn_blocking(move || status_page::get(&settings, &url, "/livez"));
        assert_eq!(asked(tls(), url.clone()).await.unwrap().unwrap(), (200, "ok\n".to_owned()));
        assert!(asked(tls(), url.replace("https", "http")).await.unwrap().is_err());
        let stranger = asked(Http::default(), url.clone()).await.unwrap().unwrap_err().to_string();
        assert!(stranger.contains("http.certificate_file"), "{stranger}");
        drop(silent);
        stop.trigger();
        task.await.unwrap();

        let missing = Http { key_file: Some("/nowhere".into()), ..tls() };
        let error = serve_as(&missing, "127.0.0.1:0".parse().unwrap(), telemetry.router(), stop).await.unwrap_err();
        assert!(error.to_string().contains("http.key_file: /nowhere"), "{error}");
    }

    #[tokio::test]
    async fn health_tells_ready_from_alive() {
        let telemetry = Telemetry::default();
        let counter = prometheus::IntCounter::new("tidemark_test_total", "A test.").unwrap();
        telemetry.registry().register(Box::new(counter.clone())).unwrap();
        counter.inc();
        let part = telemetry.part("processor", || json!({ "watermark": 5 }));
        let shutdown = Shutdown::manual();
        let (address, task) = serve("127.0.0.1:0".parse().unwrap(), telemetry.router(), shutdown.clone()).await.unwrap();

        assert!(get_text(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get_text(address, "/readyz").await.contains("processor: not ready"));
        part.set_ready(true);
        assert!(get_text(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get_text(address, "/metrics").await.contains("tidemark_test_total 1"));
        assert!(get_text(address, "/status").await.contains(r#""watermark":5"#));
        assert!(serve(address, telemetry.router(), shutdown.clone()).await.unwrap_err().to_string().contains("another port"));
        shutdown.trigger();
        task.await.unwrap();
    }
}
