//! Other people's clients against the broker: Apache Kafka's console tools and Java client, kafka-python, confluent-kafka, kcat.
//!
//! They run with `TIDEMARK_TEST_KAFKA=1`, and need Java 17 or later with javac, Maven, Python 3 with venv, and kcat.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use broker::{Broker, External};
use common::*;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Whether to run at all; says so when not.
fn wanted(test: &str) -> bool {
    let wanted = std::env::var("TIDEMARK_TEST_KAFKA").is_ok_and(|value| value == "1");
    if !wanted {
        eprintln!("skipped: {test} needs TIDEMARK_TEST_KAFKA=1, Java, Maven, Python and kcat");
    }
    wanted
}

/// Runs a command to its end with this input; what it printed on both outputs.
fn run(command: &mut Command, input: &str) -> String {
    let shown = format!("{command:?}");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(&shown);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{shown}\n{text}");
    text
}

struct Tools(String);

impl Tools {
    fn new(broker: &Broker) -> Self {
        Self(broker.addr().to_string())
    }

    fn type_in(&self, line: &str, input: &str) -> String {
        let mut words = line.split_whitespace();
        let tool = words.next().unwrap();
        let mut command = Command::new("bash");
        command.arg(root().join("tests/kafka.sh")).args(["tool", tool, "--bootstrap-server", &self.0]).args(words);
        run(&mut command, input)
    }

    fn run(&self, line: &str) -> String {
        self.type_in(line, "")
    }

    /// Lines of what a tool prints that are records, sorted.
    fn read(&self, line: &str) -> Vec<String> {
        let mut lines: Vec<_> = self.run(line).lines().filter(|line| line.starts_with("line ")).map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_tools_work_as_in_a_lecture() {
    if !wanted("the_console_tools_work_as_in_a_lecture") {
        return;
    }
    let home = Home::new();
    let broker = home.start().await;
    let tools = Tools::new(&broker);
    assert!(tools.run("kafka-topics --create --topic lecture --partitions 2 --replication-factor 1").contains("Created topic lecture."));
    assert!(tools.run("kafka-topics --describe --topic lecture").contains("PartitionCount: 2\tReplicationFactor: 1"));
    let lines: Vec<String> = (0..20).map(|i| format!("line {i:02}")).collect();
    let keyed: String = lines.iter().map(|line| format!("{line}:{line}\n")).collect();
    tools.type_in("kafka-console-producer --topic lecture --reader-property parse.key=true --reader-property key.separator=:", &keyed);
    for group in ["one", "two", "three"] {
        let line = format!("kafka-console-consumer --topic lecture --from-beginning --max-messages 20 --timeout-ms 60000 --group {group}");
        assert_eq!(tools.read(&line), lines);
    }
    let listed = tools.run("kafka-consumer-groups --list");
    assert!(["one", "two", "three"].iter().all(|group| listed.lines().any(|line| line == *group)), "{listed}");
    assert!(tools.run("kafka-consumer-groups --describe --group one").contains("lecture"));
    let last = tools.read("kafka-console-consumer --topic lecture --partition 0 --offset 2 --timeout-ms 60000 --max-messages 1");
    assert_eq!(last.len(), 1);
    let offsets = tools.run("kafka-get-offsets --topic lecture");
    let ends = offsets.lines().filter_map(|line| line.strip_prefix("lecture:")?.split(':').nth(1)?.parse::<u32>().ok());
    assert_eq!(ends.sum::<u32>(), 20, "{offsets}");
    tools.run("kafka-consumer-groups --reset-offsets --group two --topic lecture --to-earliest --execute");
    assert_eq!(tools.read("kafka-console-consumer --topic lecture --max-messages 20 --timeout-ms 60000 --group two"), lines);
    tools.run("kafka-consumer-groups --delete-offsets --group three --topic lecture:0");
    tools.run("kafka-consumer-groups --delete --group three");
    tools.run("kafka-topics --alter --topic lecture --partitions 3");
    tools.run("kafka-configs --alter --entity-type topics --entity-name lecture --add-config retention.ms=3600000");
    let configs = tools.run("kafka-configs --describe --entity-type topics --entity-name lecture");
    assert!(
        configs.contains("retention.ms=3600000") && configs.contains("synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=3600000}"),
        "{configs}"
    );
    let file = home.dir.path().join("delete.json");
    std::fs::write(&file, r#"{"partitions":[{"topic":"lecture","partition":0,"offset":-1}],"version":1}"#).unwrap();
    assert!(tools.run(&format!("kafka-delete-records --offset-json-file {}", file.display())).contains("low_watermark"));
    assert!(tools.run("kafka-log-dirs --describe --topic-list lecture").contains("\"partition\":\"lecture-2\""));
    let perf = "org.apache.kafka.tools.ProducerPerformance --topic lecture --num-records 5000 --record-size 100 --throughput -1 \
                --transactional-id perf --transaction-duration-ms 50";
    assert!(tools.run(perf).contains("5000 records sent"));
    assert!(tools.run("kafka-transactions list").contains("CompleteCommit"));
    assert!(tools.run("kafka-transactions describe --transactional-id perf").contains("CompleteCommit"));
    assert!(tools.run("kafka-transactions describe-producers --topic lecture --partition 1").contains("ProducerEpoch"));
    assert!(tools.run("kafka-broker-api-versions").contains("Fetch(1): 4 to 17"));
    tools.run("kafka-topics --delete --topic lecture");
    assert!(!tools.run("kafka-topics --list").contains("lecture"));
    broker.shutdown().await.unwrap();
}

/// The folder of a compiled Java program.
fn compiled(home: &Home, name: &str) -> PathBuf {
    let lib = run(Command::new("bash").arg(root().join("tests/kafka.sh")).arg("resolve"), "");
    let lib = lib.lines().last().unwrap().trim_start_matches(|c: char| c != '/').to_owned();
    let classes = home.dir.path().join("classes");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java").join(name).with_extension("java");
    run(Command::new("javac").args(["-cp", &format!("{lib}/*"), "-d"]).arg(&classes).arg(source), "");
    classes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_client_works() {
    if !wanted("the_java_client_works") {
        return;
    }
    let home = Home::new();
    let broker = home.start().await;
    let classes = compiled(&home, "Checks");
    let mut checks = Command::new("bash");
    let script = root().join("tests/kafka.sh");
    checks.arg(script).args(["tool", "Checks", &broker.addr().to_string()]).env("TIDEMARK_TEST_CLASSES", &classes);
    let said = run(&mut checks, "");
    assert!(said.contains("all checks hold"), "{said}");
    broker.shutdown().await.unwrap();
}

/// A Python with the two clients, made once and kept.
fn python() -> PathBuf {
    let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|_| PathBuf::from(std::env::var("HOME").unwrap()).join(".cache"));
    let venv = cache.join("tidemark-test/python");
    let python = venv.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv), "");
    }
    let pip = ["-m", "pip", "install", "--quiet", "kafka-python==3.0.12", "confluent-kafka==2.16.1"];
    run(Command::new(&python).args(pip), "");
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_clients_and_kcat_work() {
    if !wanted("the_python_clients_and_kcat_work") {
        return;
    }
    let home = Home::new();
    let broker = home.start().await;
    let address = broker.addr().to_string();
    let checks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/checks.py");
    let said = run(Command::new(python()).arg(checks).arg(&address), "");
    assert!(said.contains("kafka-python") && said.contains("confluent-kafka"), "{said}");
    create(&broker, "kcat", 1, &[]).await;
    run(Command::new("kcat").args(["-b", &address, "-P", "-t", "kcat", "-z", "snappy"]), "a\nb\nc\n");
    let read = run(Command::new("kcat").args(["-b", &address, "-C", "-t", "kcat", "-o", "1", "-e", "-q"]), "");
    assert_eq!(read, "b\nc\n");
    assert!(run(Command::new("kcat").args(["-b", &address, "-L"]), "").contains("topic \"kcat\" with 1 partitions"));
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_say_who_they_are() {
    if !wanted("real_clients_say_who_they_are") {
        return;
    }
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let certificate = data.join("localhost.pem");
    let (home, python) = (Home::new(), python());
    let classes = compiled(&home, "Guarded");
    let users_file = home.dir.path().join("users.toml");
    let users = "[users.ann]\npassword = 'a secret'\nwrite = ['t']\nread = ['t']\ngroups = ['ann-*']\ntransactional_ids = ['ann-*']\n";
    std::fs::write(&users_file, users).unwrap();
    for tls in [Some((certificate.clone(), data.join("localhost.key"))), None] {
        let mut config = home.config();
        let shown = if tls.is_some() { certificate.to_str().unwrap() } else { "-" };
        config.data_dir = home.dir.path().join(format!("log-{}", tls.is_some()));
        config.external = Some(External { listen: "127.0.0.1:0".parse().unwrap(), advertised: None, tls, users_file: users_file.clone() });
        let broker = Broker::start(config).await.unwrap();
        create(&broker, "t", 1, &[]).await;
        create(&broker, "other", 1, &[]).await;
        let address = broker.external_addr().unwrap().to_string();
        let mut java = Command::new("bash");
        java.arg(root().join("tests/kafka.sh")).args(["tool", "Guarded", &address, shown]).env("TIDEMARK_TEST_CLASSES", &classes);
        assert!(run(&mut java, "").contains("all checks hold"));
        let checks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/guarded.py");
        assert!(run(Command::new(&python).arg(checks).args([&address, shown]), "").contains("all checks hold"));
        broker.shutdown().await.unwrap();
    }
}
