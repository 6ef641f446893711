//! SQLite's faults as sentences, and as what to do next.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::writer::{KEEPS_TRYING, WriteError};

/// The file that was opened.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Device and inode at the time of opening.
    identity: Option<(u64, u64)>,
}

impl Place {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }

    /// SQLite would go on writing into a deleted file, and every row would be lost without a word.
    pub(super) fn check_still_there(&self) -> Result<(), WriteError> {
        if identity(&self.path) == self.identity {
            return Ok(());
        }
        Err(WriteError::Fatal(format!(
            "the database {} was moved, deleted or replaced while it was open; put it back, or start again for a new one",
            self.path.display()
        )))
    }

    pub(super) fn fault(&self, error: &rusqlite::Error) -> WriteError {
        let path = self.path.display();
        let retry = |detail: String| WriteError::Retry { detail, after: None };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                retry(format!("the database {path} is locked by another program; the sink waits until it is released"))
            }
            Some(ErrorCode::DiskFull) => {
                retry(format!("the disk of the database {path} is full; free some space, and the sink goes on by itself"))
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted) => {
                retry(format!("the database {path} cannot be written now ({error}){KEEPS_TRYING}"))
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => WriteError::Fatal(format!(
                "the database {path} cannot be written ({error}); give this user write access to the file and its folder, then start again"
            )),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => WriteError::Fatal(corrupt(&self.path)),
            _ => WriteError::Fatal(format!("the database {path} refuses the write ({error}); check the file with the sqlite3 shell")),
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<(u64, u64)> {
    path.exists().then_some((0, 0))
}

fn corrupt(path: &Path) -> String {
    format!(
        "the database {} is damaged; restore it from a copy, or move it away and start again: results that are still in the log are written anew when the consumer group is reset",
        path.display()
    )
}

/// A fault while opening.
pub(super) fn open_fault(path: &Path, error: &rusqlite::Error) -> WriteError {
    WriteError::Fatal(match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            format!("{} is not an SQLite database; name another file with --sqlite-path", path.display())
        }
        Some(ErrorCode::DatabaseCorrupt) => corrupt(path),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => format!(
            "the database {} is locked by another program; end that program, or name another file with --sqlite-path",
            path.display()
        ),
        Some(ErrorCode::DiskFull) => format!("the disk of the database {} is full; free some space and start again", path.display()),
        _ => format!(
            "the database {} cannot be opened ({error}); check that this user may write there, or name another file with --sqlite-path",
            path.display()
        ),
    })
}

pub(super) fn open_io_fault(path: &Path, error: &std::io::Error) -> WriteError {
    WriteError::Fatal(format!(
        "the folder of the database {} cannot be created ({error}); name another file with --sqlite-path",
        path.display()
    ))
}
