//! The seam between where readings come from and how they get into the log.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use common::Shutdown;
use common::reading::Reading;
use common::waking::Waker;

/// How many deliveries a source should give in one turn: enough to make the turn cheap, few enough to keep its memory small.
pub const BATCH: usize = 1_000;

/// Gives deliveries in the order in which they go into the log. Lives on the publisher's thread and may block it only briefly (reading
/// a file is fine, waiting for the network is not: answer [`Next::Wait`]).
///
/// Time is an argument: a source never looks at a clock, so that a test can be quicker than life.
pub trait Source: Send + fmt::Debug {
    /// One line for people: what this source is.
    fn describe(&self) -> String;

    /// Called once, before the first [`Source::next`]; `now` is the wall clock in milliseconds since 1970.
    fn start(&mut self, _now: i64) {}

    /// Appends what is due `elapsed` after the start to `out` (about [`BATCH`]) and says when to ask again.
    ///
    /// # Errors
    /// When the source breaks; what it has appended to `out` before is still sent.
    fn next(&mut self, elapsed: Duration, out: &mut Vec<Delivery>) -> Result<Next, SourceError>;

    /// What the source has done on purpose so far.
    fn tally(&self) -> Tally {
        Tally::default()
    }

    /// How far the source is, when it has an end that is known.
    fn progress(&self) -> Option<Progress> {
        None
    }

    /// Of a source to which things come at any time: what ends a [`Source::rest`]. It is called when acknowledgements are there to be served.
    fn waker(&self) -> Option<Waker> {
        None
    }

    /// Sleeps for up to `time`, less when the source has something, is woken, or `shutdown` is set. Only where there is a waker.
    fn rest(&self, time: Duration, shutdown: &Shutdown) {
        shutdown.wait_timeout(time);
    }

    /// Whether the senders keep what the log has not acknowledged: then a log that stays away costs nothing but time.
    fn keeps_what_is_not_acknowledged(&self) -> bool {
        false
    }

    /// Nothing is asked for any more; called before the drain. What the source still has is dropped.
    fn close(&mut self) {}

    /// After [`Source::close`], for another try: only where the senders keep what is not acknowledged.
    fn reopen(&mut self) {}
}

/// When to ask a source again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once.
    More,
    /// After this long, or earlier.
    Wait(Duration),
    /// Never: the source has ended.
    End,
}

/// One thing to publish, and what to tell its sender when the log has it.
#[derive(Debug)]
pub struct Delivery {
    pub content: Content,
    pub ack: Option<Ack>,
}

impl Delivery {
    /// A delivery whose sender does not wait for an answer.
    pub fn reading(reading: Reading) -> Self {
        Self { content: Content::Reading(reading), ack: None }
    }

    pub fn dead(row: DeadRow) -> Self {
        Self { content: Content::Dead(row), ack: None }
    }
}

#[derive(Debug)]
pub enum Content {
    /// Into the input topic.
    Reading(Reading),
    /// Into the dead lane.
    Dead(DeadRow),
}

/// What nobody could read, whole, with where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRow {
    /// A file's name, or the topic of a message.
    pub topic: String,
    /// A line's number counted from 1, or a message's own number.
    pub offset: u64,
    pub value: Vec<u8>,
    /// One word for counting.
    pub reason: &'static str,
    /// One sentence for people.
    pub detail: String,
}

/// The acknowledgement that a delivery owns. It is given once the log has acknowledged the record; dropped before that, the delivery
/// counts as not delivered, and its sender will send it again.
pub struct Ack(Box<dyn FnOnce(bool) + Send + Sync>);

impl Ack {
    pub fn new(give: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self::telling(|_| give())
    }

    /// One that is told `true` when a reading was too large for the log and its beginning went into the dead lane.
    pub fn telling(give: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        Self(Box::new(give))
    }

    pub fn give(self) {
        (self.0)(false);
    }

    pub fn give_as_dead(self) {
        (self.0)(true);
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ack")
    }
}

/// Readings of which a test wants to know the exact number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Readings without their duplicates.
    pub readings: u64,
    /// Second copies.
    pub duplicates: u64,
    pub out_of_order: u64,
    pub late: u64,
    /// Readings of sensors whose clock is wrong.
    pub bad_clock: u64,
}

/// Bytes read of all bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// A source that cannot begin, or that breaks.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot open {}: {cause}; check the name and the rights (--replay)", path.display())]
    Open { path: PathBuf, cause: io::Error },
    #[error("{} has no usable header: {detail}; its first line must name the columns, `timestamp,value` or `sensor_id,ts,value[,kind][,seq]`", path.display())]
    Header { path: PathBuf, detail: String },
    #[error("cannot read {} after line {line}: {cause}; what came before is published", path.display())]
    Read { path: PathBuf, line: u64, cause: io::Error },
    #[error("--speed (producer.replay.speed): {0}")]
    Speed(String),
}
