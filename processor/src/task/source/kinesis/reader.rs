//! Reads the shards: a task for each, and one that looks after them.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types::Record;
use common::Shutdown;
use prometheus::IntCounterVec;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::aggregate;
use super::client::{Begin, Client, Fault};
use super::desk::Desk;
use super::merge::{Brought, Place, Row, Shard};
use crate::query::file::{Kinesis as Settings, Start};

/// Kinesis answers five calls a second and shard, and gives two megabytes a second.
const SHORTEST: Duration = Duration::from_millis(200);
const BYTES_PER_SECOND: f64 = 2_000_000.0;
/// Records of an answer that may have been cut off.
const MOST_RECORDS: usize = 10_000;
/// Pauses after a fault: they double.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Whose trouble it is when the list cannot be had.
const LIST: &str = "";

/// What all readers share.
pub(super) struct Readers {
    pub(super) query: String,
    pub(super) client: Client,
    pub(super) desk: Arc<Desk>,
    pub(super) settings: Settings,
    /// When the first run of the query began, and the shards that were there then.
    pub(super) began: i64,
    pub(super) first: BTreeSet<String>,
    /// This is the first run.
    pub(super) fresh: bool,
    pub(super) dropped: IntCounterVec,
}

impl Readers {
    /// Reads until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: &Shutdown) {
        let (mut tasks, mut reading) = (JoinSet::new(), BTreeSet::new());
        loop {
            for shard in self.desk.open() {
                if reading.insert(shard.id.clone()) {
                    tasks.spawn(Reader::new(Arc::clone(&self), shard).run());
                }
            }
            tokio::select! {
                () = stop.wait() => return,
                () = self.desk.moved.notified() => {}
                Some(ended) = tasks.join_next() => match ended {
                    Ok(id) => { reading.remove(&id); }
                    Err(error) => {
                        tracing::error!(query = self.query, %error, "the reader of a shard ended by a fault of the program");
                        return;
                    }
                }
            }
            if self.desk.wants_list() {
                tokio::select! {
                    () = stop.wait() => return,
                    () = self.list() => {}
                }
            }
        }
    }

    /// Lists the shards until it is known which follow those that have ended.
    async fn list(&self) {
        let mut pause = FIRST_PAUSE;
        while self.desk.wants_list() {
            match self.client.shards().await {
                Ok(shards) => {
                    self.well(LIST);
                    for id in self.desk.listed(shards) {
                        tracing::error!(
                            query = self.query,
                            shard = id,
                            "the stream has no longer this shard: what was in it and not read is lost; read it sooner, or let it keep records \
                             for longer"
                        );
                    }
                }
                Err(Fault::Throttled | Fault::Expired) => {}
                Err(Fault::Gone(cause) | Fault::Refused(cause) | Fault::Away(cause)) => self.trouble(LIST, &cause),
            }
            if self.desk.wants_list() {
                sleep(jitter(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    fn trouble(&self, what: &str, cause: &str) {
        if self.desk.trouble(what, cause) {
            tracing::warn!(query = self.query, "{cause}: trying again");
        }
    }

    fn well(&self, what: &str) {
        if self.desk.is_well(what) {
            tracing::info!(query = self.query, stream = self.settings.stream, "the Kinesis stream is read again");
        }
    }
}

/// Reads one shard.
struct Reader {
    all: Arc<Readers>,
    shard: Shard,
    iterator: Option<String>,
    /// The iterator was made for a place; no answer gave it.
    anew: bool,
    /// No iterator was had in this run.
    first: bool,
    /// It was said that it is read.
    said: bool,
}

impl Reader {
    fn new(all: Arc<Readers>, shard: Shard) -> Self {
        Self { all, shard, iterator: None, anew: true, first: true, said: false }
    }

    /// Reads until the shard's end, or until there is no more to do; gives its id.
    async fn run(mut self) -> String {
        let id = self.shard.id.clone();
        let (mut next, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            self.all.desk.wait_room(&id).await;
            sleep_until(next).await;
            let Some(read) = self.all.desk.read_to(&id) else {
                self.all.well(&id);
                return id;
            };
            let asked = Instant::now();
            let wait = match self.ask(&read).await {
                Ok(wait) => {
                    pause = FIRST_PAUSE;
                    self.all.well(&id);
                    wait
                }
                Err(Fault::Expired) => SHORTEST,
                Err(fault) => {
                    match fault {
                        Fault::Gone(cause) => {
                            self.all.trouble(&id, &cause);
                            self.all.desk.relist();
                        }
                        Fault::Refused(cause) | Fault::Away(cause) => self.all.trouble(&id, &cause),
                        Fault::Throttled | Fault::Expired => {
                            tracing::debug!(query = self.all.query, shard = id, "Kinesis gives no more just now");
                        }
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    jitter(pause)
                }
            };
            next = asked + wait;
        }
    }

    /// One question; gives how long after it the next one may be asked.
    async fn ask(&mut self, read: &Place) -> Result<Duration, Fault> {
        let all = Arc::clone(&self.all);
        let (iterator, anew) = match self.iterator.take() {
            Some(iterator) => (iterator, self.anew),
            None => (all.client.iterator(&self.shard.id, self.begin(read)).await?, true),
        };
        (self.first, self.anew) = (false, anew);
        let asked = all.desk.ask();
        let answer = match all.client.records(&iterator).await {
            Ok(answer) => answer,
            Err(fault) => {
                // Any other fault may be the iterator's.
                self.iterator = matches!(fault, Fault::Throttled).then_some(iterator);
                return Err(fault);
            }
        };
        self.iterator = answer.next_shard_iterator().map(str::to_owned);
        let bytes: usize = answer.records().iter().map(|record| record.data().as_ref().len()).sum();
        let brought = self.brought(&answer, read);
        self.anew = false;
        if !std::mem::replace(&mut self.said, true) {
            tracing::info!(query = all.query, shard = self.shard.id, "reads a shard");
        }
        let wait = if brought.tip { all.settings.poll_interval.duration() } else { SHORTEST };
        all.desk.push(&self.shard.id, asked, brought);
        #[allow(clippy::cast_precision_loss)]
        let share = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        Ok(wait.max(share))
    }

    /// Where reading begins.
    fn begin<'a>(&self, read: &'a Place) -> Begin<'a> {
        match &read.record {
            Some(number) if read.rows > 0 => Begin::At(number),
            Some(number) => Begin::Behind(number),
            // It has come since: all of it is new.
            None if !self.all.first.contains(&self.shard.id) => Begin::Oldest,
            None => match self.all.settings.start {
                Start::TrimHorizon => Begin::Oldest,
                Start::At(time) => Begin::Time(time),
                Start::Latest if self.all.fresh && self.first => Begin::Latest,
                // Nothing of it is counted: "latest" was then.
                Start::Latest => Begin::Time(self.all.began),
            },
        }
    }

    fn brought(&self, answer: &GetRecordsOutput, read: &Place) -> Brought {
        let mut brought = Brought {
            rows: Vec::with_capacity(answer.records().len()),
            read: read.clone(),
            empty: answer.records().is_empty(),
            tip: answer.millis_behind_latest().unwrap_or(0) == 0 && answer.records().len() < MOST_RECORDS,
            anew: self.anew,
            closed: answer.next_shard_iterator().is_none(),
        };
        for record in answer.records() {
            self.take(record, &mut brought);
        }
        brought
    }

    fn take(&self, record: &Record, brought: &mut Brought) {
        let number = record.sequence_number();
        let received = record.approximate_arrival_timestamp().and_then(|time| time.to_millis().ok()).unwrap_or(-1);
        // Of a record that was given in part when the run before this one ended.
        let given = if brought.read.record.as_deref() == Some(number) { brought.read.rows } else { 0 };
        brought.read = Place { record: Some(number.to_owned()), rows: 0, time: brought.read.time.max(received), ended: false };
        let row = |key: String, payload: Vec<u8>| Row { key, payload, received, place: brought.read.clone() };
        let data = record.data().as_ref();
        let Some(parts) = aggregate::parts(data) else {
            brought.rows.push(row(record.partition_key().unwrap_or_default().to_owned(), data.to_vec()));
            return;
        };
        let (all, (low, high)) = (parts.len(), self.shard.hashes);
        // One that another shard's range holds was aggregated before the stream was divided anew: its sender sends it once more.
        let own = parts.into_iter().filter(|part| (low..=high).contains(&part.hash));
        let mut rows: Vec<Row> = own.map(|part| row(part.key, part.data)).collect();
        let strays = u64::try_from(all - rows.len()).unwrap_or(u64::MAX);
        if strays > 0 {
            self.all.dropped.with_label_values(&[self.all.query.as_str(), "other_shard"]).inc_by(strays);
        }
        let count = rows.len();
        for (place, row) in (1..count).zip(&mut rows) {
            row.place.rows = u32::try_from(place).unwrap_or(u32::MAX);
        }
        brought.rows.extend(rows.into_iter().skip(given as usize));
    }
}

/// From half of it to all of it, so that readers that were turned away together do not come back together.
fn jitter(pause: Duration) -> Duration {
    let share = u32::try_from(RandomState::new().build_hasher().finish() % 1000).unwrap_or(0);
    pause / 2 + pause / 2 * share / 1000
}
