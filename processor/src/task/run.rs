//! The processor's way in: query files to running queries.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use common::kafka::{LogError, TopicSpec, Topics};
use common::{Settings, Shutdown, Telemetry};
use serde_json::json;

use super::clients::Spare;
use super::error::ProcessorError;
use super::live::RunningQueries;
use super::membership::{Workers, run_query};
use super::metrics::Metrics;
use super::rebuild::{admit, admit_directory};
use super::repartition::MOST_PARTITIONS;
use super::status::QueryStatus;
use crate::query::{QueryError, QueryFile, StreamQuery};

/// What a run did.
#[derive(Debug)]
pub struct Summary {
    pub queries: usize,
}

/// Reads and compiles query files; none: the built-in query. Nothing is started, so a fault in any of them is said before anything runs.
///
/// # Errors
/// The first query that cannot run, with what to write instead.
pub fn compile_queries(paths: &[PathBuf]) -> Result<Vec<StreamQuery>, QueryError> {
    if paths.is_empty() {
        return Ok(vec![StreamQuery::compile(QueryFile::built_in()?)?]);
    }
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut queries = Vec::with_capacity(paths.len());
    for path in paths {
        let query = StreamQuery::compile(QueryFile::read(path)?)?;
        if let Some(first) = names.insert(query.file.name.clone(), path.clone()) {
            return Err(QueryError::NamedTwice { query: query.file.name.clone(), first, second: path.clone() });
        }
        queries.push(query);
    }
    Ok(queries)
}

/// Runs the queries of `settings` until `shutdown`, or until all are done.
///
/// # Errors
/// When a query cannot run or cannot go on; the others are then stopped in good order.
pub async fn run(settings: Settings, telemetry: Telemetry, shutdown: Shutdown) -> Result<Summary, ProcessorError> {
    let queries: Vec<Arc<StreamQuery>> = compile_queries(&settings.processor.queries)?.into_iter().map(Arc::new).collect();
    check_names(&settings, &queries).map_err(ProcessorError::Task)?;
    let metrics = Metrics::register(telemetry.registry()).map_err(|error| ProcessorError::Task(format!("metrics: {error}")))?;
    let settings = Arc::new(settings);
    let mut statuses = Vec::new();
    for query in &queries {
        statuses.push(QueryStatus::new(query, &settings, metrics.clone()));
    }
    let _asked = RunningQueries::shared().show(&statuses);
    let shown = statuses.clone();
    let part = telemetry.part("processor", move || json!({ "queries": shown.iter().map(|status| status.to_json()).collect::<Vec<_>>() }));

    let count = queries.len();
    // One query's end by a fault ends the others too; a local signal, so that the caller's stays the caller's.
    let stop = Shutdown::manual();
    let mut tasks = tokio::task::JoinSet::new();
    for (query, status) in queries.into_iter().zip(statuses) {
        let clients = Spare::prepare(&settings, &query);
        let input_partitions = match ensure(&settings, &query, &clients, &shutdown).await {
            Ok(partitions) => partitions,
            // Stopped before the log was there: nothing has begun, so nothing is wrong.
            Err(ProcessorError::Log(LogError::Stopped { .. })) => break,
            // Stopped while it looked into the journal: what it would have found, the next start finds.
            Err(error) if shutdown.is_set() => {
                tracing::info!(%error, "stopped before the queries began");
                break;
            }
            Err(error) => {
                stop.trigger();
                while tasks.join_next().await.is_some() {}
                return Err(error);
            }
        };
        let runtime = tokio::runtime::Handle::current();
        let workers = Workers::new(Arc::clone(&settings), query, input_partitions, part.clone(), status, clients, runtime);
        let stop = stop.clone();
        tasks.spawn_blocking(move || run_query(&workers, &stop));
    }
    part.set_ready(true);

    let mut first_fault = None;
    loop {
        tokio::select! {
            () = shutdown.wait(), if !stop.is_set() => stop.trigger(),
            ended = tasks.join_next() => {
                let fault = match ended {
                    None => break,
                    Some(Ok(Ok(()))) => None,
                    Some(Ok(Err(error))) => Some(error),
                    Some(Err(error)) => Some(ProcessorError::Task(format!("a query ended by a fault of the program: {error}"))),
                };
                if let Some(fault) = fault {
                    stop.trigger();
                    first_fault.get_or_insert(fault);
                }
            }
        }
    }
    part.ended();
    first_fault.map_or(Ok(Summary { queries: count }), Err)
}

/// What the queries and the settings say of each other.
fn check_names(settings: &Settings, queries: &[Arc<StreamQuery>]) -> Result<(), String> {
    for query in queries {
        let (file, topics) = (&query.file, &settings.topics);
        let read = file.source.is_kafka().then(|| ("source.topic", file.source.topic.clone()));
        let written = file.sink.is_kafka().then(|| ("sink.topic", file.output_topic()));
        for (key, topic) in read.into_iter().chain(written) {
            let lanes = [("topics.late", &topics.late), ("topics.dead", &topics.dead)];
            if let Some((lane, _)) = lanes.into_iter().find(|(_, name)| **name == topic) {
                return Err(format!(
                    "query '{}': {key} is '{topic}', the lane for rows that are set aside ({lane}): the query's own would come back to it \
                     without end; name another topic in one of the two",
                    file.name
                ));
            }
        }
    }
    let names: Vec<&str> = queries.iter().map(|query| query.file.name.as_str()).collect();
    match settings.processor.rebuild.iter().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(format!("--rebuild {name}: there is no such query here; there are {}", names.join(", "))),
        None => Ok(()),
    }
}

/// Creates the topics of a query, if it has any; gives the number of its input partitions.
async fn ensure(settings: &Arc<Settings>, query: &Arc<StreamQuery>, clients: &Spare, shutdown: &Shutdown) -> Result<u32, ProcessorError> {
    let (topics, file) = (&settings.topics, &query.file);
    if !file.has_journal_topic() {
        admit_directory(query)?;
    }
    if !file.source.is_kafka() && !file.sink.is_kafka() {
        return Ok(1);
    }
    let spec = |name: &str, partitions: u32, properties: Vec<(&'static str, String)>| TopicSpec {
        name: name.to_owned(),
        partitions,
        replication: topics.replication_factor,
        properties,
    };
    // A lane takes the largest record that the input takes by default, and our headers.
    let roomy = || vec![("max.message.bytes", "2097152".to_owned())];
    let mut plain = vec![spec(&topics.late, topics.partitions, roomy()), spec(&topics.dead, topics.partitions, roomy())];
    if file.source.is_kafka() {
        plain.push(spec(&file.source.topic, topics.partitions, Vec::new()));
    }
    if file.sink.is_kafka() && !file.has_journal_topic() {
        plain.push(spec(&file.output_topic(), topics.partitions, Vec::new()));
    }
    let log = Topics::of(&settings.kafka, shutdown)?;
    let found = log.ensure(&plain).await?;
    clients.connect(&topics.dead);
    let input = found.get(&file.source.topic).copied().filter(|_| file.source.is_kafka()).unwrap_or(1);
    if !file.has_journal_topic() {
        return Ok(input);
    }

    if query.merges() > 0 && input > MOST_PARTITIONS {
        return Err(ProcessorError::Task(format!(
            "query '{}': query.repartition is for inputs of {MOST_PARTITIONS} partitions at most, and topic '{}' has {input}; leave it out",
            file.name, file.source.topic
        )));
    }
    // Nothing of the query is touched before it is known that it fits its state.
    admit(settings, query, input, shutdown).await?;

    let journal = common::topics::journal(&file.name);
    let shards = Workers::shards(query, input);
    // The journal is cut by its owner and by nobody else.
    let keep = vec![("retention.ms", "-1".to_owned()), ("retention.bytes", "-1".to_owned()), ("cleanup.policy", "delete".to_owned())];
    let own = [spec(&file.output_topic(), topics.partitions, Vec::new()), spec(&journal, shards, keep)];
    let found = log.ensure(&own).await?;
    if found[&journal] != shards {
        return Err(LogError::Partitions {
            topic: journal,
            found: found[&common::topics::journal(&file.name)],
            expected: shards,
            advice: format!(
                "the input, the grouping or the repartition of query '{}' has changed since its journal was made: give the query another name",
                file.name
            ),
        }
        .into());
    }
    Ok(input)
}
