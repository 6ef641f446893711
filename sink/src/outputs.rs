//! From the settings of an output to its writer.

use common::Settings;
use common::settings::{Database, Lake, Output};

use crate::console::ConsoleWriter;
use crate::influxdb::InfluxWriter;
use crate::lake::LakeWriter;
use crate::post::PostWriter;
use crate::sqlite::SqliteWriter;
use crate::victoriametrics::VictoriaWriter;
use crate::writer::{WriteError, Writer};

/// # Errors
/// [`WriteError::Fatal`] when the database cannot be opened. One that answers over the network is not asked yet.
pub(crate) fn open(output: &Output) -> Result<Box<dyn Writer>, WriteError> {
    let writer: Box<dyn Writer> = match output.to {
        Database::Sqlite => {
            let writer = SqliteWriter::open(&output.sqlite)?;
            tracing::info!(output = output.name(), path = %writer.path().display(), "writing results into SQLite");
            Box::new(writer)
        }
        Database::Influxdb => {
            let writer = InfluxWriter::open(&output.influxdb)?;
            tracing::info!(
                output = output.name(),
                url = output.influxdb.url,
                bucket = output.influxdb.bucket,
                "writing results into InfluxDB"
            );
            Box::new(writer)
        }
        Database::Victoriametrics => {
            let writer = VictoriaWriter::open(&output.victoriametrics)?;
            tracing::info!(output = output.name(), url = output.victoriametrics.url, "writing final results into VictoriaMetrics");
            Box::new(writer)
        }
        Database::Http => {
            let writer = PostWriter::open(&output.http)?;
            tracing::info!(output = output.name(), url = output.http.url, "posting results as NDJSON");
            Box::new(writer)
        }
        Database::Console => Box::new(ConsoleWriter::default()),
        Database::Parquet => Box::new(lake(output, &output.parquet, false)?),
        Database::Delta => Box::new(lake(output, &output.delta, true)?),
    };
    Ok(writer)
}

/// What is wrong with the outputs and can be known without asking a database: a token that is missing, files that cannot be read. One sentence
/// each.
pub fn check(settings: &Settings) -> Vec<String> {
    let look = |output: &Output| match output.to {
        Database::Influxdb => InfluxWriter::open(&output.influxdb).map(drop),
        Database::Victoriametrics => VictoriaWriter::open(&output.victoriametrics).map(drop),
        Database::Http => PostWriter::open(&output.http).map(drop),
        // Opening these would make them.
        Database::Sqlite | Database::Delta | Database::Parquet | Database::Console => Ok(()),
    };
    let fault = |output: Output| Some(format!("sink output '{}': {}", output.name(), look(&output).err()?));
    settings.sink.all_outputs().into_iter().filter_map(fault).collect()
}

fn lake(output: &Output, settings: &Lake, compacts: bool) -> Result<LakeWriter, WriteError> {
    tracing::info!(output = output.name(), path = %settings.path.display(), mode = ?settings.mode, "writing results into Delta Lake tables");
    LakeWriter::open(settings, output.name(), compacts)
}
