//! Accepting connections.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::api::{Advertised, Client};
use crate::auth::sasl::Sasl;
use crate::auth::tls;
use crate::auth::users::Users;
use crate::broker::Shared;
use crate::clock::now_millis;
use crate::config::External;
use crate::connection::serve;
use crate::error::BrokerError;

/// A client that has not finished its TLS handshake by then is gone.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Files that the log and the rest of the process need beside the connections.
const OTHER_FILES: usize = 512;

/// A way in: what its clients are told, and what they must show.
pub(crate) struct Door {
    advertised: Advertised,
    tls: Option<TlsAcceptor>,
    users: Option<Arc<Users>>,
}

impl Door {
    /// For this machine: nobody is asked anything.
    pub(crate) fn open(advertised: Advertised) -> Self {
        Self { advertised, tls: None, users: None }
    }

    /// For clients from elsewhere.
    pub(crate) fn guarded(advertised: Advertised, external: &External) -> Result<Self, BrokerError> {
        let tls = match &external.tls {
            Some((certificate, key)) => Some(tls::acceptor(certificate, key)?),
            None => None,
        };
        if tls.is_none() && !external.listen.ip().is_loopback() {
            tracing::warn!(addr = %external.listen, "the external listener has no certificate: passwords and records are sent in the clear");
        }
        let users = Some(Arc::new(Users::load(&external.users_file)?));
        Ok(Self { advertised, tls, users })
    }
}

/// Binds the listening socket.
pub(crate) async fn bind(addr: SocketAddr) -> Result<TcpListener, BrokerError> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BrokerError::PortInUse { addr },
        _ => BrokerError::Bind { addr, source },
    })
}

/// The wanted number of connections, or as many as this process may have files open beside what it needs itself.
pub(crate) fn connections_within_limits(wanted: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let Some(files) = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()) else { return wanted };
    let possible = files.saturating_sub(OTHER_FILES).max(files / 2);
    if possible < wanted {
        tracing::info!(
            files,
            connections = possible,
            "this process may open few files, so it takes fewer connections; raise `ulimit -n` for more"
        );
    }
    wanted.min(possible)
}

/// Accepts connections until `stop` says so. Each connection holds a clone of `alive` while it lives.
pub(crate) async fn accept(
    listener: TcpListener,
    door: Arc<Door>,
    broker: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) {
    let connections = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => start(stream, peer, &door, &broker, connections.clone(), alive.clone()),
            Err(fault) => {
                // Most likely too many open files: connections that end will free some.
                tracing::warn!(%fault, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn start(
    stream: TcpStream,
    peer: SocketAddr,
    door: &Arc<Door>,
    broker: &Arc<Shared>,
    stop: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) {
    let open = &broker.counters.connections;
    if open.fetch_add(1, Ordering::AcqRel) >= broker.max_connections {
        open.fetch_sub(1, Ordering::AcqRel);
        if let Some(unsaid) = broker.too_many_connections.next(now_millis()) {
            tracing::warn!(%peer, limit = broker.max_connections, unsaid, "a connection too many is closed");
        }
        return;
    }
    let (broker, door) = (broker.clone(), door.clone());
    tokio::spawn(async move {
        let _open = Open(broker.clone());
        if let Err(fault) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %fault, "the connection has gone");
        }
        let sasl = door.users.clone().map(Sasl::new);
        let client = Client::new(format!("/{}", peer.ip()), door.advertised.clone(), sasl);
        match &door.tls {
            None => serve(stream.into_split(), client, broker, stop).await,
            Some(tls) => match shake_hands(tls, stream).await {
                Ok(stream) => serve(tokio::io::split(stream), client, broker, stop).await,
                Err(fault) => {
                    broker.counters.bad_connections.fetch_add(1, Ordering::Relaxed);
                    if let Some(unsaid) = broker.bad_connections.next(now_millis()) {
                        tracing::warn!(%peer, %fault, unsaid, "a connection is closed: its TLS handshake failed");
                    }
                }
            },
        }
        drop(alive);
    });
}

async fn shake_hands(tls: &TlsAcceptor, stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(shaken) => shaken,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Counts a connection as long as it lives, whichever way it ends.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
