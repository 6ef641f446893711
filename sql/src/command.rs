//! The command `sql`: asks a running program, and prints the answer.

use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use common::say::{complain, say};
use common::settings::Settings;
use common::status_page;
use serde::Deserialize;

use super::ask::{Answer, TableInfo};
use super::print;

/// Flags of `sql`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Examples:
  sql \"SELECT sensor_id, avg FROM iot_10s ORDER BY avg DESC LIMIT 5\"     the open windows of the query iot-10s
  sql \"SELECT * FROM iot_10s_history ORDER BY window_start DESC LIMIT 5\" what the database holds of it (tidemark only)
  sql --tables                                                           what can be asked about
  echo \"SELECT 1\" | sql - --output json

The SQL is SQLite's; it reads and changes nothing. docs/operations.md has the tables, types and limits.
Ends with 0 when there is an answer, with 1 when there is none, with 2 when usage or settings are wrong.")]
pub struct SqlArgs {
    /// One SELECT; '-' reads it from standard input.
    #[arg(value_name = "STATEMENT", required_unless_present = "tables", conflicts_with = "tables")]
    pub statement: Option<String>,
    /// List the tables with their columns and rows instead.
    #[arg(long)]
    pub tables: bool,
    /// How to print the answer.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub output: Output,
    /// Where the program's page or status page is; default: the address that this program itself would take.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people.
    #[default]
    Text,
    /// The answer as it came: columns, types, rows.
    Json,
    /// A line that names the columns, then a line a row.
    Csv,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

#[derive(Deserialize)]
struct Tables {
    tables: Vec<TableInfo>,
}

/// Asks the program at `args.url`, or at `default`, and prints to standard output.
///
/// # Errors
/// When no program answers there, or it says why it has no answer.
pub fn sql(args: &SqlArgs, settings: &Settings, default: SocketAddr) -> anyhow::Result<()> {
    let url = args.url.clone().unwrap_or_else(|| status_page::url(&settings.http, default));
    // It may wait for its turn, and then take its time.
    let patience = settings.sql.max_time.duration() * 2 + Duration::from_secs(5);
    let shown = if args.tables {
        let answer = ask(settings, &url, "/api/sql/tables", None, patience)?;
        match args.output {
            Output::Json => answer + "\n",
            _ => print::tables(&serde_json::from_str::<Tables>(&answer).context("the answer is not the one of this release")?.tables),
        }
    } else {
        let answer = ask(settings, &url, "/api/sql", Some(&statement(args)?), patience)?;
        if args.output == Output::Json {
            answer + "\n"
        } else {
            let answer: Answer = serde_json::from_str(&answer).context("the answer is not the one of this release")?;
            if args.output == Output::Csv && answer.truncated {
                complain(format_args!("these are the first {} rows of more", answer.rows.len()));
            }
            if args.output == Output::Csv { print::csv(&answer) } else { print::text(&answer) }
        }
    };
    Ok(say(shown)?)
}

fn statement(args: &SqlArgs) -> anyhow::Result<String> {
    match args.statement.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("the statement cannot be read from standard input")?;
            Ok(text)
        }
        statement => Ok(statement.unwrap_or_default().to_owned()),
    }
}

fn ask(settings: &Settings, url: &str, path: &str, body: Option<&str>, patience: Duration) -> anyhow::Result<String> {
    let (code, answer) = status_page::ask(&settings.http, url, path, body, patience)
        .with_context(|| format!("no program answers at {url}; start it, or name its page with --url"))?;
    match (code, serde_json::from_str::<Refused>(&answer)) {
        (200, _) => Ok(answer),
        (_, Ok(refused)) => bail!("{}", refused.error),
        (404, _) => bail!("what answers at {url} takes no questions: it is neither the appliance nor a processor, or sql.enabled is off"),
        _ => bail!("{url} answers with {code}: {}", answer.lines().next().unwrap_or_default()),
    }
}
