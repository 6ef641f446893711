//! Asking another program's status page: over plain HTTP, or as one of the programs that share the settings of `[http]`, over TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::http_tls;
use crate::settings::Http;

/// How long a status page may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer that is read, bytes.
const MOST: u64 = 16 * 1024 * 1024;

/// Where a program with these settings is asked. What listens everywhere is reached on the loopback.
pub fn url(settings: &Http, default: SocketAddr) -> String {
    let mut address = settings.listen.unwrap_or(default);
    if address.ip().is_unspecified() {
        address = SocketAddr::from(([127, 0, 0, 1], address.port()));
    }
    format!("http{}://{address}", if settings.certificate_file.is_some() { "s" } else { "" })
}

/// `GET` of `path` at the host of `url`; what follows the host in `url` is left aside. Returns the status code and the body.
///
/// # Errors
/// When `url` is no address of HTTP, when nobody answers in time, or when the answer is no HTTP.
pub fn get(settings: &Http, url: &str, path: &str) -> anyhow::Result<(u16, String)> {
    ask(settings, url, path, None, PATIENCE)
}

/// As [`get`]; with a `body` it is a `POST`. The answer may take `patience`.
///
/// # Errors
/// As [`get`].
pub fn ask(settings: &Http, url: &str, path: &str, body: Option<&str>, patience: Duration) -> anyhow::Result<(u16, String)> {
    let (rest, tls) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => bail!("'{url}' does not begin with http:// or https://"),
    };
    let host = rest.split('/').next().unwrap_or_default();
    let stream = connect(host, if tls { 443 } else { 80 })?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let answer = if tls {
        let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
        exchange(http_tls::connect(settings, name.trim_matches(['[', ']']), stream).map_err(anyhow::Error::msg)?, host, path, body)?
    } else {
        exchange(stream, host, path, body)?
    };
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("the answer is no HTTP")?;
    Ok((code, body.to_owned()))
}

fn exchange(mut stream: impl Read + Write, host: &str, path: &str, body: Option<&str>) -> anyhow::Result<Vec<u8>> {
    // 1.0: the answer ends with the connection and comes in one piece.
    match body {
        None => write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?,
        Some(body) => {
            let head = format!("POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: text/plain; charset=utf-8");
            write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        }
    }
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(MOST).read_to_end(&mut answer) {
        // Some end a TLS connection without a word; what came says whether it is whole.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Ok(answer),
    }
}

fn connect(host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let authority =
        if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) { host.into() } else { format!("{host}:{port}") };
    let mut fault = None;
    for address in authority.to_socket_addrs().with_context(|| format!("'{host}' is no address"))? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => fault = Some(error),
        }
    }
    bail!(fault.map_or_else(|| "no address".into(), |error| error.to_string()))
}
