//! A server in front of a database that does what networks and databases do at their worst.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// The database answers.
    Pass,
    /// The database answers after a while.
    Slow(Duration),
    /// Status line and further headers, such as `503 Service Unavailable\r\nRetry-After: 1`; the database sees nothing.
    Answer(&'static str),
    /// The database has the whole request and acts on it; the connection is cut before its answer.
    CutAfterBody,
    /// The connection is cut at once.
    Refuse,
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    fate: Mutex<Fate>,
    requests: AtomicUsize,
    largest: AtomicUsize,
    closed: AtomicBool,
}

impl Gate {
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            fate: Mutex::new(Fate::Pass),
            requests: AtomicUsize::new(0),
            largest: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.closed.load(Ordering::Relaxed) {
                    break;
                }
                let shared = Arc::clone(&for_thread);
                // The client may go at any moment: that ends its connection and nothing else.
                std::thread::spawn(move || stream.is_ok_and(|stream| serve(stream, &shared).is_ok()));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, fate: Fate) {
        *self.shared.fate.lock().unwrap() = fate;
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    loop {
        let Some(request) = read_message(&mut client)? else { return Ok(()) };
        shared.requests.fetch_add(1, Ordering::Relaxed);
        shared.largest.fetch_max(request.len(), Ordering::Relaxed);
        let fate = shared.fate.lock().unwrap().clone();
        match fate {
            Fate::Pass => client.get_mut().write_all(&forward(shared, &request)?)?,
            Fate::Slow(wait) => {
                std::thread::sleep(wait);
                client.get_mut().write_all(&forward(shared, &request)?)?;
            }
            Fate::Answer(head) => {
                let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 4\r\n\r\nbusy");
                client.get_mut().write_all(answer.as_bytes())?;
            }
            Fate::CutAfterBody => {
                forward(shared, &request)?;
                return Ok(());
            }
            Fate::Refuse => return Ok(()),
        }
    }
}

fn forward(shared: &Shared, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(shared.upstream)?;
    upstream.write_all(request)?;
    Ok(read_message(&mut BufReader::new(upstream))?.unwrap_or_default())
}

/// Head and body of a request or an answer, as they came; `None` at the end of the connection.
fn read_message(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    while !message.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut message)? == 0 {
            return Ok(None);
        }
    }
    let head = String::from_utf8_lossy(&message).to_ascii_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    if head.contains("transfer-encoding: chunked") {
        while !message.ends_with(b"\r\n0\r\n\r\n") {
            reader.read_until(b'\n', &mut message)?;
        }
        return Ok(Some(message));
    }
    reader.by_ref().take(header("content-length:").unwrap_or(0)).read_to_end(&mut message)?;
    Ok(Some(message))
}
