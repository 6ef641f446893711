//! Thousands of connections that are silent, slow or half closed: they cost little, they end, and the others are served.
//!
//! As many as ten thousand, or as the limit of open files (`ulimit -n`) lets this program have.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use common::*;
use process::Process;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::FutureProducer;

const WANTED: usize = 10_000;
/// What the broker may take, all those connections included.
const RESIDENT: u64 = 192 << 20;

/// Not a test: the broker that is measured.
#[test]
fn broker_process() {
    process::run_if_asked();
}

/// Connections that this program may have beside its other files.
fn possible() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files: usize = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1024);
    files.saturating_sub(300).min(WANTED)
}

fn clients(address: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address.to_string()).set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "100");
    config
}

async fn producer_for(address: SocketAddr) -> FutureProducer {
    let admin: AdminClient<DefaultClientContext> = clients(address).create().unwrap();
    admin.create_topics([&NewTopic::new("t", 1, TopicReplication::Fixed(1))], &AdminOptions::new()).await.unwrap();
    let producer: FutureProducer = clients(address).set("acks", "all").create().unwrap();
    send(&producer, "t", 0, "first", 1).await;
    producer
}

/// Whether the other side has closed it.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut stream = stream;
    match stream.read(&mut [0; 1]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(fault) => fault.kind() != ErrorKind::WouldBlock,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_bad_connections_do_not_hurt_a_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, address) = Process::start(dir.path(), "127.0.0.1:0");
    let producer = producer_for(address).await;
    let count = possible();
    let mut open = Vec::with_capacity(count);
    for i in 0..count {
        // Those too many are closed, perhaps before this side has seen them open.
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        match i % 4 {
            0 => {}
            1 => drop(stream.write_all(&[0, 0])),
            2 => drop(stream.write_all(&[&8000_i32.to_be_bytes()[..], &[0; 500]].concat())),
            _ => drop(stream.shutdown(Shutdown::Write)),
        }
        open.push(stream);
        if i % 1000 == 0 {
            send(&producer, "t", 0, "among them", 1).await;
        }
    }
    until("those half closed or too many to be closed", || {
        let closed = open.iter().filter(|stream| is_closed(stream)).count();
        closed >= count / 4
    })
    .await;
    send(&producer, "t", 0, "after them", 1).await;
    let resident = broker.resident();
    eprintln!("{count} connections, {} MiB resident", resident >> 20);
    assert!(resident < RESIDENT, "{} MiB", resident >> 20);
    drop(open);
    // A new client finds a place as well.
    let late = producer_for(address).await;
    send(&late, "t", 0, "late", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn announcements_of_large_requests_take_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, address) = Process::start(dir.path(), "127.0.0.1:0");
    let producer = producer_for(address).await;
    let part = vec![0; 8 << 20];
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&(90_i32 << 20).to_be_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        open.push(stream);
    }
    // Each sends what is taken from it, up to 8 MiB of the 90 it has announced.
    let mut sent = vec![0; open.len()];
    for _ in 0..200 {
        for (stream, sent) in open.iter_mut().zip(&mut sent) {
            if let Ok(bytes) = stream.write(&part[..(part.len() - *sent).min(256 << 10)]) {
                *sent += bytes;
            }
        }
        tokio::task::yield_now().await;
    }
    send(&producer, "t", 0, "small ones pass", 1).await;
    let resident = broker.resident();
    eprintln!("{} MiB sent, {} MiB resident", sent.iter().sum::<usize>() >> 20, resident >> 20);
    assert!(resident < RESIDENT, "{} MiB", resident >> 20);
}
