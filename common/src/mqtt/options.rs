//! The settings of a connection, checked and read from their files: at each connection, so that a rotated certificate or password needs
//! no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::settings::{MqttConnection, Secret};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// `mqtt://host[:port]` or `mqtts://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub tls: bool,
    pub host: String,
    pub port: u16,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = |what: &str| Err(format!("'{text}' is no address of an MQTT broker: {what}"));
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtt" | "tcp", rest)) => (false, rest),
            Some(("mqtts" | "ssl", rest)) => (true, rest),
            _ => return fault("write mqtt://host:1883, or mqtts://host:8883 for TLS"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("the address of an MQTT broker has no password in it: set username and password_file".into());
        }
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port.map(str::parse) {
            None => {
                if tls {
                    8883
                } else {
                    1883
                }
            }
            Some(Ok(port)) => port,
            Some(Err(_)) => return fault("its port is no number up to 65535"),
        };
        if host.is_empty() || host.contains('/') {
            return fault("it has no host, or a path");
        }
        Ok(Self { tls, host: host.trim_matches(['[', ']']).to_owned(), port })
    }
}

pub const PAIR: &str = "tls_certificate_file and tls_key_file belong together; set both";

/// What is wrong with the settings of a connection, beside its files; each fault begins with the key.
pub fn faults(connection: &MqttConnection) -> Vec<String> {
    let mut faults = Vec::new();
    let files = [&connection.tls_ca_file, &connection.tls_certificate_file, &connection.tls_key_file];
    match connection.url.as_deref().map(str::parse::<Url>) {
        Some(Err(fault)) => faults.push(format!("url: {fault}")),
        Some(Ok(url)) if !url.tls && files.iter().any(|file| file.is_some()) => {
            faults.push("url begins with mqtt://, which is without TLS, but TLS files are named; write mqtts://".to_owned());
        }
        _ => {}
    }
    if connection.client_id.is_empty() {
        faults.push("client_id is empty; a session needs a name that stays".to_owned());
    }
    if connection.tls_certificate_file.is_some() != connection.tls_key_file.is_some() {
        faults.push(PAIR.to_owned());
    }
    let has_password = connection.password.is_some() || connection.password_file.is_some();
    if has_password && connection.username.is_none() && connection.username_file.is_none() {
        faults.push("password is given without a user; set username as well".to_owned());
    }
    faults
}

/// Whether all files that a connection needs can be read now.
pub fn check_files(settings: &MqttConnection) -> Result<(), String> {
    credentials(settings)?;
    let url: Url = settings.url.as_deref().unwrap_or_default().parse()?;
    if url.tls {
        tls(settings)?;
    }
    Ok(())
}

/// User and password, from the settings or their files.
pub fn credentials(settings: &MqttConnection) -> Result<Option<(String, String)>, String> {
    let user = secret(settings.username.as_deref(), settings.username_file.as_deref(), "username_file")?;
    let password = secret(settings.password.as_ref().map(Secret::reveal), settings.password_file.as_deref(), "password_file")?;
    Ok(user.map(|user| (user, password.unwrap_or_default())))
}

/// The first line of the file, else the value itself.
pub fn secret(value: Option<&str>, file: Option<&Path>, key: &str) -> Result<Option<String>, String> {
    match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{key}: cannot read {}: {error}", path.display()))?;
            Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
        }
        None => Ok(value.map(str::to_owned)),
    }
}

/// What TLS needs on the client's side.
pub fn tls(settings: &MqttConnection) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match &settings.tls_ca_file {
        Some(path) => {
            for certificate in certificates(path, "tls_ca_file")? {
                roots.add(certificate).map_err(|error| format!("tls_ca_file: {}: {error}", path.display()))?;
            }
        }
        None => {
            let (good, _unusable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if good == 0 {
                return Err("the system has no certificates of authorities to trust; name a file with tls_ca_file".into());
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match (&settings.tls_certificate_file, &settings.tls_key_file) {
        (Some(chain), Some(key)) => builder
            .with_client_auth_cert(certificates(chain, "tls_certificate_file")?, private_key(key, "tls_key_file")?)
            .map_err(|error| format!("tls_certificate_file: {}: {error}", chain.display()))?,
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(PAIR.into()),
    };
    Ok(Arc::new(config))
}

pub fn certificates(path: &PathBuf, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let fault = |cause: String| format!("{key}: cannot read certificates from {}: {cause}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| fault(error.to_string()))?;
    if found.is_empty() { Err(fault("there is none".into())) } else { Ok(found) }
}

pub fn private_key(path: &PathBuf, key: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{key}: cannot read a private key from {}: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let url = |text: &str| text.parse::<Url>().map(|url| (url.tls, url.host, url.port));
        assert_eq!(url("mqtt://broker").unwrap(), (false, "broker".into(), 1883));
        assert_eq!(url("mqtts://broker/").unwrap(), (true, "broker".into(), 8883));
        assert_eq!(url("mqtt://[::1]:77").unwrap(), (false, "::1".into(), 77));
        assert_eq!(url("mqtt://[::1]").unwrap(), (false, "::1".into(), 1883));
        for bad in ["broker", "http://broker", "mqtt://", "mqtt://broker:port", "mqtt://user:pass@broker", "mqtt://broker/path"] {
            assert!(url(bad).is_err(), "{bad}");
        }
        assert!(!url("mqtt://user:hunter2@broker").unwrap_err().contains("hunter2"));
    }
}
