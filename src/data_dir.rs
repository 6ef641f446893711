//! Where the appliance keeps its log, state and store.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

/// The folder of `settings`, or the platform's data directory for this program; created when missing.
///
/// # Errors
/// When there is none, or it cannot be made.
pub(crate) fn prepare(wanted: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match wanted {
        Some(path) => path.to_owned(),
        None => directories::ProjectDirs::from("", "", "tidemark")
            .map(|dirs| dirs.data_dir().to_owned())
            .ok_or_else(|| anyhow!("there is no home directory to keep data in; give one with --data-dir DIR"))?,
    };
    std::fs::create_dir_all(&path)
        .with_context(|| format!("the data directory {} cannot be made; choose another with --data-dir DIR", path.display()))?;
    // Absolute, so that what is printed says where to look.
    path.canonicalize().with_context(|| format!("the data directory {} cannot be opened", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_when_missing_and_said_when_it_cannot_be() {
        let dir = tempfile::tempdir().unwrap();
        let made = prepare(Some(&dir.path().join("a/b"))).unwrap();
        assert!(made.is_dir() && made.is_absolute());
        std::fs::write(dir.path().join("file"), "").unwrap();
        let fault = format!("{:#}", prepare(Some(&dir.path().join("file/b"))).unwrap_err());
        assert!(fault.contains("file/b") && fault.contains("--data-dir"), "{fault}");
    }
}
