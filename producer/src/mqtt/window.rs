//! The messages of one connection that wait for their acknowledgement, in the order in which they came.
//!
//! The log acknowledges its partitions one by one, the protocol wants acknowledgements in the order of the messages: one that is done
//! early waits for those before it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What is told about a connection's messages; `Give` acknowledges one, or says that it cannot now. `Id` is what it needs to know of it.
#[derive(Debug)]
pub(crate) struct Window<Give, Id = u16> {
    slots: Mutex<Slots<Id>>,
    give: Give,
    /// A message was given up: only a new connection brings it again.
    lost: AtomicBool,
    /// Something changed: all messages are acknowledged, or one is lost.
    pub(crate) changed: Arc<Notify>,
    /// Messages were acknowledged.
    room: Notify,
}

#[derive(Debug)]
struct Slots<Id> {
    /// Number of the first slot.
    first: u64,
    slots: VecDeque<(Id, bool)>,
}

impl<Id: Copy, Give: Fn(Id) -> bool> Window<Give, Id> {
    pub(crate) fn new(give: Give) -> Self {
        let slots = Mutex::new(Slots { first: 0, slots: VecDeque::new() });
        Self { slots, give, lost: AtomicBool::new(false), changed: Arc::default(), room: Notify::new() }
    }

    /// A place for the message; the ticket is for [`Window::settle`].
    pub(crate) fn open(&self, id: Id) -> u64 {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.slots.push_back((id, false));
        slots.first + slots.slots.len() as u64 - 1
    }

    /// What became of the message of a ticket.
    pub(crate) fn settle(&self, ticket: u64, whole: bool) {
        if !whole {
            self.lost.store(true, Ordering::Release);
            self.changed.notify_one();
            self.room.notify_waiters();
            return;
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ticket.checked_sub(slots.first).and_then(|place| usize::try_from(place).ok());
        if let Some(slot) = place.and_then(|place| slots.slots.get_mut(place)) {
            slot.1 = true;
        }
        self.give(&mut slots);
        self.room.notify_waiters();
    }

    /// Gives what could not be given before.
    pub(crate) fn retry(&self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.slots.front().is_some_and(|(_, done)| *done) {
            self.give(&mut slots);
        }
    }

    /// Called with the lock held, or another thread's acknowledgement might overtake.
    fn give(&self, slots: &mut Slots<Id>) {
        while let Some((id, true)) = slots.slots.front().copied()
            && (self.give)(id)
        {
            slots.slots.pop_front();
            slots.first += 1;
        }
        if slots.slots.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Waits until fewer than `most` messages are open, or one is lost.
    pub(crate) async fn changed_below(&self, most: usize) {
        loop {
            let room = self.room.notified();
            if self.len() < most || self.has_lost() {
                return;
            }
            room.await;
        }
    }

    /// Takes back the last place: its message is left to the sender.
    pub(crate) fn forget_last(&self) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).slots.pop_back();
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).slots.len()
    }

    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_that_is_given_up_is_never_acknowledged_nor_those_after_it() {
        let given = Arc::new(Mutex::new(Vec::new()));
        let window = Window::new({
            let given = given.clone();
            move |id| {
                given.lock().unwrap().push(id);
                true
            }
        });
        let tickets: Vec<u64> = (1..=3).map(|id| window.open(id)).collect();
        window.settle(tickets[0], true);
        window.settle(tickets[1], false);
        window.settle(tickets[2], true);
        assert_eq!(*given.lock().unwrap(), [1]);
        assert!(window.has_lost());
        assert_eq!(window.len(), 2);
    }

    #[test]
    fn an_acknowledgement_that_finds_no_room_is_given_later() {
        let room = Arc::new(AtomicBool::new(false));
        let window = Window::new({
            let room = room.clone();
            move |_| room.load(Ordering::Relaxed)
        });
        let ticket = window.open(1);
        window.settle(ticket, true);
        window.retry();
        assert_eq!(window.len(), 1);
        room.store(true, Ordering::Relaxed);
        window.retry();
        assert_eq!(window.len(), 0);
    }

    proptest! {
        #[test]
        fn acknowledgements_keep_the_order_of_the_messages(order in Just((0..50_usize).collect::<Vec<_>>()).prop_shuffle()) {
            let given = Arc::new(Mutex::new(Vec::new()));
            let window = Window::new({ let given = given.clone(); move |id| { given.lock().unwrap().push(id); true } });
            let tickets: Vec<u64> = (0..50).map(|id| window.open(id)).collect();
            for (count, place) in order.iter().enumerate() {
                prop_assert!(given.lock().unwrap().len() <= count);
                window.settle(tickets[*place], true);
            }
            prop_assert_eq!(given.lock().unwrap().clone(), (0..50).collect::<Vec<u16>>());
            prop_assert_eq!(window.len(), 0);
        }
    }
}
