//! A model of a power cut: writes that nobody has synced are kept, lost or torn, each by itself and in no order.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What a disk writes as a whole.
const SECTOR: u64 = 512;

/// A change of a file since its last sync.
#[derive(Debug, Clone)]
struct Write {
    position: u64,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Unsynced {
    /// The file at its last sync.
    content: Vec<u8>,
    changes: Vec<Result<Write, u64>>,
}

/// The unsynced changes of all files, by inode.
#[derive(Debug, Clone, Default)]
pub(crate) struct Power(Arc<Mutex<HashMap<u64, Unsynced>>>);

/// Chance by a seed: an xorshift generator, so that a seed repeats the run.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }
}

impl Power {
    fn change(&self, file: &File, change: Result<Write, u64>) -> io::Result<()> {
        let meta = file.metadata()?;
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let std::collections::hash_map::Entry::Vacant(place) = files.entry(meta.ino()) {
            let mut content = vec![0; meta.len() as usize];
            file.read_exact_at(&mut content, 0)?;
            place.insert(Unsynced { content, changes: Vec::new() });
        }
        if let Some(unsynced) = files.get_mut(&meta.ino()) {
            unsynced.changes.push(change);
        }
        Ok(())
    }

    pub(crate) fn writing(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        self.change(file, Ok(Write { position, bytes: bytes.to_vec() }))
    }

    pub(crate) fn cutting(&self, file: &File, length: u64) -> io::Result<()> {
        self.change(file, Err(length))
    }

    pub(crate) fn synced(&self, file: &File) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&file.metadata()?.ino());
        Ok(())
    }

    /// Cuts the power: every file below `dir` is left as chance has it.
    pub(crate) fn cut(&self, dir: &Path, chance: &mut Chance) -> io::Result<()> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if let Some(unsynced) = files.remove(&fs::metadata(&path)?.ino()) {
                fs::write(&path, unsynced.after_the_cut(chance))?;
            }
        }
        files.clear();
        Ok(())
    }
}

impl Unsynced {
    fn after_the_cut(self, chance: &mut Chance) -> Vec<u8> {
        let mut content = self.content;
        // Everything may be lost or be there; else each change has its own fate.
        let all = chance.below(6);
        for change in self.changes {
            match change {
                _ if all == 0 => {}
                Ok(write) => write.arrive(&mut content, if all == 1 { 1 } else { chance.below(3) }, chance),
                Err(length) => {
                    if all == 1 || chance.below(2) == 0 {
                        content.resize(length as usize, 0);
                    }
                }
            }
        }
        content
    }
}

impl Write {
    /// `fate`: 0 lost, 1 whole, 2 torn at the borders of sectors.
    fn arrive(&self, content: &mut Vec<u8>, fate: u64, chance: &mut Chance) {
        let mut from = 0;
        while fate > 0 && from < self.bytes.len() {
            let border = SECTOR - (self.position + from as u64) % SECTOR;
            let until = (from + border as usize).min(self.bytes.len());
            if fate == 1 || chance.below(2) == 0 {
                let begin = self.position as usize + from;
                let end = self.position as usize + until;
                content.resize(content.len().max(end), 0);
                content[begin..end].copy_from_slice(&self.bytes[from..until]);
            }
            from = until;
        }
    }
}
