//! What can keep a broker from starting or stopping, each as one sentence: what, where, what to do.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A fault that concerns the whole broker. Faults of one request are answered to the client instead.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Another process listens on the wanted address.
    #[error("the address {addr} is already in use: stop the program that uses it, or choose another port (0 takes a free one)")]
    PortInUse { addr: SocketAddr },
    /// The address cannot be bound for another reason.
    #[error("cannot listen on {addr}: {source}; choose an address of this machine")]
    Bind { addr: SocketAddr, source: io::Error },
    /// Another broker has the data directory.
    #[error("the data directory {} is in use by another broker: stop it, or choose another directory", .path.display())]
    Locked { path: PathBuf },
    /// The data directory or something in it cannot be written.
    #[error("cannot write {}: {source}; give this user write access or choose another data directory", .path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// No space is left.
    #[error("the disk is full: cannot write {}; free some space and start again, nothing is lost", .path.display())]
    DiskFull { path: PathBuf },
    /// The data was written by another version of this program.
    #[error("{} has format version {found}, this program reads version {supported}: use the matching program or an empty data directory", .path.display())]
    Format { path: PathBuf, found: u64, supported: u64 },
    /// A log file is damaged before its end, which a crash alone cannot do.
    #[error("{} is damaged at byte {at} ({detail}) and has valid batches after it: restore the file from a copy, or remove the topic's folder to give its records up", .file.display())]
    Corrupt { file: PathBuf, at: u64, detail: String },
    /// A file of the broker's own book-keeping is missing or unreadable.
    #[error("{} {detail}: restore it from a copy, or use an empty data directory", .path.display())]
    Damaged { path: PathBuf, detail: String },
    /// Users, a certificate or its key cannot be used.
    #[error("{} {detail}: correct it and start again", .path.display())]
    Security { path: PathBuf, detail: String },
    /// Any other fault of the file system.
    #[error("cannot {action} {}: {source}; check the disk and the path", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// Some records may not be on disk, though they are in the page cache.
    #[error("the last flush of {} failed: {detail}; check the disk, unacknowledged records may be missing", .path.display())]
    Flush { path: PathBuf, detail: String },
}

impl BrokerError {
    /// Names an I/O fault by what the operator can do about it.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
                Self::Unwritable { path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }
}
