use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::spawn;

use super::wait::wait_until;

/// What a web address does with a request.
pub(crate) enum Answer {
    Code(u16),
    /// None, for as long as somebody waits for it.
    Silence,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Posted {
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Posted {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no header {name} in {}", self.head)).trim()
    }
}

/// A web address that a sink posts to; it lives as long as the test's program.
pub(crate) struct Hook {
    pub(crate) address: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
}

impl Hook {
    /// `answer` is asked with the number of the request, from 0 on.
    pub(crate) fn start(address: SocketAddr, answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (address, posted) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (requests, answer) = (Arc::clone(&posted), Arc::new(answer));
        spawn(move || {
            for stream in listener.incoming() {
                let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                spawn(move || serve(stream.unwrap(), &requests, &*answer));
            }
        });
        Self { address, posted }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[track_caller]
    pub(crate) fn wait_posted(&self, number: usize) {
        wait_until(&format!("request {number}"), super::place::LIMIT, || self.posted().len() >= number);
    }
}

/// One request; a client that was killed in the midst of it has posted nothing.
fn serve(mut stream: TcpStream, posted: &Mutex<Vec<Posted>>, answer: &(dyn Fn(usize) -> Answer + Send + Sync)) {
    let Some(request) = read(&stream) else { return };
    let number = {
        let mut posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
        posted.push(request);
        posted.len() - 1
    };
    match answer(number) {
        Answer::Code(code) => {
            let line = format!("HTTP/1.1 {code} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            // Nobody may be left to hear it.
            stream.write_all(line.as_bytes()).unwrap_or_default();
        }
        // Until the other end is gone.
        Answer::Silence => drop(stream.read(&mut [0; 1])),
    }
}

fn read(stream: &TcpStream) -> Option<Posted> {
    let mut reader = BufReader::new(stream);
    let head = super::http::read_head(&mut reader)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Posted { head, body: String::from_utf8(body).ok()? })
}
