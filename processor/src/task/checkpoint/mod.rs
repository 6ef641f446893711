//! State and positions in a directory, for queries whose source or sink is outside Kafka.
//!
//! ```text
//! DIR/lock                 held by the program that runs the query
//!     versions/N.entry     what step N changed (journal.rs)
//!     versions/N.snapshot  the whole state after step N
//!     delivered            the newest batch that the sink has
//!     staged/N             rows of step N that go out once its entry is there
//!     source/...           what the source must remember: which files it has met, when it began
//!     lanes/dead/N.jsonl   rows of step N that nobody could read, and under `late` those that came too late
//! ```
//! Every file is written beside its place, synced, and put there by a rename, so that it is whole or not there; the directory is synced
//! after it. Files that hold state carry a checksum, because disks forget as well.

mod frame;
mod journal;
mod peek;
mod restore;

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use frame::{open_frame, seal};
pub(crate) use journal::Directory;
pub(crate) use peek::peek;
pub(crate) use restore::restore;

use super::error::TaskError;

/// So many entries are read back at most, however small they are: each is a file.
pub(crate) const MOST_ENTRIES: u64 = 1000;

/// Where a query keeps what it must remember.
#[derive(Debug)]
pub(crate) struct CheckpointDir {
    path: PathBuf,
    /// It goes with the run; nothing in it needs to outlive the machine.
    temporary: bool,
}

impl CheckpointDir {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), temporary: false }
    }

    /// A directory that is deleted at the end of the run.
    pub(crate) fn temporary(query: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("tidemark-{query}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { path: std::env::temp_dir().join(name), temporary: true }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory and takes its lock.
    ///
    /// # Errors
    /// When it cannot be had, or another program has it.
    pub(crate) fn open(&self) -> Result<Checkpoint, TaskError> {
        let checkpoint = Checkpoint { path: self.path.clone(), durable: !self.temporary, lock: None };
        for folder in ["versions", "staged", "source", "lanes/late", "lanes/dead"] {
            checkpoint.io(folder, std::fs::create_dir_all(self.path.join(folder)))?;
        }
        let lock = checkpoint.io("lock", File::create(self.path.join("lock")))?;
        match lock.try_lock() {
            Ok(()) => Ok(Checkpoint { lock: Some(lock), ..checkpoint }),
            Err(std::fs::TryLockError::WouldBlock) => Err(TaskError::Fatal(format!(
                "the checkpoint directory {} is in use by another program; end it first, or give this query a directory of its own",
                self.path.display()
            ))),
            Err(std::fs::TryLockError::Error(error)) => checkpoint.io("lock", Err(error)),
        }
    }
}

impl Drop for CheckpointDir {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a directory of this run could not be deleted");
        }
    }
}

/// An opened checkpoint directory; nobody else writes to it.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    durable: bool,
    /// Held for as long as this is.
    #[allow(dead_code)]
    lock: Option<File>,
}

impl Checkpoint {
    /// A file of it, by its name relative to the directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Puts a file of `source/` into its place as a whole.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TaskError> {
        let name = format!("source/{name}");
        self.io(&name, write_whole(&self.file(&name), bytes, self.durable))
    }

    /// The text of a file of `source/`; `None` when there is none.
    pub(crate) fn read_text(&self, name: &str) -> Result<Option<String>, TaskError> {
        let name = format!("source/{name}");
        match std::fs::read_to_string(self.file(&name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => self.io(&name, read).map(Some),
        }
    }

    /// Of a file that cannot be used, and without which nothing goes on.
    pub(crate) fn damaged(&self, name: &str, cause: &str) -> TaskError {
        TaskError::Fatal(format!(
            "the file {} of the checkpoint cannot be used: {cause}; bring it back from a copy, or begin anew with another checkpoint \
             directory",
            self.file(name).display()
        ))
    }

    /// Words a fault of the file system.
    pub(crate) fn io<T>(&self, name: &str, result: std::io::Result<T>) -> Result<T, TaskError> {
        result.map_err(|error| TaskError::Retry(format!("the checkpoint directory: {}: {error}", self.file(name).display())))
    }

    /// The numbers of the files of a folder with this ending, in order.
    pub(crate) fn numbers(&self, folder: &str, ending: &str) -> Result<Vec<i64>, TaskError> {
        let mut numbers = Vec::new();
        for entry in self.io(folder, std::fs::read_dir(self.file(folder)))? {
            let name = self.io(folder, entry)?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(ending));
            numbers.extend(stem.and_then(|stem| stem.parse::<i64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Deletes a file; it may be gone.
    pub(crate) fn remove(&self, name: &str) -> Result<(), TaskError> {
        match std::fs::remove_file(self.file(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => self.io(name, removed),
        }
    }
}

/// The name of a numbered file, which sorts by its number.
pub(crate) fn numbered(number: i64) -> String {
    format!("{number:020}")
}

/// Writes a file beside its place and puts it there by a rename. With `durable` it is there after a power cut, too.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], durable: bool) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Hidden, so that nobody who watches the directory takes it for a file.
    let beside = folder.join(format!(".{name}.tmp"));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    drop(file);
    std::fs::rename(&beside, path)?;
    if durable { sync_folder(folder) } else { Ok(()) }
}

/// Makes the names in a directory last.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}
