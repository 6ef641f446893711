//! The flags and commands that all binaries have, and how a binary begins and ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::Settings;
use crate::aside::wait_for_ends;
use crate::say::{complain, say, say_line};
use crate::settings::{Faults, Flag, Loaded, load};

/// Flags that every binary takes; flatten them into its own.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArgs {
    /// Settings file (TOML); see `config show` for its keys.
    #[arg(long, value_name = "FILE", env = "TIDEMARK_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// The Kafka log: host:port, several with commas [env: TIDEMARK_KAFKA__BOOTSTRAP_SERVERS]
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub bootstrap_servers: Option<String>,
    /// Address of metrics, health and status; port 0 takes a free one [env: TIDEMARK_HTTP__LISTEN]
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub http_listen: Option<SocketAddr>,
    /// error, warn, info, debug, trace, or directives [env: TIDEMARK_LOG__LEVEL, RUST_LOG]
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
}

/// `config show` and `config check`.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting, its value and where the value comes from; secrets are masked.
    Show,
    /// Check the settings from all sources and report every fault.
    Check,
}

/// Collects the flags that were given, as settings.
#[derive(Debug, Default)]
pub struct Flags(Vec<Flag>);

impl Flags {
    pub fn set(&mut self, key: &'static str, name: &'static str, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.0.push(Flag { key, name, value: value.into() });
        }
        self
    }

    pub fn set_paths(&mut self, key: &'static str, name: &'static str, paths: &[PathBuf]) -> &mut Self {
        let list: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        self.set(key, name, (!list.is_empty()).then_some(list))
    }
}

impl CommonArgs {
    /// Loads the settings from these flags, the binary's own `flags`, the environment and the file.
    ///
    /// # Errors
    /// All faults of all sources in one error.
    pub fn load(&self, mut flags: Flags) -> Result<Loaded, Faults> {
        flags
            .set("kafka.bootstrap_servers", "--bootstrap-servers", self.bootstrap_servers.clone())
            .set("http.listen", "--http-listen", self.http_listen.map(|address| address.to_string()))
            .set("log.level", "--log-level", self.log_level.clone());
        load(self.config.as_deref(), std::env::vars(), &flags.0)
    }
}

/// `config show|check` of any binary.
///
/// # Errors
/// [`Faults`] of a check: those that `check` finds, which looks closer than loading the settings does.
pub fn config_command(command: &ConfigCommand, loaded: &Loaded, check: impl FnOnce(&Settings) -> Vec<String>) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Show => say(loaded.show())?,
        ConfigCommand::Check => {
            let faults = check(&loaded.settings);
            if !faults.is_empty() {
                return Err(Faults(faults).into());
            }
            say_line("the settings are fine")?;
        }
    }
    Ok(())
}

/// Usage and settings faults end with 2, as clap's own do; faults at work with 1.
pub const EXIT_USAGE: u8 = 2;

/// The end of a binary. Prints an error and its causes as one sentence, and gives the exit code.
pub fn end(result: anyhow::Result<ExitCode>) -> ExitCode {
    let code = result.unwrap_or_else(|error| {
        complain(format_args!("error: {error:#}"));
        ExitCode::from(if error.downcast_ref::<Faults>().is_some() { EXIT_USAGE } else { 1 })
    });
    wait_for_ends();
    code
}
