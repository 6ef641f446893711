//! Asking another program's status page, over plain HTTP: it listens on the loopback, or behind something that the user runs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long a status page may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer that is read, bytes.
const MOST: u64 = 16 * 1024 * 1024;

/// What listens everywhere is reached on the loopback.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address }
}

/// `GET` of `path` at the host of `url`; what follows the host in `url` is left aside. Returns the status code and the body.
///
/// # Errors
/// When `url` is no address of plain HTTP, when nobody answers in time, or when the answer is no HTTP.
pub(crate) fn get(url: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("'{url}' does not begin with http://") };
    let host = rest.split('/').next().unwrap_or_default();
    let mut stream = connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // 1.0: the answer ends with the connection and comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("the answer is no HTTP")?;
    Ok((code, body.to_owned()))
}

fn connect(host: &str) -> anyhow::Result<TcpStream> {
    let authority =
        if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) { host.into() } else { format!("{host}:80") };
    let mut fault = None;
    for address in authority.to_socket_addrs().with_context(|| format!("'{host}' is no address"))? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => fault = Some(error),
        }
    }
    bail!(fault.map_or_else(|| "no address".into(), |error| error.to_string()))
}
