//! Who a client is and what it may do: users and their rights, SASL, TLS.

pub(crate) mod sasl;
pub(crate) mod scram;
pub(crate) mod tls;
pub(crate) mod users;
