//! Secrets as files: made once, kept for ever, and each in a folder of those who may read it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Owner and group may read, nobody may write: programs that run as other users are given the group.
const MODE: u32 = 0o440;
/// Random bytes of a secret.
const LENGTH: usize = 32;

/// A folder with a folder for each reader.
#[derive(Debug)]
pub(super) struct Secrets {
    root: PathBuf,
}

impl Secrets {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The secret `name` of `reader`, if it has been made.
    pub(super) fn read(&self, reader: &str, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.root.join(reader).join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("the secret {} cannot be read; check its owner and rights", path.display())),
        }
    }

    /// The secret `name` of `reader`; made of random bytes when there is none.
    pub(super) fn ensure(&self, reader: &str, name: &str) -> anyhow::Result<String> {
        if let Some(known) = self.read(reader, name)? {
            return Ok(known);
        }
        let secret = random()?;
        self.write(reader, name, &secret)?;
        Ok(secret)
    }

    /// Puts a secret into its place in one step: half a secret must not look whole after a crash.
    pub(super) fn write(&self, reader: &str, name: &str, secret: &str) -> anyhow::Result<()> {
        let folder = self.root.join(reader);
        let (path, half) = (folder.join(name), folder.join(format!(".{name}.new")));
        let put = || -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            match std::fs::remove_file(&half) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&half)?;
            file.write_all(secret.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&half, &path)
        };
        put().with_context(|| format!("the secret {} cannot be written; check the folder's owner and rights", path.display()))
    }
}

/// Letters and digits only, so that every program's file of settings takes it as it is.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0; LENGTH];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("the system gives no random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_read_by_few() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path());
        assert_eq!(secrets.read("sink", "token").unwrap(), None);
        let first = secrets.ensure("sink", "token").unwrap();
        assert_eq!(first.len(), 2 * LENGTH);
        assert_eq!(secrets.ensure("sink", "token").unwrap(), first);
        assert_ne!(secrets.ensure("grafana", "token").unwrap(), first);
        let path = dir.path().join("sink/token");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        secrets.write("sink", "token", "another").unwrap();
        assert_eq!(secrets.read("sink", "token").unwrap().as_deref(), Some("another"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = format!("{:#}", Secrets::new(file.path()).ensure("sink", "token").unwrap_err());
        assert!(error.contains(&format!("{}/sink/token", file.path().display())), "{error}");
    }
}
