//! Rows as text on standard output, for a look at what comes.

use std::io::Write as _;

use crate::ndjson;
use crate::point::Point;
use crate::writer::{WriteError, WriteOutcome, Writer};

/// One JSON object a line, every revision of every row, as it comes.
#[derive(Debug, Default)]
pub struct ConsoleWriter {
    lines: Vec<u8>,
}

impl Writer for ConsoleWriter {
    fn name(&self) -> &'static str {
        "console"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        self.lines.clear();
        ndjson::write(points, &mut self.lines);
        let mut out = std::io::stdout().lock();
        out.write_all(&self.lines).and_then(|()| out.flush()).map_err(|error| {
            WriteError::Fatal(format!("standard output cannot be written ({error}); the sink stops, its position is kept"))
        })?;
        Ok(WriteOutcome { written: points.len() as u64, ..WriteOutcome::default() })
    }
}
