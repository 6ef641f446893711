//! `lanes ls|show|replay`.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use common::Settings;
use common::say::{say, say_line};
use serde_json::{Value, json};

use super::text::{table, time};
use super::{OutputFormat, exit, look, query};
use crate::task::lanes::{Lane, LaneRow, Wanted, count, newest};
use crate::task::replay::{Replay, Report};

/// Rows that came too late, and rows that nobody could read.
#[derive(Debug, Clone, Subcommand)]
pub enum LanesCommand {
    /// Count the rows of the lanes by query and reason.
    Ls {
        #[arg(long, value_enum, default_value_t)]
        output: OutputFormat,
    },
    /// Show rows: what they are, where they were, and why they are in a lane.
    Show {
        /// Of this query (its name or its file), or 'producer' or 'sink'
        #[arg(long = "query", id = "of_query", value_name = "NAME|FILE")]
        query: Option<String>,
        /// For this reason, such as late, not_json or future
        #[arg(long)]
        reason: Option<String>,
        #[arg(long, value_enum, default_value_t = Lanes::All)]
        lane: Lanes,
        /// The newest so many; 0: all
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        #[arg(long, value_enum, default_value_t)]
        output: OutputFormat,
    },
    /// Compute the windows that the rows missed once more, with all of their rows, and write their results again as a whole.
    Replay {
        /// The query (its name or its file), as it is now
        #[arg(long = "query", id = "of_query", value_name = "NAME|FILE")]
        query: String,
        #[arg(long, value_enum, default_value_t = Lanes::All)]
        lane: Lanes,
        /// Say what would be written, and write nothing
        #[arg(long)]
        dry_run: bool,
        #[arg(long, value_enum, default_value_t)]
        output: OutputFormat,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lanes {
    Late,
    Dead,
    All,
}

impl Lanes {
    fn one(self) -> Option<Lane> {
        match self {
            Self::Late => Some(Lane::Late),
            Self::Dead => Some(Lane::Dead),
            Self::All => None,
        }
    }
}

/// Runs the command and prints what it finds. Ends with 3 when a row of the lanes has not found its place.
///
/// # Errors
/// When the query cannot be used, or the log does not answer.
pub fn lanes(command: &LanesCommand, settings: &Settings) -> anyhow::Result<ExitCode> {
    match command {
        LanesCommand::Ls { output } => ls(settings, *output),
        LanesCommand::Show { query, reason, lane, limit, output } => {
            let stage = query.as_deref().map(|given| stage(settings, given)).transpose()?;
            show(settings, Wanted { lane: lane.one(), stage, reason: reason.clone() }, *limit, *output)
        }
        LanesCommand::Replay { query, lane, dry_run, output } => replay(settings, query, *lane, *dry_run, *output),
    }
}

fn ls(settings: &Settings, output: OutputFormat) -> anyhow::Result<ExitCode> {
    let counts = look(settings, count)?;
    match output {
        OutputFormat::Json => say_line(serde_json::to_string_pretty(&counts)?)?,
        OutputFormat::Text if counts.is_empty() => say_line("the lanes are empty")?,
        OutputFormat::Text => {
            let row = |count: &crate::task::lanes::LaneCount| {
                let lane = count.lane.name().to_owned();
                let (query, reason) = (count.query.clone(), count.reason.clone());
                vec![lane, query, reason, count.count.to_string(), time(count.first), time(count.last)]
            };
            let rows: Vec<Vec<String>> = counts.iter().map(row).collect();
            say(table(&["lane", "query", "reason", "count", "first", "last"], &rows))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of a query, of which a file may be given: its rows may be there when the file no longer compiles.
fn stage(settings: &Settings, given: &str) -> anyhow::Result<String> {
    let is_file = std::path::Path::new(given).is_file();
    Ok(if is_file { query(settings, given)?.file.name.clone() } else { given.to_owned() })
}

fn show(settings: &Settings, wanted: Wanted, limit: usize, output: OutputFormat) -> anyhow::Result<ExitCode> {
    let rows = look(settings, move |settings, owner| newest(settings, &wanted, limit, owner))?;
    match output {
        OutputFormat::Json => say_line(serde_json::to_string_pretty(&rows.iter().map(to_json).collect::<Vec<_>>())?)?,
        OutputFormat::Text if rows.is_empty() => say_line("there are no such rows")?,
        OutputFormat::Text => rows.iter().try_for_each(|row| say_line(to_text(row)))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text_of(bytes: Option<&Vec<u8>>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn to_json(row: &LaneRow) -> Value {
    json!({
        "lane": row.lane, "time": row.time, "query": row.stage, "reason": row.reason, "detail": row.detail,
        "topic": row.topic, "partition": row.partition, "offset": row.offset, "received": row.received,
        "key": text_of(row.key.as_ref()), "payload": text_of(row.payload.as_ref()),
    })
}

fn to_text(row: &LaneRow) -> String {
    let place = row.place().unwrap_or_else(|| "no topic".into());
    let payload = text_of(row.payload.as_ref()).unwrap_or_else(|| "(no payload)".into());
    format!(
        "{} {} {} {} {place}\n  {}\n  {}",
        time(row.time),
        row.lane.name(),
        row.stage,
        row.reason,
        // What a device sent must not move the cursor of whoever looks at it.
        row.detail.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""),
        payload.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"")
    )
}

fn replay(settings: &Settings, given: &str, lane: Lanes, dry_run: bool, output: OutputFormat) -> anyhow::Result<ExitCode> {
    let query = query(settings, given)?;
    let report = look(settings, move |settings, owner| Replay { settings, query, lane: lane.one(), dry_run, owner }.run())?;
    match output {
        OutputFormat::Json => say_line(serde_json::to_string_pretty(&report)?)?,
        OutputFormat::Text => say(summary(&report))?,
    }
    Ok(exit(!report.is_partial()))
}

/// What happened, line by line; lines of nothing are left out.
fn summary(report: &Report) -> String {
    let (rows, windows) = (&report.rows, &report.windows);
    let mut lines = Vec::new();
    let mut say = |count: u64, what: &str| {
        if count > 0 {
            lines.push(format!("  {count:>8}  {what}"));
        }
    };
    let verb = if report.dry_run { "would be written again" } else { "written again" };
    say(rows.replayed, "rows are in their windows");
    say(rows.filtered, "rows do not match WHERE, or were there before");
    say(rows.open, "rows stay: a window of theirs is still open, or the query has not committed them yet");
    say(rows.lost, "rows stay: the log may have deleted other rows of their windows");
    say(rows.elsewhere, "rows stay: they are of another topic");
    for (reason, count) in &rows.still_dead {
        say(*count, &format!("rows stay: still dead ({reason})"));
    }
    say(windows.restated, &format!("results {verb}"));
    say(windows.unchanged, "results were right already");
    say(windows.open, "windows are still open");
    say(windows.lost, "windows left out, for the rows that the log may have deleted");
    say(windows.without_row, "windows have no row: HAVING leaves them out");
    say(windows.failed, "results could not be computed");
    let head = format!("query {}: {} late and {} dead rows in the lanes\n", report.query, rows.late, rows.dead);
    let changes = report.changes.iter().map(|change| format!("  the query has changed since: {change}\n")).collect::<String>();
    let lines = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let shown = report.restated.iter().take(20).map(|row| {
        let start = row.start.map(time).unwrap_or_default();
        format!("  {start} {} {}\n", row.key, row.value)
    });
    head + &changes + &lines + &shown.collect::<String>()
}
