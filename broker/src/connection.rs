//! One client connection: requests are taken one after the other and answered in their order.
//!
//! A produce is appended before the next request is read, but its answer, which has to wait for a flush, is left to the
//! writing half. So a client with several produces in flight shares one flush between them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

use crate::api::{Outcome, Request, RequestFault};
use crate::broker::Shared;
use crate::wire::frame::{FrameFault, read_frame};

/// Answers that may wait for their turn; then no more requests are read.
const IN_FLIGHT: usize = 64;
/// How long open answers may still take when the broker stops.
const DRAIN: Duration = Duration::from_secs(2);

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
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, broker: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    if let Err(fault) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %fault, "the connection has gone");
    }
    let (reader, writer) = stream.into_split();
    let (answers, queue) = mpsc::channel(IN_FLIGHT);
    let mut writing = tokio::spawn(write_answers(writer, queue));
    let reading = read_requests(BufReader::with_capacity(64 << 10, reader), peer, &broker, answers);
    let ended = tokio::select! {
        ended = reading => ended,
        // The sender of `stop` going away means the same.
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    };
    if let Err(fault) = ended {
        complain(peer, &broker, &fault);
    }
    // What has been appended is still acknowledged.
    match tokio::time::timeout(DRAIN, &mut writing).await {
        Ok(Ok(Err(fault))) => complain(peer, &broker, &fault),
        Ok(_) => {}
        Err(_) => writing.abort(),
    }
}

fn complain(peer: SocketAddr, broker: &Shared, fault: &Fault) {
    match fault {
        // A client that simply goes away is nothing to speak of.
        Fault::Write(_) | Fault::Frame(FrameFault::Io(_) | FrameFault::Cut) => {
            tracing::debug!(%peer, %fault, "a connection has ended");
        }
        Fault::Frame(FrameFault::Length(_)) | Fault::Request(_) => {
            broker.counters.bad_connections.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, %fault, "a connection is closed");
        }
    }
}

async fn read_requests(
    mut reader: BufReader<tokio::net::tcp::OwnedReadHalf>,
    peer: SocketAddr,
    broker: &Arc<Shared>,
    answers: mpsc::Sender<Outcome>,
) -> Result<(), Fault> {
    while let Some(frame) = read_frame(&mut reader, broker.max_request_bytes).await? {
        broker.counters.requests.fetch_add(1, Ordering::Relaxed);
        let request = Request::parse(frame, peer.ip().to_string())?;
        let outcome = request.handle(broker).await?;
        if answers.send(outcome).await.is_err() {
            // The writing half has ended, and says why.
            break;
        }
    }
    Ok(())
}

async fn write_answers(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Outcome>) -> Result<(), Fault> {
    while let Some(outcome) = queue.recv().await {
        let answer: Option<Bytes> = match outcome {
            Outcome::Answer(answer) => Some(answer),
            Outcome::Pending(pending) => pending.await?,
        };
        if let Some(answer) = answer {
            writer.write_all(&answer).await?;
        }
    }
    Ok(())
}
