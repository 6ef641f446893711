//! Result rows sent again and nothing else: what Kafka's client and the log take for them, whoever computes them.

use std::time::{Duration, Instant};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::log::{Log, client};
use super::topic::{self, Record};

const LIMIT: Duration = Duration::from_secs(600);

/// Rows that are kept; they are sent in turn.
const KEPT: usize = 100_000;

/// Sends as many rows as there are in `from`, from a thread of its own into each of two partitions, by clients that are set as those of the
/// processor. Gives their number, and the time until the log has them all.
pub(crate) fn resend(log: &Log, from: &str, to: &str) -> (u64, Duration) {
    let mut rows = [Vec::new(), Vec::new()];
    let mut count = 0_u64;
    topic::scan(log, from, |message| {
        count += 1;
        let row = Record::from(message);
        let of_partition = &mut rows[usize::from(row.partition == 1)];
        if of_partition.len() < KEPT / 2 {
            of_partition.push(row);
        }
    });
    topic::create(log, to, 2);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (partition, rows) in (0..).zip(&rows) {
            scope.spawn(move || send_all(log, (to, partition), rows.iter().cycle().take(usize::try_from(count / 2).unwrap())));
        }
    });
    (count / 2 * 2, started.elapsed())
}

fn send_all<'a>(log: &Log, (to, partition): (&str, i32), rows: impl Iterator<Item = &'a Record>) {
    let mut config = client(&log.servers());
    config.set("acks", "all").set("enable.idempotence", "true").set("compression.type", "lz4").set("batch.size", "1048576");
    config.set("linger.ms", "25").set("batch.num.messages", "2000").set("queue.buffering.max.messages", "10000");
    let producer: BaseProducer = config.create().unwrap();
    for row in rows {
        let headers = OwnedHeaders::new_with_capacity(row.headers.len());
        let insert = |headers: OwnedHeaders, (key, value): (&String, &String)| headers.insert(Header { key, value: Some(value) });
        let headers = row.headers.iter().fold(headers, insert);
        let key = row.key.as_deref().unwrap_or_default();
        topic::send(&producer, BaseRecord::to(to).partition(partition).key(key).payload(row.value.as_slice()).headers(headers));
    }
    producer.flush(LIMIT).unwrap();
}
