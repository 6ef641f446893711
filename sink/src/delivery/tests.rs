use std::cell::RefCell;
use std::sync::Mutex;

use rdkafka::Timestamp;
use rdkafka::message::{Message as _, OwnedMessage};

use super::*;
use crate::ahead::{Ahead, Draft, Prepare};
use crate::batch::DeadRow;
use crate::filler::Filler;
use crate::mapping::Mapper;
use crate::metrics::Family;
use crate::point::Point;
use crate::writer::{Rejection, WriteOutcome};

/// Everything that happened, in order.
type Diary = Arc<Mutex<Vec<String>>>;

#[derive(Debug)]
struct FakeWriter {
    diary: Diary,
    /// Answers before the first success.
    faults: Vec<WriteError>,
}

impl Writer for FakeWriter {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        if !self.faults.is_empty() {
            return Err(self.faults.remove(0));
        }
        let times: Vec<i64> = points.iter().map(|point| point.time_ms).collect();
        self.diary.lock().unwrap().push(format!("write {times:?}"));
        Ok(WriteOutcome { written: points.len() as u64, ..WriteOutcome::default() })
    }
}

struct FakeLane(Diary, bool);

impl DeadLane for FakeLane {
    fn send(&mut self, row: &DeadRow) -> Result<(), SinkError> {
        self.0.lock().unwrap().push(format!("dead {} {}", row.record.offset(), row.why.reason));
        Ok(())
    }

    fn flush(&mut self) -> Result<bool, SinkError> {
        Ok(std::mem::replace(&mut self.1, true))
    }
}

struct FakeCommitter(Diary, RefCell<bool>);

impl Committer for FakeCommitter {
    fn commit(&self, offsets: &Offsets) -> Result<(), String> {
        if !self.1.replace(true) {
            return Err("away".into());
        }
        let all: Vec<String> = offsets.iter().map(|((topic, partition), offset)| format!("{topic}/{partition}={offset}")).collect();
        self.0.lock().unwrap().push(format!("commit {}", all.join(" ")));
        Ok(())
    }
}

fn record(partition: i32, offset: i64, value: &str) -> OwnedMessage {
    OwnedMessage::new(Some(value.into()), None, "iot.agg.q".into(), Timestamp::CreateTime(1), partition, offset, None)
}

fn row(time: i64) -> String {
    format!(r#"{{"window_start":{time},"avg":1.0}}"#)
}

struct Bench {
    filler: Filler,
    delivery: Delivery,
    committer: FakeCommitter,
    diary: Diary,
    status: Arc<Status>,
}

/// `lane_up` and `log_up`: whether the first flush and the first commit succeed.
fn bench(faults: Vec<WriteError>, lane_up: bool, log_up: bool) -> Bench {
    let diary = Diary::default();
    let status = Arc::new(Status::new(Family::register(&prometheus::Registry::new()).unwrap().of("fake"), "fake"));
    let writer = Box::new(FakeWriter { diary: Arc::clone(&diary), faults });
    let lane = Box::new(FakeLane(Arc::clone(&diary), lane_up));
    let filler = Filler::new(Mapper::default(), Arc::clone(&status));
    let delivery = Delivery::new(writer, None, lane, Arc::clone(&status));
    Bench { filler, delivery, committer: FakeCommitter(Arc::clone(&diary), RefCell::new(log_up)), diary, status }
}

impl Bench {
    fn push(&mut self, record: OwnedMessage) {
        self.filler.push(&record, OwnedMessage::clone);
    }

    fn deliver(&mut self) -> Delivered {
        if self.filler.rows() > 0 {
            self.delivery.accept(self.filler.take());
        }
        self.delivery.deliver(&self.committer).unwrap()
    }

    fn diary(&self) -> Vec<String> {
        self.diary.lock().unwrap().clone()
    }
}

#[test]
fn dead_rows_then_points_then_offsets() {
    let mut bench = bench(vec![], true, true);
    for record in [record(0, 4, &row(1)), record(1, 9, "poison"), record(0, 5, &row(2))] {
        bench.push(record);
    }
    assert_eq!(bench.deliver(), Delivered::All);
    assert_eq!(bench.diary(), ["dead 9 not_json", "write [1, 2]", "commit iot.agg.q/0=6 iot.agg.q/1=10"]);
    assert_eq!(bench.deliver(), Delivered::All);
    assert_eq!(bench.diary().len(), 3, "nothing is done twice");
    assert_eq!((bench.status.json()["rows"].as_u64(), bench.status.json()["rejected"].as_u64()), (Some(3), Some(1)));
}

#[test]
fn a_database_that_is_away_gets_the_same_batch_again() {
    let retry = |after| WriteError::Retry { detail: "locked".into(), after };
    let asked = Duration::from_secs(7);
    let mut bench = bench(vec![retry(None), retry(Some(asked))], true, true);
    bench.push(record(0, 0, &row(1)));
    assert!(matches!(bench.deliver(), Delivered::Waits(_)));
    assert!(!bench.status.is_ready());
    assert_eq!(bench.status.json()["error"], "locked");
    assert_eq!(bench.deliver(), Delivered::Waits(asked), "the database's own wish counts");
    assert_eq!(bench.deliver(), Delivered::All);
    assert!(bench.status.is_ready());
    assert_eq!(bench.diary(), ["write [1]", "commit iot.agg.q/0=1"]);
}

#[test]
fn refused_points_go_to_the_dead_lane_and_their_neighbours_pass() {
    let refusal = Rejection { index: 1, reason: "wrong_type", detail: "field avg is a string".into() };
    let mut bench = bench(vec![WriteError::Rejected(vec![refusal])], true, true);
    for at in 0..3 {
        bench.push(record(0, at, &row(at)));
    }
    assert_eq!(bench.deliver(), Delivered::All);
    assert_eq!(bench.diary(), ["dead 1 wrong_type", "write [0, 2]", "commit iot.agg.q/0=3"]);
}

#[test]
fn offsets_wait_for_the_dead_lane_and_each_dead_row_is_sent_once() {
    let mut bench = bench(vec![], false, true);
    bench.push(record(0, 0, "poison"));
    assert!(matches!(bench.deliver(), Delivered::Waits(_)));
    assert_eq!(bench.deliver(), Delivered::All);
    assert_eq!(bench.diary(), ["dead 0 not_json", "commit iot.agg.q/0=1"]);
}

#[test]
fn offsets_that_could_not_be_committed_go_with_the_next() {
    let mut bench = bench(vec![], true, false);
    bench.push(record(0, 0, &row(1)));
    assert_eq!(bench.deliver(), Delivered::All);
    bench.push(record(1, 0, &row(2)));
    assert_eq!(bench.deliver(), Delivered::All);
    assert_eq!(bench.diary(), ["write [1]", "write [2]", "commit iot.agg.q/0=1 iot.agg.q/1=1"]);
}

#[test]
fn what_no_retry_can_help_ends_the_sink_and_commits_nothing() {
    let mut bench = bench(vec![WriteError::Fatal("damaged".into())], true, true);
    bench.push(record(0, 0, &row(1)));
    bench.delivery.accept(bench.filler.take());
    assert_eq!(bench.delivery.deliver(&bench.committer).unwrap_err().to_string(), "damaged");
    assert!(bench.diary().is_empty());
}

/// Refuses a write that has any of these times, without saying which; keeps where it was told to be.
#[derive(Debug)]
struct Picky {
    diary: Diary,
    bad: Vec<i64>,
}

impl Writer for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        if points.iter().any(|point| self.bad.contains(&point.time_ms)) {
            return Err(WriteError::Refused { reason: "refused", detail: format!("one of {} is bad", points.len()) });
        }
        self.diary.lock().unwrap().push(format!("write {}", points.len()));
        Ok(WriteOutcome { written: points.len() as u64, ..WriteOutcome::default() })
    }
}

fn picky(bad: Vec<i64>) -> Bench {
    let mut bench = bench(vec![], true, true);
    bench.delivery.writer = Box::new(Picky { diary: Arc::clone(&bench.diary), bad });
    bench
}

#[test]
fn three_bad_rows_among_many_are_found_and_all_others_are_written() {
    let mut bench = picky(vec![0, 4_321, 9_999]);
    (0..10_000).for_each(|at| bench.push(record(0, at, &row(at))));
    let mut requests = 0;
    while bench.deliver() != Delivered::All {
        requests += 1;
        assert!(bench.status.is_ready(), "a search is no trouble");
    }
    assert!(requests < 100, "{requests} halvings");
    let dead: Vec<String> = bench.diary().into_iter().filter(|line| line.starts_with("dead")).collect();
    assert_eq!(dead, ["dead 0 refused", "dead 4321 refused", "dead 9999 refused"]);
    assert_eq!((bench.status.metrics.written.get(), bench.status.metrics.rejected_total()), (9_997, 3));
    assert_eq!(bench.diary().last().unwrap(), "commit iot.agg.q/0=10000");
}

/// Writes what was made ahead, and says so; its preparer finds the same fault that the writer knows.
#[derive(Debug)]
struct Hasty(Picky);

#[derive(Debug)]
struct Ready(Vec<i64>);

impl Prepare for Ready {
    fn prepare(&mut self, points: &[Point]) -> Draft {
        let bad = |(at, point): (usize, &Point)| {
            self.0.contains(&point.time_ms).then(|| Rejection { index: at, reason: "known", detail: "bad".into() })
        };
        Draft { faults: points.iter().enumerate().filter_map(bad).collect(), ..Draft::default() }
    }
}

impl Writer for Hasty {
    fn name(&self) -> &'static str {
        "hasty"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        self.0.write(points)
    }

    fn write_prepared(&mut self, points: &[Point], prepared: &Draft) -> Result<WriteOutcome, WriteError> {
        self.0.diary.lock().unwrap().push(format!("prepared {}", points.len()));
        if prepared.faults.is_empty() { self.0.write(points) } else { Err(WriteError::Rejected(prepared.faults.clone())) }
    }
}

/// `known`: bad rows that the preparer finds; `bad`: those that only the database does.
fn hasty(known: Vec<i64>, bad: Vec<i64>) -> (Bench, Ahead) {
    let mut bench = bench(vec![], true, true);
    bench.delivery.writer = Box::new(Hasty(Picky { diary: Arc::clone(&bench.diary), bad }));
    let ahead = Ahead::new(None, Some(Box::new(Ready(known))), Arc::clone(&bench.status));
    (bench, ahead)
}

#[test]
fn bytes_that_were_made_ahead_are_written_as_long_as_they_are_of_these_points() {
    let (mut bench, mut ahead) = hasty(vec![2], vec![]);
    (0..3).for_each(|at| bench.push(record(0, at, &row(at))));
    ahead.prepare(bench.filler.batch());
    // One more row comes: what was made is not of it.
    bench.push(record(0, 3, &row(3)));
    assert!(bench.filler.batch().prepared.is_none());
    ahead.prepare(bench.filler.batch());
    assert_eq!(bench.deliver(), Delivered::All);
    assert_eq!(bench.diary(), ["prepared 4", "dead 2 known", "write 3", "commit iot.agg.q/0=4"]);
}

#[test]
fn a_refusal_of_what_was_made_ahead_is_searched_without_it() {
    let (mut bench, mut ahead) = hasty(vec![], vec![1]);
    (0..4).for_each(|at| bench.push(record(0, at, &row(at))));
    ahead.prepare(bench.filler.batch());
    while bench.deliver() != Delivered::All {}
    assert_eq!(bench.diary(), ["prepared 4", "write 1", "dead 1 refused", "write 2", "commit iot.agg.q/0=4"]);
}

#[test]
fn a_database_that_is_away_gets_what_was_made_ahead_again() {
    let (mut bench, mut ahead) = hasty(vec![], vec![]);
    bench.push(record(0, 0, &row(0)));
    ahead.prepare(bench.filler.batch());
    bench.delivery.accept(bench.filler.take());
    let lane = FakeLane(Arc::clone(&bench.diary), false);
    bench.delivery.lane = Box::new(lane);
    assert!(matches!(bench.delivery.deliver(&bench.committer).unwrap(), Delivered::Waits(_)));
    assert_eq!(bench.delivery.deliver(&bench.committer).unwrap(), Delivered::All);
    assert_eq!(bench.diary(), ["prepared 1", "write 1", "commit iot.agg.q/0=1"]);
}
