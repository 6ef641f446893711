//! `sink`: result topics of the Kafka log into a time-series database.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use common::cli::{CommonArgs, ConfigCommand, Flags, config_command, end};
use common::healthcheck::{HealthcheckArgs, healthcheck};
use common::say::say_line;
use common::version::VERSION;
use common::{Settings, Shutdown, Telemetry, telemetry};
use sink::verify::Span;

/// Where metrics, health and status are unless the settings say otherwise.
const HTTP: std::net::SocketAddr = std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8083);

/// Writes the results of streaming queries from the Kafka log into a time-series database, each once.
#[derive(Debug, Parser)]
#[command(name = "sink", version, long_version = VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: CommonArgs,
    /// A database to write, several times for several: sqlite, influxdb, victoriametrics, delta, parquet, http, console [env: TIDEMARK_SINK__TO]
    #[arg(long, value_name = "KIND", global = true)]
    to: Vec<String>,
    /// The SQLite database; created when it is missing [env: TIDEMARK_SINK__SQLITE__PATH]
    #[arg(long, value_name = "FILE", global = true)]
    sqlite_path: Option<PathBuf>,
    /// A topic to write, several times for several; without: every topic that begins with iot.agg. [env: TIDEMARK_SINK__TOPICS]
    #[arg(long = "topic", value_name = "TOPIC", global = true)]
    topics: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show or check the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask the running sink whether it is well, without a shell or curl; for the health check of a container.
    Healthcheck(HealthcheckArgs),
    /// Compare a database with the log and name what differs; ends with 1 when something does.
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Verify {
    /// The output to look at, by its name; without: the first.
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Only points of this time or later: RFC 3339, or milliseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<i64>,
    /// Only points before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
    /// How many differences to name.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

fn parse_time(text: &str) -> Result<i64, String> {
    let parsed = text.parse().ok().or_else(|| chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis()));
    parsed.ok_or_else(|| "write a time such as 2026-01-31T08:00:00Z, or milliseconds since 1970".to_owned())
}

fn main() -> ExitCode {
    end(start(&Cli::parse()))
}

fn start(cli: &Cli) -> anyhow::Result<ExitCode> {
    let mut flags = Flags::default();
    let list = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
    flags
        .set("sink.sqlite.path", "--sqlite-path", cli.sqlite_path.as_ref().map(|path| path.to_string_lossy().into_owned()))
        .set("sink.topics", "--topic", list(&cli.topics))
        .set("sink.to", "--to", list(&cli.to));
    let loaded = cli.common.load(flags)?;
    if let Some(Command::Config(command)) = &cli.command {
        config_command(command, &loaded, sink::check)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Healthcheck(args)) = &cli.command {
        return Ok(healthcheck(args, &loaded.settings.http, HTTP));
    }
    telemetry::init_logs(&loaded.settings.log.level);
    if let Some(Command::Verify(command)) = &cli.command {
        return verify(&loaded.settings, command);
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work(loaded.settings))?;
    Ok(ExitCode::SUCCESS)
}

fn verify(settings: &Settings, command: &Verify) -> anyhow::Result<ExitCode> {
    let ever = Span::default();
    let span = Span { from_ms: command.from.unwrap_or(ever.from_ms), to_ms: command.until.unwrap_or(ever.to_ms) };
    let report = sink::verify::verify(settings, command.output.as_deref(), span, command.limit)?;
    say_line(&report)?;
    Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn work(settings: Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let telemetry = Telemetry::default();
    let (url, http) = telemetry::serve_as(&settings.http, HTTP, telemetry.router(), shutdown.clone()).await?;
    tracing::info!("metrics, health and status on {url}");
    let result = sink::run(settings, telemetry, shutdown.clone()).await;
    shutdown.trigger();
    http.await?;
    let summary = result?;
    tracing::info!(rows = summary.rows, points = summary.points, stale = summary.stale, "stopped");
    Ok(())
}
