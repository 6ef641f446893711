//! The command `healthcheck`: asks the program that runs with the same settings whether it is well, for containers without a shell.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use crate::say::{complain, say};
use crate::settings::Http;
use crate::status_page;

/// Flags of `healthcheck`.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_help = "Ends with 0 when the program is well, with 1 when it is not or does not answer, with 2 when the settings have faults."
)]
pub struct HealthcheckArgs {
    /// Ask only whether its loops turn (/livez), not whether it can do its work now (/readyz).
    #[arg(long)]
    pub live: bool,
    /// Where its status page is; default: the address that this program itself would take.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Asks the page at `args.url`, or at the address of the settings, else at `default`, and prints what is amiss to standard output, where container engines keep it.
pub fn healthcheck(args: &HealthcheckArgs, settings: &Http, default: SocketAddr) -> ExitCode {
    let url = args.url.clone().unwrap_or_else(|| status_page::url(settings, default));
    match status_page::get(settings, &url, if args.live { "/livez" } else { "/readyz" }) {
        Ok((200, _)) => ExitCode::SUCCESS,
        Ok((_, body)) => unwell(&body),
        Err(error) => unwell(&format!("no program answers at {url} ({error:#}); start it, or name its status page with --url\n")),
    }
}

fn unwell(why: &str) -> ExitCode {
    say(why).unwrap_or_else(complain);
    ExitCode::FAILURE
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Shutdown, Telemetry, telemetry};

    fn ask(live: bool, address: SocketAddr) -> bool {
        healthcheck(&HealthcheckArgs { live, url: None }, &Http::default(), address) == ExitCode::SUCCESS
    }

    #[tokio::test]
    async fn ready_alive_and_gone_differ() {
        let telemetry = Telemetry::default();
        let part = telemetry.part("sink", || json!({}));
        let stop = Shutdown::manual();
        let (address, task) = telemetry::serve("127.0.0.1:0".parse().unwrap(), telemetry.router(), stop.clone()).await.unwrap();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        let asked = move |live| tokio::task::spawn_blocking(move || ask(live, everywhere));
        assert!(!asked(false).await.unwrap(), "not ready yet");
        assert!(asked(true).await.unwrap());
        part.set_ready(true);
        assert!(asked(false).await.unwrap());
        stop.trigger();
        task.await.unwrap();
        assert!(!asked(true).await.unwrap());
    }
}
