//! Length-prefixed frames, read without trusting the length.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Memory is taken in steps of what has really arrived, at least this much.
const STEP: usize = 64 << 10;

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

/// Reads one frame, without its length; `None` at the end of the connection.
pub(crate) async fn read_frame<R>(reader: &mut R, max_bytes: usize) -> Result<Option<Bytes>, FrameFault>
where
    R: AsyncRead + Unpin,
{
    let mut prefix = [0; 4];
    let first = reader.read(&mut prefix).await?;
    if first == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut prefix[first..]).await.map_err(cut)?;
    let length = i32::from_be_bytes(prefix);
    // The smallest request has key, version, correlation id and client id.
    let wanted = usize::try_from(length).ok().filter(|length| (10..=max_bytes).contains(length));
    let wanted = wanted.ok_or(FrameFault::Length(i64::from(length)))?;
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
    Ok(Some(frame.freeze()))
}

fn cut(fault: io::Error) -> FrameFault {
    if fault.kind() == io::ErrorKind::UnexpectedEof { FrameFault::Cut } else { FrameFault::Io(fault) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_and_lies_are_noticed() {
        let mut whole = 200_000_i32.to_be_bytes().to_vec();
        whole.extend(std::iter::repeat_n(7, 200_000));
        assert_eq!(read_frame(&mut &whole[..], 1 << 20).await.unwrap().unwrap().len(), 200_000);
        assert!(matches!(read_frame(&mut &whole[..], 1000).await, Err(FrameFault::Length(200_000))));
        assert!(matches!(read_frame(&mut &whole[..70_000], 1 << 20).await, Err(FrameFault::Cut)));
        assert!(matches!(read_frame(&mut &whole[..3], 1 << 20).await, Err(FrameFault::Cut)));
        assert!(read_frame(&mut &[][..], 1000).await.unwrap().is_none());
        let negative = (-1_i32).to_be_bytes();
        assert!(matches!(read_frame(&mut &negative[..], 1000).await, Err(FrameFault::Length(-1))));
    }
}
