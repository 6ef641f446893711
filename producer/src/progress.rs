//! How far a replay is: a bar on a terminal, a line in the log every few seconds elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::source::Progress;

const LINE_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) enum Show {
    /// A source without a known end.
    Nothing,
    Bar(ProgressBar),
    Lines {
        next: Instant,
    },
}

impl Show {
    pub(crate) fn new(progress: Option<Progress>) -> Self {
        match progress {
            None => Self::Nothing,
            Some(progress) if std::io::stderr().is_terminal() => Self::Bar(bar(progress.total)),
            Some(_) => Self::Lines { next: Instant::now() + LINE_EVERY },
        }
    }

    /// Called about once a second.
    pub(crate) fn update(&mut self, progress: Option<Progress>, published: u64, rate: f64) {
        let Some(progress) = progress else { return };
        match self {
            Self::Nothing => {}
            Self::Bar(bar) => {
                bar.set_position(progress.done);
                bar.set_message(format!("{published} readings, {rate:.0}/s"));
            }
            Self::Lines { next } if Instant::now() >= *next => {
                *next = Instant::now() + LINE_EVERY;
                tracing::info!(percent = percent(progress), published, per_second = rate.round(), "replaying");
            }
            Self::Lines { .. } => {}
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn percent(progress: Progress) -> u64 {
    // An empty file is read as soon as it is opened.
    (progress.done * 100).checked_div(progress.total).unwrap_or(100)
}

fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    match ProgressStyle::with_template("{bar:40} {percent:>3} %  {bytes} of {total_bytes}  {msg}  {eta} left") {
        Ok(style) => bar.set_style(style),
        Err(error) => tracing::debug!(%error, "the bar keeps its default style"),
    }
    bar
}
