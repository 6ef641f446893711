//! The users of a listener beyond this machine, from a file that only its operator can read.
//!
//! ```toml
//! [users.gateway]
//! password = "…"                  # or password_file = "…"
//! read = ["iot", "iot.agg.*"]     # topics; `*` at the end stands for any ending
//! write = ["iot"]
//! groups = ["gateway-*"]          # consumer groups
//! transactional_ids = ["gateway-*"]
//! admin = false                   # true: everything, topics and settings included
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::scram::{Credentials, Hash};
use crate::error::BrokerError;

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act<'a> {
    Read(&'a str),
    Write(&'a str),
    /// See that a topic exists.
    See(&'a str),
    /// Create, delete or alter a topic.
    Manage(&'a str),
    Group(&'a str),
    Transaction(&'a str),
    /// See or alter what concerns the whole broker.
    Administer,
}

/// On whose behalf a connection acts.
#[derive(Debug, Clone, Default)]
pub(crate) enum Principal {
    /// Somebody on this machine, on the listener that asks no questions.
    Local,
    /// Nobody yet.
    #[default]
    Unknown,
    User(Arc<User>),
}

/// A user, with what is needed to recognise it.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    rights: Rights,
    pub(crate) secrets: Secrets,
}

/// Kept apart so that nothing prints it.
pub(crate) struct Secrets {
    pub(crate) password: String,
    pub(crate) sha256: Credentials,
    pub(crate) sha512: Credentials,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

#[derive(Debug, Clone, Default)]
struct Rights {
    read: Vec<String>,
    write: Vec<String>,
    groups: Vec<String>,
    transactional_ids: Vec<String>,
    admin: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    users: BTreeMap<String, UserEntry>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UserEntry {
    password: Option<String>,
    password_file: Option<std::path::PathBuf>,
    read: Vec<String>,
    write: Vec<String>,
    groups: Vec<String>,
    transactional_ids: Vec<String>,
    admin: bool,
}

/// All users, by name.
#[derive(Debug, Default)]
pub(crate) struct Users(BTreeMap<String, Arc<User>>);

impl Users {
    /// Reads the users' file.
    ///
    /// # Errors
    /// [`BrokerError::Security`] with what is wrong and where. No secret is part of it.
    pub(crate) fn load(path: &Path) -> Result<Self, BrokerError> {
        let fault = |detail: String| BrokerError::Security { path: path.to_path_buf(), detail };
        let text = fs::read_to_string(path).map_err(|error| fault(format!("cannot be read ({error})")))?;
        let file: UsersFile = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            fault(format!("is not understood near line {line}: {}", error.message()))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut users = BTreeMap::new();
        for (name, entry) in file.users {
            let user = entry.into_user(&name, folder).map_err(|detail| fault(format!("has a fault in user '{name}': {detail}")))?;
            users.insert(name, Arc::new(user));
        }
        if users.is_empty() {
            return Err(fault("names no user".to_owned()));
        }
        Ok(Self(users))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<User>> {
        self.0.get(name)
    }
}

impl UserEntry {
    fn into_user(self, name: &str, folder: &Path) -> Result<User, String> {
        let password = match (self.password, self.password_file) {
            (Some(password), None) => password,
            (None, Some(file)) => {
                let file = folder.join(file);
                let text = fs::read_to_string(&file).map_err(|error| format!("{} cannot be read ({error})", file.display()))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            _ => return Err("give either password or password_file".to_owned()),
        };
        if password.is_empty() {
            return Err("the password is empty".to_owned());
        }
        if name.is_empty() || name.contains([',', '=', '\0']) {
            return Err("a user's name has no comma, no equals sign and is not empty".to_owned());
        }
        let credentials = |hash| Credentials::new(hash, &password).map_err(|_| "this machine gives no random numbers".to_owned());
        let (sha256, sha512) = (credentials(Hash::Sha256)?, credentials(Hash::Sha512)?);
        let rights = Rights {
            read: self.read,
            write: self.write,
            groups: self.groups,
            transactional_ids: self.transactional_ids,
            admin: self.admin,
        };
        Ok(User { name: name.to_owned(), rights, secrets: Secrets { password, sha256, sha512 } })
    }
}

impl Principal {
    pub(crate) fn may(&self, act: Act<'_>) -> bool {
        match self {
            Self::Local => true,
            Self::Unknown => false,
            Self::User(user) => user.rights.allow(act),
        }
    }
}

impl Rights {
    fn allow(&self, act: Act<'_>) -> bool {
        let among = |patterns: &[String], name: &str| patterns.iter().any(|pattern| matches(pattern, name));
        self.admin
            || match act {
                Act::Read(topic) => among(&self.read, topic),
                Act::Write(topic) => among(&self.write, topic),
                Act::See(topic) => among(&self.read, topic) || among(&self.write, topic),
                Act::Group(group) => among(&self.groups, group),
                Act::Transaction(id) => among(&self.transactional_ids, id),
                Act::Manage(_) | Act::Administer => false,
            }
    }
}

/// `iot` is itself, `iot*` everything that begins so.
fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Users, BrokerError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "hunter2\n").unwrap();
        fs::write(dir.path().join("users.toml"), text).unwrap();
        Users::load(&dir.path().join("users.toml"))
    }

    #[test]
    fn rights_are_what_the_file_says_and_nothing_more() {
        let users = load(
            "[users.a]\npassword_file = 'secret'\nread = ['iot', 'agg.*']\ngroups = ['*']\n[users.root]\npassword = 'x'\nadmin = true",
        )
        .unwrap();
        let a = Principal::User(users.get("a").unwrap().clone());
        assert_eq!(users.get("a").unwrap().secrets.password, "hunter2");
        for act in [Act::Read("iot"), Act::See("iot"), Act::Read("agg.x"), Act::Group("any")] {
            assert!(a.may(act), "{act:?}");
        }
        for act in [Act::Write("iot"), Act::Read("iot2"), Act::Manage("iot"), Act::Transaction("t"), Act::Administer] {
            assert!(!a.may(act), "{act:?}");
        }
        assert!(Principal::User(users.get("root").unwrap().clone()).may(Act::Administer));
        assert!(!Principal::Unknown.may(Act::See("iot")));
    }

    #[test]
    fn faults_name_the_place_and_no_secret() {
        for (text, part) in [
            ("[users.a]\npassword = 'hunter2'\nreed = ['x']", "near line"),
            ("[users.a]\nread = ['x']", "user 'a'"),
            ("[users.a]\npassword = ''", "empty"),
            ("[users]", "names no user"),
            ("users = 5", "near line 1"),
        ] {
            let fault = load(text).unwrap_err().to_string();
            assert!(fault.contains(part) && fault.contains("users.toml") && !fault.contains("hunter2"), "{fault}");
        }
        assert!(!format!("{:?}", load("[users.a]\npassword = 'hunter2'").unwrap()).contains("hunter2"));
    }
}
