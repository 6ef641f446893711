//! Lines from a TCP connection, such as `nc -lk 4444` is the other end of. Nobody keeps them: what a crash takes is gone.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::error::TaskError;
use super::super::records::Records;
use super::super::status::now_ms;
use super::local::{Feed, Pulled};
use crate::engine::Input;
use crate::format::decode::Decoder;
use crate::format::text;
use crate::query::StreamQuery;

/// How many lines may wait; then the other end must.
const WAITING: usize = 10_000;
/// A longer line is cut into lines of this many bytes.
const LONGEST: u64 = 1024 * 1024;
/// Pause before the next try to connect.
const RETRY: Duration = Duration::from_millis(500);

type Line = (i64, Vec<u8>);

pub(super) struct Socket {
    lines: Receiver<Line>,
    /// Taken from the channel by a look whether there is more.
    next_line: Option<Line>,
    next: i64,
    connection: Arc<Connection>,
    thread: Option<JoinHandle<()>>,
}

/// What the reading thread and its owner share.
struct Connection {
    place: (String, u16),
    stopped: AtomicBool,
    away: AtomicBool,
    /// To end a read that waits.
    stream: Mutex<Option<TcpStream>>,
}

impl Socket {
    pub(super) fn open(query: &StreamQuery, position: Option<i64>) -> Result<Self, TaskError> {
        let source = &query.file.source;
        let place = (source.host.clone().unwrap_or_default(), source.port.unwrap_or_default());
        tracing::warn!(
            query = query.file.name,
            host = place.0,
            port = place.1,
            "a socket has no memory: lines that were read and not committed when the program ends are lost"
        );
        let connection =
            Arc::new(Connection { place, stopped: AtomicBool::new(false), away: AtomicBool::new(false), stream: Mutex::new(None) });
        let (sender, lines) = sync_channel(WAITING);
        let shared = Arc::clone(&connection);
        let thread = std::thread::Builder::new()
            .name(format!("{}-socket", query.file.name))
            .spawn(move || shared.read(&sender))
            .map_err(|error| TaskError::Fatal(format!("a thread for the socket cannot be started: {error}")))?;
        Ok(Self { lines, next_line: None, next: position.unwrap_or(0), connection, thread: Some(thread) })
    }

    fn push(&mut self, records: &mut Records, (received, line): Line) {
        records.push(self.next, received, None, Some(&line));
        self.next += 1;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.connection.stopped.store(true, Ordering::Relaxed);
        if let Some(stream) = self.connection.stream.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It may be closed already.
            stream.shutdown(std::net::Shutdown::Both).unwrap_or_default();
        }
        // A thread that waits for room in the channel sees its end.
        self.lines = sync_channel(0).1;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

impl Feed for Socket {
    fn pull(&mut self, records: &mut Records, _most: usize, patience: Duration) -> Result<Pulled, TaskError> {
        let line = match self.next_line.take() {
            Some(line) => Ok(line),
            None => self.lines.recv_timeout(patience),
        };
        match line {
            Ok(line) => {
                self.push(records, line);
                Ok(Pulled::Some)
            }
            Err(RecvTimeoutError::Timeout) => Ok(Pulled::Nothing),
            Err(RecvTimeoutError::Disconnected) => Err(TaskError::Fatal("the thread that reads the socket has ended".into())),
        }
    }

    fn is_at_end(&mut self) -> bool {
        if self.next_line.is_none() {
            self.next_line = self.lines.try_recv().ok();
        }
        self.next_line.is_none()
    }

    fn is_away(&self) -> bool {
        self.connection.away.load(Ordering::Relaxed)
    }

    fn decode(&self, records: &Records, decoder: &mut Decoder) -> Result<Input, TaskError> {
        let lines = (0..records.len()).map(|index| records.get(index)).map(|record| (record.payload.unwrap_or_default(), record.timestamp));
        Ok(records.input(text::decode(decoder.schema(), lines).map_err(TaskError::Fatal)?))
    }
}

impl Connection {
    fn read(&self, lines: &SyncSender<Line>) {
        while !self.stopped.load(Ordering::Relaxed) {
            match TcpStream::connect((self.place.0.as_str(), self.place.1)) {
                Ok(stream) => {
                    self.away.store(false, Ordering::Relaxed);
                    tracing::info!(host = self.place.0, port = self.place.1, "connected");
                    self.read_lines(stream, lines);
                    if !self.stopped.load(Ordering::Relaxed) {
                        tracing::warn!(
                            host = self.place.0,
                            port = self.place.1,
                            "the other end has closed the connection; connecting anew"
                        );
                    }
                }
                Err(error) if !self.away.swap(true, Ordering::Relaxed) => {
                    tracing::warn!(
                        "nobody listens on {}:{} ({error}); start the other end, such as `nc -lk {}`: trying on",
                        self.place.0,
                        self.place.1,
                        self.place.1
                    );
                }
                Err(_) => {}
            }
            self.pause();
        }
    }

    fn pause(&self) {
        let until = std::time::Instant::now() + RETRY;
        while !self.stopped.load(Ordering::Relaxed) && std::time::Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn read_lines(&self, stream: TcpStream, lines: &SyncSender<Line>) {
        let Ok(own) = stream.try_clone() else { return };
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            match reader.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    if line.last() == Some(&b'\r') {
                        line.pop();
                    }
                    if lines.send((now_ms(), line)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the socket");
                    return;
                }
            }
        }
    }
}
