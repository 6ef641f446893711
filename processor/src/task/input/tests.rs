use std::path::Path;

use common::Shutdown;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use super::super::owner::Heartbeat;
use super::*;
use crate::query::file::QueryFile;

const LIMIT: Duration = Duration::from_secs(60);

/// A log of one partition, and who reads it from its beginning.
struct Scene {
    mock: MockCluster<'static, DefaultProducerContext>,
    reader: Reader,
    owner: Owner,
    _runtime: tokio::runtime::Runtime,
}

fn scene() -> Scene {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("iot", 1, 1).unwrap();
    let mut settings = Settings::default();
    settings.kafka.bootstrap_servers = mock.bootstrap_servers();
    let text = "name='q'\n[source]\ntopic='iot'\nschema='ts TIMESTAMP, k STRING'\nevent_time='ts'\nwatermark='5s'\n\
                [query]\nsql='SELECT k, count(*) AS n FROM iot GROUP BY k'\n";
    let query = StreamQuery::compile(QueryFile::parse(text, Path::new("q.toml")).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let owner = Owner::new("q", Shutdown::manual(), runtime.handle().clone(), Heartbeat::new(), LIMIT);
    let reader = Reader::start(&settings, &query, &BTreeMap::from([(0, Some(0))]), &owner).unwrap();
    Scene { mock, reader, owner, _runtime: runtime }
}

impl Scene {
    fn write(&self, values: &[&str]) {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", self.mock.bootstrap_servers()).create().unwrap();
        for value in values {
            producer.send(BaseRecord::<(), str>::to("iot").partition(0).payload(value)).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(LIMIT).unwrap();
    }

    /// Reads to the end of the partition, and gives the offsets of what came.
    fn read_to_the_end(&mut self) -> Vec<i64> {
        let deadline = Instant::now() + LIMIT;
        while !self.reader.pile.is_at_end(0) {
            assert!(Instant::now() < deadline, "the end is not told");
            self.reader.fill(Duration::from_millis(50), None, &self.owner).unwrap();
        }
        let offsets = self.reader.taken().iter().flat_map(|records| (0..records.len()).map(|row| records.get(row).offset)).collect();
        self.reader.clear();
        offsets
    }
}

#[test]
fn whoever_was_deaf_asks_for_the_ends_anew_and_reads_on_where_it_was() {
    let mut scene = scene();
    scene.write(&["1", "2", "3"]);
    assert_eq!(scene.read_to_the_end(), [0, 1, 2]);
    assert_eq!(scene.reader.idle(Duration::ZERO), [(0, 3)]);

    scene.reader.was_deaf().unwrap();
    assert_eq!(scene.reader.idle(Duration::ZERO), [], "it does not know whether the log is quiet");
    assert_eq!(scene.read_to_the_end(), [0_i64; 0], "nothing is read twice");
    assert_eq!(scene.reader.idle(Duration::ZERO), [(0, 3)]);
    let quiet = Quietness { offset: 3, since: Instant::now().checked_sub(LIMIT).unwrap() };
    assert!(scene.reader.silence(0, &quiet) < LIMIT / 2, "what could not be heard was no silence");

    scene.reader.was_deaf().unwrap();
    scene.write(&["4"]);
    assert_eq!(scene.read_to_the_end(), [3]);
}
