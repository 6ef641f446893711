//! How far a job with a known end is: a bar on a terminal, a line in the log every few seconds elsewhere.

use std::io::IsTerminal as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// All bars of the process, one below the other.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Rows,
}

/// Shows one job; dropping it takes its bar away.
#[derive(Debug)]
pub struct Show {
    name: String,
    unit: Unit,
    next_line: Instant,
    bar: Option<ProgressBar>,
}

impl Show {
    /// Shows nothing yet: the first [`Show::update`] makes the bar.
    pub fn new(name: &str, unit: Unit) -> Self {
        Self { name: name.to_owned(), unit, next_line: Instant::now() + LINE_EVERY, bar: None }
    }

    /// `done` of `total` units; `message` is asked only when it is shown.
    pub fn update(&mut self, done: u64, total: u64, message: impl FnOnce() -> String) {
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| BARS.add(bar(&self.name, self.unit, total)));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(message());
        } else if Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_EVERY;
            tracing::info!(percent = percent(done, total), "{}: {}", self.name, message());
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn percent(done: u64, total: u64) -> u64 {
    // An empty job is done as soon as it is begun.
    done.saturating_mul(100).checked_div(total).unwrap_or(100)
}

fn bar(name: &str, unit: Unit, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_prefix(name.to_owned());
    let template = match unit {
        Unit::Bytes => "{prefix} {bar:40} {percent:>3} %  {bytes} of {total_bytes}  {msg}  {eta} left",
        Unit::Rows => "{prefix} {bar:40} {percent:>3} %  {human_pos} of {human_len} rows  {msg}  {eta} left",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.set_style(style),
        Err(error) => tracing::debug!(%error, "the bar keeps its default style"),
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_without_work_is_done() {
        assert_eq!((percent(0, 0), percent(0, 7), percent(7, 7), percent(1, 3)), (100, 0, 100, 33));
    }

    #[test]
    fn the_templates_are_valid() {
        for unit in [Unit::Bytes, Unit::Rows] {
            assert_eq!(bar("q", unit, 5).length(), Some(5));
        }
    }
}
