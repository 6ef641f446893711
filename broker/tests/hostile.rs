//! Bytes that no client sends: the connection ends, the broker goes on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::*;
use proptest::prelude::*;

/// Sends bytes and takes what comes back, until the connection ends or nothing has come for that long.
fn throw(broker: &broker::Broker, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(broker.addr()).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    // The broker may close before it has read everything.
    if stream.write_all(bytes).is_err() {
        return Vec::new();
    }
    stream.shutdown(std::net::Shutdown::Write).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    answer
}

fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(((10 + body.len()) as i32).to_be_bytes());
    out.extend(key.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(7_i32.to_be_bytes());
    out.extend((-1_i16).to_be_bytes());
    out.extend(body);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_and_garbage_end_the_connection_and_nothing_else() {
    let home = Home::new();
    let broker = home.start().await;
    create(&broker, "iot", 1, &[]).await;
    let huge = i32::MAX.to_be_bytes();
    let cases: Vec<Vec<u8>> = vec![
        huge.to_vec(),
        (-5_i32).to_be_bytes().to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        frame(999, 0, &[]),
        frame(3, 99, &[]),
        // Arrays that claim two thousand million elements.
        frame(3, 1, &huge),
        frame(0, 3, &[&[0xff; 2][..], &[0; 6], &huge].concat()),
        frame(1, 4, &[&[0; 17][..], &huge].concat()),
        frame(10, 0, &[0x7f, 0xff]),
        vec![0, 0, 0, 200, 0, 3],
    ];
    for case in &cases {
        assert_eq!(throw(&broker, case, PATIENCE), Vec::<u8>::new(), "{case:?}");
    }
    until("all of them to be counted", || broker.stats().bad_connections >= 8).await;
    // A version of ApiVersions from the future is answered in version 0, with what there is instead.
    let answer = throw(&broker, &frame(18, 77, &[]), PATIENCE);
    assert_eq!(&answer[4..10], [0, 0, 0, 7, 0, 35]);
    send(&producer(&broker), "iot", 0, "still here", 1).await;
    until("connections to end", || broker.stats().connections <= 3).await;
    broker.shutdown().await.unwrap();
}

#[test]
fn random_requests_do_no_harm() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = Home::new();
    let broker = runtime.block_on(home.start());
    let request = (0..70_i16, 0..18_i16, proptest::collection::vec(any::<u8>(), 0..200));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() });
    runner
        .run(&request, |(key, version, body)| {
            // A fetch of nothing may wait as long as it says.
            throw(&broker, &frame(key, version, &body), Duration::from_millis(500));
            Ok(())
        })
        .unwrap();
    runtime.block_on(until("all of them to be counted", || broker.stats().requests >= 300));
    runtime.block_on(broker.shutdown()).unwrap();
}
