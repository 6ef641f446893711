//! The few ways in which the broker touches its disk. Tests make this seam run out of space, fail, and lose its power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
#[cfg(test)]
use std::sync::Arc;

/// Writes for one log. Cheap to clone; clones share a test's faults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    /// Bytes that may still be written before the disk is full; `None` is a disk without end.
    #[cfg(test)]
    budget: Option<Arc<std::sync::atomic::AtomicI64>>,
    /// Number of coming flushes that fail.
    #[cfg(test)]
    failing_syncs: Option<Arc<std::sync::atomic::AtomicI64>>,
    /// What a power cut would lose.
    #[cfg(test)]
    pub(crate) power: Option<super::power::Power>,
}

impl Disk {
    /// Writes all of `bytes` at `position`; on an error part of them may have been written.
    pub(crate) fn write_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(budget) = &self.budget {
            let left = budget.fetch_sub(bytes.len() as i64, std::sync::atomic::Ordering::SeqCst);
            if left < bytes.len() as i64 {
                budget.fetch_add(bytes.len() as i64, std::sync::atomic::Ordering::SeqCst);
                file.write_all_at(&bytes[..left.max(0) as usize], position)?;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        #[cfg(test)]
        if let Some(power) = &self.power {
            power.writing(file, bytes, position)?;
        }
        file.write_all_at(bytes, position)
    }

    /// Cuts a file, or fills it up with zeros.
    pub(crate) fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(power) = &self.power {
            power.cutting(file, length)?;
        }
        file.set_len(length)
    }

    /// Waits until the file's bytes and length are on disk.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if let Some(failing) = &self.failing_syncs
            && failing.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) > 0
        {
            return Err(io::Error::other("a test wants this flush to fail"));
        }
        #[cfg(test)]
        if let Some(power) = &self.power {
            // The model is the disk; the real one need not work for it.
            return power.synced(file);
        }
        file.sync_data()
    }

    /// As [`Disk::sync`], with all that is known of the file; no test makes it fail.
    pub(crate) fn settle(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if let Some(power) = &self.power {
            return power.synced(file);
        }
        file.sync_all()
    }

    #[cfg(test)]
    pub(crate) fn with_budget(bytes: i64) -> (Self, Arc<std::sync::atomic::AtomicI64>) {
        let budget = Arc::new(std::sync::atomic::AtomicI64::new(bytes));
        (Self { budget: Some(budget.clone()), ..Self::default() }, budget)
    }

    #[cfg(test)]
    pub(crate) fn with_failing_syncs(times: i64) -> Self {
        Self { failing_syncs: Some(Arc::new(std::sync::atomic::AtomicI64::new(times))), ..Self::default() }
    }

    #[cfg(test)]
    pub(crate) fn with_power(power: &super::power::Power) -> Self {
        Self { power: Some(power.clone()), ..Self::default() }
    }
}

/// Opens a log file for reading and writing, creating it when it is missing.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces a small file as a whole: after a crash there is the old content or the new, never half of it.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("tmp");
    let written = File::create(&fresh).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    if let Err(fault) = written {
        // Half a temporary file would only take the space that is missing.
        if let Err(left) = fs::remove_file(&fresh) {
            tracing::debug!(path = %fresh.display(), %left, "a temporary file stays");
        }
        return Err(fault);
    }
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Removes a file; one that is gone already is as good.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
        _ => Ok(()),
    }
}
