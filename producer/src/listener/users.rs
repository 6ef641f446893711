//! Users and hashed passwords, in the format of `mosquitto_passwd`: `name:$7$iterations$salt$hash` (PBKDF2-HMAC-SHA512), or
//! `name:$6$salt$hash` (SHA-512).

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA512};
use ring::pbkdf2;

#[derive(Debug, Default)]
pub(super) struct Users(HashMap<String, Hash>);

enum Hash {
    Pbkdf2 { iterations: NonZeroU32, salt: Vec<u8>, hash: Vec<u8> },
    Sha512 { salt: Vec<u8>, hash: Vec<u8> },
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

impl Users {
    /// # Errors
    /// A sentence with the file and the line.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("users_file: cannot read {}: {error}", path.display()))?;
        Self::parse(&text)
            .map_err(|line| format!("users_file: {} line {line} is no user; `mosquitto_passwd` writes them (name:$7$...)", path.display()))
    }

    /// Or the number of the line that is no user.
    fn parse(text: &str) -> Result<Self, usize> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let user = |(index, line): (usize, &str)| {
            let (name, hash) = line.split_once(':').ok_or(index + 1)?;
            Ok((name.to_owned(), Hash::parse(hash.trim()).ok_or(index + 1)?))
        };
        lines.map(user).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn allows(&self, name: &str, password: &str) -> bool {
        self.0.get(name).is_some_and(|hash| hash.fits(password))
    }
}

impl Hash {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('$')?.split('$');
        let decode = |part: Option<&str>| STANDARD.decode(part?).ok();
        match parts.next()? {
            "7" => {
                let iterations = parts.next()?.parse().ok()?;
                Some(Self::Pbkdf2 { iterations, salt: decode(parts.next())?, hash: decode(parts.next())? })
            }
            "6" => Some(Self::Sha512 { salt: decode(parts.next())?, hash: decode(parts.next())? }),
            _ => None,
        }
    }

    fn fits(&self, password: &str) -> bool {
        match self {
            Self::Pbkdf2 { iterations, salt, hash } => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, salt, password.as_bytes(), hash).is_ok()
            }
            Self::Sha512 { salt, hash } => {
                let mut context = Context::new(&SHA512);
                context.update(password.as_bytes());
                context.update(salt);
                context.finish().as_ref() == hash.as_slice()
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_mosquittos_tool_fit() {
        let mut hash = [0; 64];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, NonZeroU32::new(101).unwrap(), b"salt", b"secret", &mut hash);
        let file = format!("# devices\n\npump:$7$101${}${}\n", STANDARD.encode(b"salt"), STANDARD.encode(hash));
        let users = Users::parse(&file).unwrap();
        assert!(users.allows("pump", "secret"));
        for (name, password) in [("pump", "Secret"), ("pump", ""), ("fan", "secret")] {
            assert!(!users.allows(name, password), "{name} {password}");
        }
    }

    #[test]
    fn a_line_that_is_no_user_is_named() {
        for (file, line) in [("a", 1), ("\na:secret", 2), ("a:$7$0$AA==$AA==", 1), ("a:$7$x$AA==$AA==", 1), ("a:$6$*$*", 1)] {
            assert_eq!(Users::parse(file).err(), Some(line), "{file}");
        }
    }
}
