//! The command `setup`: what has to be there before the three programs start on a Kafka log and an InfluxDB of their own.

mod certificates;
mod secrets;
mod topics;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use common::say::say_line;
use common::{Settings, Shutdown, telemetry};
use sink::influxdb::{Access, Administrator, PrepareError, Prepared, prepare};

pub(crate) use certificates::{CertificatesArgs, certificates};
use secrets::Secrets;

/// How often a database that is not there yet is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Flags of `setup`.
#[derive(Debug, Clone, Args)]
#[command(after_help = SECRETS)]
pub(crate) struct SetupArgs {
    /// Folder for the secrets; those that are there already are kept.
    #[arg(long, value_name = "DIR")]
    secrets: PathBuf,
    /// How long to wait for the log and the database, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
}

const SECRETS: &str = "\
Topics are those of [topics] and of the queries, with topics.partitions each. The database is sink.influxdb.url with .org and .bucket.
Secrets, one a file, in a folder for each reader:
  admin/influxdb-password, admin/influxdb-token     InfluxDB's first user 'admin'
  sink/influxdb-token                               may write the bucket, and nothing else
  grafana/influxdb-token                            may read the bucket, and nothing else
  grafana/admin-password                            Grafana's user 'admin'";

/// Prepares both and prints what is there.
///
/// # Errors
/// When one of them stays away or refuses, or when what is there does not fit the settings.
pub(crate) fn setup(args: &SetupArgs, settings: &Settings) -> anyhow::Result<()> {
    telemetry::init_logs(&settings.log.level);
    let queries = processor::compile_queries(&settings.processor.queries)?;
    let secrets = Secrets::new(&args.secrets);
    secrets.ensure("grafana", "admin-password")?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    let mut settings = settings.clone();
    settings.kafka.request_timeout = common::units::Span::from_secs(args.wait);
    let topics = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().context("signal handlers cannot be set")?;
        Ok::<_, anyhow::Error>(topics::prepare(&settings, &queries, &shutdown).await?)
    })?;
    topics.iter().try_for_each(say_line)?;
    prepare_database(&settings, &secrets, Duration::from_secs(args.wait))?;
    say_line(format_args!(
        "bucket {} of organisation {}: a token that may write it, one that may read it",
        settings.sink.influxdb.bucket, settings.sink.influxdb.org
    ))?;
    Ok(())
}

fn prepare_database(settings: &Settings, secrets: &Secrets, patience: Duration) -> anyhow::Result<()> {
    let admin = Administrator {
        username: "admin".into(),
        password: secrets.ensure("admin", "influxdb-password")?,
        token: secrets.ensure("admin", "influxdb-token")?,
    };
    let mut database = reach(settings, &admin, patience)?;
    for (reader, access) in [("sink", Access::Write), ("grafana", Access::Read)] {
        let known = secrets.read(reader, "influxdb-token")?;
        let token = database.token(&format!("tidemark {reader}"), access, known.as_deref())?;
        if known.as_deref() != Some(&token) {
            secrets.write(reader, "influxdb-token", &token)?;
        }
    }
    Ok(())
}

fn reach(settings: &Settings, admin: &Administrator, patience: Duration) -> Result<Prepared, PrepareError> {
    let started = Instant::now();
    loop {
        match prepare(&settings.sink.influxdb, admin) {
            Err(PrepareError::Away { .. }) if started.elapsed() < patience => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
}
