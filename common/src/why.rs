//! The command `why`: asks a processor's status page what holds the next result of a query back, and prints the answer.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::say::say;
use crate::settings::Http;
use crate::status_page;

/// Flags of `why`.
#[derive(Debug, Clone, Default, Args)]
pub struct WhyArgs {
    /// The query to ask about; without it, all that the processor runs.
    #[arg(long = "query", value_name = "NAME", id = "why_query")]
    pub query: Option<String>,
    /// Where the processor's status page is; default: the address that this program itself would take.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// How to print the answer.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Sentences; the first one is the answer.
    #[default]
    Text,
    /// The processor's own words: for each query its reasons, the gravest first.
    Json,
}

/// Asks the page at `args.url`, or at `default`, and prints to standard output.
///
/// # Errors
/// When no processor answers there, or it does not run the query.
pub fn why(args: &WhyArgs, settings: &Http, default: SocketAddr) -> anyhow::Result<()> {
    let url = args.url.clone().unwrap_or_else(|| status_page::url(settings, default));
    let status =
        fetch(settings, &url).with_context(|| format!("no processor answers at {url}; start it, or name its status page with --url"))?;
    Ok(say(answer(&status, args, &url)?)?)
}

fn answer(status: &Value, args: &WhyArgs, url: &str) -> anyhow::Result<String> {
    let Some(queries) = status.pointer("/parts/processor/status/queries").and_then(Value::as_array) else {
        bail!("what answers at {url} runs no processor; name a processor's status page with --url");
    };
    let name = |query: &Value| query["name"].as_str().unwrap_or_default().to_owned();
    let asked: Vec<&Value> = queries.iter().filter(|query| args.query.as_ref().is_none_or(|wanted| *wanted == name(query))).collect();
    if asked.is_empty() {
        let known: Vec<String> = queries.iter().map(name).collect();
        let wanted = args.query.as_deref().unwrap_or("(any)");
        bail!("the processor at {url} does not run the query '{wanted}'; it runs: {}", known.join(", "));
    }
    match args.output {
        Output::Json => {
            let whys: Vec<Value> = asked.iter().map(|query| serde_json::json!({ "query": query["name"], "why": query["why"] })).collect();
            Ok(serde_json::to_string_pretty(&whys)? + "\n")
        }
        Output::Text => Ok(asked.iter().map(|query| text(&name(query), &query["why"])).collect()),
    }
}

fn text(name: &str, why: &Value) -> String {
    let mut text = format!("query '{name}'");
    if let Some(last) = why["last_result"].as_str() {
        write!(text, " (last result sent at {last})").unwrap_or_default();
    }
    text.push_str(":\n");
    let reasons = why["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (number, reason) in reasons.iter().enumerate() {
        let mark = if number == 0 { "=>" } else { " -" };
        writeln!(text, "  {mark} {}", reason["text"].as_str().unwrap_or_default()).unwrap_or_default();
    }
    if reasons.is_empty() {
        text.push_str("  it does not say; its release is older than this command\n");
    }
    text
}

/// The status page at `url` as JSON.
fn fetch(settings: &Http, url: &str) -> anyhow::Result<Value> {
    let (code, body) = status_page::get(settings, url, "/status")?;
    if code != 200 {
        bail!("the answer has status {code}");
    }
    serde_json::from_str(&body).context("the answer is no status page")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        let reasons = json!([{ "code": "lag", "text": "partition 1 lags", "partition": 1 }, { "code": "trigger", "text": "a tick" }]);
        let why = json!({ "last_result": "2023-11-14T22:13:20.000Z", "reasons": reasons });
        json!({ "parts": { "processor": { "ready": true, "status": { "queries": [{ "name": "a", "why": why }, { "name": "b" }] } } } })
    }

    fn asked(query: Option<&str>, output: Output) -> anyhow::Result<String> {
        answer(&status(), &WhyArgs { query: query.map(str::to_owned), url: None, output }, "http://x")
    }

    #[test]
    fn the_first_reason_is_the_answer() {
        let text = asked(Some("a"), Output::Text).unwrap();
        assert_eq!(text, "query 'a' (last result sent at 2023-11-14T22:13:20.000Z):\n  => partition 1 lags\n   - a tick\n");
        assert!(asked(None, Output::Text).unwrap().contains("query 'b':"));
        let json: Value = serde_json::from_str(&asked(Some("a"), Output::Json).unwrap()).unwrap();
        assert_eq!(json[0]["why"]["reasons"][0]["code"], "lag");
    }

    #[test]
    fn a_wrong_name_is_told_the_right_ones() {
        assert!(asked(Some("c"), Output::Text).unwrap_err().to_string().contains("it runs: a, b"));
        let args = WhyArgs::default();
        assert!(answer(&json!({}), &args, "http://x").unwrap_err().to_string().contains("runs no processor"));
    }

    #[test]
    fn nobody_there_is_said() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = format!("{:#}", why(&WhyArgs::default(), &Http::default(), free).unwrap_err());
        assert!(error.contains("no processor answers at http://127.0.0.1:") && error.contains("--url"), "{error}");
        let args = WhyArgs { url: Some("ftp://example.org".into()), ..WhyArgs::default() };
        assert!(format!("{:#}", why(&args, &Http::default(), free).unwrap_err()).contains("does not begin with http://"));
    }

    #[tokio::test]
    async fn a_status_page_is_read() {
        let telemetry = crate::Telemetry::default();
        drop(telemetry.part("processor", || json!({ "queries": [] })));
        let stop = crate::Shutdown::manual();
        let (address, task) = crate::telemetry::serve("127.0.0.1:0".parse().unwrap(), telemetry.router(), stop.clone()).await.unwrap();
        let status = tokio::task::spawn_blocking(move || fetch(&Http::default(), &format!("http://{address}/"))).await.unwrap().unwrap();
        assert_eq!(status["parts"]["processor"]["status"]["queries"], json!([]));
        stop.trigger();
        task.await.unwrap();
    }
}
