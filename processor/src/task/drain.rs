//! Many records at one call: librdkafka's batch interface, which `rdkafka` does not wrap.
//!
//! A poll of the safe wrapper costs an event, a clock reading and an allocation for each record, about half of all the time that reading
//! takes. This module holds the crate's unsafe code, but for the name of the allocator's settings.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr::NonNull;

use common::client_log::Quiet;
use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_get_watermark_offsets, rd_kafka_message_destroy, rd_kafka_message_t, rd_kafka_message_timestamp,
    rd_kafka_queue_destroy, rd_kafka_queue_get_consumer, rd_kafka_queue_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{IsError as _, KafkaError};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaErrorCode;

/// Most records of one call: enough to share its cost out, and few enough that the limits of a step are looked at in time.
const MOST: usize = 512;

/// A consumer whose records can be taken by the batch.
pub(crate) struct Drain {
    // Before the consumer, as the queue must be given back first.
    queue: Queue,
    consumer: BaseConsumer<Quiet>,
    /// What the last call brought; each message is owned from there on.
    taken: Vec<*mut rd_kafka_message_t>,
}

struct Queue(NonNull<rd_kafka_queue_t>);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `rd_kafka_queue_get_consumer`, which gave a reference of our own.
        unsafe { rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

/// One record, valid while the visit lasts.
pub(crate) struct Taken<'a> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds; -1 when the record has none.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) payload: Option<&'a [u8]>,
}

impl<'a> From<&'a BorrowedMessage<'_>> for Taken<'a> {
    fn from(message: &'a BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key(),
            payload: message.payload(),
        }
    }
}

/// Owned messages that are given back even when a visit panics.
struct Given<'a>(&'a mut Vec<*mut rd_kafka_message_t>);

impl Drop for Given<'_> {
    fn drop(&mut self) {
        for message in self.0.drain(..) {
            // SAFETY: each came from `rd_kafka_consume_batch_queue`, is ours, and is destroyed once, as it leaves the list here.
            unsafe { rd_kafka_message_destroy(message) };
        }
    }
}

impl Drain {
    pub(crate) fn new(consumer: BaseConsumer<Quiet>) -> Result<Self, KafkaError> {
        // SAFETY: the client lives as long as `consumer`, which this value keeps.
        let queue = unsafe { rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue).ok_or(KafkaError::ClientCreation("a consumer without a group has no queue".into()))?;
        Ok(Self { queue: Queue(queue), consumer, taken: Vec::with_capacity(MOST) })
    }

    pub(crate) fn consumer(&self) -> &BaseConsumer<Quiet> {
        &self.consumer
    }

    /// The end of a partition as the newest answer of the log had it; `None` before there is one. Asks nobody.
    pub(crate) fn known_end(&self, topic: &CStr, partition: i32) -> Option<i64> {
        let (mut first, mut end) = (-1, -1);
        let client = self.consumer.client().native_ptr();
        // SAFETY: the client lives as long as `consumer`, the name ends with a null, and the call only writes the two numbers.
        let code = unsafe { rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &raw mut first, &raw mut end) };
        (!code.is_error() && end >= 0).then_some(end)
    }

    /// Visits up to `most` records that are here already, in their order; an end of a partition is an error as it is with `poll`. Gives
    /// how many were visited.
    pub(crate) fn each(&mut self, most: usize, mut visit: impl FnMut(Result<Taken<'_>, KafkaError>)) -> usize {
        let most = most.min(MOST);
        self.taken.reserve(most);
        // SAFETY: the queue is live, and `taken` has room for `most` pointers, of which the call writes as many as it says.
        unsafe {
            let count = rd_kafka_consume_batch_queue(self.queue.0.as_ptr(), 0, self.taken.as_mut_ptr(), most);
            self.taken.set_len(usize::try_from(count).unwrap_or(0));
        }
        let given = Given(&mut self.taken);
        for message in given.0.iter() {
            // SAFETY: a live message; its key and payload are bytes of the lengths beside them, or null, until it is destroyed.
            visit(unsafe { read(*message) });
        }
        given.0.len()
    }
}

/// # Safety
/// `message` must be live for `'a`.
unsafe fn read<'a>(message: *const rd_kafka_message_t) -> Result<Taken<'a>, KafkaError> {
    // SAFETY: by the contract of this function.
    let (raw, timestamp) = unsafe { (&*message, rd_kafka_message_timestamp(message, std::ptr::null_mut())) };
    if raw.err.is_error() {
        let code = RDKafkaErrorCode::from(raw.err);
        return Err(match code {
            RDKafkaErrorCode::PartitionEOF => KafkaError::PartitionEOF(raw.partition),
            code => KafkaError::MessageConsumption(code),
        });
    }
    // SAFETY: as above.
    let (key, payload) = unsafe { (bytes(raw.key, raw.key_len), bytes(raw.payload, raw.len)) };
    Ok(Taken { partition: raw.partition, offset: raw.offset, timestamp, key, payload })
}

/// # Safety
/// `start` must be null or point to `len` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *const std::ffi::c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract of this function.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) })
}
