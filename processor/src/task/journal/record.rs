//! Journal records: a fixed head, then a piece of an entry or nothing.
//!
//! ```text
//! version u8 | kind u8 | epoch i64 | piece u32 | pieces u32 | bytes ...        big endian
//! ```

pub(crate) const VERSION: u8 = 1;
const HEAD: usize = 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A new owner; its epoch is the record's own offset.
    Fence,
    Piece(Piece<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) snapshot: bool,
    pub(crate) epoch: i64,
    pub(crate) piece: u32,
    pub(crate) pieces: u32,
    pub(crate) bytes: &'a [u8],
}

pub(crate) fn fence() -> Vec<u8> {
    head(0, 0, 0, 1).to_vec()
}

impl Piece<'_> {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.bytes.len());
        out.extend(head(if self.snapshot { 2 } else { 1 }, self.epoch, self.piece, self.pieces));
        out.extend(self.bytes);
        out
    }
}

fn head(kind: u8, epoch: i64, piece: u32, pieces: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0] = VERSION;
    head[1] = kind;
    head[2..10].copy_from_slice(&epoch.to_be_bytes());
    head[10..14].copy_from_slice(&piece.to_be_bytes());
    head[14..18].copy_from_slice(&pieces.to_be_bytes());
    head
}

impl<'a> Record<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or("it is shorter than its head")?;
        if head[0] != VERSION {
            return Err(format!("it has format version {}, and this program reads version {VERSION}", head[0]));
        }
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let epoch = (i64::from(number(2)) << 32) | i64::from(number(6));
        let piece = Piece { snapshot: head[1] == 2, epoch, piece: number(10), pieces: number(14), bytes: rest };
        match head[1] {
            0 => Ok(Self::Fence),
            1 | 2 if piece.piece < piece.pieces => Ok(Self::Piece(piece)),
            1 | 2 => Err("its piece number is too large".into()),
            kind => Err(format!("it is of an unknown kind {kind}")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_a_round_trip() {
        assert_eq!(Record::parse(&fence()).unwrap(), Record::Fence);
        let piece = Piece { snapshot: true, epoch: (7 << 33) + 5, piece: 2, pieces: 3, bytes: b"abc" };
        assert_eq!(Record::parse(&piece.to_bytes()).unwrap(), Record::Piece(piece));
    }

    #[test]
    fn what_is_not_a_record_is_said() {
        assert!(Record::parse(b"x").is_err());
        let mut newer = fence();
        newer[0] = 9;
        assert!(Record::parse(&newer).unwrap_err().contains("version 9"));
        assert!(Record::parse(&Piece { snapshot: false, epoch: 0, piece: 3, pieces: 3, bytes: b"" }.to_bytes()).is_err());
    }
}
