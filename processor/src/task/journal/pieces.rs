//! Which journal records count, and the entries that they make together.

use super::super::error::TaskError;
use super::record::{Piece, Record};

/// Judges the records of a journal partition in order.
#[derive(Debug)]
pub(crate) struct Pieces {
    query: String,
    place: String,
    /// Of the newest fence; `None` before the first record that counts.
    epoch: Option<i64>,
    /// The entry that is coming in.
    bytes: Vec<u8>,
    /// The offset of its first piece.
    begun: i64,
    /// The journal does not begin at offset 0, and nothing of it has been read yet: it must go on with a snapshot.
    cut: bool,
}

impl Pieces {
    pub(crate) fn new(query: &str, place: String, first: i64) -> Self {
        Self { query: query.to_owned(), place, epoch: None, bytes: Vec::new(), begun: first, cut: first > 0 }
    }

    /// That of the newest fence.
    pub(crate) fn epoch(&self) -> Option<i64> {
        self.epoch
    }

    /// Where the newest entry begins.
    pub(crate) fn begun(&self) -> i64 {
        self.begun
    }

    /// Takes the next record; gives the bytes of the entry that it completes.
    pub(crate) fn record(&mut self, offset: i64, bytes: &[u8]) -> Result<Option<Vec<u8>>, TaskError> {
        let record = Record::parse(bytes).map_err(|cause| self.damaged(offset, &cause))?;
        let begins = matches!(record, Record::Piece(piece) if piece.snapshot && piece.piece == 0);
        if std::mem::take(&mut self.cut) && !begins {
            return Err(self.damaged(offset, "its beginning is missing; was it deleted by hand or by retention?"));
        }
        match record {
            Record::Fence => {
                self.epoch = Some(offset);
                self.bytes.clear();
                Ok(None)
            }
            Record::Piece(piece) => self.piece(offset, piece),
        }
    }

    fn piece(&mut self, offset: i64, piece: Piece<'_>) -> Result<Option<Vec<u8>>, TaskError> {
        match self.epoch {
            // What lies before a snapshot is deleted, its fence too; only an owner that was still one did that.
            None if piece.snapshot && piece.piece == 0 => self.epoch = Some(piece.epoch),
            None => return Err(self.damaged(offset, "its beginning is missing; was it deleted by hand or by retention?")),
            Some(epoch) if epoch != piece.epoch => return Ok(None),
            Some(_) => {}
        }
        if piece.piece == 0 {
            self.begun = offset;
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(piece.bytes);
        Ok((piece.piece + 1 == piece.pieces).then(|| std::mem::take(&mut self.bytes)))
    }

    pub(crate) fn damaged(&self, offset: i64, cause: &str) -> TaskError {
        TaskError::Fatal(format!("the journal record {}@{offset} of query '{}' cannot be used: {cause}", self.place, self.query))
    }
}
