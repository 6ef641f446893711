//! The client of one connection: where it is, where it reaches us, who it is.

use std::sync::{Arc, Mutex, PoisonError};

use kafka_protocol::messages::ApiKey;

use crate::auth::sasl::{Advanced, Refused, Sasl};
use crate::auth::users::Principal;

/// What the clients of a listener are told to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advertised {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its address with a slash before it, as Kafka shows it in the description of groups.
    pub(crate) host: String,
    pub(crate) advertised: Advertised,
    /// `None` on the listener that asks no questions.
    sasl: Option<Mutex<(Sasl, Principal)>>,
}

impl Client {
    pub(crate) fn new(host: String, advertised: Advertised, sasl: Option<Sasl>) -> Arc<Self> {
        Arc::new(Self { host, advertised, sasl: sasl.map(|sasl| Mutex::new((sasl, Principal::Unknown))) })
    }

    #[cfg(test)]
    pub(crate) fn local(host: &str) -> Arc<Self> {
        Self::new(host.to_owned(), Advertised { host: "127.0.0.1".to_owned(), port: 9092 }, None)
    }

    pub(crate) fn principal(&self) -> Principal {
        let Some(sasl) = &self.sasl else { return Principal::Local };
        sasl.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Whether it has said who it is, or need not.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self.principal(), Principal::Unknown)
    }

    /// Whether it may send such a request yet: before it is known, only what leads there.
    pub(super) fn may_send(&self, key: ApiKey) -> bool {
        let leads_there = matches!(key, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
        leads_there || self.is_known()
    }

    pub(super) fn choose(&self, mechanism: &str) -> bool {
        let sasl = self.sasl.as_ref().map(|sasl| sasl.lock().unwrap_or_else(PoisonError::into_inner));
        sasl.is_some_and(|mut sasl| sasl.0.choose(mechanism))
    }

    pub(super) fn advance(&self, message: &[u8]) -> Result<Advanced, Refused> {
        let Some(sasl) = &self.sasl else { return Err(Refused) };
        let mut sasl = sasl.lock().unwrap_or_else(PoisonError::into_inner);
        let advanced = sasl.0.advance(message)?;
        if let Some(principal) = &advanced.principal {
            sasl.1 = principal.clone();
        }
        Ok(advanced)
    }
}
