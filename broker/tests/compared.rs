//! The same client programs on Apache Kafka and on this log: what they see must be the same, but for what is listed here.
//!
//! Runs with `TIDEMARK_TEST_KAFKA=1`; needs Java 17 or later with javac, and Maven. `TIDEMARK_TEST_CHECKS="tx- static"` runs those checks
//! only that begin so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::*;

/// What differs on purpose: how the line begins, and why.
const KNOWN: &[(&str, &str)] = &[
    ("compacted | good beside it", "the whole batch is refused for one reason; Kafka names the records that are to blame"),
    ("list-offsets | all deleted, maximum", "what has been deleted is not found; Kafka's index still knows it"),
    ("retention | too small a segment", "segments of less than 1 MiB are allowed"),
    ("session-bounds | 1000", "sessions of less than 6 s are allowed"),
    ("tx-fenced | first send of one fenced while idle", TRANSACTIONS_2),
    ("tx-fenced | its commit", TRANSACTIONS_2),
    ("tx-timeout | abort", TRANSACTIONS_2),
    ("tx-timeout | a new one", TRANSACTIONS_2),
    ("tx-timeout | committed", TRANSACTIONS_2),
    ("tx-described | producers after", TRANSACTIONS_2),
    ("tx-offsets | described while open", "a group begins with its first committed offset"),
    ("tx-aborted-by-hand | with an old epoch", "the client knows no name for this error when Kafka's controller sends it"),
    ("describe-topics | described", "there are no replicas to elect from"),
    ("topic-settings | min.insync.replicas", ONE_NODE),
    ("topic-settings | synonyms of min.insync.replicas", ONE_NODE),
    ("topic-settings | segment.bytes", "segments of 128 MiB suit a gateway's disk"),
    ("topic-settings | synonyms of segment.bytes", "segments of 128 MiB suit a gateway's disk"),
    ("impossible-settings | internal.segment.bytes", "a setting for Kafka's own tests"),
    ("broker-settings | of '1'", "only settings that mean something here are shown"),
    ("broker-settings | of ''", ONE_NODE),
    ("broker-settings | of BROKER_LOGGER", "the log's verbosity is set at the start"),
    ("cluster | id", "ids made before are kept"),
    ("not-there", "not advertised; the client says so at once"),
    ("new-protocol", "the consumer protocol of KIP-848 is not there; the client says so at once"),
];
const TRANSACTIONS_2: &str = "transactions of version 2 (KIP-890) are not there: a producer that took too long is shut out for good";
const ONE_NODE: &str = "one node has no settings that all nodes share";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(root().join("tests/kafka.sh"));
    command
}

/// Runs a command to its end; what it printed.
fn output(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command.output().expect(&shown);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{shown}\n{}{errors}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

/// Apache Kafka, for as long as this lives.
struct Apache {
    process: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Apache {
    async fn start() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let (address, controller, dir) = (free(), free(), tempfile::tempdir().unwrap());
        let ports = [address.port().to_string(), controller.port().to_string()];
        let mut command = script();
        // Nobody kills it: where the machine is slow it must not take itself out of its own cluster, which shows in the leader's epoch.
        command.arg("run").args(ports).arg(dir.path()).env("KAFKA_BROKER_SESSION", "60000");
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let apache = Self { process, address, _dir: dir };
        until("Apache Kafka to listen", || TcpStream::connect(address).is_ok()).await;
        apache
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        // The script has become Kafka by then.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// What the checks saw, in lines `check | what` with the answers.
fn checked(classes: &Path, address: SocketAddr) -> BTreeMap<String, String> {
    let wanted = std::env::var("TIDEMARK_TEST_CHECKS").unwrap_or_default();
    let mut command = script();
    command
        .args(["tool", "Compared", &address.to_string()])
        .args(wanted.split_whitespace())
        .env("TIDEMARK_TEST_CLASSES", classes)
        .env("KAFKA_TOOL_HEAP", "768m");
    let said = output(&mut command);
    let lines = said.lines().filter_map(|line| line.split_once(" = ").filter(|(what, _)| what.contains(" | ")));
    let answers: BTreeMap<_, _> = lines.map(|(what, answer)| (what.to_owned(), answer.to_owned())).collect();
    assert!(said.contains(" checks") && answers.len() > 5, "{said}");
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_what_they_see_of_apache_kafka() {
    if !std::env::var("TIDEMARK_TEST_KAFKA").is_ok_and(|value| value == "1") {
        eprintln!("skipped: clients_see_what_they_see_of_apache_kafka needs TIDEMARK_TEST_KAFKA=1, Java and Maven");
        return;
    }
    let home = Home::new();
    let lib = output(script().arg("resolve")).trim().to_owned();
    let classes = home.dir.path().join("classes");
    let sources = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/compared")).unwrap();
    let sources = sources.map(|entry| entry.unwrap().path());
    output(Command::new("javac").args(["-nowarn", "-cp", &format!("{lib}/*"), "-d"]).arg(&classes).args(sources));
    let broker = home.start().await;
    let apache = Apache::start().await;
    let (own, theirs) = (broker.addr(), apache.address);
    let began = Instant::now();
    let (of_own, of_theirs) = (classes.clone(), classes.clone());
    let own = tokio::task::spawn_blocking(move || checked(&of_own, own));
    let theirs = tokio::task::spawn_blocking(move || checked(&of_theirs, theirs));
    let (own, theirs) = (own.await.unwrap(), theirs.await.unwrap());
    eprintln!("{} answers in {} s", theirs.len(), Duration::as_secs(&began.elapsed()));
    let known = |what: &str| KNOWN.iter().any(|(begin, _)| what.starts_with(begin));
    let none = "nothing".to_owned();
    let all = own.keys().chain(theirs.keys().filter(|what| !own.contains_key(*what)));
    let differing = all.filter(|what| own.get(*what) != theirs.get(*what));
    let unknown: Vec<_> = differing
        .filter(|what| !known(what))
        .map(|what| {
            format!("{what}\n  Apache Kafka: {}\n  here:         {}", theirs.get(what).unwrap_or(&none), own.get(what).unwrap_or(&none))
        })
        .collect();
    assert!(unknown.is_empty(), "{} answers differ:\n{}", unknown.len(), unknown.join("\n"));
    let failed: Vec<_> = own.iter().filter(|(what, _)| what.ends_with("| ended with")).collect();
    assert!(failed.is_empty(), "checks that did not come to their end on either: {failed:?}");
    broker.shutdown().await.unwrap();
}
