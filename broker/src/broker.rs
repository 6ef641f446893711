//! Starting and stopping a broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::now_millis;
use crate::config::{BrokerConfig, Durability};
use crate::data_dir::DataDir;
use crate::error::BrokerError;
use crate::group::coordinator::Coordinator;
use crate::group::store::GroupStore;
use crate::log::disk::Disk;
use crate::log::flusher::Flusher;
use crate::server;
use crate::stats::{BrokerStats, Counters};
use crate::topics::Topics;

/// How long a stopping broker waits for its connections to end.
const CONNECTIONS_END: Duration = Duration::from_secs(3);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: Arc<DataDir>,
    pub(crate) topics: Topics,
    pub(crate) groups: Coordinator,
    pub(crate) flusher: Flusher,
    pub(crate) counters: Arc<Counters>,
    pub(crate) addr: SocketAddr,
    /// What clients are told to connect to.
    pub(crate) host: String,
    pub(crate) segment_bytes: u64,
    pub(crate) max_request_bytes: usize,
    pub(crate) max_connections: usize,
}

/// A running broker. Dropping it without [`Broker::shutdown`] is like a crash of the process: what was acknowledged is kept,
/// the rest may be lost.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    /// Ends when all connections have.
    alive: mpsc::Receiver<()>,
    tasks: Vec<JoinHandle<()>>,
    stopped: bool,
}

impl Broker {
    /// Starts a broker: recovered, bound and accepting when this returns.
    ///
    /// # Errors
    /// [`BrokerError`], each a sentence that says what is wrong, where, and what to do.
    pub async fn start(config: BrokerConfig) -> Result<Broker, BrokerError> {
        let listener = server::bind(config.listen).await?;
        let addr = listener.local_addr().map_err(|source| BrokerError::Bind { addr: config.listen, source })?;
        let check = config.retention_check;
        let data_dir = config.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Shared::open(&config, addr)).await;
        let shared = opened.map_err(|fault| BrokerError::io("open", &data_dir, std::io::Error::other(fault)))??;
        let (stop, stopping) = watch::channel(false);
        let (alive_token, alive) = mpsc::channel(1);
        let tasks = vec![
            tokio::spawn(server::accept(listener, shared.clone(), stopping.clone(), alive_token)),
            tokio::spawn(run_groups(shared.clone(), stopping.clone())),
            tokio::spawn(maintain(shared.clone(), stopping, check)),
        ];
        tracing::info!(%addr, data_dir = %data_dir.display(), topics = shared.topics.all().len(), "the broker is ready");
        Ok(Broker { shared, stop, alive, tasks, stopped: false })
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// Its figures now.
    pub fn stats(&self) -> BrokerStats {
        self.shared.stats()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Stops it: no new requests, open answers are sent, everything is flushed, the directory is released. Takes a few
    /// seconds at most, unless the disk is slower than that.
    ///
    /// # Errors
    /// [`BrokerError::Flush`] when the last flush of a partition failed.
    pub async fn shutdown(mut self) -> Result<(), BrokerError> {
        self.stopped = true;
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            if let Err(fault) = task.await {
                tracing::error!(%fault, "a task of the broker has panicked");
            }
        }
        if tokio::time::timeout(CONNECTIONS_END, self.alive.recv()).await.is_err() {
            tracing::warn!("some connections have not ended in time");
        }
        let shared = self.shared.clone();
        let closed = tokio::task::spawn_blocking(move || shared.close()).await;
        closed.unwrap_or_else(|fault| {
            let path = self.shared.dir.log_dir();
            Err(BrokerError::Flush { path, detail: fault.to_string() })
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !self.stopped {
            self.stop.send_replace(true);
            self.tasks.iter().for_each(JoinHandle::abort);
            self.shared.abandon();
        }
    }
}

impl Shared {
    /// Opens everything on disk. Blocks.
    fn open(config: &BrokerConfig, addr: SocketAddr) -> Result<Arc<Self>, BrokerError> {
        let dir = Arc::new(DataDir::open(&config.data_dir)?);
        let counters = Arc::new(Counters::default());
        let topics = Topics::open(dir.clone(), config, counters.clone())?;
        let sync = config.durability == Durability::Fsync;
        let store = GroupStore::open(&dir.file("groups.log"), Disk::default(), sync)?;
        let flusher = Flusher::start().map_err(|fault| BrokerError::io("start the flushing of", &config.data_dir, fault))?;
        let ip = addr.ip();
        let local = if ip.is_unspecified() { "127.0.0.1".to_owned() } else { ip.to_string() };
        Ok(Arc::new(Self {
            dir,
            topics,
            groups: Coordinator::new(store, config.initial_rebalance_delay),
            flusher,
            counters,
            addr,
            host: config.advertised_host.clone().unwrap_or(local),
            segment_bytes: config.segment_bytes,
            max_request_bytes: config.max_request_bytes,
            max_connections: config.max_connections,
        }))
    }

    /// Flushes and closes everything, and releases the directory. Blocks.
    fn close(&self) -> Result<(), BrokerError> {
        self.flusher.stop();
        self.flusher.join();
        let mut first_fault = None;
        for partition in self.topics.all().iter().flat_map(|topic| &topic.partitions) {
            if let Err(fault) = partition.close() {
                let path = partition.dir().to_path_buf();
                first_fault.get_or_insert(BrokerError::Flush { path, detail: fault.to_string() });
            }
        }
        self.groups.close();
        self.dir.release();
        first_fault.map_or(Ok(()), Err)
    }

    /// Lets go of everything as a crash would. Work that is still under way finds its partition closed.
    fn abandon(&self) {
        self.flusher.stop();
        self.topics.all().iter().flat_map(|topic| &topic.partitions).for_each(|partition| partition.abandon());
        self.groups.close();
        self.dir.release();
    }

    fn stats(&self) -> BrokerStats {
        let topics = self.topics.all();
        let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
        let counters = &self.counters;
        BrokerStats {
            topics: topics.len(),
            partitions: partitions().count(),
            log_bytes: partitions().map(|partition| partition.bytes()).sum(),
            records_in: counters.records_in.load(Ordering::Relaxed),
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            records_out: counters.records_out.load(Ordering::Relaxed),
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
            fsyncs: counters.fsyncs.load(Ordering::Relaxed),
            requests: counters.requests.load(Ordering::Relaxed),
            connections: counters.connections.load(Ordering::Relaxed),
            bad_connections: counters.bad_connections.load(Ordering::Relaxed),
            groups: self.groups.count(),
        }
    }
}

async fn run_groups(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = shared.groups.run() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Applies retention, and looks after partitions whose disk has failed.
async fn maintain(shared: Arc<Shared>, mut stop: watch::Receiver<bool>, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let shared = shared.clone();
        let work = move || {
            for partition in shared.topics.all().iter().flat_map(|topic| &topic.partitions) {
                partition.maintain(now_millis());
            }
        };
        if let Err(fault) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%fault, "retention has panicked");
        }
    }
}
