use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer; the body is text.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    /// Status line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// `GET path`; `None` when nobody answers.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// `POST path` with JSON, and with a token of `InfluxDB` unless it is empty; `None` when nobody answers.
pub(crate) fn post_json(address: SocketAddr, path: &str, token: &str, body: &serde_json::Value) -> Option<Answer> {
    let body = body.to_string();
    let token = if token.is_empty() { String::new() } else { format!("Authorization: Token {token}\r\n") };
    // 1.0: its answers do not come in chunks.
    let head = format!("POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n{token}");
    ask(address, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// Sends a request as it is; `None` when nobody answers.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader)?;
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    let mut body = Vec::new();
    match header("content-length").and_then(|length| length.parse().ok()) {
        Some(length) => reader.take(length).read_to_end(&mut body).ok()?,
        None => reader.read_to_end(&mut body).ok()?,
    };
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { code, body: String::from_utf8_lossy(&body).into_owned(), head })
}

/// The first line and the headers of a request or an answer, in lower case; `None` when the other end is gone before.
pub(crate) fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head.to_ascii_lowercase())
}

/// `GET path` as JSON; `None` while nobody answers or the answer is no JSON.
pub(crate) fn get_json(address: SocketAddr, path: &str) -> Option<serde_json::Value> {
    let answer = get(address, path)?;
    (answer.code == 200).then(|| serde_json::from_str(&answer.body).ok()).flatten()
}

/// The address in a line such as `... http://127.0.0.1:40123/ ...`.
pub(crate) fn address_in(line: &str) -> Option<SocketAddr> {
    let rest = &line[line.find("http://")? + "http://".len()..];
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').parse().ok()
}
