//! Everything in one process: started from the log outwards, stopped from the source onwards.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use broker::{Broker, BrokerConfig, Durability, External};
use common::kafka::{LogError, TopicSpec, ensure_topics};
use common::say::{complain, say_line};
use common::{Settings, Shutdown, Telemetry, settings, telemetry};
use processor::query::StreamQuery;

use crate::broker_metrics::BrokerMetrics;
use crate::{data_dir, page, questions};

/// The parts between the log and the store, in the order of the data; they are stopped in this order.
const PARTS: [&str; 3] = ["producer", "processor", "sink"];
/// Name of the appliance's members in their groups: a restart has its partitions back at once.
const INSTANCE: &str = "appliance";

/// Runs the appliance until Ctrl-C or SIGTERM, or until a part cannot go on.
///
/// # Errors
/// What the user got wrong, before anything is started; later, the part that failed and why.
pub(crate) async fn run(mut settings: Settings) -> anyhow::Result<()> {
    // All that can be wrong without a log is said first.
    producer::check(&settings)?;
    let queries = processor::compile_queries(&settings.processor.queries)?;
    let data_dir = data_dir::prepare(settings.appliance.data_dir.as_deref())?;
    settings.sink.keep_in(&data_dir);
    settings.processor.instance_id.get_or_insert_with(|| INSTANCE.into());
    settings.sink.instance_id.get_or_insert_with(|| INSTANCE.into());

    let shutdown = Shutdown::on_signals().context("signal handlers cannot be set")?;
    let telemetry = Telemetry::default();
    let listening = Shutdown::manual();
    let page = page::router(page::PageState { sqlite: settings.sink.sqlite.path.clone(), telemetry: telemetry.clone() });
    let ingest = producer::Ingest::default();
    let router = telemetry
        .router()
        .merge(processor::router())
        .merge(page)
        .merge(questions::router(&settings))
        .merge(ingest.router(&settings.producer.ingest));
    let (http, listener) = telemetry::serve_as(&settings.http, LISTEN, router, listening.clone()).await?;

    let broker = Arc::new(start_broker(&settings, &data_dir).await?);
    show_broker(&broker, &telemetry)?;
    settings.kafka.bootstrap_servers = reachable(broker.addr()).to_string();
    let result = match create_topics(&settings, &queries, &shutdown).await {
        Ok(()) => {
            say_where(&http, &broker, &data_dir, &settings).unwrap_or_else(complain);
            run_parts(&settings, &telemetry, &ingest, &shutdown).await
        }
        // Ctrl-C before anything ran is a good end.
        Err(LogError::Stopped { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    };
    listening.trigger();
    listener.await.context("the HTTP listener")?;
    let closed = match Arc::try_unwrap(broker) {
        Ok(broker) => broker.shutdown().await.context("the embedded log"),
        // A scrape holds it for a moment: the log is recovered at the next start as after a crash.
        Err(_shared) => Ok(()),
    };
    result.and(closed)
}

/// Where the page is when nobody says.
pub(crate) const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

async fn start_broker(settings: &Settings, data_dir: &Path) -> anyhow::Result<Broker> {
    let mut config = BrokerConfig::new(data_dir.join("log"), settings.broker.listen);
    config.segment_bytes = settings.broker.segment_size.bytes();
    config.durability = match settings.broker.durability {
        settings::Durability::Fsync => Durability::Fsync,
        settings::Durability::Os => Durability::Os,
    };
    config.advertised_host.clone_from(&settings.broker.advertised_host);
    config.min_free_bytes = settings.broker.min_free.map(|size| size.bytes());
    config.auto_create_topics = settings.broker.auto_create_topics.then(|| i32::try_from(settings.topics.partitions).unwrap_or(i32::MAX));
    config.external = external(&settings.broker.external);
    Ok(Broker::start(config).await?)
}

/// The listener beyond this machine. That the settings go together has been checked.
fn external(settings: &settings::External) -> Option<External> {
    let tls = settings.certificate_file.clone().zip(settings.key_file.clone());
    let (listen, users_file) = (settings.listen?, settings.users_file.clone()?);
    Some(External { listen, advertised: settings.advertised(), tls, users_file })
}

fn show_broker(broker: &Arc<Broker>, telemetry: &Telemetry) -> anyhow::Result<()> {
    // Weak, so that the broker can be shut down while the registry lives on.
    let stats = {
        let broker = Arc::downgrade(broker);
        move || broker.upgrade().map(|broker| broker.stats()).unwrap_or_default()
    };
    telemetry.registry().register(Box::new(BrokerMetrics::new(stats.clone())?))?;
    telemetry.part("broker", move || serde_json::to_value(stats()).unwrap_or_default()).set_ready(true);
    Ok(())
}

/// An address that listens everywhere is reached on the loopback.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address }
}

/// The topics with readings and results, with the appliance's retention; the processor makes its journals itself.
async fn create_topics(settings: &Settings, queries: &[StreamQuery], shutdown: &Shutdown) -> Result<(), LogError> {
    let retention = settings.broker.retention.millis().to_string();
    let outputs = queries.iter().filter(|query| query.file.sink.is_kafka()).map(|query| query.file.output_topic());
    let inputs = queries.iter().filter(|query| query.file.source.is_kafka()).map(|query| query.file.source.topic.clone());
    let lanes = [&settings.topics.input, &settings.topics.late, &settings.topics.dead].map(Clone::clone);
    let names: std::collections::BTreeSet<String> = lanes.into_iter().chain(inputs).chain(outputs).collect();
    let spec = |name| TopicSpec {
        name,
        partitions: settings.topics.partitions,
        replication: 1,
        // A lane takes the largest record that the input takes by default, and our headers.
        properties: vec![("retention.ms", retention.clone()), ("max.message.bytes", "2097152".to_owned())],
    };
    let specs: Vec<TopicSpec> = names.into_iter().map(spec).collect();
    ensure_topics(&settings.kafka, &specs, shutdown).await?;
    Ok(())
}

fn say_where(http: &str, broker: &Broker, data_dir: &Path, settings: &Settings) -> std::io::Result<()> {
    let source = match settings.producer.replay.files.len() {
        0 if producer::takes_devices(settings) => producer::describe_devices(settings),
        0 => format!("{} simulated sensors, {} readings/s", settings.producer.simulator.sensors, settings.producer.simulator.rate),
        files => format!("{files} replayed file{}", if files == 1 { "" } else { "s" }),
    };
    say_line("Tidemark is running. Ctrl-C stops it.")?;
    say_line(format_args!("  page    {http}"))?;
    say_line(format_args!("  kafka   {}  (readings in topic '{}')", broker.addr(), settings.topics.input))?;
    if let Some(external) = broker.external_addr() {
        say_line(format_args!("          {external}  for users from elsewhere"))?;
    }
    say_line(format_args!("  data    {}", data_dir.display()))?;
    say_line(format_args!("  source  {source}"))
}

/// Runs the three parts; stops them in the order of the data, each after the one before it has ended.
async fn run_parts(settings: &Settings, telemetry: &Telemetry, ingest: &producer::Ingest, shutdown: &Shutdown) -> anyhow::Result<()> {
    let stops = PARTS.map(|_| Shutdown::manual());
    let mut parts = tokio::task::JoinSet::new();
    let parameters = |part: usize| (settings.clone(), telemetry.clone(), stops[part].clone());
    {
        let (settings, telemetry, stop) = parameters(0);
        let ingest = ingest.clone();
        parts.spawn(async move { (0, producer::run_with(settings, telemetry, stop, ingest).await.map(drop).map_err(anyhow::Error::from)) });
        let (settings, telemetry, stop) = parameters(1);
        parts.spawn(async move { (1, processor::run(settings, telemetry, stop).await.map(drop).map_err(anyhow::Error::from)) });
        let (settings, telemetry, stop) = parameters(2);
        parts.spawn(async move { (2, sink::run(settings, telemetry, stop).await.map(drop).map_err(anyhow::Error::from)) });
    }
    let mut ended = [false; PARTS.len()];
    let mut fault = None;
    loop {
        let stopping = shutdown.is_set() || fault.is_some();
        // The first part that still runs is the next to stop.
        if stopping && let Some(next) = ended.iter().position(|ended| !ended) {
            stops[next].trigger();
        }
        tokio::select! {
            () = shutdown.wait(), if !stopping => {}
            joined = parts.join_next() => match joined {
                None => break,
                Some(Ok((part, Ok(())))) => ended[part] = true,
                Some(Ok((part, Err(error)))) => {
                    ended[part] = true;
                    fault.get_or_insert(error.context(PARTS[part]));
                }
                Some(Err(error)) => {
                    fault.get_or_insert(anyhow::Error::from(error).context("a part ended by a fault of the program"));
                    break;
                }
            },
            // A part that hangs must not hold the others: each has its own drain timeout, this is beyond all of them.
            () = tokio::time::sleep(Duration::from_secs(30)), if stopping => {
                fault.get_or_insert_with(|| anyhow::anyhow!("a part did not end within 30 s of being told to"));
                break;
            }
        }
    }
    // After a break some may not have been told.
    stops.iter().for_each(Shutdown::trigger);
    fault.map_or(Ok(()), Err)
}
