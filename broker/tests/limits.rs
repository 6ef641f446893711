//! What must stay small: a nearly full disk, many topics, many connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use rdkafka::Offset;
use rdkafka::producer::{FutureProducer, FutureRecord};

/// A small file system of its own, for those who may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(parent: &Path, size: &str) -> Option<Self> {
        let path = parent.join("small");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Ends with the broker's first answer, a refusal too, and never by the clock.
fn who_asks_once(broker: &broker::Broker) -> FutureProducer {
    client(broker).set("message.timeout.ms", "60000").set("linger.ms", "0").set("retries", "0").create().unwrap()
}

async fn try_send(producer: &FutureProducer, bytes: usize) -> bool {
    let value = vec![7_u8; bytes];
    let record = FutureRecord::<str, [u8]>::to("t").partition(0).payload(&value);
    producer.send(record, PATIENCE).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_produces_and_takes_them_again() {
    let home = Home::new();
    let Some(disk) = SmallDisk::mount(home.dir.path(), "24m") else {
        eprintln!("skipped: only root can mount a small disk");
        return;
    };
    let mut config = home.config();
    config.data_dir = disk.0.join("log");
    config.min_free_bytes = Some(8 << 20);
    config.disk_check = std::time::Duration::from_millis(50);
    // Room that is given back at the end: the log may come a little below the mark before it notices.
    let reserve = disk.0.join("reserve");
    std::fs::write(&reserve, vec![0; 3 << 20]).unwrap();
    let broker = broker::Broker::start(config.clone()).await.unwrap();
    create(&broker, "t", 1, &[]).await;
    let producer = who_asks_once(&broker);
    let mut taken = 0_i64;
    while try_send(&producer, 900_000).await {
        taken += 1;
        assert!(taken < 30, "the mark is never reached");
    }
    assert!(taken >= 10, "{taken}");
    assert!(broker.stats().disk_free_bytes >= 7 << 20, "the mark is kept");
    let reader_of = reader(&broker, "t", 0, Offset::Beginning);
    assert_eq!(read_raw(&reader_of, taken as usize), taken as usize, "reading goes on");
    // Somebody else fills the disk to the last byte.
    let ballast = disk.0.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    until("the full disk to be noticed", || broker.stats().disk_low).await;
    assert!(!try_send(&producer, 10).await);
    assert_eq!(watermarks(&broker, "t", 0), (0, taken));
    std::fs::remove_file(&ballast).unwrap();
    std::fs::remove_file(&reserve).unwrap();
    until("the room to be noticed", || !broker.stats().disk_low).await;
    let again = who_asks_once(&broker);
    assert!(try_send(&again, 10).await, "produces are taken again");
    let end = watermarks(&broker, "t", 0).1;
    assert_eq!(end, taken + 1, "what was refused is not there");
    drop((producer, again, reader_of));
    broker.shutdown().await.unwrap();
    let broker = broker::Broker::start(config).await.unwrap();
    assert_eq!(watermarks(&broker, "t", 0).1, end);
    broker.shutdown().await.unwrap();
}

fn read_raw(consumer: &rdkafka::consumer::BaseConsumer, count: usize) -> usize {
    (0..count).map_while(|_| consumer.poll(PATIENCE)).filter(Result::is_ok).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_topics_keep_few_files_open() {
    let home = Home::new();
    let mut config = home.config();
    config.durability = broker::Durability::Os;
    let broker = broker::Broker::start(config.clone()).await.unwrap();
    let admin = admin(&broker);
    let names: Vec<String> = (0..400).map(|i| format!("t{i}")).collect();
    let topic = |name| rdkafka::admin::NewTopic::new(name, 2, rdkafka::admin::TopicReplication::Fixed(1));
    let topics: Vec<_> = names.iter().map(|name| topic(name)).collect();
    // Each topic is a number of files that are made to last: not all within the time of one request.
    for some in topics.chunks(20) {
        admin.create_topics(some, &rdkafka::admin::AdminOptions::new()).await.unwrap();
    }
    let producer = producer(&broker);
    let sends = names.iter().flat_map(|name| (0..2).map(move |partition| (name, partition)));
    let deliveries: Vec<_> = sends
        .map(|(name, partition)| producer.send_result(FutureRecord::<str, str>::to(name).partition(partition).payload("x")).unwrap())
        .collect();
    for delivery in deliveries {
        delivery.await.unwrap().unwrap();
    }
    let stats = broker.stats();
    assert_eq!((stats.topics, stats.partitions, stats.records_in), (400, 800, 800));
    assert!(stats.open_files <= 300, "{}", stats.open_files);
    broker.shutdown().await.unwrap();
    let broker = broker::Broker::start(config).await.unwrap();
    assert!(broker.stats().open_files <= 300);
    assert_eq!(watermarks(&broker, "t399", 1), (0, 1));
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_closed_and_the_others_served() {
    let home = Home::new();
    let mut config = home.config();
    config.max_connections = 200;
    let broker = broker::Broker::start(config).await.unwrap();
    create(&broker, "t", 1, &[]).await;
    until("the administrator to leave", || broker.stats().connections == 0).await;
    let producer = producer(&broker);
    send(&producer, "t", 0, "first", 1).await;
    let silent: Vec<_> = (0..1000).filter_map(|_| std::net::TcpStream::connect(broker.addr()).ok()).collect();
    until("those too many to be closed", || {
        let open = silent.iter().filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            (&**stream).read(&mut [0; 1]).is_err_and(|fault| fault.kind() == std::io::ErrorKind::WouldBlock)
        });
        open.count() <= 200
    })
    .await;
    until("those too many to be counted out", || broker.stats().connections <= 200).await;
    send(&producer, "t", 0, "second", 1).await;
    drop(silent);
    until("the silent ones to leave", || broker.stats().connections <= 3).await;
    broker.shutdown().await.unwrap();
}
