use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::binaries::House;
use super::log::Log;
use super::process::Process;
use super::random::Random;
use super::topic;

/// A series of readings that takes `seconds` to replay at [`SPEED`]: disorder within the delay, and late rows.
pub(crate) struct Load {
    file: PathBuf,
    pub(crate) rows: u64,
}

const SPEED: i64 = 60;
const SENSORS: u64 = 100;
const PER_SECOND: i64 = 8_000;

impl Load {
    pub(crate) fn write(dir: &Path, seconds: i64, random: &mut Random) -> Self {
        let rows = seconds * PER_SECOND;
        let mut text = String::from("sensor_id,ts,value,kind,seq\n");
        for seq in 0..rows {
            let now = 1_700_000_000_000 + seq * SPEED * 1000 / PER_SECOND;
            let ts = match random.between(0, 1000) {
                0 => now - 45_000,
                1..50 => now - i64::try_from(random.between(1, 4_000)).unwrap(),
                _ => now,
            };
            let (sensor, value) = (random.between(0, SENSORS), random.between(0, 100_000));
            writeln!(text, "c-{sensor:03},{ts},{}.{:03},kind-{},{seq}", value / 1000, value % 1000, sensor % 3).unwrap();
        }
        let file = dir.join("load.csv");
        std::fs::write(&file, text).unwrap();
        Self { file, rows: rows.unsigned_abs() }
    }

    pub(crate) fn start(&self, house: &House<'_>) -> Process {
        let mut command = house.command("producer");
        command.arg("--replay").arg(&self.file).args(["--speed", &SPEED.to_string()]);
        Process::start("producer", &mut command)
    }
}

/// In the input topic each reading of the load once.
pub(crate) fn check_input(log: &Log, load: &Load) {
    let mut seqs: Vec<i64> = Vec::new();
    topic::scan(log, "iot", |message| {
        use rdkafka::message::Message as _;
        let value: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        seqs.push(value["seq"].as_i64().unwrap());
    });
    let records = seqs.len();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!((records as u64, seqs.len() as u64), (load.rows, load.rows), "records, and different ones, in the input topic");
}
