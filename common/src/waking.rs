//! A producer that wakes who waits for its reports.
//!
//! `rdkafka`'s own poll of a producer looks until its time is over, whatever it hears, and through the last millisecond of it without a pause.
//! So a thread that polls costs a percent of a core while nothing happens, and who waits for a report waits for that thread to pass it on.
//! Librdkafka calls back when its queue is no longer empty, which the safe wrapper has for consumers only.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::ptr::{NonNull, null_mut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings::{
    rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy, rd_kafka_queue_get_main, rd_kafka_queue_length, rd_kafka_queue_t, rd_kafka_t,
};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

/// Reports and words of the client wait in their queue until somebody serves them; nobody else does.
pub struct WakingProducer<C: ProducerContext + 'static> {
    // Before the producer, as the queue must be given back first.
    queue: Queue,
    producer: BaseProducer<C>,
}

impl<C: ProducerContext + 'static> fmt::Debug for WakingProducer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WakingProducer")
    }
}

impl<C: ProducerContext + 'static> WakingProducer<C> {
    /// # Errors
    /// When the client cannot be made of this configuration.
    pub fn create(config: &ClientConfig, context: C) -> Result<Self, KafkaError> {
        Self::create_and_wake(config, context, None)
    }

    /// As [`WakingProducer::create`]. `also` is called when there is something to serve, by a thread of the client that must not wait.
    ///
    /// # Errors
    /// When the client cannot be made of this configuration.
    pub fn create_and_wake(config: &ClientConfig, context: C, also: Option<Waker>) -> Result<Self, KafkaError> {
        let producer = config.create_with_context(context)?;
        Ok(Self { queue: Queue::of(&producer, also), producer })
    }

    /// Serves what is there; when there is nothing, waits for something up to `time`. Gives whether there was anything.
    pub fn serve(&self, time: Duration) -> bool {
        self.serve_what_is_there() || (!time.is_zero() && self.queue.bell.wait(time) && self.serve_what_is_there())
    }

    /// Has the client connect to the log. Waits for nothing. `topic` must be there and be new to the client: that it asks for what it does not
    /// know yet is what brings an answer, and with the answer it asks for the id that it needs before it may send anything.
    pub fn connect(&self, topic: &str) {
        if let Err(error) = self.producer.client().fetch_metadata(Some(topic), Duration::ZERO) {
            // Nobody can have answered yet.
            tracing::trace!(%error, topic, "on its way");
        }
    }

    /// Wakes who waits at this producer.
    #[must_use]
    pub fn waker(&self) -> Waker {
        let bell = self.queue.bell.clone();
        Arc::new(move || bell.ring())
    }

    /// Waits for something to serve up to `time`; may end before there is anything.
    pub fn wait(&self, time: Duration) {
        if self.queue.len() == 0 {
            self.queue.bell.wait(time);
        }
    }

    fn serve_what_is_there(&self) -> bool {
        let mut any = false;
        while self.queue.len() > 0 {
            // Without a timeout it serves one event.
            self.producer.poll(Duration::ZERO);
            any = true;
        }
        any
    }
}

impl<C: ProducerContext + 'static> std::ops::Deref for WakingProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

/// Wakes somebody who waits elsewhere.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Rung when the queue is no longer empty.
struct Bell {
    rung: Mutex<bool>,
    woken: Condvar,
    also: Option<Waker>,
}

impl Bell {
    fn rung(&self) -> MutexGuard<'_, bool> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        *self.rung() = true;
        self.woken.notify_one();
        if let Some(also) = &self.also {
            also();
        }
    }

    /// Waits until it rings, or has rung since the last wait.
    fn wait(&self, time: Duration) -> bool {
        let (mut rung, _) = self.woken.wait_timeout_while(self.rung(), time, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

/// The client's queue of events, as long as its bell may be rung.
struct Queue {
    queue: NonNull<rd_kafka_queue_t>,
    bell: Arc<Bell>,
}

// SAFETY: librdkafka's queues may be used by any thread.
unsafe impl Send for Queue {}

/// # Safety
/// `bell` must be a live [`Bell`].
unsafe extern "C" fn ring(_client: *mut rd_kafka_t, bell: *mut c_void) {
    // SAFETY: by the contract of this function.
    unsafe { &*bell.cast::<Bell>() }.ring();
}

impl Queue {
    fn of<C: ProducerContext + 'static>(producer: &BaseProducer<C>, also: Option<Waker>) -> Self {
        // What came before the callback is there, nobody was told of.
        let bell = Arc::new(Bell { rung: Mutex::new(true), woken: Condvar::new(), also });
        // SAFETY: the client lives as long as `producer`, which outlives this value in `WakingProducer`. The bell lives until the callback is
        // taken back in `drop`: librdkafka calls it under the queue's lock, which it also takes to exchange it.
        let queue = unsafe {
            let queue = rd_kafka_queue_get_main(producer.client().native_ptr());
            rd_kafka_queue_cb_event_enable(queue, Some(ring), Arc::as_ptr(&bell).cast_mut().cast());
            queue
        };
        let Some(queue) = NonNull::new(queue) else { unreachable!("every client has its main queue") };
        Self { queue, bell }
    }

    fn len(&self) -> usize {
        // SAFETY: the queue is ours until `drop`.
        unsafe { rd_kafka_queue_length(self.queue.as_ptr()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `rd_kafka_queue_get_main`, which gave a reference of our own; nothing uses it after this.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, null_mut());
            rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use rdkafka::ClientContext;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, DeliveryResult};

    use super::*;

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU64>);

    impl ClientContext for Count {}

    impl ProducerContext for Count {
        type DeliveryOpaque = ();

        fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
            assert!(result.is_ok());
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn config(servers: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("linger.ms", "0");
        config
    }

    #[test]
    fn whoever_waits_hears_every_report() {
        let mock = MockCluster::<DefaultProducerContext>::new(1).unwrap();
        mock.create_topic("t", 2, 1).unwrap();
        let count = Count::default();
        let producer = WakingProducer::create(&config(&mock.bootstrap_servers()), count.clone()).unwrap();
        for sent in 1..=200 {
            producer.send(BaseRecord::<(), [u8]>::to("t").payload(b"x")).map_err(|(error, _)| error).unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            while count.0.load(Ordering::SeqCst) < sent {
                assert!(Instant::now() < deadline, "{sent} sent, {count} heard", count = count.0.load(Ordering::SeqCst));
                // Longer than the test may take: only being woken helps.
                producer.serve(Duration::from_secs(60));
            }
        }
    }

    #[test]
    fn a_wait_for_nothing_ends_in_time() {
        let producer = WakingProducer::create(&config("127.0.0.1:1"), Count::default()).unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(50) {
            producer.serve(Duration::from_millis(10));
        }
        // Dropped while the client still has much to say of a broker that is not there.
        drop(producer);
    }
}
