//! One kept HTTP client for databases that are written by POST: what was answered, or that nobody answered.
//!
//! The crate `influxdb2` takes an iterator of its own points, sends each write in a request without compression, and turns an answer into
//! an error without its `Retry-After`; so the sink speaks HTTP itself, and one connection is kept for all requests.

mod answer;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::writer::{KEEPS_TRYING, WriteError};
pub(crate) use answer::Answer;

/// Most of an answer to a write that is read. A sentence is wanted, but it may quote a line of any length.
const WORDS: u64 = 1 << 20;
/// Most of an answer to a question.
const RESULT: u64 = 4 << 30;
/// Bytes that fill a packet are sent as they are.
const WORTH_PACKING: usize = 1024;
const CONNECT: Duration = Duration::from_secs(5);
/// Least patience with an answer that is all that a database holds.
const READING: Duration = Duration::from_secs(600);

const TLS_ADVICE: &str = "; check ca_file, and cert_file and key_file when the server asks for a certificate";

/// How a database is reached.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// For sentences, such as `InfluxDB`.
    pub(crate) database: &'static str,
    /// Without a slash at its end.
    pub(crate) url: String,
    pub(crate) secret: Secret,
    pub(crate) ca_file: Option<PathBuf>,
    /// Our own certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) timeout: Duration,
}

impl Address {
    /// For whoever reads a database back: millions of points take longer than a request that writes some.
    pub(crate) fn for_reading(self) -> Self {
        Self { timeout: self.timeout.max(READING), ..self }
    }
}

/// What the header `authorization` says, before the token.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scheme {
    Token,
    Bearer,
}

/// A token, or the file that holds it.
#[derive(Clone)]
pub(crate) struct Secret {
    pub(crate) scheme: Scheme,
    pub(crate) token: Option<String>,
    pub(crate) file: Option<PathBuf>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Secret {
    /// # Errors
    /// When the file cannot be read.
    fn header(&self) -> Result<Option<String>, WriteError> {
        let token = match &self.file {
            None => self.token.clone(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    WriteError::Fatal(format!("the token file {} cannot be read ({error}); check token_file", path.display()))
                })?;
                let token = text.lines().next().unwrap_or_default().trim().to_owned();
                if token.is_empty() {
                    return Err(WriteError::Fatal(format!(
                        "the token file {} is empty; write the token into its first line",
                        path.display()
                    )));
                }
                Some(token)
            }
        };
        let scheme = match self.scheme {
            Scheme::Token => "Token",
            Scheme::Bearer => "Bearer",
        };
        // An empty one is the word for none.
        Ok(token.filter(|token| !token.is_empty()).map(|token| format!("{scheme} {token}")))
    }
}

/// A body as it is sent.
#[derive(Debug, Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    is_packed: bool,
}

impl Body {
    /// Compressed when `gzip` says so and it is worth it.
    pub(crate) fn new(bytes: Vec<u8>, gzip: bool) -> Self {
        if !gzip || bytes.len() <= WORTH_PACKING {
            return Self { bytes, is_packed: false };
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        // Writing into memory cannot fail; an empty body would be refused by the database and seen.
        let packed = encoder.write_all(&bytes).and_then(|()| encoder.finish()).unwrap_or_default();
        Self { bytes: packed, is_packed: true }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

pub(crate) struct Client {
    agent: Agent,
    address: Address,
    authorization: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Client {
    /// Asks nobody yet: a database that is away is waited for.
    ///
    /// # Errors
    /// [`WriteError::Fatal`] when a file that the settings name cannot be read.
    pub(crate) fn new(address: Address) -> Result<Self, WriteError> {
        let authorization = address.secret.header()?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(address.timeout))
            .timeout_connect(Some(CONNECT.min(address.timeout)))
            .user_agent(concat!("tidemark-sink/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls(&address)?)
            .build();
        Ok(Self { agent: config.into(), address, authorization })
    }

    pub(crate) fn database(&self) -> &'static str {
        self.address.database
    }

    pub(crate) fn url(&self) -> &str {
        &self.address.url
    }

    /// Sends `body` to `path` (with its query).
    ///
    /// # Errors
    /// [`WriteError::Retry`] when no answer came.
    pub(crate) fn post(&mut self, path: &str, content_type: &str, body: &Body) -> Result<Answer, WriteError> {
        let answer = self.send(path, content_type, &body.bytes, body.is_packed, WORDS)?;
        if answer.code != 401 || !self.read_token_again()? {
            return Ok(answer);
        }
        self.send(path, content_type, &body.bytes, body.is_packed, WORDS)
    }

    /// As [`Client::post`], for a question with a long answer.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub(crate) fn ask(&mut self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer, WriteError> {
        self.send(path, content_type, body, false, RESULT)
    }

    /// # Errors
    /// As [`Client::post`].
    pub(crate) fn get(&self, path: &str) -> Result<Answer, WriteError> {
        let mut request = self.agent.get(format!("{}{path}", self.address.url));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        self.answer(request.call(), RESULT)
    }

    fn send(&self, path: &str, content_type: &str, body: &[u8], gzip: bool, limit: u64) -> Result<Answer, WriteError> {
        let mut request = self.agent.post(format!("{}{path}", self.address.url)).header("content-type", content_type);
        if gzip {
            request = request.header("content-encoding", "gzip");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        self.answer(request.send(body), limit)
    }

    fn answer(&self, result: Result<ureq::http::Response<ureq::Body>, ureq::Error>, limit: u64) -> Result<Answer, WriteError> {
        let mut response = result.map_err(|error| self.away(&error))?;
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()).and_then(answer::retry_after);
        let code = response.status().as_u16();
        let mut body = Vec::new();
        match response.body_mut().as_reader().take(limit).read_to_end(&mut body) {
            Ok(_) => {}
            // What was said about a failure is cut off, and the code says enough.
            Err(_) if limit == WORDS && !(200..300).contains(&code) => {}
            Err(error) => return Err(self.away(&error.into())),
        }
        Ok(Answer { code, body: String::from_utf8_lossy(&body).into_owned(), retry_after })
    }

    fn away(&self, error: &ureq::Error) -> WriteError {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof};
        let Address { database, url, identity, .. } = &self.address;
        // What goes wrong in the handshake comes as data that cannot be understood. A server that wants a certificate may also hang up on who
        // has none, after the handshake, and its words are lost when the request is on its way by then.
        let is_tls = |error: &std::io::Error| match error.kind() {
            InvalidData => true,
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => identity.is_none(),
            _ => false,
        };
        let advice = match error {
            ureq::Error::Io(error) if url.starts_with("https://") && is_tls(error) => TLS_ADVICE,
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                return WriteError::Fatal(format!("{database} cannot be reached at {url} ({error}); check its url in the settings"));
            }
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => TLS_ADVICE,
            _ => "",
        };
        WriteError::Retry { detail: format!("{database} at {url} does not answer ({error}){advice}{KEEPS_TRYING}"), after: None }
    }

    /// A token that was changed while the sink runs is taken from its file.
    fn read_token_again(&mut self) -> Result<bool, WriteError> {
        let now = self.address.secret.header()?;
        Ok(std::mem::replace(&mut self.authorization, now.clone()) != now)
    }
}

fn tls(address: &Address) -> Result<TlsConfig, WriteError> {
    let mut builder = TlsConfig::builder();
    if let Some(path) = &address.ca_file {
        builder = builder.root_certs(RootCerts::Specific(Arc::new(certificates(path, "ca_file")?)));
    }
    if let Some((cert, key)) = &address.identity {
        let chain = certificates(cert, "cert_file")?;
        let pem = std::fs::read(key).map_err(|error| unusable("key", key, &error.to_string(), "key_file"))?;
        let key = PrivateKey::from_pem(&pem).map_err(|error| unusable("key", key, &error.to_string(), "key_file"))?;
        builder = builder.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(builder.build())
}

fn certificates(path: &Path, setting: &str) -> Result<Vec<Certificate<'static>>, WriteError> {
    let fault = |cause: &str| unusable("certificates", path, cause, setting);
    let pem = std::fs::read(path).map_err(|error| fault(&error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| fault(&error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(fault("it holds no certificate in PEM"));
    }
    Ok(certificates)
}

fn unusable(what: &str, path: &Path, cause: &str, setting: &str) -> WriteError {
    WriteError::Fatal(format!("the {what} {} cannot be read ({cause}); check {setting}", path.display()))
}

/// A text in a URL's query.
pub(crate) fn percent(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}
