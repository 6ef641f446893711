//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, 7677), the broker's side, without channel binding as Kafka has it.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SecureRandom as _;
use ring::{digest, hmac, pbkdf2, rand};

/// Kafka's default number of rounds.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }

    fn salted(self, password: &str, salt: &[u8]) -> Vec<u8> {
        let (algorithm, bytes) = match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        };
        let mut out = vec![0; bytes];
        pbkdf2::derive(algorithm, ROUNDS, salt, password.as_bytes(), &mut out);
        out
    }

    fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text).as_ref().to_vec()
    }
}

/// What the broker needs to know of a password.
pub(crate) struct Credentials {
    hash: Hash,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

/// No random numbers can be had.
#[derive(Debug)]
pub(crate) struct NoRandom;

fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut out = [0; N];
    rand::SystemRandom::new().fill(&mut out).map_err(|_| NoRandom)?;
    Ok(out)
}

impl Credentials {
    pub(crate) fn new(hash: Hash, password: &str) -> Result<Self, NoRandom> {
        let salt = random::<16>()?.to_vec();
        let salted = hash.salted(password, &salt);
        let stored_key = hash.digest(&hash.sign(&salted, b"Client Key"));
        let server_key = hash.sign(&salted, b"Server Key");
        Ok(Self { hash, salt, stored_key, server_key })
    }
}

/// A client's first message, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    pub(crate) user: String,
    nonce: String,
    bare: String,
}

impl ClientFirst {
    /// `n,,n=user,r=nonce`; `None` when it is something else.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        // No channel binding, and nobody acts for another.
        let (_, rest) = text.split_once(',').filter(|(flag, _)| matches!(*flag, "n" | "y"))?;
        let (authzid, bare) = rest.split_once(',')?;
        let mut fields = bare.split(',');
        let user = fields.next()?.strip_prefix("n=")?.replace("=2C", ",").replace("=3D", "=");
        let nonce = fields.next()?.strip_prefix("r=").filter(|nonce| !nonce.is_empty())?;
        let own = authzid.is_empty() || authzid.strip_prefix("a=") == Some(user.as_str());
        own.then(|| Self { nonce: nonce.to_owned(), bare: bare.to_owned(), user })
    }
}

/// What has been said so far.
pub(crate) struct Exchange {
    nonce: String,
    said: String,
}

/// Answers a first message: the exchange, and what to send.
pub(crate) fn challenge(first: &ClientFirst, credentials: &Credentials) -> Result<(Exchange, String), NoRandom> {
    let nonce = format!("{}{}", first.nonce, STANDARD.encode(random::<18>()?).replace(',', ""));
    let message = format!("r={nonce},s={},i={ROUNDS}", STANDARD.encode(&credentials.salt));
    let said = format!("{},{message}", first.bare);
    Ok((Exchange { nonce, said }, message))
}

impl Exchange {
    /// Checks the client's proof; what to send when it is right.
    pub(crate) fn prove(&self, message: &[u8], credentials: &Credentials) -> Option<String> {
        let text = std::str::from_utf8(message).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut fields = without_proof.split(',');
        let binding = STANDARD.decode(fields.next()?.strip_prefix("c=")?).ok()?;
        let bound = binding.starts_with(b"n,") || binding.starts_with(b"y,");
        if !bound || fields.next()?.strip_prefix("r=")? != self.nonce {
            return None;
        }
        let said = format!("{},{without_proof}", self.said);
        let signature = credentials.hash.sign(&credentials.stored_key, said.as_bytes());
        let proof = STANDARD.decode(proof).ok().filter(|proof| proof.len() == signature.len())?;
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        // Both sides are hashes: the time that the comparison takes tells nothing of the password.
        (credentials.hash.digest(&client_key) == credentials.stored_key)
            .then(|| format!("v={}", STANDARD.encode(credentials.hash.sign(&credentials.server_key, said.as_bytes()))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// A client of our own, by the book.
    fn run(hash: Hash, password: &str, tried: &str) -> Option<String> {
        let credentials = Credentials::new(hash, password).ok().unwrap();
        let first = ClientFirst::parse(b"n,,n=al=2Cice,r=abc").unwrap();
        assert_eq!(first.user, "al,ice");
        let (exchange, challenge) = challenge(&first, &credentials).ok().unwrap();
        let nonce = challenge.split(',').next().unwrap();
        assert!(nonce.starts_with("r=abc") && nonce.len() > 20);
        let said = format!("n=al=2Cice,r=abc,{challenge},c=biws,{nonce}");
        let salted = hash.salted(tried, &credentials.salt);
        let client_key = hash.sign(&salted, b"Client Key");
        let signature = hash.sign(&hash.digest(&client_key), said.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        exchange.prove(format!("c=biws,{nonce},p={}", STANDARD.encode(proof)).as_bytes(), &credentials)
    }

    #[test]
    fn the_right_password_is_proven_and_a_wrong_one_is_not() {
        for hash in [Hash::Sha256, Hash::Sha512] {
            assert!(run(hash, "secret", "secret").unwrap().starts_with("v="));
            assert_eq!(run(hash, "secret", "Secret"), None);
        }
    }

    #[test]
    fn the_example_of_the_standard_comes_out() {
        // RFC 7677, section 3.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let hash = Hash::Sha256;
        let salted = hash.salted("pencil", &salt);
        let stored_key = hash.digest(&hash.sign(&salted, b"Client Key"));
        let credentials = Credentials { hash, salt, stored_key, server_key: hash.sign(&salted, b"Server Key") };
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let said = format!("n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let exchange = Exchange { nonce: nonce.to_owned(), said };
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let answer = exchange.prove(last.as_bytes(), &credentials);
        assert_eq!(answer.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn other_messages_are_no_first_message() {
        for wrong in [&b""[..], b"p=tls,,n=a,r=b", b"n,,n=a", b"n,,r=b,n=a", b"n,a=other,n=a,r=b", b"\xff", b"n,,n=a,r="] {
            assert_eq!(ClientFirst::parse(wrong), None);
        }
    }
}
