//! TLS for the HTTP listener, and for the commands that ask it.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::settings::Http;

/// A client that opens a connection and says nothing is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections whose handshake is done and that nobody serves yet.
const WAITING: usize = 64;

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What the listener shows and wants to see; `None` when the settings name no certificate.
///
/// # Errors
/// A sentence with the setting and its file.
pub(crate) fn acceptor(http: &Http) -> Result<Option<TlsAcceptor>, String> {
    let Some((chain, key)) = chain(http)? else { return Ok(None) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match &http.client_ca_file {
        Some(path) => {
            let roots = Arc::new(roots(path, "http.client_ca_file")?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| format!("http.client_ca_file: {error}"))?)
        }
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| format!("http.certificate_file: {error}"))?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// A connection to a listener with the same settings: it trusts `client_ca_file`, or else the certificate that it would show itself.
///
/// # Errors
/// A sentence with the setting and its file, or that the settings have no certificate.
pub(crate) fn connect(http: &Http, host: &str, stream: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let Some((chain, key)) = chain(http)? else {
        return Err("https needs http.certificate_file and http.key_file, with which this program shows who it is".into());
    };
    let mut trusted = RootCertStore::empty();
    match &http.client_ca_file {
        Some(path) => trusted = roots(path, "http.client_ca_file")?,
        None => chain
            .iter()
            .try_for_each(|certificate| trusted.add(certificate.clone()))
            .map_err(|error| format!("http.certificate_file: {error}"))?,
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let config = config.with_root_certificates(trusted).with_client_auth_cert(chain, key).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("'{host}' is no host: {error}"))?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    Ok(StreamOwned::new(connection, stream))
}

fn chain(http: &Http) -> Result<Option<Chain>, String> {
    let (Some(certificates), Some(key)) = (&http.certificate_file, &http.key_file) else { return Ok(None) };
    let chain = pem(certificates, "http.certificate_file")?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("http.key_file: {} holds no key ({error})", key.display()))?;
    Ok(Some((chain, key)))
}

fn pem(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(format!("{setting}: {} holds no certificate in PEM", path.display())),
        found => found.map_err(|error| format!("{setting}: {} holds no certificate in PEM ({error})", path.display())),
    }
}

fn roots(path: &Path, setting: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in pem(path, setting)? {
        roots.add(certificate).map_err(|error| format!("{setting}: {error}"))?;
    }
    Ok(roots)
}

/// Connections of clients whose handshake is done. Handshakes run side by side: one that hangs holds nobody.
pub(crate) struct TlsListener {
    shaken: mpsc::Receiver<(TlsStream<tokio::net::TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl TlsListener {
    /// # Errors
    /// When the listener has no address.
    pub(crate) fn new(listener: TcpListener, acceptor: TlsAcceptor) -> std::io::Result<Self> {
        let local = listener.local_addr()?;
        let (sender, shaken) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            // Ends when nobody serves any more.
            while !sender.is_closed() {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = sender.closed() => return,
                };
                match accepted {
                    Ok((stream, peer)) => {
                        tokio::spawn(shake_hands(acceptor.clone(), stream, peer, sender.clone()));
                    }
                    // Such as too many open files: it passes.
                    Err(error) => {
                        tracing::warn!(%error, "an HTTP connection cannot be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(Self { shaken, local })
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    sender: mpsc::Sender<(TlsStream<tokio::net::TcpStream>, SocketAddr)>,
) {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        // Nobody serves any more: the connection is closed.
        Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "an HTTP client was refused"),
        Err(_elapsed) => tracing::debug!(%peer, "an HTTP client did not finish its TLS handshake"),
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.shaken.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends only after this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}
