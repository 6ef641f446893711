//! Group commit: a few threads take the partitions that were written to, one `fsync` each for all the produces that wait.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::partition::Partition;

/// Enough to let the file system join the flushes of several partitions; more would only queue at the disk.
const THREADS: usize = 3;

#[derive(Debug, Default)]
struct Queue {
    due: VecDeque<Arc<Partition>>,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// The flushing threads. Dropping it leaves them to stop by themselves.
#[derive(Debug)]
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Flusher {
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let spawn = |i| {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("log-flush-{i}")).spawn(move || run(&shared))
        };
        let threads = (0..THREADS).map(spawn).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    /// Has the partition flushed soon. What is appended until the flush begins is part of it.
    pub(crate) fn request(&self, partition: &Arc<Partition>) {
        if partition.is_dirty() && !partition.queued.swap(true, Ordering::AcqRel) {
            self.shared.push(partition.clone());
        }
    }

    /// Stops the threads without another flush. Does not wait for them.
    pub(crate) fn stop(&self) {
        self.shared.lock().stopped = true;
        self.shared.wake.notify_all();
    }

    /// Waits for the stopped threads to end. Blocks.
    pub(crate) fn join(&self) {
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a flushing thread has panicked");
            }
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, partition: Arc<Partition>) {
        self.lock().due.push_back(partition);
        self.wake.notify_one();
    }

    fn next(&self) -> Option<Arc<Partition>> {
        let mut queue = self.lock();
        while !queue.stopped && queue.due.is_empty() {
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.stopped { None } else { queue.due.pop_front() }
    }
}

fn run(shared: &Shared) {
    while let Some(partition) = shared.next() {
        // The partition stays marked as queued while it is flushed, so that no second thread takes it and one flush
        // gathers all that is appended meanwhile for the next.
        if let Err(fault) = partition.flush() {
            tracing::debug!(partition = %partition.name, %fault, "a flush failed");
        }
        partition.queued.store(false, Ordering::Release);
        if partition.is_dirty() && !partition.queued.swap(true, Ordering::AcqRel) {
            shared.push(partition);
        }
    }
}
