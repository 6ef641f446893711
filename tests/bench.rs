//! Large workloads through the processor, every row checked; run by `tests/bench.sh`, on a machine that has nothing else to do. Figures are
//! printed and never asserted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::time::{Duration, Instant};

use harness::appliance::Appliance;
use harness::binaries::House;
use harness::log::{Kind, Log};
use harness::oracle::{Cells, Hopping};
use harness::process::Process;
use harness::query::Query;
use harness::random::Random;
use harness::wait::{wait_for, wait_until};
use harness::workload::{WIDE, Workload};
use harness::{ledger, oracle, points, readings, resend, results, topic, usage};
// For its allocator: what is measured here has the one of the programs.
use processor as _;
use rdkafka::message::Message as _;

const LIMIT: Duration = Duration::from_secs(1800);
const WINDOW: i64 = 10_000;
const DELAY: i64 = 5_000;
const HOP: (i64, i64) = (60_000, 1_000);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.replace('_', "").parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// A log with the readings of a workload; `None` when this run is not meant to have one.
fn load(workload: &Workload, test: &str) -> Option<Log> {
    let kind = if std::env::var("TIDEMARK_TEST_KAFKA").as_deref() == Ok("1") { Kind::Apache } else { Kind::Embedded };
    let log = Log::start(kind, test)?;
    topic::create(&log, "iot", 2);
    let started = Instant::now();
    workload.load(&log);
    println!("{workload:?}: written in {:.1?}", started.elapsed());
    Some(log)
}

/// What a run took.
struct Figures {
    rate: f64,
    /// Time on a processor, microseconds for each reading.
    cpu: f64,
    peak_mib: u64,
}

/// Runs a bounded query over all that is there, start and end of the program included.
#[allow(clippy::cast_precision_loss)]
fn run(house: &House<'_>, query: &Query, count: u64, label: &str) -> Figures {
    let (before, started) = (usage::cpu_of_ended_children(), Instant::now());
    let mut processor = Process::start("processor", &mut house.processor_command(&[query]));
    let mut peak_mib = 0;
    let status = wait_for("the processor to end", LIMIT, || {
        peak_mib = usage::peak_mib(processor.id()).max(peak_mib);
        processor.try_wait()
    });
    assert!(status.success(), "{}", processor.output());
    let cpu = (usage::cpu_of_ended_children() - before).as_secs_f64() * 1e6 / count as f64;
    let figures = Figures { rate: count as f64 / started.elapsed().as_secs_f64(), cpu, peak_mib };
    let Figures { rate, cpu, peak_mib } = figures;
    println!("{label}: {rate:.0} readings/s, {cpu:.2} µs of CPU each, {peak_mib} MiB");
    figures
}

fn compare(log: &Log, query: &Query, want: &Cells) {
    let got = results::read(log, query);
    oracle::assert_equal(&query.name, &got.cells(), want);
    println!("  {} cells, all equal; {} rows in the result topic", got.last.len(), got.rows);
}

fn tumbling(log: &Log, query: &Query) {
    let sorted = readings::sort(log, WINDOW, DELAY);
    compare(log, query, &oracle::fold(&sorted.used, WINDOW));
}

fn hopping(log: &Log, query: &Query) {
    let mut hopping = Hopping::new(HOP.0, HOP.1);
    readings::walk(log, DELAY, |_, reading| reading.iter().for_each(|(reading, watermark)| hopping.add(reading, *watermark)));
    compare(log, query, &hopping.cells());
}

fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tidemark-bench-").tempdir().unwrap()
}

/// A workload, loaded and run through the default query.
fn catch_up(workload: &Workload, query: &Query, label: &str, check: fn(&Log, &Query)) -> Option<(Figures, Log)> {
    let (log, dir) = (load(workload, label)?, temp_dir());
    let figures = run(&House { log: &log, dir: dir.path() }, query, workload.count, label);
    check(&log, query);
    Some((figures, log))
}

#[test]
#[ignore = "large; tests/bench.sh runs it"]
fn a_large_workload_is_exact() {
    let (count, kills) = (setting("N", 5_000_000), setting("KILLS", 0));
    let workload = Workload::new(count, setting("SENSORS", 1000));
    let Some(mut log) = load(&workload, "a_large_workload_is_exact") else { return };
    let dir = temp_dir();
    let bounded = Query::new("bench", "10 seconds");
    let endless = bounded.clone().trigger("");
    let mut random = Random::seeded(3);
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
    run(&house, &bounded, count, &format!("after {kills} kills"));
    let sorted = readings::sort(&log, WINDOW, DELAY);
    compare(&log, &bounded, &oracle::fold(&sorted.used, WINDOW));
    let mut processor = house.processor(&[&endless]);
    let counts = ledger::wait_read(&mut processor, &endless, count, LIMIT);
    assert_eq!((counts.used, counts.late), (sorted.used.len() as u64, sorted.late.len() as u64));
    println!("{counts:?}");
}

#[test]
#[ignore = "large; tests/bench.sh runs it"]
fn a_million_sensors() {
    let (count, sensors) = (setting("N", 5_000_000), setting("SENSORS", 1_000_000));
    let query = Query::new("bench", "10 seconds");
    let Some((few, _)) = catch_up(&Workload::new(count, 1000), &query, "1000 sensors", tumbling) else { return };
    // Two windows are live, as it takes 20 s until each sensor has spoken five times.
    let many = Workload { span: 20_000, ..Workload::new(count, sensors) };
    let Some((many, log)) = catch_up(&many, &query, &format!("{sensors} sensors"), tumbling) else { return };
    println!("{:.2} of the rate with 1000 sensors, {:.2} by CPU", many.rate / few.rate, few.cpu / many.cpu);
    // Whatever the processor does, its rows take this.
    let (rows, took) = resend::resend(&log, &query.topic(), "resent");
    println!("  {rows} such rows sent by two clients that do nothing else: {:.1} s", took.as_secs_f64());
}

#[test]
#[ignore = "large; tests/bench.sh runs it"]
fn more_windows_for_each_reading() {
    let count = setting("N", 5_000_000);
    let Some(log) = load(&Workload::new(count, setting("SENSORS", 1000)), "more_windows_for_each_reading") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    let (one, many) = (Query::new("tumbling", "10 seconds"), Query::new("hopping", "60 seconds', '1 second"));
    let tumbled = run(&house, &one, count, "tumbling, 10 s");
    tumbling(&log, &one);
    let hopped = run(&house, &many, count, "hopping, 60 s by 1 s");
    hopping(&log, &many);
    println!("{:.2} of the tumbling rate, {:.2} by CPU", hopped.rate / tumbled.rate, tumbled.cpu / hopped.cpu);
}

#[test]
#[ignore = "large; tests/bench.sh runs it"]
fn other_queries_and_readings() {
    let count = setting("N", 2_000_000);
    let (plain, query) = (Workload::new(count, 1000), Query::new("bench", "10 seconds"));
    catch_up(&plain, &query, "1000 sensors, five columns, 95 bytes", tumbling);
    catch_up(&Workload::new(count, 10), &query, "10 sensors", tumbling);
    catch_up(&Workload::new(count, 100_000), &query, "100000 sensors", tumbling);
    let wide = query.clone().columns(WIDE);
    catch_up(&Workload { wide: true, ..plain.clone() }, &wide, "ten columns, all of them in the schema", tumbling);
    catch_up(&Workload { bytes: 500, ..plain.clone() }, &query, "500 bytes", tumbling);
}

/// From the start of the program to the first result that was not there before, with the state of many groups to restore.
#[test]
#[ignore = "a measurement; tests/bench.sh runs it"]
fn start_to_first_result() {
    let (sensors, runs) = (setting("SENSORS", 100_000), setting("RUNS", 5));
    let Some(log) = load(&Workload { span: 1_000, ..Workload::new(3 * sensors, sensors) }, "start_to_first_result") else { return };
    let dir = temp_dir();
    let house = House { log: &log, dir: dir.path() };
    // The wall clock would close the windows of long ago.
    let query = Query::new("restored", "10 seconds").trigger("").idle_timeout("1 hour");
    let mut read = 3 * sensors;
    let mut processor = house.processor(&[&query]);
    ledger::wait_read(&mut processor, &query, read, LIMIT);
    for round in 0..runs {
        let graceful = round % 2 == 0;
        if graceful {
            processor.signal("TERM");
            processor.wait_success(LIMIT);
        } else {
            processor.kill();
        }
        drop(processor);
        let value = format!(r#"{{"sensor_id":"new-{round}","ts":1700000000500,"value":1.5,"kind":"k","seq":1}}"#);
        topic::write(&log, "iot", &[(&format!("new-{round}"), value.as_bytes())]);
        read += 1;
        let watch = topic::Watch::from_end(&log, &query.topic());
        processor = house.processor(&[&query]);
        let name = format!("new-{round}");
        watch.wait(LIMIT, |record| record.key() == Some(name.as_bytes()));
        let took = processor.started().elapsed();
        let end = if graceful { "a stop" } else { "a kill" };
        println!("first result {:.0} ms after the start, after {end}; {} MiB", took.as_secs_f64() * 1e3, usage::peak_mib(processor.id()));
        let groups = ledger::wait_read(&mut processor, &query, read, LIMIT).used;
        assert_eq!(groups, read, "none is late");
    }
    tumbling(&log, &query);
}

#[test]
#[ignore = "a measurement; tests/bench.sh runs it"]
fn the_simulator_into_the_log() {
    let count = setting("N", 5_000_000);
    let Some(log) = Log::start(Kind::Embedded, "the_simulator_into_the_log") else { return };
    let dir = temp_dir();
    for sensors in ["20", "1000"] {
        let (before, written) = (usage::cpu_of_ended_children(), if topic::exists(&log, "iot") { topic::count(&log, "iot") } else { 0 });
        let mut command = House { log: &log, dir: dir.path() }.command("producer");
        command.args(["--sensors", sensors, "--rate", "0", "--count", &count.to_string()]);
        let mut producer = Process::start("producer", &mut command);
        let mut peak_mib = 0;
        let status = wait_for("the producer to end", LIMIT, || {
            peak_mib = usage::peak_mib(producer.id()).max(peak_mib);
            producer.try_wait()
        });
        assert!(status.success(), "{}", producer.output());
        #[allow(clippy::cast_precision_loss)]
        let (seconds, count_f) = (producer.started().elapsed().as_secs_f64(), count as f64);
        let cpu = (usage::cpu_of_ended_children() - before).as_secs_f64() * 1e6 / count_f;
        println!("{sensors} sensors: {:.0} readings/s, {cpu:.2} µs of CPU each, {peak_mib} MiB", count_f / seconds);
        assert_eq!(topic::count(&log, "iot") - written, count, "the log has each reading");
    }
}

/// Everything in one process: at a high rate, at a low one, and doing nothing.
#[test]
#[ignore = "a measurement; tests/bench.sh runs it"]
fn the_whole_appliance() {
    let seconds = setting("READ_SECONDS", 20);
    for (sensors, rate) in [("1000", setting("RATE", 200_000).to_string()), ("20", "1000".into()), ("1", "0.001".into())] {
        let dir = temp_dir();
        let mut appliance = Appliance::start(dir.path(), &["--sensors", sensors, "--rate", &rate]);
        let log = Log::of_appliance(appliance.kafka);
        // Past the start, when every sensor has spoken and the database has its first points.
        std::thread::sleep(Duration::from_secs(5));
        let at = |appliance: &Appliance| (Instant::now(), appliance.rows_read(), usage::cpu(appliance.id()));
        let before = at(&appliance);
        std::thread::sleep(Duration::from_secs(seconds));
        let after = at(&appliance);
        let behind = topic::count(&log, "iot").saturating_sub(after.1);
        let took = (after.0 - before.0).as_secs_f64();
        #[allow(clippy::cast_precision_loss)]
        let read = (after.1 - before.1) as f64 / took;
        let (share, id) = ((after.2 - before.2).as_secs_f64() * 100.0 / took, appliance.id());
        println!(
            "{sensors} sensors at {rate}/s: {read:.0} readings/s counted, {behind} behind, {share:.2} % of a core, {} MiB",
            usage::resident_mib(id)
        );
        appliance.stop();
        drop(appliance);

        // A sensor that speaks once, so that what there is can be read in peace.
        let mut calm = Appliance::start(dir.path(), &["--sensors", "1", "--rate", "0.001"]);
        let log = Log::of_appliance(calm.kafka);
        // Its own first reading may come after what the log holds now.
        let (mut length, mut want) = (0, Cells::new());
        wait_until("every window in the database", LIMIT, || {
            let now = topic::count(&log, "iot");
            if now != length {
                (length, want) = (now, oracle::fold(&readings::sort(&log, WINDOW, DELAY).used, WINDOW));
            }
            points::read(&calm.database(), "iot-10s") == want
        });
        println!("  {} windows in the database, all equal", want.len());
        calm.stop();
    }
}
