//! The MQTT broker that Tidemark brings itself: devices connect straight to it.
//!
//! It is a source of readings like any other, and what it acknowledges to a device is in the log: there is no store between the two that
//! could lose something. Messages that are no readings (commands, presence) go to their subscribers, from memory.
//!
//! | file | what |
//! |---|---|
//! | [`connection`] | one device |
//! | [`hub`] | sessions, subscriptions, retained messages |
//! | [`wire`] | packets of MQTT 3.1.1 and 5 |
//! | [`users`] | who may connect |

mod connection;
mod hub;
mod users;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::Shutdown;
use common::mqtt::options::{certificates, private_key};
use common::settings::MqttListener;
use rand::Rng as _;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use self::hub::Hub;
use self::users::Users;
use self::wire::{Publish, Qos};
use crate::intake::Feeder;
use crate::metrics::Doors;
use crate::payload::{Reader, sparkplug};

/// A TLS handshake is done within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What the connections share.
struct Shared {
    settings: MqttListener,
    users: Option<Users>,
    hub: Hub,
    reader: Arc<Reader>,
    feeder: Feeder,
    metrics: Doors,
    /// One message at a time may take more memory than the buffer has left, when it has become more than its packet announced.
    beyond: Arc<Semaphore>,
    names: AtomicU64,
    /// Makes the names that we give unlike those of an earlier run.
    run: u32,
}

impl Shared {
    fn new(settings: MqttListener, users: Option<Users>, reader: Arc<Reader>, feeder: Feeder, metrics: Doors) -> Self {
        let (names, run) = (AtomicU64::new(1), rand::rng().random());
        Self { settings, users, hub: Hub::default(), reader, feeder, metrics, beyond: Arc::new(Semaphore::new(1)), names, run }
    }

    fn new_client_id(&self) -> String {
        format!("tidemark-{:08x}-{}", self.run, self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks Sparkplug nodes for their births.
    fn ask(&self, nodes: Vec<String>, now: i64) {
        for topic in nodes {
            tracing::info!(topic, "asking a Sparkplug node for its births");
            let payload = Bytes::from(sparkplug::rebirth(now));
            self.hub.route("", &Publish { topic, payload, qos: Qos::AtMostOnce, retain: false, dup: false, id: 0 });
        }
    }
}

/// A listener that is bound and not yet serving.
pub(crate) struct Listener {
    shared: Arc<Shared>,
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
}

impl Listener {
    /// # Errors
    /// A sentence: files that cannot be read, an address that cannot be had.
    pub(crate) async fn bind(
        address: SocketAddr,
        settings: &MqttListener,
        reader: Arc<Reader>,
        feeder: Feeder,
        metrics: Doors,
    ) -> Result<Self, String> {
        let of_key = |fault: String| format!("producer.mqtt_listener.{fault}");
        let users = settings.users_file.as_deref().map(Users::read).transpose().map_err(of_key)?;
        let tls = tls(settings).map_err(of_key)?;
        if users.is_some() && tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "devices send their passwords without encryption; set tls_certificate_file and tls_key_file");
        }
        let socket = TcpListener::bind(address).await.map_err(|error| {
            format!("cannot listen for MQTT on {address}: {error}; choose another port (0 takes a free one) or end what uses it")
        })?;
        let address = socket.local_addr().map_err(|error| error.to_string())?;
        let shared = Shared::new(settings.clone(), users, reader, feeder, metrics);
        Ok(Self { shared: Arc::new(shared), socket, tls, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn status(&self) -> impl Fn() -> serde_json::Value + Send + Sync + 'static {
        let (shared, address) = (self.shared.clone(), self.address);
        move || json!({ "listen": address, "devices": shared.metrics.devices.get(), "dropped_for_subscribers": shared.hub.dropped(), "bytes_for_subscribers": shared.hub.waiting() })
    }

    /// Serves until `stop`, and waits for the connections to end.
    pub(crate) async fn run(self, stop: Shutdown) {
        let places = Arc::new(Semaphore::new(self.shared.settings.max_connections));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                () = stop.wait() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No file descriptors left, usually: others may end meanwhile.
                    tracing::warn!(%error, "an MQTT connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                self.shared.metrics.refused.with_label_values(&["full"]).inc();
                continue;
            };
            let (shared, tls, stop) = (self.shared.clone(), self.tls.clone(), stop.clone());
            connections.spawn(async move {
                let _place = place;
                serve(shared, stream, tls, stop).await;
            });
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, tls: Option<TlsAcceptor>, stop: Shutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let Some(tls) = tls else { return connection::serve(shared, stream, None, stop).await };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let user = stream.get_ref().1.peer_certificates().map(|_| "certificate".to_owned());
            connection::serve(shared, stream, user, stop).await;
        }
        Ok(Err(error)) => {
            shared.metrics.refused.with_label_values(&["tls"]).inc();
            tracing::warn!(%error, "a device's TLS handshake failed");
        }
        Err(_elapsed) => shared.metrics.refused.with_label_values(&["tls"]).inc(),
    }
}

fn tls(settings: &MqttListener) -> Result<Option<TlsAcceptor>, String> {
    let (chain, key) = match (&settings.tls_certificate_file, &settings.tls_key_file) {
        (Some(chain), Some(key)) => (certificates(chain, "tls_certificate_file")?, private_key(key, "tls_key_file")?),
        (None, None) => return Ok(None),
        _ => return Err("tls_certificate_file and tls_key_file belong together; set both".into()),
    };
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match &settings.tls_client_ca_file {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path, "tls_client_ca_file")? {
                roots.add(certificate).map_err(|error| format!("tls_client_ca_file: {error}"))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| format!("tls_certificate_file: {error}"))?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
