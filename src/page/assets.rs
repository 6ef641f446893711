//! What is served as it is.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

const HTML: &str = include_str!("assets/index.html");

const FILES: [(&str, &str, &str); 12] = [
    ("style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("theme.js", JS, include_str!("assets/theme.js")),
    ("main.js", JS, include_str!("assets/main.js")),
    ("api.js", JS, include_str!("assets/api.js")),
    ("state.js", JS, include_str!("assets/state.js")),
    ("dom.js", JS, include_str!("assets/dom.js")),
    ("format.js", JS, include_str!("assets/format.js")),
    ("fleet.js", JS, include_str!("assets/fleet.js")),
    ("charts.js", JS, include_str!("assets/charts.js")),
    ("traces.js", JS, include_str!("assets/traces.js")),
    ("pipeline.js", JS, include_str!("assets/pipeline.js")),
    ("ask.js", JS, include_str!("assets/ask.js")),
];
const JS: &str = "text/javascript; charset=utf-8";
const LIBRARY: &str = "plotly.js";

/// Scripts and data from this server only. Plotly sets styles on elements, hence `unsafe-inline` for those; it needs no `eval` for lines.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file in the form it is sent in.
struct Asset {
    mime: &'static str,
    gzipped: Vec<u8>,
    /// Changes with the content.
    tag: String,
}

impl Asset {
    fn new(mime: &'static str, content: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        Self { mime, gzipped: gzip(content.as_bytes()), tag: format!("{:016x}", hasher.finish()) }
    }
}

/// Level 4: a tenth larger than the best, and in a fraction of the time; the page should be there soon after the start.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 3), Compression::new(4));
    // Writing into memory does not fail; an empty answer would be seen at once by every test.
    encoder.write_all(content).and_then(|()| encoder.finish()).unwrap_or_default()
}

static LIBRARY_ASSET: LazyLock<Asset> = LazyLock::new(|| Asset::new(JS, &super::plotly::source().unwrap_or_default()));
static ASSETS: LazyLock<Vec<(&'static str, Asset)>> =
    LazyLock::new(|| FILES.iter().map(|(name, mime, content)| (*name, Asset::new(mime, content))).collect());
static INDEX: LazyLock<Asset> = LazyLock::new(|| Asset::new("text/html; charset=utf-8", HTML));

/// Compresses the library now, on a thread of its own, so that the first visitor does not wait for it.
pub(super) fn warm_up() {
    let work = || {
        LazyLock::force(&LIBRARY_ASSET);
    };
    if let Err(error) = std::thread::Builder::new().name("page-assets".into()).spawn(work) {
        tracing::debug!(%error, "the page's assets are compressed at the first request");
    }
}

pub(super) async fn index(headers: HeaderMap) -> Response {
    send(&INDEX, &headers)
}

pub(super) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    if path == LIBRARY {
        // The first request may come before the library is compressed; that takes too long for a thread of the runtime.
        return match tokio::task::spawn_blocking(|| &*LIBRARY_ASSET).await {
            Ok(asset) => send(asset, &headers),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
    }
    match ASSETS.iter().find(|(name, _)| *name == path) {
        Some((_, asset)) => send(asset, &headers),
        None => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
    }
}

/// The browser keeps a file and asks whether it is still the same: an update of the appliance shows at once, and costs nothing else.
fn send(asset: &'static Asset, request: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", asset.tag);
    let mut headers = HeaderMap::new();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, &tag);
    set(header::CACHE_CONTROL, "public, max-age=0, must-revalidate");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::REFERRER_POLICY, "no-referrer");
    let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    set(header::CONTENT_TYPE, asset.mime);
    set(header::VARY, "accept-encoding");
    if takes_gzip(request) {
        set(header::CONTENT_ENCODING, "gzip");
        return (headers, asset.gzipped.as_slice()).into_response();
    }
    // Only tools ask so, and seldom: not worth a second copy in memory.
    match gunzip(&asset.gzipped) {
        Ok(content) => (headers, content).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn takes_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        matches!(name.trim(), "gzip" | "*") && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

fn gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut content)?;
    Ok(content)
}
