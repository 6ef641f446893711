//! Starting and stopping a broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::{Advertised, FetchSessions};
use crate::clock::now_millis;
use crate::complaints::Complaints;
use crate::config::{BrokerConfig, Durability};
use crate::data_dir::DataDir;
use crate::error::BrokerError;
use crate::group::coordinator::Coordinator;
use crate::log::disk::Disk;
use crate::log::flusher::Flusher;
use crate::log::partition::{Ground, Partition};
use crate::log::room::Room;
use crate::quick::Quick;
use crate::server::{self, Door};
use crate::stats::{BrokerStats, Counters};
use crate::store::Store;
use crate::topics::Topics;
use crate::txn::coordinator::Transactions;
use crate::wire::frame::Intake;

/// How long a stopping broker waits for its connections to end.
const CONNECTIONS_END: Duration = Duration::from_secs(3);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: Arc<DataDir>,
    pub(crate) topics: Topics,
    pub(crate) groups: Coordinator,
    pub(crate) transactions: Transactions,
    store: Arc<Store>,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) flusher: Flusher,
    pub(crate) quick: Quick,
    ground: Ground,
    pub(crate) counters: Arc<Counters>,
    /// Of connections that are closed because of what they sent, and because they are too many: a client that tries again at once
    /// does not fill the log.
    pub(crate) bad_connections: Complaints,
    pub(crate) too_many_connections: Complaints,
    pub(crate) segment_bytes: u64,
    pub(crate) max_request_bytes: usize,
    pub(crate) intake: Intake,
    pub(crate) max_connections: usize,
    /// Partitions of a topic that nobody created explicitly; `None`: there are none.
    pub(crate) auto_create: Option<i32>,
}

/// A running broker. Dropping it without [`Broker::shutdown`] is like a crash of the process: what was acknowledged is kept,
/// the rest may be lost.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    addr: SocketAddr,
    external_addr: Option<SocketAddr>,
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
        let local = server::bind(config.listen).await?;
        let addr = local.local_addr().map_err(|source| BrokerError::Bind { addr: config.listen, source })?;
        let advertised = Advertised { host: config.advertised_host.clone().unwrap_or_else(|| reachable(addr)), port: addr.port() };
        let mut doors = vec![(local, Door::open(advertised))];
        let mut external_addr = None;
        if let Some(external) = &config.external {
            let listener = server::bind(external.listen).await?;
            let bound = listener.local_addr().map_err(|source| BrokerError::Bind { addr: external.listen, source })?;
            let (host, port) = external.advertised.clone().unwrap_or_else(|| (reachable(bound), bound.port()));
            doors.push((listener, Door::guarded(Advertised { host, port }, external)?));
            external_addr = Some(bound);
        }
        let (data_dir, config) = (config.data_dir.clone(), Arc::new(config));
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || Shared::open(&opening)).await;
        let shared = opened.map_err(|fault| BrokerError::io("open", &data_dir, std::io::Error::other(fault)))??;
        shared.transactions.recover(&shared).await;
        let (stop, stopping) = watch::channel(false);
        let (alive_token, alive) = mpsc::channel(1);
        let mut tasks = vec![
            tokio::spawn(run_coordinators(shared.clone(), stopping.clone())),
            tokio::spawn(every(config.disk_check, config.disk_check, shared.clone(), stopping.clone(), |shared| {
                shared.ground.room.look();
                shared.partitions().iter().for_each(|partition| partition.look_after());
            })),
            tokio::spawn(every(config.retention_check / 10, config.retention_check, shared.clone(), stopping.clone(), |shared| {
                shared.partitions().iter().for_each(|partition| partition.retain(now_millis()));
            })),
            tokio::spawn(every(config.compaction_check, config.compaction_check, shared.clone(), stopping.clone(), |shared| {
                shared.partitions().iter().for_each(|partition| partition.compact(now_millis()));
            })),
        ];
        for (listener, door) in doors {
            tasks.push(tokio::spawn(server::accept(listener, Arc::new(door), shared.clone(), stopping.clone(), alive_token.clone())));
        }
        tracing::info!(%addr, external = ?external_addr, data_dir = %data_dir.display(), topics = shared.topics.all().len(), "the broker is ready");
        Ok(Broker { shared, addr, external_addr, stop, alive, tasks, stopped: false })
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of the listener beyond this machine.
    pub fn external_addr(&self) -> Option<SocketAddr> {
        self.external_addr
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
    fn open(config: &BrokerConfig) -> Result<Arc<Self>, BrokerError> {
        let dir = Arc::new(DataDir::open(&config.data_dir)?);
        let counters = Arc::new(Counters::default());
        let room = Room::new(&config.data_dir, config.min_free_bytes);
        let ground = Ground { durability: config.durability, room, counters: counters.clone(), ..Ground::default() };
        let topics = Topics::open(dir.clone(), config.segment_bytes, ground.clone())?;
        let sync = config.durability == Durability::Fsync;
        let store = Arc::new(Store::open(&dir.file("groups.log"), Disk::default(), sync)?);
        let flusher = Flusher::start().map_err(|fault| BrokerError::io("start the flushing of", &config.data_dir, fault))?;
        Ok(Arc::new(Self {
            dir,
            topics,
            groups: Coordinator::new(store.clone(), config.initial_rebalance_delay),
            transactions: Transactions::new(store.clone()),
            store,
            fetch_sessions: FetchSessions::default(),
            flusher,
            quick: Quick::default(),
            ground,
            counters,
            bad_connections: Complaints::default(),
            too_many_connections: Complaints::default(),
            segment_bytes: config.segment_bytes,
            max_request_bytes: config.max_request_bytes,
            // One of the largest size can always be read while another one is handled.
            intake: Intake::new(config.max_request_bytes.saturating_mul(2)),
            max_connections: server::connections_within_limits(config.max_connections),
            auto_create: config.auto_create_topics,
        }))
    }

    fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.all().iter().flat_map(|topic| topic.partitions.iter().cloned()).collect()
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
        self.store.close();
        self.dir.release();
        first_fault.map_or(Ok(()), Err)
    }

    /// Lets go of everything as a crash would. Work that is still under way finds its partition closed.
    fn abandon(&self) {
        self.flusher.stop();
        self.topics.all().iter().flat_map(|topic| &topic.partitions).for_each(|partition| partition.abandon());
        self.store.close();
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
            transactions: self.transactions.count(),
            open_files: self.ground.files.open(),
            disk_free_bytes: self.ground.room.free(),
            disk_low: self.ground.room.is_refusing(),
        }
    }
}

/// An address that listens everywhere is reached on the loopback.
fn reachable(addr: SocketAddr) -> String {
    if addr.ip().is_unspecified() { "127.0.0.1".to_owned() } else { addr.ip().to_string() }
}

async fn run_coordinators(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = shared.groups.run() => {}
        () = shared.transactions.run(&shared) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Does `work`, which may block, first after `first`, then every so often.
async fn every(first: Duration, period: Duration, shared: Arc<Shared>, mut stop: watch::Receiver<bool>, work: fn(&Shared)) {
    let least = Duration::from_millis(10);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first.max(least), period.max(least));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let shared = shared.clone();
        if let Err(fault) = tokio::task::spawn_blocking(move || work(&shared)).await {
            tracing::error!(%fault, "the upkeep of the log has panicked");
        }
    }
}
