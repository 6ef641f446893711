//! Kafka clients: one configuration for all houses, explicit creation of topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::Shutdown;
use crate::aside::EndsAside;
use crate::client_log::Quiet;
use crate::settings::Kafka;

/// What went wrong with the log, in a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "the Kafka log at {servers} does not answer ({cause}); start it, or name another with --bootstrap-servers or TIDEMARK_KAFKA__BOOTSTRAP_SERVERS"
    )]
    Unreachable { servers: String, cause: String },
    #[error("the Kafka client cannot be set up: {0}; check the section [kafka] of the settings")]
    Client(#[source] KafkaError),
    #[error("topic '{topic}' cannot be created: {cause}; create it by hand or check the rights of this client")]
    CreateTopic { topic: String, cause: String },
    #[error("topic '{topic}' has {found} partitions where {expected} are needed; {advice}")]
    Partitions { topic: String, found: u32, expected: u32, advice: String },
    #[error("stopped while waiting for the Kafka log at {servers}")]
    Stopped { servers: String },
}

/// The base configuration of a client; `role` becomes part of its client id.
pub fn client(kafka: &Kafka, role: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .set("client.id", format!("{}-{role}", kafka.client_id))
        .set("security.protocol", &kafka.security_protocol)
        // A broker that comes back should be found within a second, not after librdkafka's ten. Half of the first pause is also what a client
        // waits between its first connection, which it drops once it knows the brokers' names, and the next one: 11 ms at least, not 50.
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "1000")
        // A new topic or a restarted broker should be seen soon.
        .set("topic.metadata.refresh.fast.interval.ms", "100")
        // A broker that has just come back, or was put out of its cluster for a moment, may answer that a topic has no partitions. A client
        // believes that until it asks again, which by default is after five minutes.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("allow.auto.create.topics", "false")
        .set("log.connection.close", "false");
    let optional = [
        ("sasl.mechanism", kafka.sasl_mechanism.clone()),
        ("sasl.username", kafka.sasl_username.clone()),
        ("sasl.password", kafka.sasl_password.clone()),
        ("ssl.ca.location", path(&kafka.ssl_ca_file)),
        ("ssl.certificate.location", path(&kafka.ssl_certificate_file)),
        ("ssl.key.location", path(&kafka.ssl_key_file)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            config.set(name, value);
        }
    }
    apply_properties(&mut config, kafka);
    config
}

/// Lays the user's own librdkafka properties over a configuration: they win, so this comes last.
pub fn apply_properties(config: &mut ClientConfig, kafka: &Kafka) {
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
}

fn path(path: &Option<std::path::PathBuf>) -> Option<String> {
    path.as_ref().map(|path| path.to_string_lossy().into_owned())
}

/// A producer's configuration: idempotent, acknowledged by all replicas, and patient: a delivery fails only for good reasons, never
/// because the log was away for some minutes.
pub fn producer(kafka: &Kafka, role: &str) -> ClientConfig {
    let mut config = client(kafka, role);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("delivery.timeout.ms", "2147483647")
        // Java's partitioner, so that a key has one partition whoever produces it.
        .set("partitioner", "murmur2_random");
    apply_properties(&mut config, kafka);
    config
}

type Admin = AdminClient<Quiet>;

/// Pause before a log that does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// The first one before it is asked for a topic that was just created; each further one is twice as long, up to [`PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// A topic that must exist.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: u32,
    /// -1 takes the broker's default.
    pub replication: i32,
    /// Kafka topic properties such as `retention.ms`.
    pub properties: Vec<(&'static str, String)>,
}

/// Creates the topics that are missing and returns how many partitions each has, existing ones included. Waits for a log that is not
/// there yet, up to `kafka.request_timeout`.
///
/// # Errors
/// When the log stays away, when a topic cannot be created, or when `shutdown` comes first.
pub async fn ensure_topics(kafka: &Kafka, topics: &[TopicSpec], shutdown: &Shutdown) -> Result<BTreeMap<String, u32>, LogError> {
    Topics::of(kafka, shutdown)?.ensure(topics).await
}

/// The topics of a log, for whoever asks for some of them more than once.
#[derive(Debug)]
pub struct Topics<'a> {
    admin: Arc<EndsAside<Admin>>,
    kafka: &'a Kafka,
    shutdown: &'a Shutdown,
}

impl<'a> Topics<'a> {
    /// # Errors
    /// When the client cannot be set up.
    pub fn of(kafka: &'a Kafka, shutdown: &'a Shutdown) -> Result<Self, LogError> {
        let admin = client(kafka, "admin").create_with_context(Quiet).map_err(LogError::Client)?;
        Ok(Self { admin: Arc::new(EndsAside::new(admin)), kafka, shutdown })
    }

    /// As [`ensure_topics`].
    ///
    /// # Errors
    /// When the log stays away, when a topic cannot be created, or when the shutdown comes first.
    pub async fn ensure(&self, topics: &[TopicSpec]) -> Result<BTreeMap<String, u32>, LogError> {
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10))).request_timeout(Some(Duration::from_secs(15)));
        let patience = self.kafka.request_timeout.duration();
        let mut found = self.partitions_until(Instant::now() + patience).await?;
        let (deadline, mut wait) = (Instant::now() + patience, SHORTEST_PAUSE);
        loop {
            let missing: Vec<&TopicSpec> = topics.iter().filter(|topic| !found.contains_key(&topic.name)).collect();
            if missing.is_empty() {
                return Ok(topics.iter().map(|topic| (topic.name.clone(), found[&topic.name])).collect());
            }
            let new: Vec<NewTopic<'_>> = missing.iter().map(|topic| new_topic(topic)).collect();
            let mut fault = None;
            match self.admin.create_topics(&new, &options).await {
                Ok(results) => {
                    for (topic, code) in results.into_iter().filter_map(Result::err) {
                        // Another of our processes may have been quicker.
                        if code != RDKafkaErrorCode::TopicAlreadyExists {
                            fault = Some(LogError::CreateTopic { topic, cause: code.to_string() });
                        }
                    }
                }
                Err(error) => {
                    fault = Some(LogError::Unreachable { servers: self.kafka.bootstrap_servers.clone(), cause: error.to_string() });
                }
            }
            // A fault may pass (a controller on the move), and a created topic shows in the metadata a moment later.
            match fault {
                Some(fault) if Instant::now() > deadline => return Err(fault),
                Some(fault) => {
                    tracing::warn!(%fault, "trying again");
                    self.pause(PAUSE).await?;
                }
                None if Instant::now() > deadline => {
                    let topic = missing[0].name.clone();
                    return Err(LogError::CreateTopic { topic, cause: "it does not show up in the metadata".into() });
                }
                None => {
                    self.pause(wait).await?;
                    wait = PAUSE.min(2 * wait);
                }
            }
            // The log was there a moment ago: a blip is no reason to give up.
            found = self.partitions_until(deadline).await?;
        }
    }

    async fn pause(&self, time: Duration) -> Result<(), LogError> {
        match tokio::time::timeout(time, self.shutdown.wait()).await {
            Ok(()) => Err(LogError::Stopped { servers: self.kafka.bootstrap_servers.clone() }),
            Err(_elapsed) => Ok(()),
        }
    }

    /// As [`Topics::partitions`], of a log that may come, or come back, until `deadline`.
    async fn partitions_until(&self, deadline: Instant) -> Result<BTreeMap<String, u32>, LogError> {
        let mut said = false;
        loop {
            match self.partitions().await {
                Ok(found) => return Ok(found),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) if !said => {
                    tracing::info!(servers = self.kafka.bootstrap_servers, "waiting for the Kafka log");
                    said = true;
                }
                Err(_) => {}
            }
            self.pause(PAUSE).await?;
        }
    }

    /// How many partitions each topic of the log has.
    async fn partitions(&self) -> Result<BTreeMap<String, u32>, LogError> {
        let away = |cause: String| LogError::Unreachable { servers: self.kafka.bootstrap_servers.clone(), cause };
        let admin = Arc::clone(&self.admin);
        // The call blocks its thread; in the appliance the log that it waits for runs on the same workers.
        let metadata = tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, Duration::from_secs(2)))
            .await
            .map_err(|error| away(error.to_string()))?
            .map_err(|error| away(error.to_string()))?;
        let count = |topic: &rdkafka::metadata::MetadataTopic| u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
        Ok(metadata.topics().iter().filter(|topic| topic.error().is_none()).map(|topic| (topic.name().to_owned(), count(topic))).collect())
    }
}

fn new_topic(topic: &TopicSpec) -> NewTopic<'_> {
    let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
    let mut new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(topic.replication));
    for (name, value) in &topic.properties {
        new = new.set(name, value);
    }
    new
}
