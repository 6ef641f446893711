//! What is served as it is.

use std::borrow::Cow;
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
/// The charting library, compressed by `build.rs`.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plotly.js.gz"));

/// Scripts and data from this server only. Plotly sets styles on elements, hence `unsafe-inline` for those; it needs no `eval` for lines.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file in the form it is sent in.
struct Asset {
    mime: &'static str,
    gzipped: Cow<'static, [u8]>,
    /// Changes with the content.
    tag: String,
}

impl Asset {
    fn new(mime: &'static str, content: &str) -> Self {
        Self::gzipped(mime, gzip(content.as_bytes()).into())
    }

    fn gzipped(mime: &'static str, gzipped: Cow<'static, [u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        gzipped.hash(&mut hasher);
        Self { mime, tag: format!("{:016x}", hasher.finish()), gzipped }
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 3), Compression::new(4));
    // Writing into memory does not fail; an empty answer would be seen at once by every test.
    encoder.write_all(content).and_then(|()| encoder.finish()).unwrap_or_default()
}

static ASSETS: LazyLock<Vec<(&'static str, Asset)>> = LazyLock::new(|| {
    let library = ("plotly.js", Asset::gzipped(JS, Cow::Borrowed(LIBRARY)));
    FILES.iter().map(|(name, mime, content)| (*name, Asset::new(mime, content))).chain([library]).collect()
});
static INDEX: LazyLock<Asset> = LazyLock::new(|| Asset::new("text/html; charset=utf-8", HTML));

pub(super) async fn index(headers: HeaderMap) -> Response {
    send(&INDEX, &headers)
}

pub(super) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
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
        return (headers, &*asset.gzipped).into_response();
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
