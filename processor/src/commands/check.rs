//! `check`: what a query file means, and with the log whether it fits its state.

use std::process::ExitCode;

use clap::Args;
use common::Settings;
use common::say::say_line;

use super::{exit, look};
use crate::task::change::{Verdict, journals};
use crate::task::compile_queries;
use crate::task::scan::partitions;

#[derive(Debug, Clone, Copy, Args)]
pub struct CheckArgs {
    /// Compare each query with the state that it has in the log, and say whether it can go on with it
    #[arg(long)]
    against_log: bool,
}

/// Compiles the queries and prints what they read and give, without starting anything. Ends with 3 when one does not fit its state.
///
/// # Errors
/// When a query cannot run, or the log does not answer.
pub fn check(args: CheckArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut fits = true;
    for query in compile_queries(&settings.processor.queries)? {
        say_line(&query)?;
        if args.against_log && query.file.has_journal_topic() {
            let name = query.file.name.clone();
            let verdict = look(settings, move |settings, owner| {
                let input = partitions(settings, &query.file.source.topic)?.len();
                let input = u32::try_from(input).ok().filter(|input| *input > 0);
                Ok(Verdict::of(&query, &journals(settings, &query, owner)?, input))
            })?;
            say_line(format_args!("  state   {}", verdict.sentence(&name)))?;
            fits &= verdict.goes_on();
        }
    }
    Ok(exit(fits))
}
