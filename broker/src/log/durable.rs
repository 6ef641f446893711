//! How far a partition's log is surely on disk: the file `durable`.
//!
//! A power cut may keep later writes and lose earlier ones, as long as nobody has synced them. The mark tells such a hole, which
//! nobody was promised, from one in acknowledged records. It is written after each flush and not synced itself: an old mark is only
//! more careful. Two slots are written in turn, so that one of them is always whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::{self, Disk};
use super::segments::Point;

const NAME: &str = "durable";
/// Count u64, segment i64, position u64, offset i64, crc u32.
const SLOT: usize = 36;

/// The mark of one partition.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    count: u64,
    last: Option<Point>,
}

impl Mark {
    /// Reads the mark; without a whole slot nothing is known.
    pub(crate) fn read(dir: &Path) -> Self {
        let Ok(file) = File::open(dir.join(NAME)) else { return Self::default() };
        let slots = [0, SLOT as u64].map(|at| read_slot(&file, at));
        let newest = slots.into_iter().flatten().max_by_key(|(count, _)| *count);
        newest.map_or_else(Self::default, |(count, point)| Self { count, last: Some(point) })
    }

    pub(crate) fn point(&self) -> Option<Point> {
        self.last
    }

    /// Makes a new partition's mark durable, so that there always is one.
    pub(crate) fn create(&mut self, dir: &Path, disk: &Disk, point: Point) -> io::Result<()> {
        let file = disk::open_log(&dir.join(NAME))?;
        self.write(&file, disk, point)?;
        self.write(&file, disk, point)?;
        disk.settle(&file)
    }

    /// Moves the mark. A mark that cannot be written is only older.
    pub(crate) fn set(&mut self, dir: &Path, disk: &Disk, point: Point) {
        if self.last == Some(point) {
            return;
        }
        if let Err(fault) = disk::open_log(&dir.join(NAME)).and_then(|file| self.write(&file, disk, point)) {
            tracing::debug!(dir = %dir.display(), %fault, "the mark of what is durable stays behind");
        }
    }

    fn write(&mut self, file: &File, disk: &Disk, point: Point) -> io::Result<()> {
        let count = self.count + 1;
        let mut slot = Vec::with_capacity(SLOT);
        slot.extend(count.to_be_bytes());
        slot.extend(point.segment.to_be_bytes());
        slot.extend(point.position.to_be_bytes());
        slot.extend(point.offset.to_be_bytes());
        slot.extend(crc32c::crc32c(&slot).to_be_bytes());
        disk.write_at(file, &slot, count % 2 * SLOT as u64)?;
        (self.count, self.last) = (count, Some(point));
        Ok(())
    }
}

fn read_slot(file: &File, at: u64) -> Option<(u64, Point)> {
    let mut slot = [0; SLOT];
    file.read_exact_at(&mut slot, at).ok()?;
    let word = |at: usize| u64::from_be_bytes(slot[at..at + 8].try_into().unwrap_or_default());
    let crc = u32::from_be_bytes(slot[32..].try_into().unwrap_or_default());
    let point = Point { segment: word(8) as i64, position: word(16), offset: word(24) as i64 };
    (crc32c::crc32c(&slot[..32]) == crc).then(|| (word(0), point))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_mark_is_an_older_mark() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, point) = (Disk::default(), |offset| Point { offset, segment: 0, position: offset as u64 * 10 });
        let mut mark = Mark::read(dir.path());
        assert_eq!(mark.point(), None);
        mark.create(dir.path(), &disk, point(1)).unwrap();
        for offset in 2..9 {
            mark.set(dir.path(), &disk, point(offset));
            assert_eq!(Mark::read(dir.path()).point(), Some(point(offset)));
        }
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        let newest = (mark.count % 2) as usize * SLOT;
        for at in newest..newest + SLOT {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(Mark::read(dir.path()).point(), Some(point(7)));
        }
    }
}
