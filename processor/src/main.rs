//! `processor`: streaming SQL over event time, from topic to topic.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use common::cli::{CommonArgs, ConfigCommand, Flags, config_command, end};
use common::healthcheck::{HealthcheckArgs, healthcheck};
use common::say::{complain, say_line};
use common::why::{WhyArgs, why};
use common::{Shutdown, Telemetry, telemetry};
use processor::commands::{CheckArgs, ExplainArgs, LanesCommand, LedgerArgs, check, explain, lanes, ledger};
use processor::{Questions, VERSION};
use sql::{SqlArgs, sql};

/// Runs streaming SQL queries over a Kafka topic: windows by event time, watermarks, results into another topic.
#[derive(Debug, Parser)]
#[command(name = "processor", version, long_version = VERSION, about)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Query file (TOML); several times for several queries; none: 10-second windows of every sensor
    /// [env: TIDEMARK_PROCESSOR__QUERIES]
    #[arg(long, value_name = "FILE")]
    query: Vec<PathBuf>,
    /// A stable name of this processor in its consumer groups; a restart then has its partitions back at once
    /// [env: TIDEMARK_PROCESSOR__INSTANCE_ID]
    #[arg(long, value_name = "NAME")]
    instance_id: Option<String>,
    /// Begin the state of this query anew from the log when it does not fit the query; several times for several queries
    /// [env: TIDEMARK_PROCESSOR__REBUILD]
    #[arg(long, value_name = "NAME")]
    rebuild: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show or check the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Compile the query files and print what they read and give, without starting anything.
    Check(CheckArgs),
    /// Ask a running processor what holds the next result of a query back.
    Why(WhyArgs),
    /// Ask a running processor in SQL: the current results of its queries, and the tables of `memory` sinks.
    Sql(SqlArgs),
    /// Ask the running processor whether it is well, without a shell or curl; for the health check of a container.
    Healthcheck(HealthcheckArgs),
    /// Show what became of every reading: used, late, dead or filtered; ends with 3 when it does not balance.
    Ledger(LedgerArgs),
    /// Show the rows that came too late or could not be read, and put them where they belong.
    #[command(subcommand)]
    Lanes(LanesCommand),
    /// Show the rows behind one result row, and compute it once more from the log.
    Explain(ExplainArgs),
}

/// Where metrics, health and status are when nobody says.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8082);

fn main() -> ExitCode {
    end(start(Args::parse()))
}

fn start(args: Args) -> anyhow::Result<ExitCode> {
    let mut flags = Flags::default();
    flags.set_paths("processor.queries", "--query", &args.query).set("processor.instance_id", "--instance-id", args.instance_id.clone());
    flags.set("processor.rebuild", "--rebuild", (!args.rebuild.is_empty()).then(|| args.rebuild.clone()));
    let loaded = args.common.load(flags)?;
    match &args.command {
        Some(Command::Config(command)) => config_command(command, &loaded, |_| Vec::new())?,
        Some(Command::Check(args)) => return check(*args, &loaded.settings),
        Some(Command::Why(args)) => why(args, &loaded.settings.http, LISTEN)?,
        Some(Command::Sql(args)) => sql(args, &loaded.settings, LISTEN)?,
        Some(Command::Healthcheck(args)) => return Ok(healthcheck(args, &loaded.settings.http, LISTEN)),
        Some(Command::Ledger(args)) => return ledger(*args, &loaded.settings),
        Some(Command::Lanes(command)) => return lanes(command, &loaded.settings),
        Some(Command::Explain(args)) => return explain(args, &loaded.settings),
        None => tokio::runtime::Runtime::new().context("the runtime cannot be started")?.block_on(serve(loaded.settings))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(settings: common::Settings) -> anyhow::Result<()> {
    telemetry::init_logs(&settings.log.level);
    let (shutdown, telemetry) = (Shutdown::on_signals().context("signal handlers")?, Telemetry::default());
    // The listener outlives the run, so that the drain can be watched.
    let listening = Shutdown::manual();
    let router = telemetry.router().merge(processor::router()).merge(Questions::router(&settings.sql));
    let (url, listener) = telemetry::serve_as(&settings.http, LISTEN, router, listening.clone()).await?;
    say_line(format_args!("metrics, health and status on {url}")).unwrap_or_else(complain);
    let result = processor::run(settings, telemetry, shutdown).await;
    listening.trigger();
    listener.await.context("the HTTP listener")?;
    result?;
    Ok(())
}
