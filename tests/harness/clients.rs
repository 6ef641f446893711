use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::mosquitto::Mosquitto;
use super::process::Process;
use super::wait::wait_until;

/// For what takes its time in the full size of a test.
const LIMIT: Duration = Duration::from_secs(600);
/// A line of the ledger of `tests/mqtt_devices.py`, `d-0001 00000017`.
const LINE: u64 = 16;
/// Lines of one run of `mosquitto_pub -l`.
const BATCH: u64 = 20;

/// A Python with the clients of `tests/mqtt_clients.sh`: `paho` or `sparkplug`. They are installed with `TIDEMARK_TEST_MQTT_CLIENTS=1`;
/// once installed, their tests always run. `None`, and a word on the terminal, when they are not there.
pub(crate) fn python(name: &str, test: &str) -> Option<PathBuf> {
    if std::env::var("TIDEMARK_TEST_MQTT_CLIENTS").as_deref() == Ok("1") {
        let output = Command::new("bash").arg(beside("mqtt_clients.sh")).arg("resolve").output().unwrap();
        assert!(output.status.success(), "tests/mqtt_clients.sh resolve:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let clients = std::env::var_os("MQTT_CLIENTS").map_or_else(|| cache.join("tidemark-test/mqtt-clients"), PathBuf::from);
    let python = clients.join(name).join("bin/python");
    if !clients.join(name).join(".complete").exists() {
        super::skipped(test, "the clients of tests/mqtt_clients.sh are not installed; TIDEMARK_TEST_MQTT_CLIENTS=1 does it");
        return None;
    }
    Some(python)
}

/// A file of `tests/`.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

// ---- devices

/// Clients of paho, in a process of their own.
pub(crate) struct Paho {
    pub(crate) process: Process,
    ledger: PathBuf,
}

impl Paho {
    pub(crate) fn start(python: &Path, broker: &Mosquitto, clients: u32, count: u64, rate: u64, dir: &Path) -> Self {
        let ledger = dir.join("ledger");
        let mut command = Command::new(python);
        command.arg(beside("mqtt_devices.py")).args(["127.0.0.1", &broker.address.port().to_string()]);
        command.args(["--clients", &clients.to_string(), "--count", &count.to_string(), "--rate", &rate.to_string()]);
        let process = Process::start("paho", command.arg("--ledger").arg(&ledger));
        Self { process, ledger }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        std::fs::metadata(&self.ledger).map_or(0, |file| file.len() / LINE)
    }

    /// Waits until so many more readings are acknowledged.
    pub(crate) fn wait_more(&self, count: u64) {
        let goal = self.acknowledged() + count;
        wait_until(&format!("{goal} acknowledged readings"), LIMIT, || self.acknowledged() >= goal);
    }

    /// Nothing is published any more, and all that was is acknowledged.
    pub(crate) fn pause(&mut self) {
        let pauses = self.pauses();
        self.process.signal("USR1");
        wait_until("the devices to pause", LIMIT, || self.pauses() > pauses);
    }

    fn pauses(&self) -> usize {
        self.process.output().lines().filter(|line| *line == "paused").count()
    }

    pub(crate) fn go_on(&self) {
        self.process.signal("USR2");
    }

    pub(crate) fn readings(&self) -> Vec<Name> {
        let text = std::fs::read_to_string(&self.ledger).unwrap();
        text.lines().map(|line| line.split_once(' ').map(|(sensor, seq)| (sensor.to_owned(), seq.parse().unwrap())).unwrap()).collect()
    }
}

/// Sensor and seq.
pub(crate) type Name = (String, u64);

/// `mosquitto_pub -l`, again and again: what a run that ended well was given is acknowledged; otherwise it is sent again.
pub(crate) struct MosquittoPub {
    ended: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    resting: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Name>>>,
    failures: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl MosquittoPub {
    pub(crate) fn start(broker: &Mosquitto, sensor: &str) -> Self {
        let mut this = Self {
            ended: Arc::default(),
            paused: Arc::default(),
            resting: Arc::default(),
            acknowledged: Arc::default(),
            failures: Arc::default(),
            thread: None,
        };
        let (ended, paused, resting) = (this.ended.clone(), this.paused.clone(), this.resting.clone());
        let (acknowledged, failures) = (this.acknowledged.clone(), this.failures.clone());
        let (address, sensor) = (broker.address, sensor.to_owned());
        this.thread = Some(std::thread::spawn(move || {
            let mut first = 0;
            while !ended.load(Ordering::Acquire) {
                resting.store(paused.load(Ordering::Acquire), Ordering::Release);
                if paused.load(Ordering::Acquire) {
                    std::thread::park_timeout(Duration::from_millis(20));
                    continue;
                }
                let names: Vec<Name> = (first..first + BATCH).map(|seq| (sensor.clone(), seq)).collect();
                if publish(super::mosquitto::publish(address), &names) {
                    acknowledged.lock().unwrap().extend(names);
                    first += BATCH;
                } else {
                    failures.fetch_add(1, Ordering::Relaxed);
                    std::thread::park_timeout(Duration::from_millis(100));
                }
            }
        }));
        this
    }

    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Release);
        wait_until("mosquitto_pub to rest", LIMIT, || self.resting.load(Ordering::Acquire));
    }

    pub(crate) fn go_on(&self) {
        self.paused.store(false, Ordering::Release);
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// How many runs did not end well.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn end(mut self) -> Vec<Name> {
        self.ended.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

fn publish(mut command: Command, names: &[Name]) -> bool {
    use std::io::Write as _;
    let sensor = &names[0].0;
    command.args(["-l", "-t", &format!("sensors/{sensor}/temperature")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let now = now();
    let lines: String =
        names.iter().map(|(sensor, seq)| format!("{{\"sensor_id\":\"{sensor}\",\"ts\":{now},\"value\":1,\"seq\":{seq}}}\n")).collect();
    // A broker that is away: the program ends before it has read all.
    let written = child.stdin.take().unwrap().write_all(lines.as_bytes()).is_ok();
    child.wait().unwrap().success() && written
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
