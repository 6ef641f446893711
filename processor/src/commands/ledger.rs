//! `ledger`: what became of every reading, from the journal, for all partitions whoever owns them.

use std::process::ExitCode;

use clap::Args;
use common::Settings;
use common::say::{say, say_line};
use serde::Serialize;
use serde_json::json;

use super::text::table;
use super::{OutputFormat, exit, look};
use crate::engine::Ledger;
use crate::task::change::journals;
use crate::task::scan::ends;
use crate::task::{ProcessorError, compile_queries};

#[derive(Debug, Clone, Copy, Args)]
pub struct LedgerArgs {
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// One input partition of one query, as far as it is committed.
#[derive(Debug, Serialize)]
struct Account {
    query: String,
    partition: i32,
    #[serde(flatten)]
    ledger: Ledger,
    /// Rows that the topic has beyond the last commit.
    lag: i64,
}

/// Prints `read = used + late + dead + filtered` for every query and partition. Ends with 3 when one does not balance.
///
/// # Errors
/// When a query cannot run, or the log does not answer.
pub fn ledger(args: LedgerArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut accounts = Vec::new();
    for query in compile_queries(&settings.processor.queries)? {
        let found = look(settings, move |settings, owner| {
            let journals = journals(settings, &query, owner)?;
            let ends = ends(settings, &query.file.source.topic, owner)?;
            let mut found: Vec<Account> = journals
                .progress()
                .map(|progress| Account {
                    query: query.file.name.clone(),
                    partition: progress.partition,
                    ledger: progress.ledger,
                    lag: ends.get(&progress.partition).map_or(0, |end| end - progress.to).max(0),
                })
                .collect();
            found.sort_by_key(|account| account.partition);
            Ok::<_, ProcessorError>(found)
        })?;
        accounts.extend(found);
    }
    let balances = accounts.iter().all(|account| account.ledger.imbalance() == 0);
    match args.output {
        OutputFormat::Json => say_line(serde_json::to_string_pretty(&json!({ "balances": balances, "partitions": accounts }))?)?,
        OutputFormat::Text => say(text(&accounts, balances))?,
    }
    Ok(exit(balances))
}

fn text(accounts: &[Account], balances: bool) -> String {
    if accounts.is_empty() {
        return "no query has committed anything yet\n".into();
    }
    let cells = |ledger: &Ledger, lag: i64| {
        [ledger.read, ledger.used, ledger.late, ledger.dead, ledger.filtered].iter().map(u64::to_string).chain([lag.to_string()]).collect()
    };
    let row = |account: &Account| {
        let mut row = vec![account.query.clone(), account.partition.to_string()];
        row.extend::<Vec<String>>(cells(&account.ledger, account.lag));
        row
    };
    let mut rows: Vec<Vec<String>> = accounts.iter().map(row).collect();
    let sum = accounts.iter().fold(Ledger::default(), |sum, account| sum + account.ledger);
    let mut last = vec!["sum".to_owned(), String::new()];
    last.extend::<Vec<String>>(cells(&sum, accounts.iter().map(|account| account.lag).sum()));
    rows.push(last);
    let verdict = if balances { "balanced: every row that was read is used, late, dead or filtered" } else { "NOT BALANCED" };
    table(&["query", "partition", "read", "used", "late", "dead", "filtered", "lag"], &rows) + verdict + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_verdict_stand_below() {
        let account = |partition, read| Account {
            query: "q".into(),
            partition,
            ledger: Ledger { read, used: 7, late: 1, dead: 1, filtered: 1, duplicates: 0 },
            lag: 2,
        };
        let shown = text(&[account(0, 10), account(1, 10)], true);
        let words: Vec<&str> = shown.lines().nth(3).unwrap_or_default().split_whitespace().collect();
        assert_eq!(words, ["sum", "20", "14", "2", "2", "2", "4"], "{shown}");
        assert!(shown.contains("\nbalanced"), "{shown}");
        assert!(text(&[account(0, 11)], false).ends_with("NOT BALANCED\n"));
        assert!(text(&[], true).contains("no query has committed"));
    }
}
