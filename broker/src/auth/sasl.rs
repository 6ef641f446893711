//! SASL on one connection: which mechanism, how far it has come, and who the client has turned out to be.

use std::sync::Arc;

use super::scram::{ClientFirst, Credentials, Exchange, Hash, challenge};
use super::users::{Principal, User, Users};

/// Kafka's names of what is understood.
pub(crate) const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

enum Step {
    /// No mechanism has been chosen.
    Start,
    Plain,
    ScramFirst(Hash),
    ScramLast(Hash, Exchange, Arc<User>),
    Done,
}

/// The authentication of one connection.
pub(crate) struct Sasl {
    users: Arc<Users>,
    step: Step,
}

/// The client is not who it says, or does not follow the mechanism. Never says which.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// What to send, and the client, once it is known.
#[derive(Debug)]
pub(crate) struct Advanced {
    pub(crate) answer: Vec<u8>,
    pub(crate) principal: Option<Principal>,
}

impl std::fmt::Debug for Sasl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sasl")
    }
}

impl Sasl {
    pub(crate) fn new(users: Arc<Users>) -> Self {
        Self { users, step: Step::Start }
    }

    /// Chooses a mechanism; `false` when it is not there.
    pub(crate) fn choose(&mut self, mechanism: &str) -> bool {
        self.step = match mechanism {
            "PLAIN" => Step::Plain,
            "SCRAM-SHA-256" => Step::ScramFirst(Hash::Sha256),
            "SCRAM-SHA-512" => Step::ScramFirst(Hash::Sha512),
            _ => return false,
        };
        true
    }

    /// Takes the client's next message. After a refusal nothing more is accepted.
    pub(crate) fn advance(&mut self, message: &[u8]) -> Result<Advanced, Refused> {
        match std::mem::replace(&mut self.step, Step::Start) {
            Step::Plain => {
                let user = self.plain(message).ok_or(Refused)?;
                self.step = Step::Done;
                Ok(Advanced { answer: Vec::new(), principal: Some(Principal::User(user)) })
            }
            Step::ScramFirst(hash) => {
                let first = ClientFirst::parse(message).ok_or(Refused)?;
                let user = self.users.get(&first.user).ok_or(Refused)?.clone();
                let (exchange, answer) = challenge(&first, credentials(&user, hash)).map_err(|_| Refused)?;
                self.step = Step::ScramLast(hash, exchange, user);
                Ok(Advanced { answer: answer.into_bytes(), principal: None })
            }
            Step::ScramLast(hash, exchange, user) => {
                let answer = exchange.prove(message, credentials(&user, hash)).ok_or(Refused)?;
                self.step = Step::Done;
                Ok(Advanced { answer: answer.into_bytes(), principal: Some(Principal::User(user)) })
            }
            Step::Start | Step::Done => Err(Refused),
        }
    }

    /// `authorization id, NUL, user, NUL, password`.
    fn plain(&self, message: &[u8]) -> Option<Arc<User>> {
        let mut parts = message.split(|byte| *byte == 0).map(std::str::from_utf8);
        let (authzid, name, password) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        if parts.next().is_some() || !(authzid.is_empty() || authzid == name) {
            return None;
        }
        let user = self.users.get(name)?;
        same(password.as_bytes(), user.secrets.password.as_bytes()).then(|| user.clone())
    }
}

fn credentials(user: &User, hash: Hash) -> &Credentials {
    match hash {
        Hash::Sha256 => &user.secrets.sha256,
        Hash::Sha512 => &user.secrets.sha512,
    }
}

/// Compares digests, so that the time it takes tells nothing of where the texts differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let digest = |bytes| ring::digest::digest(&ring::digest::SHA256, bytes);
    digest(a).as_ref() == digest(b).as_ref()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn sasl() -> Sasl {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("users.toml"), "[users.ann]\npassword = 'p'").unwrap();
        Sasl::new(Arc::new(Users::load(&dir.path().join("users.toml")).unwrap()))
    }

    #[test]
    fn plain_takes_the_right_password_only() {
        let tried = |message: &[u8]| {
            let mut sasl = sasl();
            assert!(sasl.choose("PLAIN"));
            sasl.advance(message).map(|advanced| advanced.principal.is_some())
        };
        assert_eq!(tried(b"\0ann\0p"), Ok(true));
        assert_eq!(tried(b"ann\0ann\0p"), Ok(true));
        for wrong in [&b"\0ann\0q"[..], b"\0bob\0p", b"bob\0ann\0p", b"\0ann", b"", b"\0ann\0p\0", b"\xff\0ann\0p"] {
            assert_eq!(tried(wrong), Err(Refused));
        }
    }

    #[test]
    fn nothing_goes_without_a_mechanism_or_after_a_refusal() {
        let mut sasl = sasl();
        assert!(sasl.advance(b"\0ann\0p").is_err());
        assert!(!sasl.choose("GSSAPI"));
        assert!(sasl.choose("SCRAM-SHA-256"));
        assert!(sasl.advance(b"n,,n=ann,r=x").is_ok());
        assert!(sasl.advance(b"c=biws,r=x,p=AAAA").is_err());
        assert!(sasl.advance(b"c=biws,r=x,p=AAAA").is_err());
    }
}
