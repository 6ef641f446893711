//! A large workload through the processor, every row checked; run by `tests/bench.sh`, on a machine that has nothing else to do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::io::Write as _;
use std::time::{Duration, Instant};

use harness::binaries::House;
use harness::log::{Kind, Log};
use harness::process::Process;
use harness::query::Query;
use harness::random::Random;
use harness::{ledger, oracle, readings, results, topic};

const LIMIT: Duration = Duration::from_secs(1800);
const WINDOW: i64 = 10_000;
const DELAY: i64 = 5_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.replace('_', "").parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Readings of about 95 bytes: 500 s of event time, one in twenty up to 4 s out of order, one in a thousand 30 s late.
fn load(log: &Log, count: u64, sensors: u64) {
    const KINDS: [&str; 4] = ["temperature", "humidity", "pressure", "vibration"];
    let mut random = Random::seeded(42);
    let mut writer = topic::Writer::new(log, "iot");
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for seq in 0..count {
        let now = 1_700_000_000_000 + i64::try_from(seq * 500_000 / count).unwrap();
        let sensor = random.between(0, sensors);
        let ts = match random.between(0, 1000) {
            0 if now > 1_700_000_060_000 => now - 30_000,
            1..51 => now - i64::try_from(random.between(1, 4000)).unwrap(),
            _ => now,
        };
        let milli = 15_000 + sensor * 37 % 60_000 + random.between(0, 10_000);
        key.clear();
        value.clear();
        write!(key, "sensor-{sensor:04}").unwrap();
        let kind = KINDS[usize::try_from(sensor % 4).unwrap()];
        let (whole, part) = (milli / 1000, milli % 1000);
        write!(value, r#"{{"sensor_id":"sensor-{sensor:04}","ts":{ts},"value":{whole}.{part:03},"kind":"{kind}","seq":{seq}}}"#).unwrap();
        writer.send(&key, &value);
    }
    writer.finish();
}

#[test]
#[ignore = "large; tests/bench.sh runs it"]
fn a_large_workload_is_exact() {
    let kind = if std::env::var("TIDEMARK_TEST_KAFKA").as_deref() == Ok("1") { Kind::Apache } else { Kind::Embedded };
    let Some(mut log) = Log::start(kind, "a_large_workload_is_exact") else { return };
    let dir = tempfile::Builder::new().prefix("tidemark-bench-").tempdir().unwrap();
    let (count, kills) = (setting("N", 5_000_000), setting("KILLS", 0));
    topic::create(&log, "iot", 2);
    let started = Instant::now();
    load(&log, count, setting("SENSORS", 1000));
    println!("{count} readings written in {:.1?}", started.elapsed());

    let bounded = Query::new("bench", "10 seconds");
    let endless = bounded.clone().trigger("");
    let mut random = Random::seeded(3);
    let started = Instant::now();
    for kill in 1..=kills {
        let mut victim = House { log: &log, dir: dir.path() }.processor(&[&endless]);
        std::thread::sleep(Duration::from_millis(random.between(500, 4_000)));
        if kill == 2 {
            log.kill_and_restart();
        }
        assert!(victim.try_wait().is_none(), "the processor had ended by itself:\n{}", victim.output());
        victim.kill();
    }
    let house = House { log: &log, dir: dir.path() };
    let mut processor = Process::start("processor", &mut house.processor_command(&[&bounded]));
    processor.wait_success(LIMIT);
    let seconds = started.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / seconds;
    println!("processed in {seconds:.2} s, start and end of the program included: {rate:.0} readings/s ({kills} kills)");

    let sorted = readings::sort(&log, WINDOW, DELAY);
    let got = results::read(&log, &bounded);
    oracle::assert_equal("fold in the order of the log", &got.cells(), &oracle::fold(&sorted.used, WINDOW));
    println!("{} cells, all equal; {} rows in the result topic, {} late", got.last.len(), got.rows, sorted.late.len());
    let mut processor = house.processor(&[&endless]);
    let counts = ledger::wait_read(&mut processor, &endless, count, LIMIT);
    assert_eq!((counts.used, counts.late), (sorted.used.len() as u64, sorted.late.len() as u64));
    println!("{counts:?}");
}
