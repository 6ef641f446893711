//! The same query files on Apache Spark 4 and here, over the same topic: the final rows must be equal, column by column.
//!
//! `TIDEMARK_TEST_SPARK=1` and `TIDEMARK_TEST_KAFKA=1` run it; `TIDEMARK_TEST_CASES=FILE` takes other cases than the
//! project's. A table of the cases and what was seen comes out on standard error.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod compared;
mod harness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use compared::cases::{self, Case};
use compared::compare::{self, Verdict};
use compared::readings;
use harness::binaries::{self, House};
use harness::log::{Kind, Log};
use harness::process::Process;
use harness::{skipped, topic};

/// The first start of a JVM on a busy machine, and some fifty queries.
const LIMIT: Duration = Duration::from_secs(1200);
const TEST: &str = "final_rows_are_those_of_spark";

#[test]
fn final_rows_are_those_of_spark() {
    if std::env::var("TIDEMARK_TEST_SPARK").as_deref() != Ok("1") {
        return skipped(TEST, "Apache Spark only with TIDEMARK_TEST_SPARK=1");
    }
    let Some(log) = Log::start(Kind::Apache, TEST) else { return };
    resolve();
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();

    topic::create(&log, "iot", 2);
    readings::write(&log, 4000);
    let mut table = Table::default();
    let ready: Vec<Case> = cases::all().into_iter().filter(|case| table.accepts(case, dir.path())).collect();

    assert!(!ready.is_empty(), "no case is left:\n{}", table.lines.join("\n"));
    here(&log, dir.path(), &ready);
    let failures = on_spark(&log, dir.path(), &ready);
    for case in &ready {
        let verdict = match failures.get(&case.name) {
            Some(fault) => Verdict::refused_by_spark(fault),
            None => compare::compare(case, compare::rows(&log, &case.topic(), case), compare::rows(&log, &case.spark_topic(), case)),
        };
        table.add(case, verdict);
    }
    table.print();
    assert!(table.wrong.is_empty(), "differs from Spark, and docs/divergences.md does not say so: {}", table.wrong.join(", "));
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spark.sh")
}

/// Outside of any deadline: the first time it downloads 500 MB.
fn resolve() {
    let output = Command::new("bash").arg(script()).arg("resolve").output().unwrap();
    assert!(output.status.success(), "tests/spark.sh resolve:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The cases through the processor, until it has read the topic to its end.
fn here(log: &Log, dir: &Path, cases: &[Case]) {
    let house = House { log, dir };
    let mut command: Command = house.command("processor");
    for case in cases {
        command.arg("--query").arg(case.write(dir));
    }
    Process::start("processor", &mut command).wait_success(LIMIT);
}

/// The same files through Spark: one session for the streams, one for the tables. Gives the cases that Spark refused, and its words.
fn on_spark(log: &Log, dir: &Path, cases: &[Case]) -> BTreeMap<String, String> {
    let mut failures = BTreeMap::new();
    for stream in [true, false] {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.stream == stream).collect();
        if cases.is_empty() {
            continue;
        }
        let mut command = Command::new("bash");
        command.arg(script()).args(["run", "--bootstrap-servers", &log.servers(), "--topic-prefix", cases::SPARK]);
        if stream {
            // Several batches, so that state and watermark have something to do.
            command.arg("--checkpoint").arg(dir.join("checkpoint")).args(["--max-offsets-per-trigger", "1500"]);
        } else {
            command.arg("--batch");
        }
        for case in &cases {
            topic::create(log, &case.spark_topic(), 2);
            command.arg(case.write(dir));
        }
        let mut spark = Process::start("Apache Spark", &mut command);
        let code = spark.wait_exit(LIMIT);
        let told = failures.len();
        for line in spark.output().lines() {
            if let Some((path, fault)) = line.split_once(": failed: ") {
                let name = Path::new(path).file_stem().unwrap().to_string_lossy().into_owned();
                failures.insert(name, fault.to_owned());
            }
        }
        assert!(code == Some(0) || failures.len() > told, "Apache Spark ended with {code:?}:\n{}", spark.output());
    }
    failures
}

/// What was seen, a line for each case.
#[derive(Default)]
struct Table {
    lines: Vec<String>,
    wrong: Vec<String>,
}

impl Table {
    /// Whether `processor check` takes the query.
    fn accepts(&mut self, case: &Case, dir: &Path) -> bool {
        let output = binaries::command("processor").arg("--query").arg(case.write(dir)).arg("check").output().unwrap();
        if output.status.success() {
            return true;
        }
        let fault = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match &case.awaits {
            Some(what) => self.lines.push(format!("{:<28} skipped: awaits {what}", case.name)),
            None => self.add(case, Verdict::refused_here(&fault)),
        }
        false
    }

    fn add(&mut self, case: &Case, verdict: Verdict) {
        self.lines.push(format!("{:<28} {}", case.name, verdict.sentence));
        self.lines.extend(verdict.details.iter().map(|detail| format!("{:<28}   {detail}", "")));
        if !verdict.equal {
            self.wrong.push(case.name.clone());
        }
    }

    fn print(&self) {
        use std::io::Write as _;
        let text = format!("\n{}\n", self.lines.join("\n"));
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        if let Some(path) = std::env::var_os("TIDEMARK_TEST_TABLE") {
            std::fs::write(path, text).unwrap();
        }
    }
}
