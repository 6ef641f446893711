//! Which output mode fits which query; a mode that does not is refused with the one that does.

use super::file::OutputMode;
use super::grouping::{Grouping, Window};

/// What the rules look at.
pub(crate) struct Modal<'a> {
    pub(crate) mode: OutputMode,
    /// The groupings from the input to the output: none, one, or an aggregate and one over it.
    pub(crate) groupings: &'a [&'a Grouping],
}

impl Modal<'_> {
    /// # Errors
    /// A sentence with the mode to use instead.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.groupings {
            [] => self.check_rows(),
            [only] => self.check_groups(only),
            _ => self.check_chain(),
        }
    }

    fn check_rows(&self) -> Result<(), String> {
        match self.mode {
            OutputMode::Append | OutputMode::Update => Ok(()),
            OutputMode::Complete => Err("complete mode gives the whole result of an aggregate, and this query has none; \
                 use output_mode = \"append\""
                .into()),
        }
    }

    fn check_groups(&self, grouping: &Grouping) -> Result<(), String> {
        match (self.mode, &grouping.window) {
            (OutputMode::Complete, _) if grouping.distinct => {
                Err("complete mode would give every distinct row again at each trigger; use output_mode = \"append\"".into())
            }
            (OutputMode::Append, None) if !grouping.distinct => {
                Err("append mode gives each row once, when its window closes, and this query has no window; \
                 use output_mode = \"update\", or group by window(...)"
                    .into())
            }
            (OutputMode::Update, Some(Window::Session { .. })) => {
                Err("in update mode a session that grows together with another would leave rows behind that nobody takes back; \
                 use output_mode = \"append\", which gives each session once, when it has ended, or \"complete\""
                    .into())
            }
            _ => Ok(()),
        }
    }

    fn check_chain(&self) -> Result<(), String> {
        match self.mode {
            OutputMode::Append if self.groupings.iter().all(|grouping| grouping.window.is_some()) => Ok(()),
            OutputMode::Append => Err("an aggregate over an aggregate needs a window in both: GROUP BY window(w, '1 hour'), \
                 where w is the window of the inner one"
                .into()),
            OutputMode::Update | OutputMode::Complete => {
                Err("an aggregate over an aggregate takes each inner row once, when its window has closed; use output_mode = \"append\""
                    .into())
            }
        }
    }
}
