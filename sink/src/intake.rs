//! The consumer: fills batches, and hands partitions over in good order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use common::client_log;
use common::lifeline::Lifeline;
use common::settings::Output;
use common::telemetry::Part;
use common::{Settings, Shutdown};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::SinkError;
use crate::ahead::Ahead;
use crate::batch::Offsets;
use crate::client_stats::ClientStats;
use crate::delivery::{Committer, Delivery};
use crate::dispatch::{Dispatch, News, Shared};
use crate::filler::Filler;
use crate::status::Status;

/// Longest wait for a row when nothing else is due.
const IDLE: Duration = Duration::from_millis(250);
/// The same while a batch is on its way: the next one is to follow it at once.
const BUSY: Duration = Duration::from_millis(5);
/// Rows that are taken in before the loop looks at anything else: the clock, the delivering thread and the status cost as much as a row.
const AT_ONCE: usize = 256;
/// A database that takes longer for a batch makes reading pause.
const PATIENCE: Duration = Duration::from_millis(250);
/// Longest wait for each of the log's answers when reading goes back; then it is asked again.
const GO_BACK: Duration = Duration::from_secs(5);
/// A member that is shut out twice within this time shares its instance id with another sink.
const RIVALRY: Duration = Duration::from_secs(60);

/// What is read, and the way to the database.
struct Desk {
    filler: Filler,
    ahead: Ahead,
    dispatch: Dispatch,
}

impl Desk {
    /// Makes what is held ready for its write.
    fn prepare(&mut self) {
        self.ahead.prepare(self.filler.batch());
    }

    fn hand_over(&mut self) {
        self.prepare();
        let batch = self.filler.take();
        self.dispatch.send(batch);
    }

    /// Writes what is held. What cannot be written by the deadline is left to the next owner.
    fn drain(&mut self, deadline: Instant) -> Result<(), SinkError> {
        loop {
            if !self.dispatch.is_busy() {
                if self.filler.rows() == 0 {
                    return Ok(());
                }
                self.hand_over();
            }
            match self.dispatch.hear(deadline.saturating_duration_since(Instant::now()))? {
                Some(News::Taken) => {}
                Some(News::Waits(until)) if until < deadline => {}
                Some(News::Waits(_) | News::Lost) | None => return Ok(()),
            }
        }
    }

    fn forget(&mut self) {
        if self.filler.rows() > 0 {
            tracing::warn!(
                rows = self.filler.rows(),
                "rows were read and not written before their partitions went; the next owner reads them again"
            );
        }
        self.filler.forget();
        self.dispatch.forget();
    }
}

/// What the callbacks of the consumer need. They run within `poll`, on the thread of the loop; the lock is never contended.
pub(crate) struct Handover {
    desk: Mutex<Desk>,
    fatal: Mutex<Option<SinkError>>,
    /// Set when the assignment has changed: a pause does not outlive that.
    assigned: AtomicBool,
    shared: Arc<Shared>,
    status: Arc<Status>,
    drain_timeout: Duration,
}

/// One consumer's view of it; another consumer may follow when this one is shut out of its group.
pub(crate) struct Membership {
    handover: Arc<Handover>,
    /// What it still has to say on its way out is nobody's concern.
    is_over: AtomicBool,
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        let status = &self.handover.status;
        match serde_json::from_slice::<ClientStats>(json) {
            Ok(stats) => {
                status.log_is_connected(stats.is_connected());
                status.metrics.lag.set(stats.lag());
            }
            Err(error) => tracing::debug!(%error, "librdkafka's statistics cannot be read"),
        }
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if self.is_over.load(Ordering::Relaxed) || !matches!(rebalance, Rebalance::Revoke(_)) {
            return;
        }
        if consumer.assignment_lost() {
            // The partitions are somebody else's by now. A commit would fail, and that of a static member would be taken for one of its
            // former self, which shuts the client out for good.
            self.handover.desk().forget();
        } else {
            self.handover.finish();
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        self.handover.note_commit(&result);
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, _rebalance: &Rebalance<'_>) {
        if self.is_over.load(Ordering::Relaxed) {
            return;
        }
        let assigned = consumer.assignment().map(|list| list.to_topic_map().into_keys().collect()).unwrap_or_default();
        self.handover.status.assign(assigned);
        self.handover.assigned.store(true, Ordering::Relaxed);
    }
}

impl Handover {
    /// `desk` is not locked here: a commit's answer may come while it is.
    fn note_commit(&self, result: &KafkaResult<()>) {
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                tracing::debug!(%error, "offsets of written rows are not committed yet");
                self.shared.commit_failed.store(true, Ordering::Relaxed);
            }
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes and commits what is held, within the drain timeout.
    fn finish(&self) {
        let mut desk = self.desk();
        if let Err(error) = desk.drain(Instant::now() + self.drain_timeout) {
            *self.fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
        desk.forget();
    }

    fn take_fatal(&self) -> Result<(), SinkError> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// The present consumer as the delivering thread knows it, which does not keep it alive.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Weak<BaseConsumer<Membership>>>>);

impl Place {
    fn take(&self, consumer: &Arc<BaseConsumer<Membership>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(consumer);
    }
}

impl Committer for Place {
    fn commit(&self, offsets: &Offsets) -> Result<(), String> {
        let consumer = self.0.lock().unwrap_or_else(PoisonError::into_inner).upgrade().ok_or("the consumer is gone")?;
        if consumer.assignment_lost() {
            return Err("the partitions are lost".into());
        }
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for ((topic, partition), offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(|error| error.to_string())?;
        }
        // Without waiting: a log that has just gone would hold the thread up for as long as it is away. Librdkafka itself waits for
        // commits on their way before it gives partitions back or leaves the group.
        consumer.commit(&list, CommitMode::Async).map_err(|error| error.to_string())
    }
}

/// The loop of the sink's thread.
pub(crate) struct Intake {
    handover: Arc<Handover>,
    consumer: Arc<BaseConsumer<Membership>>,
    place: Place,
    /// What a consumer is made from.
    config: rdkafka::ClientConfig,
    topics: Vec<String>,
    /// When the consumer was last made anew because it had been shut out.
    made_anew: Option<Instant>,
    part: Part,
    batch_rows: usize,
    batch_size: usize,
    batch_wait: Duration,
    lifeline: Lifeline,
    /// While the database does not take rows: so memory stays bounded however long it lasts.
    is_paused: bool,
    /// The database has lost rows, and the log could not be asked yet for where they are. What is read meanwhile lies behind them.
    must_go_back: bool,
}

impl Intake {
    pub(crate) fn new(
        settings: &Settings,
        output: &Output,
        (filler, ahead, delivery): (Filler, Ahead, Delivery),
        status: Arc<Status>,
        part: Part,
    ) -> Result<Self, SinkError> {
        let (dispatch, worker) = Dispatch::new(delivery);
        let handover = Arc::new(Handover {
            shared: dispatch.shared(),
            desk: Mutex::new(Desk { filler, ahead, dispatch }),
            fatal: Mutex::default(),
            assigned: AtomicBool::new(false),
            status,
            drain_timeout: settings.sink.drain_timeout.duration(),
        });
        let (config, topics, place) = (config(settings, output.name()), subscription(&output.topics), Place::default());
        let consumer = connect(&config, &handover)?;
        place.take(&consumer);
        handover.desk().dispatch.start(worker, place.clone())?;
        subscribe(&consumer, &topics)?;
        Ok(Self {
            handover,
            consumer,
            place,
            config,
            topics,
            made_anew: None,
            part,
            batch_rows: output.batch_rows(&settings.sink),
            batch_size: usize::try_from(settings.sink.batch_size.bytes()).unwrap_or(usize::MAX),
            batch_wait: output.batch_wait(&settings.sink).duration(),
            lifeline: Lifeline::new(&settings.kafka.bootstrap_servers),
            is_paused: false,
            must_go_back: false,
        })
    }

    /// Reads and writes until `shutdown`, then finishes what is held and leaves the group.
    ///
    /// # Errors
    /// When the database or the log can never be used again.
    pub(crate) fn run(&mut self, shutdown: &Shutdown) -> Result<(), SinkError> {
        while !shutdown.is_set() {
            self.part.beat();
            self.part.set_ready(self.context().status.is_ready());
            self.turn()?;
        }
        self.context().finish();
        self.context().desk().dispatch.close();
        self.context().take_fatal()
    }

    fn context(&self) -> &Handover {
        &self.handover
    }

    fn turn(&mut self) -> Result<(), SinkError> {
        if self.lifeline.is_due(self.handover.status.is_log_away(), Instant::now()) {
            self.lifeline.throw(self.consumer.client());
        }
        match self.read() {
            Err(SinkError::Read(error)) if is_fenced(&error) => self.begin_anew(error)?,
            read => read?,
        }
        self.context().take_fatal()?;
        if self.context().assigned.swap(false, Ordering::Relaxed) && self.is_paused {
            self.pause();
        }
        if self.must_go_back {
            return self.try_to_go_back();
        }
        let wait = if self.is_paused { PATIENCE } else { Duration::ZERO };
        let news = self.context().desk().dispatch.hear(wait)?;
        self.heed(news)?;
        if self.must_go_back {
            return Ok(());
        }
        if self.hand_over_if_due() {
            self.resume();
        } else if !self.is_paused && self.is_full(&self.context().desk().filler) {
            let news = self.context().desk().dispatch.hear(PATIENCE)?;
            if news.is_none() {
                self.is_paused = true;
                self.pause();
            }
            self.heed(news)?;
        }
        Ok(())
    }

    /// Takes in the rows that are here, as many as there is room for; waits for the first one only.
    fn read(&self) -> Result<(), SinkError> {
        let mut patience = self.patience();
        for _ in 0..AT_ONCE {
            match self.consumer.poll(patience) {
                Some(Ok(message)) => {
                    // The poll may want the desk: it is not kept.
                    let mut desk = self.context().desk();
                    if !self.must_go_back {
                        desk.filler.push(&message, BorrowedMessage::detach);
                    }
                    if self.is_full(&desk.filler) {
                        return Ok(());
                    }
                }
                Some(Err(error)) => self.note(error)?,
                None => return Ok(()),
            }
            patience = Duration::ZERO;
        }
        Ok(())
    }

    fn heed(&mut self, news: Option<News>) -> Result<(), SinkError> {
        if let Some(News::Lost) = news {
            self.context().desk().forget();
            (self.must_go_back, self.is_paused) = (true, true);
            self.pause();
        }
        Ok(())
    }

    /// A log that is away is waited for.
    fn try_to_go_back(&mut self) -> Result<(), SinkError> {
        match self.go_back() {
            Ok(()) => {
                self.must_go_back = false;
                self.resume();
            }
            Err(error) if is_forbidden(&error) => return Err(SinkError::Read(error)),
            Err(error) => tracing::debug!(%error, "reading cannot go back yet to the rows that the database has lost"),
        }
        Ok(())
    }

    /// Hands the batch over when it is due and the one before it is written.
    fn hand_over_if_due(&self) -> bool {
        let mut desk = self.context().desk();
        if desk.dispatch.is_busy() {
            if self.is_full(&desk.filler) {
                desk.prepare();
            }
            return false;
        }
        if self.is_full(&desk.filler) || desk.filler.since().is_some_and(|since| since.elapsed() >= self.batch_wait) {
            desk.hand_over();
        }
        true
    }

    /// Whether the batch must go before more is read. While another one is on its way, one full batch waits for it: with both the memory is
    /// bounded.
    fn is_full(&self, filler: &Filler) -> bool {
        filler.rows() >= self.batch_rows || filler.bytes() >= self.batch_size
    }

    /// How long a turn may wait for a row.
    fn patience(&self) -> Duration {
        if self.must_go_back {
            return IDLE;
        }
        if self.is_paused {
            return Duration::ZERO;
        }
        let desk = self.context().desk();
        if desk.dispatch.is_busy() {
            return BUSY;
        }
        let due = desk.filler.since().map(|since| since + self.batch_wait);
        due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()).min(IDLE))
    }

    /// Another member goes by this one's instance id. Mostly that is this sink itself: after the process or the machine stood still,
    /// librdkafka has joined again while requests of before were still on their way. A client that has been shut out can never be used
    /// again, so another one takes its place. If it is another sink, it does the same, and whoever is shut out again soon gives up.
    fn begin_anew(&mut self, error: KafkaError) -> Result<(), SinkError> {
        if self.made_anew.is_some_and(|at| at.elapsed() < RIVALRY) {
            return Err(SinkError::Read(error));
        }
        tracing::warn!(%error, "the sink was shut out of its consumer group, most likely after a standstill, and joins it anew");
        self.made_anew = Some(Instant::now());
        self.handover.desk().forget();
        self.consumer.context().is_over.store(true, Ordering::Relaxed);
        let fresh = connect(&self.config, &self.handover)?;
        self.place.take(&fresh);
        drop(std::mem::replace(&mut self.consumer, fresh));
        // It begins at the committed positions.
        (self.is_paused, self.must_go_back) = (false, false);
        subscribe(&self.consumer, &self.topics)
    }

    fn resume(&mut self) {
        if std::mem::take(&mut self.is_paused) {
            let resumed = self.consumer.assignment().and_then(|all| self.consumer.resume(&all));
            self.log_fault("reading cannot be resumed", resumed);
        }
    }

    /// To the committed position of every partition that is ours.
    fn go_back(&self) -> KafkaResult<()> {
        let committed = self.consumer.committed(GO_BACK)?;
        check_each(&committed)?;
        let mut list = TopicPartitionList::with_capacity(committed.count());
        for element in committed.elements() {
            let offset = match element.offset() {
                Offset::Offset(offset) => Offset::Offset(offset),
                _ => Offset::Beginning,
            };
            list.add_partition_offset(element.topic(), element.partition(), offset)?;
        }
        // Whoever has no partitions now begins at the committed position of each that it is given.
        if list.count() == 0 {
            return Ok(());
        }
        check_each(&self.consumer.seek_partitions(list, GO_BACK)?)
    }

    fn pause(&self) {
        let paused = self.consumer.assignment().and_then(|all| self.consumer.pause(&all));
        self.log_fault("reading cannot be paused", paused);
    }

    fn log_fault(&self, what: &str, result: Result<(), KafkaError>) {
        if let Err(error) = result {
            tracing::warn!(%error, "{what}");
        }
    }

    /// Most faults pass, and librdkafka keeps trying by itself.
    fn note(&self, error: KafkaError) -> Result<(), SinkError> {
        match error {
            KafkaError::MessageConsumptionFatal(_) => Err(SinkError::Read(error)),
            error if is_forbidden(&error) => Err(SinkError::Read(error)),
            KafkaError::MessageConsumption(RDKafkaErrorCode::AllBrokersDown) => {
                self.context().status.log_is_connected(Some(false));
                Ok(())
            }
            other => {
                tracing::debug!(error = %other, "reading the result topics waits");
                Ok(())
            }
        }
    }
}

fn is_forbidden(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{GroupAuthorizationFailed, TopicAuthorizationFailed};
    matches!(error.rdkafka_error_code(), Some(GroupAuthorizationFailed | TopicAuthorizationFailed))
}

/// The first fault of a partition in the log's answer. A topic that is gone has nothing to go back to, which is none.
fn check_each(answer: &TopicPartitionList) -> KafkaResult<()> {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    let is_gone =
        |error: &KafkaError| matches!(error.rdkafka_error_code(), Some(UnknownTopic | UnknownPartition | UnknownTopicOrPartition));
    answer.elements().iter().filter_map(|one| one.error().err()).find(|error| !is_gone(error)).map_or(Ok(()), Err)
}

fn is_fenced(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId))
}

fn connect(config: &rdkafka::ClientConfig, handover: &Arc<Handover>) -> Result<Arc<BaseConsumer<Membership>>, SinkError> {
    let membership = Membership { handover: Arc::clone(handover), is_over: AtomicBool::new(false) };
    config.create_with_context(membership).map(Arc::new).map_err(SinkError::Client)
}

fn subscribe(consumer: &BaseConsumer<Membership>, topics: &[String]) -> Result<(), SinkError> {
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>()).map_err(SinkError::Client)
}

/// The topics to subscribe to; a name that begins with `^` is a pattern.
fn subscription(topics: &[String]) -> Vec<String> {
    if !topics.is_empty() {
        return topics.to_vec();
    }
    vec![format!("^{}.*", common::topics::aggregate("").replace('.', r"\."))]
}

fn config(settings: &Settings, output: &str) -> rdkafka::ClientConfig {
    let mut config = common::kafka::client(&settings.kafka, &format!("sink-{output}"));
    config
        // Each output has its own place in the log.
        .set("group.id", format!("tidemark.sink.{output}"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        // The partitions of a killed sink are free again after this.
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "2000")
        // A query that starts later brings a new topic: seen within a second.
        .set("topic.metadata.refresh.interval.ms", "1000")
        // Lag, and whether the log is there.
        .set("statistics.interval.ms", "1000")
        // Bounds the memory of what is fetched ahead.
        .set("queued.min.messages", "10000")
        // With that many fetched ahead librdkafka would look away for a second, and a batch takes a fraction of it.
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "8192");
    if let Some(id) = &settings.sink.instance_id {
        config.set("group.instance.id", id);
    }
    common::kafka::apply_properties(&mut config, &settings.kafka);
    config
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use broker::{Broker, BrokerConfig};
    use common::Telemetry;
    use common::kafka::{TopicSpec, ensure_topics};

    use super::*;
    use crate::point::Point;
    use crate::writer::{WriteError, WriteOutcome, Writer};

    #[test]
    fn without_topics_every_result_topic_is_read() {
        assert_eq!(subscription(&[]), [r"^iot\.agg\..*"]);
        assert_eq!(subscription(&["a".into(), "b".into()]), ["a", "b"]);
    }

    #[derive(Debug)]
    struct Nowhere;

    impl Writer for Nowhere {
        fn name(&self) -> &'static str {
            "nowhere"
        }

        fn write(&mut self, _points: &[Point]) -> Result<WriteOutcome, WriteError> {
            Ok(WriteOutcome::default())
        }
    }

    /// Another member by the same instance id, until it is shut out itself.
    fn rival(settings: &Settings) -> BaseConsumer {
        let mut config = config(settings, "nowhere");
        config.set("heartbeat.interval.ms", "100");
        let rival: BaseConsumer = config.create().unwrap();
        rival.subscribe(&[r"^iot\.agg\..*"]).unwrap();
        rival
    }

    /// Polls until `fine`, which sees each fault.
    async fn until(what: &str, rival: &BaseConsumer, mut fine: impl FnMut(Option<KafkaError>) -> bool) {
        let began = Instant::now();
        while !fine(rival.poll(Duration::ZERO).and_then(Result::err)) {
            assert!(began.elapsed() < Duration::from_secs(30), "waited too long until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sink_that_is_shut_out_joins_anew_once_and_gives_way_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerConfig::new(dir.path().join("log"), "127.0.0.1:0".parse().unwrap())).await.unwrap();
        let mut settings = Settings::default();
        settings.kafka.bootstrap_servers = broker.addr().to_string();
        settings.sink.instance_id = Some("one".into());
        // Who is silent for too long on a busy machine is told something else.
        settings.kafka.properties.insert("session.timeout.ms".into(), "60000".into());
        settings.sink.state_path = dir.path().join("state");
        let (telemetry, shutdown) = (Telemetry::default(), Shutdown::manual());
        let results = TopicSpec { name: "iot.agg.q".into(), partitions: 2, replication: 1, properties: Vec::new() };
        ensure_topics(&settings.kafka, &[results], &shutdown).await.unwrap();
        let sink = tokio::spawn(crate::run_with(Box::new(Nowhere), settings.clone(), telemetry.clone(), shutdown));
        let holds = || telemetry.status()["parts"]["sink"]["status"]["partitions"] == 2;
        let idle: BaseConsumer = rdkafka::ClientConfig::new().set("group.id", "idle").create().unwrap();
        until("the sink has both partitions", &idle, |_| holds()).await;
        let first = rival(&settings);
        // Its heartbeats tell the sink that it is shut out; joining anew, it shuts the rival out.
        until("the rival is shut out", &first, |fault| fault.is_some_and(|fault| is_fenced(&fault))).await;
        drop(first);
        until("the sink has them again", &idle, |_| holds()).await;
        assert!(!sink.is_finished());
        let second = rival(&settings);
        until("the sink gives up", &second, |_| sink.is_finished()).await;
        let ended = sink.await.unwrap().unwrap_err();
        assert!(matches!(&ended, SinkError::Read(error) if is_fenced(error)), "{ended}");
        drop((idle, second));
        broker.shutdown().await.unwrap();
    }
}
