//! The thread that delivers: while the database takes one batch, the next one fills.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::SinkError;
use crate::batch::{Batch, Offsets};
use crate::delivery::{Committer, Delivered, Delivery};

const UPKEEP: Duration = Duration::from_secs(1);

/// What both threads see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Counts how often all that was handed over has been given up: partitions that went, or a database that has lost rows.
    era: AtomicU64,
    /// A commit has failed since the thread looked last.
    pub(crate) commit_failed: AtomicBool,
}

/// What became of the batch that was handed over.
#[derive(Debug)]
pub(crate) enum News {
    /// The database has it.
    Taken,
    /// It is tried again then.
    Waits(Instant),
    /// The database has lost rows: reading must go back to the committed position.
    Lost,
}

struct Report {
    era: u64,
    news: Result<News, SinkError>,
}

/// The reading thread's end.
pub(crate) struct Dispatch {
    orders: Option<Sender<(u64, Batch)>>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    is_busy: bool,
}

/// The delivering thread before it is started.
pub(crate) struct Worker {
    delivery: Delivery,
    orders: Receiver<(u64, Batch)>,
    reports: Sender<Report>,
    shared: Arc<Shared>,
    era: u64,
    /// There is a batch to deliver, at this time.
    due: Option<Instant>,
    upkeep_due: Instant,
}

impl Dispatch {
    pub(crate) fn new(delivery: Delivery) -> (Self, Worker) {
        let (orders, for_worker) = mpsc::channel();
        let (from_worker, reports) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let worker = Worker {
            delivery,
            orders: for_worker,
            reports: from_worker,
            shared: Arc::clone(&shared),
            era: 0,
            due: None,
            upkeep_due: Instant::now() + UPKEEP,
        };
        (Self { orders: Some(orders), reports, thread: None, shared, is_busy: false }, worker)
    }

    pub(crate) fn start(&mut self, worker: Worker, committer: impl Committer + Send + 'static) -> Result<(), SinkError> {
        let run = move || worker.run(&committer);
        self.thread = Some(std::thread::Builder::new().name("sink-write".into()).spawn(run).map_err(SinkError::Thread)?);
        Ok(())
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Whether a batch is on its way; the next one has to wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy
    }

    pub(crate) fn send(&mut self, batch: Batch) {
        let era = self.shared.era.load(Ordering::Acquire);
        // A thread that has ended says why in its last report.
        self.is_busy = self.orders.as_ref().is_some_and(|orders| orders.send((era, batch)).is_ok());
    }

    /// The next news, if there are any within `patience`.
    ///
    /// # Errors
    /// When the output can never be written again.
    pub(crate) fn hear(&mut self, patience: Duration) -> Result<Option<News>, SinkError> {
        let deadline = Instant::now() + patience;
        loop {
            let report = match self.reports.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(report) => report,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(SinkError::Panicked),
            };
            let news = report.news?;
            if report.era == self.shared.era.load(Ordering::Acquire) {
                self.is_busy = matches!(news, News::Waits(_));
                return Ok(Some(news));
            }
        }
    }

    /// Gives up what was handed over. A write that is under way may still happen; its offsets are not committed.
    pub(crate) fn forget(&mut self) {
        self.shared.era.fetch_add(1, Ordering::AcqRel);
        self.is_busy = false;
    }

    /// Ends the thread, and waits for it unless it hangs in the database.
    pub(crate) fn close(&mut self) {
        let hangs = self.is_busy;
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && !hangs
            && thread.join().is_err()
        {
            tracing::debug!("the delivering thread has panicked");
        }
    }
}

/// Does not commit what was given up.
struct Current<'a, C> {
    committer: &'a C,
    shared: &'a Shared,
    era: u64,
}

impl<C: Committer> Committer for Current<'_, C> {
    fn commit(&self, offsets: &Offsets) -> Result<(), String> {
        if self.shared.era.load(Ordering::Acquire) == self.era {
            self.committer.commit(offsets)
        } else {
            Err("the partitions have gone meanwhile".into())
        }
    }
}

impl Worker {
    fn run(mut self, committer: &impl Committer) {
        loop {
            let next = self.due.map_or(self.upkeep_due, |due| due.min(self.upkeep_due));
            match self.orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok((era, batch)) => {
                    self.renew();
                    self.delivery.accept(batch);
                    self.due = Some(Instant::now());
                    if era != self.era {
                        self.forget();
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.renew(),
                Err(RecvTimeoutError::Disconnected) => return self.delivery.forget(),
            }
            let news = self.turn(committer);
            let ended = news.is_err();
            if let Some(news) = news.transpose()
                && (self.reports.send(Report { era: self.era, news }).is_err() || ended)
            {
                return;
            }
        }
    }

    /// Forgets what was given up meanwhile.
    fn renew(&mut self) {
        let era = self.shared.era.load(Ordering::Acquire);
        if era != self.era {
            self.era = era;
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.due = None;
        self.delivery.forget();
    }

    fn turn(&mut self, committer: &impl Committer) -> Result<Option<News>, SinkError> {
        let Self { delivery, shared, era, .. } = self;
        let committer = Current { committer, shared, era: *era };
        let mut news = None;
        // While a bad row is searched for, nobody has to hear of each step.
        while self.due.is_some_and(|due| due <= Instant::now()) && !matches!(news, Some(News::Lost)) {
            match delivery.deliver(&committer)? {
                Delivered::All => (self.due, news) = (None, Some(News::Taken)),
                Delivered::Lost => (self.due, news) = (None, Some(News::Lost)),
                Delivered::Waits(Duration::ZERO) if shared.era.load(Ordering::Acquire) == *era => {}
                Delivered::Waits(wait) => {
                    let at = Instant::now() + wait;
                    (self.due, news) = (Some(at), Some(News::Waits(at)));
                    break;
                }
            }
        }
        if self.upkeep_due <= Instant::now() {
            self.upkeep_due = Instant::now() + UPKEEP;
            if shared.commit_failed.swap(false, Ordering::Relaxed) {
                delivery.commit_again();
            }
            if delivery.upkeep()? == Delivered::Lost {
                (self.due, news) = (None, Some(News::Lost));
            }
            delivery.commit(&committer);
        }
        Ok(news)
    }
}
