//! A Kinesis server, and somebody who stands before it and answers in its stead now and then.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::http;
use super::log::free_address;
use super::process::Process;
use super::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Kinesis {
    pub(crate) address: SocketAddr,
    _process: Process,
}

/// Whether the server, and a processor that knows Kinesis, are there; and a word on the terminal when they are not.
pub(crate) fn is_ready(test: &str) -> bool {
    if std::env::var("TIDEMARK_TEST_KINESIS").as_deref() != Ok("1") {
        super::skipped(test, "a Kinesis server only with TIDEMARK_TEST_KINESIS=1");
        return false;
    }
    if let Some(tool) = ["node", "npm"].into_iter().find(|tool| Command::new(tool).arg("--version").output().is_err()) {
        super::skipped(test, &format!("'{tool}' is missing; install Node 18 or later and npm"));
        return false;
    }
    let version = super::binaries::command("processor").arg("--version").output().unwrap();
    assert!(
        String::from_utf8_lossy(&version.stdout).contains("kinesis"),
        "the processor was built without the source: cargo build --release --workspace --bins --features kinesis"
    );
    // Outside of any deadline: the first time it downloads 1 MB.
    let output = script().arg("resolve").output().unwrap();
    assert!(output.status.success(), "tests/kinesis.sh resolve:\n{}", String::from_utf8_lossy(&output.stderr));
    true
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinesis.sh"));
    command
}

impl Kinesis {
    pub(crate) fn start() -> Self {
        let address = free_address();
        let process = Process::start("kinesalite", script().args(["run", &address.port().to_string()]));
        wait_until("kinesalite to listen", LIMIT, || TcpStream::connect(address).is_ok());
        Self { address, _process: process }
    }

    /// Calls an operation, by the signature of nobody: the server looks at its form only.
    pub(crate) fn call(&self, operation: &str, body: &Value) -> Result<Value, String> {
        let body = body.to_string();
        let request = format!(
            "POST / HTTP/1.0\r\nHost: {}\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: Kinesis_20131202.{operation}\r\nX-Amz-Date: \
             20260101T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let answer = http::ask(self.address, &request).ok_or("no answer")?;
        match answer.code {
            200 => Ok(serde_json::from_str(&answer.body).unwrap_or_default()),
            _ => Err(answer.body),
        }
    }

    #[track_caller]
    fn must(&self, operation: &str, body: &Value) -> Value {
        self.call(operation, body).unwrap_or_else(|fault| panic!("{operation} {body}: {fault}"))
    }

    pub(crate) fn create(&self, stream: &str, shards: u32) {
        self.must("CreateStream", &json!({"StreamName": stream, "ShardCount": shards}));
        self.wait_active(stream);
    }

    fn wait_active(&self, stream: &str) {
        wait_until("the stream to be active", LIMIT, || {
            let found = self.must("DescribeStreamSummary", &json!({"StreamName": stream}));
            found["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
        });
    }

    /// Puts records, each with its partition key, in order.
    pub(crate) fn put(&self, stream: &str, records: &[(String, Vec<u8>)]) {
        for records in records.chunks(100) {
            let records: Vec<Value> =
                records.iter().map(|(key, data)| json!({"PartitionKey": key, "Data": BASE64_STANDARD.encode(data)})).collect();
            let answer = self.must("PutRecords", &json!({"StreamName": stream, "Records": records}));
            assert_eq!(answer["FailedRecordCount"], 0, "{answer}");
        }
    }

    /// Waits until the stream is divided anew. The server stamps the records of a new shard a second ahead, as Amazon does not, so that the
    /// order of receipt would not be that of the puts: it is waited for until that second is over.
    fn wait_divided(&self, stream: &str) {
        self.wait_active(stream);
        let began = Instant::now();
        wait_until("the clock to be where the new shards are", LIMIT, || began.elapsed() > Duration::from_millis(1100));
    }

    /// The shards that take records, by their ranges.
    fn open(&self, stream: &str) -> Vec<Value> {
        let answer = self.must("ListShards", &json!({"StreamName": stream}));
        let mut open: Vec<Value> = answer["Shards"].as_array().unwrap().clone();
        open.retain(|shard| shard["SequenceNumberRange"]["EndingSequenceNumber"].is_null());
        open.sort_by_key(|shard| hash(shard, "StartingHashKey"));
        open
    }

    /// Divides the first open shard.
    pub(crate) fn split(&self, stream: &str) {
        let first = &self.open(stream)[0];
        let (low, high) = (hash(first, "StartingHashKey"), hash(first, "EndingHashKey"));
        let middle = low + (high - low) / 2;
        self.must("SplitShard", &json!({"StreamName": stream, "ShardToSplit": first["ShardId"], "NewStartingHashKey": middle.to_string()}));
        self.wait_divided(stream);
    }

    /// Makes one of the last two open shards.
    pub(crate) fn merge(&self, stream: &str) {
        let open = self.open(stream);
        let [.., one, other] = open.as_slice() else { panic!("there are no two shards: {open:?}") };
        self.must("MergeShards", &json!({"StreamName": stream, "ShardToMerge": one["ShardId"], "AdjacentShardToMerge": other["ShardId"]}));
        self.wait_divided(stream);
    }
}

fn hash(shard: &Value, end: &str) -> u128 {
    shard["HashKeyRange"][end].as_str().unwrap().parse().unwrap()
}

/// Passes calls on, and answers some itself.
pub(crate) struct Moody {
    pub(crate) address: SocketAddr,
    pub(crate) moods: Arc<Moods>,
}

#[derive(Default)]
pub(crate) struct Moods {
    /// Counts calls of `GetRecords`; some of them get a fault.
    pub(crate) reads: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) faulty: AtomicBool,
    /// Nobody has a right.
    pub(crate) refusing: AtomicBool,
}

impl Moody {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, moods) = (listener.local_addr().unwrap(), Arc::<Moods>::default());
        let shared = Arc::clone(&moods);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let moods = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, server, &moods));
            }
        });
        Self { address, moods }
    }
}

/// One connection, call after call, until somebody has enough; `None` is nobody's fault here.
fn serve(stream: TcpStream, server: SocketAddr, moods: &Moods) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (head, body) = message(&mut reader)?;
        match moods.answer(&head) {
            Some("") => return None,
            Some(fault) => {
                let body = json!({"__type": fault, "message": "says the test"}).to_string();
                let head = format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                writer.write_all((head + &body).as_bytes()).ok()?;
            }
            None => {
                let mut passed = TcpStream::connect(server).ok()?;
                passed.write_all(head.as_bytes()).ok()?;
                passed.write_all(&body).ok()?;
                let (head, body) = message(&mut BufReader::new(passed))?;
                writer.write_all(head.as_bytes()).ok()?;
                writer.write_all(&body).ok()?;
            }
        }
    }
}

/// A request or an answer: its head as it came, and its body.
fn message(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:").and_then(|length| length.trim().parse().ok());
    let mut body = vec![0; head.lines().find_map(length).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

impl Moods {
    /// The name of a fault; empty: the connection ends without an answer.
    fn answer(&self, head: &str) -> Option<&'static str> {
        if self.refusing.load(Ordering::Relaxed) {
            return Some("UnrecognizedClientException");
        }
        if !self.faulty.load(Ordering::Relaxed) || !head.contains(".GetRecords") {
            return None;
        }
        match self.reads.fetch_add(1, Ordering::Relaxed) {
            number if number % 4 == 1 => {
                self.throttled.fetch_add(1, Ordering::Relaxed);
                Some("ProvisionedThroughputExceededException")
            }
            number if number % 7 == 2 => Some("ExpiredIteratorException"),
            number if number % 11 == 3 => Some(""),
            number if number % 13 == 4 => Some("InternalFailure"),
            _ => None,
        }
    }
}

/// A record that holds several, as the Kinesis Producer Library writes it; its checksum is by `md5sum`.
pub(crate) fn aggregated(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut message = Vec::new();
    for (key, _) in parts {
        field(&mut message, 1, key.as_bytes());
    }
    for (place, (_, data)) in (0_u8..).zip(parts) {
        let mut record = vec![8, place];
        field(&mut record, 3, data);
        field(&mut message, 3, &record);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &message).unwrap();
    let output = Command::new("md5sum").arg(file.path()).output().unwrap();
    let digits = String::from_utf8(output.stdout).unwrap();
    let checksum = (0..16).map(|byte| u8::from_str_radix(&digits[2 * byte..2 * byte + 2], 16).unwrap());
    [0xf3, 0x89, 0x9a, 0xc2].into_iter().chain(message.iter().copied()).chain(checksum).collect()
}

/// A field of bytes, in protobuf.
fn field(message: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    message.push(tag << 3 | 2);
    let mut length = bytes.len();
    while length >= 128 {
        message.push(u8::try_from(length % 128).unwrap() | 128);
        length /= 128;
    }
    message.push(u8::try_from(length).unwrap());
    message.extend_from_slice(bytes);
}
