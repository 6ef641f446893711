//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::broker::Shared;
use crate::connection::serve;
use crate::error::BrokerError;

/// Binds the listening socket.
pub(crate) async fn bind(addr: SocketAddr) -> Result<TcpListener, BrokerError> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BrokerError::PortInUse { addr },
        _ => BrokerError::Bind { addr, source },
    })
}

/// Accepts connections until `stop` says so. Each connection holds a clone of `alive` while it lives.
pub(crate) async fn accept(listener: TcpListener, broker: Arc<Shared>, mut stop: watch::Receiver<bool>, alive: mpsc::Sender<()>) {
    let connections = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => start(stream, peer, &broker, connections.clone(), alive.clone()),
            Err(fault) => {
                // Most likely too many open files: connections that end will free some.
                tracing::warn!(%fault, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn start(stream: TcpStream, peer: SocketAddr, broker: &Arc<Shared>, stop: watch::Receiver<bool>, alive: mpsc::Sender<()>) {
    let open = &broker.counters.connections;
    if open.fetch_add(1, Ordering::AcqRel) >= broker.max_connections {
        open.fetch_sub(1, Ordering::AcqRel);
        tracing::warn!(%peer, limit = broker.max_connections, "a connection too many is closed");
        return;
    }
    let broker = broker.clone();
    tokio::spawn(async move {
        let _open = Open(broker.clone());
        serve(stream, peer, broker, stop).await;
        drop(alive);
    });
}

/// Counts a connection as long as it lives, whichever way it ends.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
