//! What a program says on its standard output and standard error, whose reader may have gone.
//!
//! `print!` and its kin panic then, and a program under `| head` or `| tee`, or whose collector of logs has ended, would die of it or, worse,
//! lose the one task that was about to stop it. Who reads no longer misses nothing: what follows is dropped.

use std::fmt;
use std::io::{self, ErrorKind, Write};

/// Writes `text` to standard output as it is, without a line's end of its own.
///
/// # Errors
/// When it can be read and not written, as on a full disk.
pub fn say(text: impl fmt::Display) -> io::Result<()> {
    write(io::stdout().lock(), &text).map_err(|error| io::Error::new(error.kind(), format!("standard output cannot be written: {error}")))
}

/// As [`say`], and ends the line.
///
/// # Errors
/// As those of [`say`].
pub fn say_line(text: impl fmt::Display) -> io::Result<()> {
    say(format_args!("{text}\n"))
}

/// Writes a line to standard error. Nobody can be told when that fails.
pub fn complain(text: impl fmt::Display) {
    let _told = write(io::stderr().lock(), &format_args!("{text}\n")).is_ok();
}

fn write(mut to: impl Write, text: &dyn fmt::Display) -> io::Result<()> {
    match to.write_all(text.to_string().as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_fault_and_a_full_disk_is() {
        let mut written = Vec::new();
        write(&mut written, &"a line\n").unwrap();
        assert_eq!(written, b"a line\n");
        write(Failing(ErrorKind::BrokenPipe), &"a line\n").unwrap();
        assert_eq!(write(Failing(ErrorKind::StorageFull), &"a line\n").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
