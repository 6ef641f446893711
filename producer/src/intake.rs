//! Where the doors (MQTT, HTTP) meet the publisher: a queue that never holds more memory than it was given.
//!
//! A message takes its share of the budget before it is read and gives it back when its fate is known, so what waits for the log is
//! bounded whatever the log does: beyond it the doors stop reading, and the devices keep what they have.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::Shutdown;
use common::waking::Waker;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::source::{Ack, BATCH, Content, Delivery, Next, Source, SourceError};

/// What a message costs beside its payload: the queues, the acknowledgement, the record's own allocations.
const OVERHEAD: usize = 512;
/// What a reading costs beside the message that it came from.
const PER_READING: usize = 256;
/// What a label costs beside its bytes.
const PER_LABEL: usize = 64;
/// Entries of an object lie in nodes with room for eleven, of which a full map uses five at least.
const NODE: usize = 11 * size_of::<(String, Value)>();
const FEWEST_IN_NODE: usize = 5;
/// Asked again after this long at the latest.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Queue {
    deliveries: VecDeque<Delivery>,
    /// Nothing is taken any more.
    closed: bool,
    /// Acknowledgements are there to be served.
    woken: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    budget: Arc<Semaphore>,
    capacity: usize,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The publisher's end: a [`Source`] of what the doors took.
pub(crate) struct Intake {
    shared: Arc<Shared>,
    doors: String,
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("doors", &self.doors).finish_non_exhaustive()
    }
}

/// A door's end; clones feed the same queue.
#[derive(Clone)]
pub(crate) struct Feeder(Arc<Shared>);

impl fmt::Debug for Feeder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feeder")
    }
}

/// A message's share of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    permit: OwnedSemaphorePermit,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The log has all of it; so many readings were too large for it, and their beginnings are in the dead lane.
    Kept { cut: usize },
    /// A part was given up: the sender has to send again.
    GivenUp,
}

impl Intake {
    /// A queue for `max_bytes` of messages, and the end for the doors, which `doors` names for people.
    pub(crate) fn new(max_bytes: u64, doors: String) -> (Self, Feeder) {
        // The semaphore counts in 32 bits.
        let capacity = usize::try_from(max_bytes).unwrap_or(usize::MAX).clamp(64 * OVERHEAD, u32::MAX as usize / 2);
        let shared =
            Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), budget: Arc::new(Semaphore::new(capacity)), capacity });
        (Self { shared: shared.clone(), doors }, Feeder(shared))
    }
}

impl Source for Intake {
    fn describe(&self) -> String {
        self.doors.clone()
    }

    fn next(&mut self, _elapsed: Duration, out: &mut Vec<Delivery>) -> Result<Next, SourceError> {
        let mut queue = self.shared.queue();
        let count = queue.deliveries.len().min(BATCH);
        out.extend(queue.deliveries.drain(..count));
        Ok(if queue.deliveries.is_empty() { Next::Wait(PATIENCE) } else { Next::More })
    }

    fn rest(&self, time: Duration, shutdown: &Shutdown) {
        let mut queue = self.shared.queue();
        if queue.deliveries.is_empty() && !queue.woken && !shutdown.is_set() {
            queue = self.shared.filled.wait_timeout(queue, time).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.woken = false;
    }

    /// A device that waits for an acknowledgement may not send.
    fn waker(&self) -> Option<Waker> {
        let shared = self.shared.clone();
        Some(Arc::new(move || {
            shared.queue().woken = true;
            shared.filled.notify_one();
        }))
    }

    fn keeps_what_is_not_acknowledged(&self) -> bool {
        true
    }

    fn close(&mut self) {
        let left = {
            let mut queue = self.shared.queue();
            queue.closed = true;
            std::mem::take(&mut queue.deliveries)
        };
        // Outside of the lock: a door hears of each.
        drop(left);
    }

    fn reopen(&mut self) {
        self.shared.queue().closed = false;
    }
}

impl Feeder {
    /// What a message of `payload` bytes costs that became `contents`: a label of the message may be in each of its readings.
    pub(crate) fn weight(payload: usize, contents: &[Content]) -> usize {
        let label = |(name, value): &(String, Value)| PER_LABEL + name.len() + beside(value);
        let one = |content: &Content| match content {
            Content::Reading(reading) => PER_READING + reading.labels.iter().map(label).sum::<usize>(),
            Content::Dead(row) => PER_READING + row.topic.len() + row.detail.len(),
        };
        payload + contents.iter().map(one).sum::<usize>()
    }

    /// Bytes of the budget that a message takes; one message never takes more than all of it.
    fn cost(&self, payload: usize) -> u32 {
        u32::try_from((payload + OVERHEAD).min(self.0.capacity)).unwrap_or(u32::MAX)
    }

    /// How many messages that cost so much the whole budget has room for.
    pub(crate) fn room_for(&self, payload: usize) -> usize {
        self.0.capacity / (payload + OVERHEAD)
    }

    /// A share for a payload of this many bytes, when it is there.
    pub(crate) fn try_hold(&self, payload: usize) -> Option<Hold> {
        let permit = self.0.budget.clone().try_acquire_many_owned(self.cost(payload)).ok()?;
        Some(Hold { permit })
    }

    /// Makes a share one for a payload of this many bytes. `false`: there is not so much left.
    pub(crate) fn try_grow(&self, hold: &mut Hold, payload: usize) -> bool {
        let more = self.cost(payload).saturating_sub(u32::try_from(hold.permit.num_permits()).unwrap_or(u32::MAX));
        if more == 0 {
            return true;
        }
        let Ok(permit) = self.0.budget.clone().try_acquire_many_owned(more) else { return false };
        hold.permit.merge(permit);
        true
    }

    /// Waits for a share.
    pub(crate) async fn hold(&self, payload: usize) -> Option<Hold> {
        let permit = self.0.budget.clone().acquire_many_owned(self.cost(payload)).await.ok()?;
        Some(Hold { permit })
    }

    /// Hands over what one message became; `settled` is called once: with `true` when the log has all of it, with `false` when a part
    /// was given up. A message that became nothing is settled at once.
    pub(crate) fn push(&self, contents: Vec<Content>, hold: Hold, settled: impl FnOnce(bool) + Send + Sync + 'static) {
        self.push_telling(contents, hold, move |fate| settled(fate != Fate::GivenUp));
    }

    /// The same, for a sender that wants to know more.
    pub(crate) fn push_telling(&self, contents: Vec<Content>, hold: Hold, settled: impl FnOnce(Fate) + Send + Sync + 'static) {
        if contents.is_empty() {
            drop(hold);
            return settled(Fate::Kept { cut: 0 });
        }
        let message = Arc::new(Message {
            left: AtomicUsize::new(contents.len()),
            cut: AtomicUsize::new(0),
            settled: Mutex::new(Some(Box::new(settled))),
            _hold: hold,
        });
        let mut queue = self.0.queue();
        if queue.closed {
            drop(queue);
            return drop(message);
        }
        for content in contents {
            let message = message.clone();
            queue.deliveries.push_back(Delivery { content, ack: Some(Ack::telling(move |cut| message.one_done(cut))) });
        }
        drop(queue);
        self.0.filled.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.queue().closed
    }
}

/// What a value takes beside its own place: a small message may become much memory when it has lists and objects in it.
fn beside(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(elements) => elements.iter().map(|element| size_of::<Value>() + beside(element)).sum(),
        Value::Object(entries) => {
            let inside: usize = entries.iter().map(|(name, value)| name.len() + beside(value)).sum();
            entries.len().div_ceil(FEWEST_IN_NODE) * NODE + inside
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

type Settled = Box<dyn FnOnce(Fate) + Send + Sync>;

/// A message on its way; its deliveries share it.
struct Message {
    left: AtomicUsize,
    cut: AtomicUsize,
    settled: Mutex<Option<Settled>>,
    _hold: Hold,
}

impl Message {
    fn one_done(&self, cut: bool) {
        self.cut.fetch_add(usize::from(cut), Ordering::Relaxed);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settle(Fate::Kept { cut: self.cut.load(Ordering::Relaxed) });
        }
    }

    fn settle(&self, fate: Fate) {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(settled) = settled {
            settled(fate);
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.settle(Fate::GivenUp);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::reading::Reading;
    use serde_json::json;

    use super::*;

    fn readings(count: usize) -> Vec<Content> {
        (0..count).map(|_| Content::Reading(Reading::default())).collect()
    }

    fn take(intake: &mut Intake) -> Vec<Delivery> {
        let mut out = Vec::new();
        intake.next(Duration::ZERO, &mut out).unwrap();
        out
    }

    #[test]
    fn a_message_is_settled_when_the_log_has_its_last_reading() {
        let (mut intake, feeder) = Intake::new(1 << 20, "test".into());
        let fate = Arc::new(Mutex::new(Vec::new()));
        let tell = fate.clone();
        feeder.push(readings(3), feeder.try_hold(10).unwrap(), move |whole| tell.lock().unwrap().push(whole));
        for delivery in take(&mut intake) {
            assert!(fate.lock().unwrap().is_empty());
            delivery.ack.unwrap().give();
        }
        assert_eq!(*fate.lock().unwrap(), [true]);
    }

    #[test]
    fn a_rest_ends_when_it_is_woken_before_or_meanwhile() {
        let (intake, _feeder) = Intake::new(1 << 20, "test".into());
        let (waker, shutdown) = (intake.waker().unwrap(), Shutdown::manual());
        waker();
        // Longer than the test may take.
        intake.rest(Duration::from_secs(3600), &shutdown);
        let waking = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker();
        });
        intake.rest(Duration::from_secs(3600), &shutdown);
        waking.join().unwrap();
    }

    #[test]
    fn what_is_dropped_is_told() {
        let (mut intake, feeder) = Intake::new(1 << 20, "test".into());
        let fate = Arc::new(Mutex::new(Vec::new()));
        let push = |count| {
            let tell = fate.clone();
            feeder.push(readings(count), feeder.try_hold(10).unwrap(), move |whole| tell.lock().unwrap().push(whole));
        };
        push(2);
        let mut two = take(&mut intake);
        two.remove(0).ack.unwrap().give();
        drop(two);
        push(1);
        intake.close();
        push(1);
        assert_eq!(*fate.lock().unwrap(), [false, false, false]);
        assert!(feeder.is_closed());
    }

    #[test]
    fn the_budget_bounds_what_waits() {
        let (mut intake, feeder) = Intake::new(100_000, "test".into());
        let mut taken = 0;
        while let Some(hold) = feeder.try_hold(9_488) {
            feeder.push(readings(1), hold, |_| {});
            taken += 1;
        }
        assert_eq!(taken, 10);
        for delivery in take(&mut intake) {
            delivery.ack.unwrap().give();
        }
        // One message larger than the whole budget still passes, alone.
        let hold = feeder.try_hold(1 << 30).unwrap();
        assert!(feeder.try_hold(1).is_none());
        drop(hold);
        assert!(feeder.try_hold(1).is_some());
    }

    #[test]
    fn a_label_weighs_with_all_that_lies_in_it() {
        let weight = |value: Value| {
            let labels = vec![("l".to_owned(), value)];
            Feeder::weight(0, &[Content::Reading(Reading { labels, ..Reading::default() })])
        };
        let (plain, text) = (weight(Value::Null), "x".repeat(1_000));
        assert_eq!(weight(json!(text)), plain + 1_000);
        assert_eq!(weight(json!([text, [text, 1]])), plain + 2_000 + 4 * size_of::<Value>());
        assert_eq!(weight(json!({ "ab": { "c": text } })), plain + 3 + 1_000 + 2 * NODE);
        // Empty ones have nothing on the heap, and many small ones are not small.
        assert_eq!(weight(json!([[], {}])), plain + 2 * size_of::<Value>());
        assert!(weight(Value::Array(vec![json!({ "a": 1 }); 1_000])) > 500_000);
    }

    #[test]
    fn a_sender_hears_how_many_readings_were_cut() {
        let (mut intake, feeder) = Intake::new(1 << 20, "test".into());
        let fate = Arc::new(Mutex::new(Vec::new()));
        let tell = fate.clone();
        feeder.push_telling(readings(3), feeder.try_hold(10).unwrap(), move |fate| tell.lock().unwrap().push(fate));
        let mut three = take(&mut intake).into_iter().map(|delivery| delivery.ack.unwrap());
        three.next().unwrap().give_as_dead();
        three.for_each(Ack::give);
        assert_eq!(*fate.lock().unwrap(), [Fate::Kept { cut: 1 }]);
    }

    #[test]
    fn a_share_grows_as_far_as_the_budget_goes() {
        let (_intake, feeder) = Intake::new(100_000, "test".into());
        let mut hold = feeder.try_hold(0).unwrap();
        let other = feeder.try_hold(50_000).unwrap();
        assert!(feeder.try_grow(&mut hold, 40_000));
        assert!(!feeder.try_grow(&mut hold, 60_000));
        drop(other);
        // More than all of it is all of it, as for a message that comes whole.
        assert!(feeder.try_grow(&mut hold, 1 << 30));
        assert!(feeder.try_hold(0).is_none());
    }
}
