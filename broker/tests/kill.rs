//! SIGKILL under load, again and again: every acknowledged record is there once, in order, and committed offsets are kept.
//!
//! `TIDEMARK_TEST_KILLS=50` kills more often than the default.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use common::PATIENCE;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, Offset, TopicPartitionList};

const READY: &str = "the broker listens on ";

/// Not a test: the process that is killed.
#[test]
fn broker_process() {
    let Ok(dir) = std::env::var("TIDEMARK_TEST_BROKER_DIR") else { return };
    let address = std::env::var("TIDEMARK_TEST_BROKER_ADDRESS").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let broker = broker::Broker::start(broker::BrokerConfig::new(dir, address.parse().unwrap())).await.unwrap();
        println!("\n{READY}{}", broker.addr());
        std::future::pending::<()>().await;
    });
}

struct Process(Child);

impl Process {
    fn start(dir: &Path, address: &str) -> (Self, SocketAddr) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "broker_process", "--nocapture"])
            .env("TIDEMARK_TEST_BROKER_DIR", dir)
            .env("TIDEMARK_TEST_BROKER_ADDRESS", address)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| line.strip_prefix(READY).map(str::to_owned));
        (Self(child), address.expect("the broker starts").parse().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: nothing is tidied up.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn client(address: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address.to_string()).set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "100");
    config
}

/// Sends the numbers from 0 on, a hundred at a time in flight, until told to stop; returns how many were acknowledged.
async fn send_numbers(producer: FutureProducer, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> u64 {
    let mut next = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let values: Vec<String> = (next..next + 100).map(|number| number.to_string()).collect();
        let deliveries: Vec<_> = values
            .iter()
            .map(|value| producer.send_result(FutureRecord::<str, str>::to("iot").partition(0).payload(value)).unwrap())
            .collect();
        for (i, delivery) in deliveries.into_iter().enumerate() {
            let delivery = delivery.await.unwrap().map_err(|(fault, _)| fault).unwrap();
            assert_eq!(delivery.offset, next as i64 + i as i64);
        }
        next += 100;
        sent.store(next, Ordering::SeqCst);
    }
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_and_double_nothing() {
    let kills: u64 = std::env::var("TIDEMARK_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let (mut process, address) = Process::start(dir.path(), "127.0.0.1:0");
    let admin: AdminClient<DefaultClientContext> = client(address).create().unwrap();
    let topic = NewTopic::new("iot", 1, TopicReplication::Fixed(1)).set("segment.bytes", "65536");
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    let producer = client(address).set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "1").create().unwrap();
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sending = tokio::spawn(send_numbers(producer, stop.clone(), sent.clone()));
    let group: BaseConsumer = client(address).set("group.id", "g").set("enable.auto.commit", "false").create().unwrap();
    let mut least = 0;
    for kill in 1..=kills {
        common::until("the producer to go on", || sent.load(Ordering::SeqCst) >= least + 300).await;
        least = sent.load(Ordering::SeqCst);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("iot", 0, Offset::Offset(kill as i64)).unwrap();
        group.commit(&list, CommitMode::Sync).unwrap();
        drop(process);
        process = Process::start(dir.path(), &address.to_string()).0;
        let mut list = TopicPartitionList::new();
        list.add_partition("iot", 0);
        let committed = group.committed_offsets(list, PATIENCE).unwrap().elements()[0].offset();
        assert_eq!(committed, Offset::Offset(kill as i64), "kill {kill}");
    }
    stop.store(true, Ordering::SeqCst);
    let count = sending.await.unwrap();
    let consumer: BaseConsumer = client(address).set("group.id", "reader").set("enable.auto.commit", "false").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("iot", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (mut next, deadline) = (0_u64, Instant::now() + PATIENCE);
    while next < count {
        assert!(Instant::now() < deadline, "only {next} of {count} came");
        if let Some(message) = consumer.poll(PATIENCE) {
            let message = message.unwrap();
            let value = std::str::from_utf8(message.payload().unwrap()).unwrap();
            assert_eq!((message.offset(), value), (next as i64, next.to_string().as_str()));
            next += 1;
        }
    }
    assert_eq!(consumer.fetch_watermarks("iot", 0, PATIENCE).unwrap(), (0, count as i64));
    drop(process);
}
