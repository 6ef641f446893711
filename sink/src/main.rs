//! `sink`: result topics of the Kafka log into a time-series database.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use common::cli::{CommonArgs, ConfigCommand, Flags, config_command, fail};
use common::{Settings, Shutdown, Telemetry, telemetry};

/// Where metrics, health and status are unless the settings say otherwise.
const HTTP: std::net::SocketAddr = std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8083);

/// Writes the results of streaming queries from the Kafka log into a time-series database, each once.
#[derive(Debug, Parser)]
#[command(name = "sink", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: CommonArgs,
    /// The SQLite database; created when it is missing [env: TIDEMARK_SINK__SQLITE__PATH]
    #[arg(long, value_name = "FILE", global = true)]
    sqlite_path: Option<PathBuf>,
    /// A result topic, several times for several; without: every topic that begins with iot.agg. [env: TIDEMARK_SINK__TOPICS]
    #[arg(long = "topic", value_name = "TOPIC", global = true)]
    topics: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show or check the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
}

fn main() -> ExitCode {
    match start(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn start(cli: &Cli) -> anyhow::Result<()> {
    let mut flags = Flags::default();
    flags.set("sink.sqlite.path", "--sqlite-path", cli.sqlite_path.as_ref().map(|path| path.to_string_lossy().into_owned())).set(
        "sink.topics",
        "--topic",
        (!cli.topics.is_empty()).then(|| cli.topics.clone()),
    );
    let loaded = cli.common.load(flags)?;
    if let Some(Command::Config(command)) = &cli.command {
        config_command(command, &loaded);
        return Ok(());
    }
    telemetry::init_logs(&loaded.settings.log.level);
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work(loaded.settings))
}

async fn work(settings: Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let telemetry = Telemetry::default();
    let listen = settings.http.listen.unwrap_or(HTTP);
    let (address, http) = telemetry::serve(listen, telemetry.router(), shutdown.clone()).await?;
    tracing::info!("metrics, health and status on http://{address}");
    let result = sink::run(settings, telemetry, shutdown.clone()).await;
    shutdown.trigger();
    http.await?;
    let summary = result?;
    tracing::info!(rows = summary.rows, points = summary.points, stale = summary.stale, "stopped");
    Ok(())
}
