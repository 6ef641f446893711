//! Open files, counted: with many partitions only some may keep their active segment open.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::disk;

/// Active segments that stay open between writes; beyond this number each is opened for the write and closed after its flush.
const KEPT_OPEN: usize = 256;

/// How many log files are open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files(Arc<AtomicUsize>);

/// A log file, counted as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    files: Files,
}

impl Files {
    /// Opens a log file for reading and writing, creating it when it is missing.
    pub(crate) fn open_log(&self, path: &Path) -> io::Result<Arc<OpenFile>> {
        disk::open_log(path).map(|file| self.count(file))
    }

    /// Opens a log file for reading.
    pub(crate) fn open_read(&self, path: &Path) -> io::Result<Arc<OpenFile>> {
        File::open(path).map(|file| self.count(file))
    }

    fn count(&self, file: File) -> Arc<OpenFile> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Arc::new(OpenFile { file, files: self.clone() })
    }

    /// Whether a file that is not needed now should be closed.
    pub(crate) fn are_many(&self) -> bool {
        self.0.load(Ordering::Relaxed) > KEPT_OPEN
    }

    pub(crate) fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl OpenFile {
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.files.0.fetch_sub(1, Ordering::Relaxed);
    }
}
