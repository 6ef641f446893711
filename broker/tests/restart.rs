//! Stops, crashes and torn files: nothing acknowledged is lost, nothing is there twice.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use broker::{Broker, BrokerError};
use common::*;
use rdkafka::Offset;
use rdkafka::producer::FutureRecord;

/// Sends numbers until told to stop; returns what was acknowledged, by offset.
async fn send_numbers(producer: rdkafka::producer::FutureProducer, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> BTreeMap<i64, u64> {
    let mut open = tokio::task::JoinSet::new();
    let mut acknowledged = BTreeMap::new();
    let mut next = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let value = format!("{next}");
        let record = FutureRecord::<str, str>::to("iot").partition(0).payload(&value);
        match producer.send_result(record) {
            Ok(delivery) => {
                open.spawn(async move { (next, delivery.await) });
                next += 1;
                sent.store(next, Ordering::SeqCst);
            }
            Err(_) => tokio::task::yield_now().await,
        }
        while open.len() > 500 {
            let (number, delivery) = open.join_next().await.unwrap().unwrap();
            acknowledged.insert(delivery.unwrap().unwrap().offset, number);
        }
    }
    while let Some(done) = open.join_next().await {
        let (number, delivery) = done.unwrap();
        acknowledged.insert(delivery.unwrap().unwrap().offset, number);
    }
    acknowledged
}

async fn survive(crash: bool) {
    let home = Home::new();
    let mut broker = home.start().await;
    let addr = broker.addr();
    create(&broker, "iot", 1, &[("segment.bytes", "16384")]).await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sending = tokio::spawn(send_numbers(producer(&broker), stop.clone(), sent.clone()));
    for round in 1..=4 {
        until("the producer to go on", || sent.load(Ordering::SeqCst) > round * 3000).await;
        if crash {
            drop(broker);
        } else {
            broker.shutdown().await.unwrap();
        }
        broker = home.start_at(addr).await;
    }
    stop.store(true, Ordering::SeqCst);
    let acknowledged = sending.await.unwrap();
    let count = sent.load(Ordering::SeqCst);
    assert_eq!(acknowledged.len() as u64, count);
    assert_eq!(watermarks(&broker, "iot", 0), (0, count as i64), "as many records as were sent");
    let consumer = reader(&broker, "iot", 0, Offset::Beginning);
    for (i, (offset, value)) in read(&consumer, count as usize).into_iter().enumerate() {
        assert_eq!((offset, value), (i as i64, i.to_string()));
        assert_eq!(acknowledged[&offset], i as u64);
    }
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_load_loses_and_doubles_nothing() {
    survive(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_under_load_loses_and_doubles_nothing() {
    survive(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_running_directory_has_all_that_was_acknowledged() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "iot", 1, &[]).await;
    let producer = producer(&broker);
    for i in 0..50 {
        send(&producer, "iot", 0, &format!("{i}"), 1).await;
    }
    let copy = Home::new();
    copy_dir(home.dir.path(), copy.dir.path());
    let log = copy.dir.path().join("log/iot-0/00000000000000000000.log");
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, [&whole[..], &whole[..40]].concat()).unwrap();
    let other = copy.start().await;
    assert_eq!(watermarks(&other, "iot", 0), (0, 50));
    other.shutdown().await.unwrap();
    // A flipped bit in the middle is something else.
    let mut broken = whole.clone();
    broken[whole.len() / 2] ^= 1;
    std::fs::write(&log, broken).unwrap();
    let refused = Broker::start(copy.config()).await.unwrap_err();
    assert!(matches!(&refused, BrokerError::Corrupt { file, .. } if *file == log), "{refused}");
    broker.shutdown().await.unwrap();
}
