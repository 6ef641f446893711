use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A TCP proxy that can swallow what passes: nothing arrives any more, in either direction, and every connection stays open.
///
/// Bytes that were swallowed never arrive, so a connection from such a time is of no use afterwards either. Its ends are told nothing,
/// as when a firewall forgets a connection: they have to find out by themselves, and to connect again.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    swallows: AtomicBool,
    /// Counts the silences; a connection that has seen one begin is dead.
    silences: AtomicU64,
    ended: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            swallows: AtomicBool::new(false),
            silences: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            sockets: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::Acquire) {
                    return;
                }
                accepting.serve(client);
            }
        });
        Self { address, shared }
    }

    /// From now on nothing arrives; new connections are taken and lead nowhere.
    pub(crate) fn swallow(&self) {
        self.shared.swallows.store(true, Ordering::Release);
        self.shared.silences.fetch_add(1, Ordering::AcqRel);
    }

    /// New connections lead to the target again; those of the silence stay dead, and open.
    pub(crate) fn heal(&self) {
        self.shared.silences.fetch_add(1, Ordering::AcqRel);
        self.shared.swallows.store(false, Ordering::Release);
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) {
        let silence = self.silences.load(Ordering::Acquire);
        if self.swallows.load(Ordering::Acquire) {
            self.keep(&client);
            let shared = self.clone();
            // Read, so that the sender sees its packets go.
            std::thread::spawn(move || shared.pump(client, None, silence));
            return;
        }
        // A target that is away: the client is told by the end of its connection.
        let Ok(server) = TcpStream::connect(self.target) else { return };
        for socket in [&client, &server] {
            socket.set_nodelay(true).unwrap();
            self.keep(socket);
        }
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to, shared) = (from.try_clone().unwrap(), to.try_clone().unwrap(), self.clone());
            std::thread::spawn(move || shared.pump(from, Some(to), silence));
        }
    }

    fn keep(&self, socket: &TcpStream) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).push(socket.try_clone().unwrap());
    }

    fn pump(&self, mut from: TcpStream, mut to: Option<TcpStream>, silence: u64) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            let dead = self.silences.load(Ordering::Acquire) != silence;
            let Some(to) = to.as_mut().filter(|_| !dead) else {
                // The other end of a dead connection does not hear that this one has gone.
                if read == 0 {
                    return;
                }
                continue;
            };
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                // One of them may be closed already.
                drop(to.shutdown(Shutdown::Both));
                drop(from.shutdown(Shutdown::Both));
                return;
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        for socket in self.shared.sockets.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It may be closed already.
            drop(socket.shutdown(Shutdown::Both));
        }
        // The thread that accepts looks at `ended` after its next connection.
        drop(TcpStream::connect(self.address));
    }
}
