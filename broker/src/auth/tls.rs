//! TLS for the listener beyond this machine.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::error::BrokerError;

/// An acceptor with the certificate chain and the key of these PEM files.
///
/// # Errors
/// [`BrokerError::Security`] that names the file.
pub(crate) fn acceptor(certificate_file: &Path, key_file: &Path) -> Result<TlsAcceptor, BrokerError> {
    let fault = |path: &Path, detail: String| BrokerError::Security { path: path.to_path_buf(), detail };
    let certificates = CertificateDer::pem_file_iter(certificate_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| fault(certificate_file, format!("is no PEM file with certificates ({error})")))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| fault(key_file, format!("is no PEM file with a key ({error})")))?;
    // Named, not taken from the process: several libraries here bring their own.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|error| fault(certificate_file, format!("does not go with its key ({error})")))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
