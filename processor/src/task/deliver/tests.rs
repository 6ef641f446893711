use std::path::Path;

use common::Shutdown;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use super::super::owner::Heartbeat;
use super::*;
use crate::query::file::QueryFile;

const LIMIT: Duration = Duration::from_secs(60);

struct Scene {
    mock: MockCluster<'static, DefaultProducerContext>,
    deliverer: Deliverer,
    runtime: tokio::runtime::Runtime,
}

fn scene() -> Scene {
    let mock = MockCluster::new(1).unwrap();
    let mut settings = Settings::default();
    for topic in ["out", &settings.topics.late, &settings.topics.dead] {
        mock.create_topic(topic, 1, 1).unwrap();
    }
    settings.kafka.bootstrap_servers = mock.bootstrap_servers();
    let text = "name='q'\n[source]\ntopic='iot'\nschema='ts TIMESTAMP, k STRING'\nevent_time='ts'\nwatermark='5s'\npartition_key='k'\n\
                [query]\nsql=\"SELECT k, count(*) AS n FROM iot GROUP BY window(ts, '10s'), k\"\n[sink]\ntopic='out'\n";
    let query = StreamQuery::compile(QueryFile::parse(text, Path::new("q.toml")).unwrap()).unwrap();
    let deliverer = Deliverer::new(&settings, &query).unwrap();
    Scene { mock, deliverer, runtime: tokio::runtime::Builder::new_current_thread().build().unwrap() }
}

impl Scene {
    /// `stopped`: it waits for nothing.
    fn owner(&self, stopped: bool) -> Owner {
        let stop = Shutdown::manual();
        if stopped {
            stop.trigger();
        }
        let drain = if stopped { Duration::ZERO } else { LIMIT };
        Owner::new("q", stop, self.runtime.handle().clone(), Heartbeat::new(), drain)
    }

    /// Sends results of the newest entry as one part.
    fn results(&self, rows: usize, value: &str) {
        let owner = self.owner(false);
        let (sender, waits) = self.deliverer.sender(rows, &owner).unwrap();
        for _ in 0..rows {
            self.deliverer.send_by(sender, BaseRecord::with_opaque_to("out", waits).key("k").payload(value), &owner).unwrap();
        }
    }

    fn values(&self, topic: &str, count: usize) -> Vec<String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.mock.bootstrap_servers()).set("group.id", "reader");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let (mut values, deadline) = (Vec::new(), Instant::now() + LIMIT);
        while values.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} rows came", values.len());
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                values.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
            }
        }
        values
    }
}

#[test]
fn the_rows_of_a_group_come_in_order_whoever_sends_them() {
    let mut scene = scene();
    let owner = scene.owner(false);
    // Many wait for their batch to be full or old, few do not.
    for (rows, value) in [(MANY + 1, "1"), (1, "2"), (MANY + 1, "3"), (1, "4")] {
        scene.results(rows, value);
        if value != "3" {
            scene.deliverer.before_entry(&owner).unwrap();
        }
    }
    scene.deliverer.wait(&owner).unwrap();
    let mut runs = scene.values("out", 2 * (MANY + 2));
    runs.dedup();
    assert_eq!(runs, ["1", "2", "3", "4"]);
}

#[test]
fn an_entry_waits_for_the_results_of_all_entries_but_the_newest() {
    let mut scene = scene();
    let (stopped, patient) = (scene.owner(true), scene.owner(false));
    scene.mock.broker_down(1).unwrap();
    for rows in [1, MANY] {
        scene.results(rows, "of the entry before the newest");
        scene.deliverer.before_entry(&stopped).unwrap();
        assert!(matches!(scene.deliverer.before_entry(&stopped), Err(TaskError::Stopped)), "nothing has arrived");
        scene.mock.broker_up(1).unwrap();
        scene.deliverer.before_entry(&patient).unwrap();
        scene.mock.broker_down(1).unwrap();
        // Of no entry.
        scene.deliverer.send(BaseRecord::<[u8], [u8], _>::with_opaque_to("out", AHEAD).payload(b"lane"), &patient).unwrap();
        assert!(matches!(scene.deliverer.before_entry(&stopped), Err(TaskError::Stopped)), "a lane's row is on its way");
        scene.mock.broker_up(1).unwrap();
        scene.deliverer.before_entry(&patient).unwrap();
        scene.mock.broker_down(1).unwrap();
    }
}

/// Refuses one record for each of `late`, in one step.
fn refuse(deliverer: &mut Deliverer, late: &[&str], owner: &Owner) {
    let records = Records::of(late.iter().map(|payload| (None, Some(payload.as_bytes()))));
    let refused: Vec<_> = (0..).zip(late).map(|(index, _)| Refused { index, reason: "late", detail: String::new() }).collect();
    deliverer.lanes(&records, &refused, &[], owner).unwrap();
}

#[test]
fn rows_of_the_lanes_leave_together_and_at_the_latest_with_their_entry() {
    let Scene { mut deliverer, mock, runtime } = scene();
    let owner = Owner::new("q", Shutdown::manual(), runtime.handle().clone(), Heartbeat::new(), LIMIT);
    refuse(&mut deliverer, &["1", "2", "3"], &owner);
    assert_eq!(deliverer.held.take().len(), 3, "few rows wait for others");
    refuse(&mut deliverer, &["4"], &owner);
    deliverer.before_entry(&owner).unwrap();
    assert!(deliverer.held.take().is_empty(), "none is left behind by its entry");
    refuse(&mut deliverer, &["5"], &owner);
    deliverer.hear(&owner).unwrap();
    assert!(deliverer.held.take().is_empty(), "nor while nothing else is to be done");
    refuse(&mut deliverer, &["6"], &owner);
    deliverer.flush(&owner).unwrap();
    assert!(deliverer.held.take().is_empty(), "nor at a flush");
    refuse(&mut deliverer, &["old"], &owner);
    let deadline = Instant::now() + LIMIT;
    while !deliverer.held.is_empty() {
        assert!(Instant::now() < deadline, "steps go on, and the row stays");
        refuse(&mut deliverer, &[], &owner);
    }
    let many = vec!["7"; held::ENOUGH];
    refuse(&mut deliverer, &many, &owner);
    assert!(deliverer.held.take().is_empty(), "many wait for nobody");
    deliverer.flush(&owner).unwrap();
    let scene = Scene { mock, deliverer, runtime };
    let late = scene.values(common::topics::LATE, 4 + held::ENOUGH);
    assert_eq!(late[..4], ["4", "5", "6", "old"]);
    assert!(late[4..].iter().all(|value| value == "7"));
}
