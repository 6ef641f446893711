//! What `--version` says: which version, and what this build can do that another may not.

/// Whether the Kafka clients know TLS and SASL.
pub const TLS: bool = cfg!(feature = "tls");

/// The long form, of programs that run no queries. Its second line is for people and scripts that must know before they ask for TLS.
pub const VERSION: &str =
    if TLS { concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: tls") } else { concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: none") };

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rdkafka::ClientConfig;

    use super::VERSION;

    /// The library itself says what it was built with.
    #[test]
    fn says_tls_when_the_kafka_client_knows_tls() {
        let known = ClientConfig::new().create_native_config().unwrap().get("builtin.features").unwrap();
        let tls = known.split(',').any(|feature| feature == "ssl");
        assert_eq!(VERSION.lines().last(), Some(if tls { "features: tls" } else { "features: none" }), "{known}");
    }
}
