//! `tidemark`: the appliance. An embedded Kafka-compatible log, a simulated fleet, the processor, the sink into SQLite and a live page,
//! in one process.

mod broker_metrics;
mod data_dir;
mod page;
mod questions;
mod run;
mod setup;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use common::cli::{CommonArgs, ConfigCommand, Flags, config_command, end};
use common::healthcheck::{HealthcheckArgs, healthcheck};
use common::settings::{Faults, Loaded, Origin};
use common::why::{WhyArgs, why};
use common::{Settings, telemetry};
use processor::VERSION;
use processor::commands::{ExplainArgs, LanesCommand, LedgerArgs, explain, lanes, ledger};
use sql::{SqlArgs, sql};

/// Readings in, event-time windows out, a live page: the whole sensor pipeline in one process.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, long_version = VERSION, about)]
struct Cli {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Where log, state and store are kept; default: the platform's data directory [env: TIDEMARK_APPLIANCE__DATA_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Port of the embedded Kafka log on 127.0.0.1; 0 takes a free one [default: 9092] [env: TIDEMARK_BROKER__LISTEN]
    #[arg(long, value_name = "PORT", global = true)]
    kafka_port: Option<u16>,
    /// Port of the page on 127.0.0.1; 0 takes a free one [default: 8080] [env: TIDEMARK_HTTP__LISTEN]
    #[arg(long, value_name = "PORT", global = true, conflicts_with = "http_listen")]
    http_port: Option<u16>,
    /// Simulated sensors [default: 20] [env: TIDEMARK_PRODUCER__SIMULATOR__SENSORS]
    #[arg(long, value_name = "N", global = true)]
    sensors: Option<u32>,
    /// Readings per second of the whole simulated fleet; 0: as fast as it goes [default: 100] [env: TIDEMARK_PRODUCER__SIMULATOR__RATE]
    #[arg(long, value_name = "N", global = true)]
    rate: Option<f64>,
    /// The same seed gives the same fleet [default: 42] [env: TIDEMARK_PRODUCER__SIMULATOR__SEED]
    #[arg(long, value_name = "N", global = true)]
    seed: Option<u64>,
    /// Query files; default: 10-second windows of every sensor [env: TIDEMARK_PROCESSOR__QUERIES]
    // Not global: for the commands that ask a running processor, --query is a name.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    query: Vec<PathBuf>,
    /// CSV files to replay instead of the simulated fleet [env: TIDEMARK_PRODUCER__REPLAY__FILES]
    #[arg(long, value_name = "FILE.csv", num_args = 1.., global = true)]
    replay: Vec<PathBuf>,
    /// Speed of the replay: times real time, or 'max' [default: 1] [env: TIDEMARK_PRODUCER__REPLAY__SPEED]
    #[arg(long, value_name = "N|max", global = true)]
    speed: Option<String>,
    /// Begin the state of this query anew from the log when it does not fit the query [env: TIDEMARK_PROCESSOR__REBUILD]
    #[arg(long, value_name = "NAME")]
    rebuild: Vec<String>,
    /// Real devices instead of the simulated fleet: they connect to an MQTT broker here, and by HTTP to the page's port (POST /ingest)
    /// [default address: 127.0.0.1:1883] [env: TIDEMARK_PRODUCER__MQTT_LISTENER__LISTEN]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:1883", value_parser = producer::device_address, global = true)]
    devices: Option<SocketAddr>,
    /// Real devices instead of the simulated fleet, from another MQTT broker: mqtt://host[:port], or mqtts:// for TLS
    /// [env: TIDEMARK_PRODUCER__MQTT__URL]
    #[arg(long, value_name = "URL", global = true)]
    mqtt: Option<String>,
    /// Topics of the devices, with wildcards and named parts such as 'plant/{site}/{sensor_id}/{kind}'
    /// [env: TIDEMARK_PRODUCER__PAYLOAD__TOPICS]
    #[arg(long, value_name = "TEMPLATE", num_args = 1.., global = true)]
    topic: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything; the same as no command.
    Run {
        /// Query files; default: 10-second windows of every sensor [env: TIDEMARK_PROCESSOR__QUERIES]
        #[arg(long, value_name = "FILE", num_args = 1.., id = "run_query")]
        query: Vec<PathBuf>,
    },
    /// Show or check the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running processor what holds the next result of a query back.
    Why(WhyArgs),
    /// Ask the running appliance in SQL: the current results of its queries, the tables of `memory` sinks, and the database.
    Sql(SqlArgs),
    /// Prepare a Kafka log and an InfluxDB for the three programs: topics, bucket, tokens; once, and again without harm.
    Setup(setup::SetupArgs),
    /// Make an authority and certificates for a stack whose parts speak TLS; once, and again without harm.
    Certificates(setup::CertificatesArgs),
    /// Ask the running appliance whether it is well, without a shell or curl; for the health check of a container.
    Healthcheck(HealthcheckArgs),
    /// Show what became of every reading: used, late, dead or filtered; ends with 3 when it does not balance.
    Ledger(LedgerArgs),
    /// Show the rows that came too late or could not be read, and put them where they belong.
    #[command(subcommand)]
    Lanes(LanesCommand),
    /// Show the rows behind one result row, and compute it once more from the log.
    Explain(ExplainArgs),
}

fn main() -> ExitCode {
    end(start(&Cli::parse()))
}

fn load(cli: &Cli) -> Result<Loaded, Faults> {
    let args = &cli.run;
    let local = |port: Option<u16>| port.map(|port| format!("127.0.0.1:{port}"));
    let queries: Vec<PathBuf> = match &cli.command {
        Some(Command::Run { query }) => args.query.iter().chain(query).cloned().collect(),
        _ => args.query.clone(),
    };
    let mut flags = Flags::default();
    flags
        .set("appliance.data_dir", "--data-dir", args.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned()))
        .set("broker.listen", "--kafka-port", local(args.kafka_port))
        .set("http.listen", "--http-port", local(args.http_port))
        .set("producer.simulator.sensors", "--sensors", args.sensors)
        .set("producer.simulator.rate", "--rate", args.rate)
        .set("producer.simulator.seed", "--seed", args.seed)
        .set("processor.rebuild", "--rebuild", (!args.rebuild.is_empty()).then(|| args.rebuild.clone()))
        .set("producer.replay.speed", "--speed", args.speed.clone())
        .set("producer.mqtt_listener.listen", "--devices", args.devices.map(|address| address.to_string()))
        .set("producer.ingest.enabled", "--devices", args.devices.map(|_| true))
        .set("producer.mqtt.url", "--mqtt", args.mqtt.clone())
        .set("producer.payload.topics", "--topic", (!args.topic.is_empty()).then(|| args.topic.clone()))
        .set_paths("processor.queries", "--query", &queries)
        .set_paths("producer.replay.files", "--replay", &args.replay);
    cli.common.load(flags)
}

fn start(cli: &Cli) -> anyhow::Result<ExitCode> {
    let loaded = load(cli)?;
    match &cli.command {
        Some(Command::Config(command)) => config_command(command, &loaded, sink::check)?,
        Some(Command::Why(args)) => why(args, &loaded.settings.http, run::LISTEN)?,
        Some(Command::Sql(args)) => sql(args, &loaded.settings, run::LISTEN)?,
        Some(Command::Setup(args)) => setup::setup(args, &loaded.settings)?,
        Some(Command::Certificates(args)) => setup::certificates(args)?,
        Some(Command::Healthcheck(args)) => return Ok(healthcheck(args, &loaded.settings.http, run::LISTEN)),
        Some(Command::Ledger(args)) => return ledger(*args, &on_embedded_log(loaded)),
        Some(Command::Lanes(command)) => return lanes(command, &on_embedded_log(loaded)),
        Some(Command::Explain(args)) => return explain(args, &on_embedded_log(loaded)),
        None | Some(Command::Run { .. }) => {
            telemetry::init_logs(&loaded.settings.log.level);
            let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
            let result = runtime.block_on(run::run(loaded.settings));
            // What hangs in a thread must not keep the process.
            runtime.shutdown_timeout(Duration::from_secs(1));
            result?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings of a command that looks at a running appliance: its log is the embedded one, unless another is named.
fn on_embedded_log(loaded: Loaded) -> Settings {
    let mut settings = loaded.settings;
    if loaded.origins.get("kafka.bootstrap_servers").is_none_or(|origin| *origin == Origin::Default) {
        settings.kafka.bootstrap_servers = run::reachable(settings.broker.listen).to_string();
    }
    settings
}
