//! One client connection: requests are taken one after the other and answered in their order.
//!
//! A produce is appended before the next request is read, but its answer, which has to wait for a flush, is left to the
//! writing half. So a client with several produces in flight shares one flush between them.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, watch};

use crate::api::{Client, Outcome, Request, RequestFault};
use crate::broker::Shared;
use crate::clock::now_millis;
use crate::wire::frame::{FrameFault, read_body, read_length};

/// Answers that may wait for their turn; then no more requests are read.
const IN_FLIGHT: usize = 64;
/// How long open answers may still take when the broker stops.
const DRAIN: Duration = Duration::from_secs(2);
/// Large requests pass it by, so that thousands of silent connections cost little.
const READ_BUFFER: usize = 4 << 10;
/// A connection that has been silent for so long is closed, as Kafka does; earlier, if nobody knows whose it is.
pub(crate) const IDLE: Duration = Duration::from_secs(600);
const UNKNOWN_IDLE: Duration = Duration::from_secs(30);
/// A request that has begun to arrive is there within this time.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// Before it is known who a client is, nothing of it is large.
const UNKNOWN_MAX_BYTES: usize = 64 << 10;

/// Why a connection is closed by this side.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Frame(#[from] FrameFault),
    #[error(transparent)]
    Request(#[from] RequestFault),
    #[error("writing to it failed: {0}")]
    Write(#[from] io::Error),
}

/// Serves a connection until it ends, misbehaves, or the broker stops.
pub(crate) async fn serve<R, W>(halves: (R, W), client: Arc<Client>, broker: Arc<Shared>, mut stop: watch::Receiver<bool>)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (reader, writer) = halves;
    let (answers, queue) = mpsc::channel(IN_FLIGHT);
    let mut writing = tokio::spawn(write_answers(writer, queue));
    let reading = read_requests(BufReader::with_capacity(READ_BUFFER, reader), &client, &broker, answers);
    let ended = tokio::select! {
        ended = reading => ended,
        // The sender of `stop` going away means the same.
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    };
    if let Err(fault) = ended {
        complain(&client, &broker, &fault);
    }
    // What has been appended is still acknowledged.
    match tokio::time::timeout(DRAIN, &mut writing).await {
        Ok(Ok(Err(fault))) => complain(&client, &broker, &fault),
        Ok(_) => {}
        Err(_) => writing.abort(),
    }
}

fn complain(client: &Client, broker: &Shared, fault: &Fault) {
    match fault {
        // A client that simply goes away is nothing to speak of.
        Fault::Write(_) | Fault::Frame(FrameFault::Io(_) | FrameFault::Cut) => {
            tracing::debug!(host = %client.host, %fault, "a connection has ended");
        }
        Fault::Frame(FrameFault::Length(_)) | Fault::Request(_) => {
            broker.counters.bad_connections.fetch_add(1, Ordering::Relaxed);
            if let Some(unsaid) = broker.bad_connections.next(now_millis()) {
                tracing::warn!(host = %client.host, %fault, unsaid, "a connection is closed");
            }
        }
    }
}

async fn read_requests<R: AsyncRead + Unpin>(
    mut reader: BufReader<R>,
    client: &Arc<Client>,
    broker: &Arc<Shared>,
    answers: mpsc::Sender<Outcome>,
) -> Result<(), Fault> {
    let limits = || match client.is_known() {
        true => (broker.max_request_bytes, IDLE),
        false => (broker.max_request_bytes.min(UNKNOWN_MAX_BYTES), UNKNOWN_IDLE),
    };
    loop {
        let (max_bytes, idle) = limits();
        let Ok(length) = tokio::time::timeout(idle, read_length(&mut reader, max_bytes)).await else {
            tracing::debug!(host = %client.host, "a silent connection is closed");
            return Ok(());
        };
        let Some(length) = length? else { break };
        // Given back when the request has been handled.
        let _room = broker.intake.take(length).await;
        let Ok(frame) = tokio::time::timeout(REQUEST_TIME.min(idle), read_body(&mut reader, length)).await else {
            tracing::warn!(host = %client.host, bytes = length, "a connection is closed: its request did not arrive within a minute");
            return Ok(());
        };
        let frame = frame?;
        broker.counters.requests.fetch_add(1, Ordering::Relaxed);
        let request = Request::parse(frame, client)?;
        let outcome = request.handle(broker).await?;
        let last = matches!(outcome, Outcome::Last(_));
        if answers.send(outcome).await.is_err() {
            // The writing half has ended, and says why.
            break;
        }
        if last {
            return Err(RequestFault::Refused.into());
        }
    }
    Ok(())
}

async fn write_answers<W: AsyncWrite + Unpin>(mut writer: W, mut queue: mpsc::Receiver<Outcome>) -> Result<(), Fault> {
    while let Some(outcome) = queue.recv().await {
        let mut held = None;
        let parts = match outcome {
            Outcome::Answer(answer) | Outcome::Last(answer) => vec![answer],
            Outcome::Parts(parts, outgoing) => {
                held = Some(outgoing);
                parts
            }
            Outcome::Pending(pending) => pending.await?.into_iter().collect(),
        };
        write_parts(&mut writer, &parts).await?;
        writer.flush().await?;
        drop((parts, held));
    }
    // Says goodbye, which TLS wants said.
    writer.shutdown().await?;
    Ok(())
}

/// All parts at one call where that is possible: each call is a packet, and a packet wakes its reader.
async fn write_parts<W: AsyncWrite + Unpin>(writer: &mut W, parts: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        let written = writer.write_vectored(left).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use kafka_protocol::messages::ApiKey;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;
    use tracing::{Event, Level, Metadata, Subscriber, span};

    use super::*;
    use crate::api::frame;
    use crate::{Broker, BrokerConfig};

    /// Counts the warnings of this thread.
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[tokio::test]
    async fn an_answer_in_parts_arrives_whole() {
        let parts: Vec<Bytes> = (0..200).map(|part| Bytes::from(vec![part; usize::from(part) * 7 % 50])).collect();
        // Takes a little at a time.
        let (mut writer, mut reader) = tokio::io::duplex(33);
        let whole = parts.concat();
        let writing = tokio::spawn(async move { write_parts(&mut writer, &parts).await });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).await.unwrap();
        writing.await.unwrap().unwrap();
        assert_eq!(read, whole);
    }

    #[tokio::test]
    async fn a_client_that_tries_again_and_again_does_not_fill_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerConfig::new(dir.path(), "127.0.0.1:0".parse().unwrap())).await.unwrap();
        let warnings = Arc::<AtomicUsize>::default();
        let _heard = tracing::subscriber::set_default(Warnings(warnings.clone()));
        let frame = frame(ApiKey::Fetch, 99, &[]);
        let began = std::time::Instant::now();
        for _ in 0..50 {
            let mut stream = TcpStream::connect(broker.addr()).await.unwrap();
            stream.write_all(&(frame.len() as u32).to_be_bytes()).await.unwrap();
            stream.write_all(&frame).await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "it is closed");
        }
        assert_eq!(broker.stats().bad_connections, 50);
        let most = 1 + began.elapsed().as_secs() as usize / 10;
        assert!((1..=most).contains(&warnings.load(Ordering::Relaxed)), "one, and one more when ten seconds are over");
        broker.shutdown().await.unwrap();
    }
}
