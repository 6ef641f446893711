//! The commands that look at what a query did, and correct it: `ledger`, `lanes`, `explain`, `check --against-log`.
//!
//! They need the log and no running processor. `processor` and `tidemark` have the same ones.

mod check;
mod explain;
mod lanes;
mod ledger;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum;
use common::{Settings, Shutdown};

pub use check::{CheckArgs, check};
pub use explain::{ExplainArgs, explain};
pub use lanes::{LanesCommand, lanes};
pub use ledger::{LedgerArgs, ledger};

use crate::query::{QueryFile, StreamQuery};
use crate::task::ProcessorError;
use crate::task::owner::Owner;

/// Something is not as asked, and it was said: a row differs, a row of a lane has no place, a query does not fit its state.
pub const EXIT_DIFFERENT: u8 = 3;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Runs `work` where it may block, until it is done or Ctrl-C comes.
fn look<T: Send + 'static>(
    settings: &Settings,
    work: impl FnOnce(&Settings, &Owner) -> Result<T, ProcessorError> + Send + 'static,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    let settings = settings.clone();
    runtime.block_on(async move {
        let stop = Shutdown::on_signals().context("signal handlers")?;
        let owner = Owner::onlooker(stop, tokio::runtime::Handle::current());
        Ok(tokio::task::spawn_blocking(move || work(&settings, &owner)).await.context("the command ended by a fault of the program")??)
    })
}

/// The query of a file, or of that name among `processor.queries`.
fn query(settings: &Settings, given: &str) -> anyhow::Result<Arc<StreamQuery>> {
    let path = Path::new(given);
    if path.is_file() || path.extension().is_some_and(|ending| ending == "toml") {
        return Ok(Arc::new(StreamQuery::compile(QueryFile::read(path)?)?));
    }
    let paths: &[PathBuf] = &settings.processor.queries;
    let mut files = paths.iter().map(|path| QueryFile::read(path)).collect::<Result<Vec<_>, _>>()?;
    if files.is_empty() {
        files.push(QueryFile::built_in()?);
    }
    let known = files.iter().map(|file| file.name.clone()).collect::<Vec<_>>().join(", ");
    let file = files.into_iter().find(|file| file.name == given);
    let file = file.with_context(|| format!("there is no query '{given}' among {known}; give its query file instead of its name"))?;
    Ok(Arc::new(StreamQuery::compile(file)?))
}

fn exit(is_fine: bool) -> ExitCode {
    if is_fine { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DIFFERENT) }
}
