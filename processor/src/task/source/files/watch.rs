//! What is in the directory, and what of it is new.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::super::super::error::TaskError;
use super::log::Met;
use crate::query::file::FileOrder;

/// How often the directory is looked into.
const EVERY: Duration = Duration::from_millis(250);

pub(super) struct Watch {
    folder: PathBuf,
    order: FileOrder,
    /// Only what was there at the start counts.
    bounded: bool,
    /// Files that were met, and whether they were read before this run.
    seen: HashMap<String, bool>,
    looked: Option<Instant>,
}

impl Watch {
    pub(super) fn new(folder: PathBuf, order: FileOrder, bounded: bool, seen: HashMap<String, bool>) -> Self {
        Self { folder, order, bounded, seen, looked: None }
    }

    /// The files that are new, in order; none when it is too early for another look.
    pub(super) fn look(&mut self) -> Result<Vec<Met>, TaskError> {
        if self.looked.is_some_and(|looked| self.bounded || looked.elapsed() < EVERY) {
            return Ok(Vec::new());
        }
        self.looked = Some(Instant::now());
        let there = list(&self.folder)?;
        // A file that has vanished and comes again is another one.
        let names: std::collections::HashSet<&str> = there.iter().map(|met| met.file.as_str()).collect();
        self.seen.retain(|name, _| names.contains(name.as_str()));
        let mut new: Vec<Met> = there.into_iter().filter(|met| !self.seen.contains_key(&met.file)).collect();
        match self.order {
            FileOrder::Time => new.sort_by(|one, other| (one.modified, &one.file).cmp(&(other.modified, &other.file))),
            FileOrder::Name => new.sort_by(|one, other| one.file.cmp(&other.file)),
        }
        self.seen.extend(new.iter().map(|met| (met.file.clone(), false)));
        Ok(new)
    }

    /// Whether nothing new is there just now.
    pub(super) fn is_empty(&self) -> bool {
        self.bounded || list(&self.folder).is_ok_and(|there| there.iter().all(|met| self.seen.contains_key(&met.file)))
    }

    /// Waits for the next look.
    pub(super) fn wait(&self, patience: Duration) {
        let left = self.looked.map_or(Duration::ZERO, |looked| EVERY.saturating_sub(looked.elapsed()));
        // Directories do not tell by themselves on every file system, so they are asked.
        std::thread::sleep(patience.min(left));
    }

    pub(super) fn is_as_met(&self, met: &Met) -> bool {
        is_there(&self.folder, met)
    }

    pub(super) fn forget(&mut self, file: &str) {
        self.seen.remove(file);
    }
}

/// All files of the directory but hidden ones, which begin with a dot or `_`, and those whose names are no text.
fn list(folder: &Path) -> Result<Vec<Met>, TaskError> {
    let fault = |error: std::io::Error| TaskError::Retry(format!("the directory {} cannot be read: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let name = entry.map_err(fault)?.file_name();
        let Some(name) = name.to_str() else {
            tracing::debug!(?name, "a file whose name is not UTF-8 is not read");
            continue;
        };
        if !name.starts_with(['.', '_']) {
            // It may have gone since.
            files.extend(met(folder, name));
        }
    }
    Ok(files)
}

/// A file as it is now; `None` when it is none.
pub(super) fn met(folder: &Path, file: &str) -> Option<Met> {
    let metadata = std::fs::metadata(folder.join(file)).ok().filter(std::fs::Metadata::is_file)?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Some(Met { file: file.to_owned(), size: metadata.len(), modified: i64::try_from(modified).unwrap_or(i64::MAX) })
}

/// Whether a file is still what it was when it was met.
pub(super) fn is_there(folder: &Path, file: &Met) -> bool {
    met(folder, &file.file).as_ref() == Some(file)
}

/// Moves a file into the archive, under a free name.
pub(super) fn archive(path: &Path, archive: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(archive)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut target = archive.join(&name);
    let mut number = 0;
    while target.exists() {
        number += 1;
        target = archive.join(format!("{name}.{number}"));
    }
    std::fs::rename(path, target)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn watch(folder: &Path, order: FileOrder) -> Watch {
        Watch { looked: None, ..Watch::new(folder.to_owned(), order, false, HashMap::new()) }
    }

    fn names(met: &[Met]) -> Vec<&str> {
        met.iter().map(|met| met.file.as_str()).collect()
    }

    #[test]
    fn files_come_by_time_or_by_name_and_hidden_ones_never() {
        let folder = tempfile::tempdir().unwrap();
        for (name, seconds) in [("b", 10), ("a", 30), ("c", 20), (".tmp", 1), ("_SUCCESS", 1)] {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        }
        std::fs::create_dir(folder.path().join("d")).unwrap();
        let mut by_time = watch(folder.path(), FileOrder::Time);
        assert_eq!(names(&by_time.look().unwrap()), ["b", "c", "a"]);
        assert_eq!(names(&watch(folder.path(), FileOrder::Name).look().unwrap()), ["a", "b", "c"]);
        assert!(by_time.is_empty());
        // What was met is not met again, unless it was gone meanwhile.
        by_time.looked = None;
        assert!(by_time.look().unwrap().is_empty());
        std::fs::remove_file(folder.path().join("c")).unwrap();
        by_time.looked = None;
        assert!(by_time.look().unwrap().is_empty());
        std::fs::write(folder.path().join("c"), "").unwrap();
        assert!(!by_time.is_empty());
        by_time.looked = None;
        assert_eq!(names(&by_time.look().unwrap()), ["c"]);
    }

    #[test]
    fn an_archive_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("a.csv"), folder.path().join("old"));
        for text in ["one", "two"] {
            std::fs::write(&path, text).unwrap();
            archive(&path, &old).unwrap();
        }
        assert_eq!(std::fs::read_to_string(old.join("a.csv")).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(old.join("a.csv.1")).unwrap(), "two");
    }
}
