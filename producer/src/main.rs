//! The binary `producer`: parses, wires, waits.

mod args;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser as _;
use common::cli::{config_command, end};
use common::healthcheck::healthcheck;
use common::say::{complain, say_line};
use common::telemetry::{init_logs, serve_as};
use common::{Settings, Shutdown, Telemetry};

use crate::args::{Args, Command};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);

fn main() -> ExitCode {
    end(start(&Args::parse()))
}

fn start(args: &Args) -> anyhow::Result<ExitCode> {
    let loaded = args.common.load(args.flags())?;
    producer::check(&loaded.settings)?;
    if let Some(Command::Config { command }) = &args.command {
        config_command(command, &loaded, |_| Vec::new())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Healthcheck(args)) = &args.command {
        return Ok(healthcheck(args, &loaded.settings.http, DEFAULT_LISTEN));
    }
    init_logs(&loaded.settings.log.level);
    let simulate = matches!(args.command, Some(Command::Simulate { .. }));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work(loaded.settings, simulate))?;
    Ok(ExitCode::SUCCESS)
}

async fn work(settings: Settings, simulate: bool) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let telemetry = Telemetry::default();
    // The listener outlives the stop signal, so that the drain can be watched.
    let listening = Shutdown::manual();
    let ingest = producer::Ingest::default();
    let router = telemetry.router().merge(ingest.router(&settings.producer.ingest));
    let (url, server) = serve_as(&settings.http, DEFAULT_LISTEN, router, listening.clone()).await?;
    say_line(format_args!("status, metrics and health: {url}/status /metrics /livez /readyz")).unwrap_or_else(complain);
    let result = if simulate && settings.producer.simulator.mqtt.connection.url.is_some() {
        producer::devices::run(settings, telemetry, shutdown).await
    } else {
        producer::run_with(settings, telemetry, shutdown, ingest).await
    };
    listening.trigger();
    server.await?;
    say_line(result?).unwrap_or_else(complain);
    Ok(())
}
