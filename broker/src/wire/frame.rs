//! Length-prefixed frames, read without trusting the length.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory is taken in steps of what has really arrived, at least this much.
const STEP: usize = 64 << 10;
/// Frames up to this size are read without asking for room.
const SMALL: usize = 16 << 10;
const KIB: usize = 1 << 10;

/// Why a connection cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameFault {
    #[error("it sent a frame length of {0} bytes, more than is allowed or less than a request has")]
    Length(i64),
    #[error("it ended in the middle of a frame")]
    Cut,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads the length of the next frame; `None` at the end of the connection.
pub(crate) async fn read_length<R: AsyncRead + Unpin>(reader: &mut R, max_bytes: usize) -> Result<Option<usize>, FrameFault> {
    let mut prefix = [0; 4];
    let first = reader.read(&mut prefix).await?;
    if first == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut prefix[first..]).await.map_err(cut)?;
    let length = i32::from_be_bytes(prefix);
    // The smallest request has key, version, correlation id and client id.
    let wanted = usize::try_from(length).ok().filter(|length| (10..=max_bytes).contains(length));
    wanted.map(Some).ok_or(FrameFault::Length(i64::from(length)))
}

/// Reads a frame of `wanted` bytes, which follow its length.
pub(crate) async fn read_body<R: AsyncRead + Unpin>(reader: &mut R, wanted: usize) -> Result<Bytes, FrameFault> {
    let mut frame = BytesMut::with_capacity(wanted.min(STEP));
    while frame.len() < wanted {
        let missing = wanted - frame.len();
        if frame.capacity() == frame.len() {
            frame.reserve(missing.min(frame.len().max(STEP)));
        }
        let room = missing.min(frame.capacity() - frame.len());
        if (&mut *reader).take(room as u64).read_buf(&mut frame).await? == 0 {
            return Err(FrameFault::Cut);
        }
    }
    Ok(frame.freeze())
}

/// Memory for large requests that are on their way, on all connections together. Many slow clients that each announce a large
/// request wait for each other; small requests need none of it.
#[derive(Debug)]
pub(crate) struct Intake(Arc<Semaphore>);

impl Intake {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / KIB)))
    }

    /// Room for a frame, given back when it is dropped; `None` for a small one.
    pub(crate) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= SMALL {
            return None;
        }
        let wanted = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        self.0.clone().acquire_many_owned(wanted).await.ok()
    }
}

fn cut(fault: io::Error) -> FrameFault {
    if fault.kind() == io::ErrorKind::UnexpectedEof { FrameFault::Cut } else { FrameFault::Io(fault) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    async fn read_frame(mut bytes: &[u8], max_bytes: usize) -> Result<Option<Bytes>, FrameFault> {
        match read_length(&mut bytes, max_bytes).await? {
            Some(length) => read_body(&mut bytes, length).await.map(Some),
            None => Ok(None),
        }
    }

    #[tokio::test]
    async fn large_frames_share_their_room_and_small_ones_need_none() {
        let intake = Intake::new(1 << 20);
        let first = intake.take(900 << 10).await.unwrap();
        assert!(intake.take(SMALL).await.is_none());
        let mut second = std::pin::pin!(intake.take(200 << 10));
        assert!(futures_now(second.as_mut()).is_none(), "it waits for the first");
        drop(first);
        assert!(second.await.is_some());
        assert!(intake.take(1 << 20).await.is_some(), "all of it has come back");
    }

    /// What a future has to say at once.
    fn futures_now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn frames_are_read_and_lies_are_noticed() {
        let mut whole = 200_000_i32.to_be_bytes().to_vec();
        whole.extend(std::iter::repeat_n(7, 200_000));
        assert_eq!(read_frame(&whole[..], 1 << 20).await.unwrap().unwrap().len(), 200_000);
        assert!(matches!(read_frame(&whole[..], 1000).await, Err(FrameFault::Length(200_000))));
        assert!(matches!(read_frame(&whole[..70_000], 1 << 20).await, Err(FrameFault::Cut)));
        assert!(matches!(read_frame(&whole[..3], 1 << 20).await, Err(FrameFault::Cut)));
        assert!(read_frame(&[][..], 1000).await.unwrap().is_none());
        let negative = (-1_i32).to_be_bytes();
        assert!(matches!(read_frame(&negative[..], 1000).await, Err(FrameFault::Length(-1))));
    }
}
