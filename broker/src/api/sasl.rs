//! SaslHandshake and SaslAuthenticate.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse};

use super::{Outcome, Request, RequestFault, text};
use crate::auth::sasl::MECHANISMS;
use crate::auth::users::Principal;
use crate::broker::Shared;

pub(super) async fn handshake(_broker: &Arc<Shared>, header: &Request, request: SaslHandshakeRequest) -> SaslHandshakeResponse {
    let mechanisms = SaslHandshakeResponse::default().with_mechanisms(MECHANISMS.iter().map(|name| text(*name)).collect());
    if header.client.choose(&request.mechanism) {
        return mechanisms;
    }
    // Also where nobody asks who somebody is.
    let error = match header.client.principal() {
        Principal::Local => ResponseError::IllegalSaslState,
        Principal::Unknown | Principal::User(_) => ResponseError::UnsupportedSaslMechanism,
    };
    mechanisms.with_error_code(error.code())
}

/// A client that is refused hears so, and then its connection ends.
pub(super) fn authenticate(header: &Request) -> Result<Outcome, RequestFault> {
    let request: SaslAuthenticateRequest = header.decode()?;
    match header.client.advance(&request.auth_bytes) {
        Ok(advanced) => {
            if let Some(Principal::User(user)) = &advanced.principal {
                tracing::debug!(user = %user.name, host = %header.client.host, "a client has authenticated");
            }
            header.answer(&SaslAuthenticateResponse::default().with_auth_bytes(advanced.answer.into())).map(Outcome::Answer)
        }
        Err(_) => {
            tracing::warn!(host = %header.client.host, "a client is refused: wrong user, password or mechanism");
            let answer = SaslAuthenticateResponse::default()
                .with_error_code(ResponseError::SaslAuthenticationFailed.code())
                .with_error_message(Some(text("Authentication failed: invalid credentials")));
            header.answer(&answer).map(Outcome::Last)
        }
    }
}
