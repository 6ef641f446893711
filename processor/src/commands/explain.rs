//! `explain`: what is behind one result row.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use common::Settings;
use common::say::{say, say_line};

use super::text::{parse_time, table, time};
use super::{OutputFormat, exit, look, query};
use crate::engine::MAX_TIME;
use crate::query::StreamQuery;
use crate::task::explain::{Explain, Explanation};

/// Which row.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The query (its name or its file)
    #[arg(long = "query", id = "of_query", value_name = "NAME|FILE")]
    query: String,
    /// Start of the window: 2023-11-14T22:13:20Z, or epoch milliseconds; not for a query without windows
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    window: Option<String>,
    /// The group, as the key of its records: the text of a single text column, else a JSON array such as '["a",1]'; not for a query
    /// without keys
    #[arg(long, value_name = "KEY", default_value = "", allow_hyphen_values = true)]
    key: String,
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Prints the rows behind a result row, the row computed once more from the log, and the row that the result topic holds. Ends with 3 when
/// the two differ, or neither is there.
///
/// # Errors
/// When the query has no such rows to ask for, or the log does not answer.
pub fn explain(args: &ExplainArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let query = query(settings, &args.query)?;
    let start = start(&query, args.window.as_deref())?;
    let key = args.key.clone().into_bytes();
    let explanation = look(settings, move |settings, owner| Explain { settings, query, start, key, owner }.run())?;
    match args.output {
        OutputFormat::Json => say_line(serde_json::to_string_pretty(&explanation)?)?,
        OutputFormat::Text => say(to_text(&explanation))?,
    }
    Ok(exit(explanation.equal))
}

/// The start of the asked window; 0 without windows.
fn start(query: &StreamQuery, window: Option<&str>) -> anyhow::Result<i64> {
    let name = &query.file.name;
    let Some(top) = query.top() else {
        bail!("query '{name}' has no groups: each of its rows names the record that it is made of in its header tidemark-row");
    };
    if top.window.is_none() {
        return match window {
            None => Ok(0),
            Some(_) => bail!("query '{name}' has no windows; leave --window out"),
        };
    }
    let text = window.with_context(|| format!("query '{name}' has windows; say which with --window and its start"))?;
    let start = parse_time(text).map_err(anyhow::Error::msg)?;
    if start.unsigned_abs() > MAX_TIME {
        bail!("no reading can have the time {text}; say the window's start as 2023-11-14T22:13:20Z or in epoch milliseconds");
    }
    if let Some(window) = top.panes()
        && let Some(pane) = window.pane(start, i64::MIN)
    {
        let starts: Vec<i64> = window.windows(pane).collect();
        if !starts.contains(&start) {
            let starts = starts.into_iter().take(5).map(time).collect::<Vec<_>>().join(", ");
            bail!("no window of query '{name}' starts at {}; that time is in the window of {starts}", time(start));
        }
    }
    Ok(start)
}

fn to_text(found: &Explanation) -> String {
    let mut text = format!("query   {}\n", found.query);
    if let Some(start) = found.start {
        text += &format!("window  {} to {}\n", time(start), found.end.map_or_else(|| "?".to_owned(), time));
    }
    text += &format!("key     {}\n", if found.key.is_empty() { "(none)" } else { &found.key });
    match &found.partitions {
        None => text += "rows    those of the inner windows; ask for them one by one with a query of the inner aggregate\n",
        Some(partitions) => {
            let offset = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
            let row = |(partition, behind): (&i32, &crate::task::explain::Behind)| {
                let counts = [behind.used, behind.late, behind.dead, behind.filtered].map(|count| count.to_string());
                let place = [partition.to_string(), offset(behind.first_offset), offset(behind.last_offset)];
                place.into_iter().chain(counts).collect::<Vec<String>>()
            };
            let rows: Vec<Vec<String>> = partitions.iter().map(row).collect();
            text += &table(&["partition", "first", "last", "used", "late", "dead", "filtered"], &rows);
        }
    }
    let none = || "(no row)".to_owned();
    let final_word = |is_final: bool| if is_final { "final" } else { "not final" };
    text += &format!(
        "from the log  {}\n",
        found.recomputed.as_ref().map_or_else(none, |row| format!("{} ({})", row.value, final_word(row.is_final)))
    );
    if let Some(value) = &found.corrected {
        text += &format!("with its late rows  {value}\n");
    }
    let result = found.result.as_ref().map_or_else(none, |row| {
        let value = row.value.as_ref().map_or("(taken out)", |value| value.get());
        let restated = if row.restated { ", a correction" } else { "" };
        format!("{value} ({}, revision {}{restated})", final_word(row.is_final), row.revision)
    });
    text += &format!("the result    {result}\n");
    text += match found.equal {
        true => "They are equal.\n",
        false if found.recomputed.is_none() && found.result.is_none() => "There is no such row.\n",
        false => "They differ.\n",
    };
    text + &found.reasons.iter().map(|reason| format!("- {reason}\n")).collect::<String>()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::query::QueryFile;

    #[test]
    fn a_window_is_within_the_times_of_readings() {
        let query = StreamQuery::compile(QueryFile::built_in().unwrap()).unwrap();
        assert_eq!(start(&query, Some("2023-11-14T22:13:20Z")).unwrap(), 1_700_000_000_000);
        for far in ["9223372036854775807", "-9223372036854775808"] {
            let error = start(&query, Some(far)).unwrap_err().to_string();
            assert!(error.contains(far), "{error}");
        }
        assert!(start(&query, Some("1700000000001")).unwrap_err().to_string().contains("is in the window of 2023-11-14T22:13:20.000Z"));
    }
}
