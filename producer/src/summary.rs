//! What a run has done.

use std::fmt;
use std::time::Duration;

use crate::source::Tally;

/// What a run has published; all counts are of records that the log has acknowledged, but for the tally.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Readings in the input topic, duplicates included.
    pub published: u64,
    /// Lines in the dead lane.
    pub dead: u64,
    /// What the source did on purpose.
    pub tally: Tally,
    /// Whether the source came to its end; else it was stopped.
    pub complete: bool,
    /// From the first reading to the last acknowledgement.
    pub duration: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.duration.as_secs_f64();
        let rate = if seconds > 0.0 { self.published as f64 / seconds } else { 0.0 };
        write!(f, "published {} readings in {seconds:.1} s ({rate:.0}/s)", self.published)?;
        let Tally { duplicates, out_of_order, late, bad_clock, .. } = self.tally;
        for (count, what) in [(duplicates, "sent twice"), (out_of_order, "out of order"), (late, "late"), (bad_clock, "with a wrong clock")]
        {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.dead > 0 {
            write!(f, "; {} lines could not be read and are in the dead lane", self.dead)?;
        }
        if !self.complete {
            f.write_str("; stopped before the end")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_one_line() {
        let summary = Summary {
            published: 1010,
            dead: 2,
            tally: Tally { duplicates: 10, ..Tally::default() },
            complete: true,
            duration: Duration::from_secs(2),
        };
        let text = "published 1010 readings in 2.0 s (505/s), 10 sent twice; 2 lines could not be read and are in the dead lane";
        assert_eq!(summary.to_string(), text);
        assert!(Summary::default().to_string().ends_with("stopped before the end"));
    }
}
