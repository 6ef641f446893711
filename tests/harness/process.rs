use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wait::wait_for;

/// A child process. Dropping it kills it; a test that fails shows its output.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    started: Instant,
}

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        let lines = Arc::default();
        let readers = [
            child.stdout.take().map(|pipe| collect(pipe, Arc::clone(&lines))),
            child.stderr.take().map(|pipe| collect(pipe, Arc::clone(&lines))),
        ];
        Self { name: name.into(), child, lines, readers: readers.into_iter().flatten().collect(), started: Instant::now() }
    }

    /// A child whose output is somebody else's.
    pub(crate) fn adopt(name: &str, child: Child) -> Self {
        Self { name: name.into(), child, lines: Arc::default(), readers: Vec::new(), started: Instant::now() }
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far, standard output and standard error as they came.
    pub(crate) fn output(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits until `pick` finds something in a line.
    #[track_caller]
    pub(crate) fn wait_line<T>(&mut self, what: &str, limit: Duration, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let what = format!("{} to print {what}", self.name);
        wait_for(&what, limit, || {
            // Asked before the look at the lines, or the last line of a process that ends between the two would be missed.
            let ended = self.try_wait();
            if ended.is_some() {
                self.hear_out();
            }
            let found = self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().find_map(|line| pick(line));
            assert!(found.is_some() || ended.is_none(), "{} ended with {ended:?} before: {what}\n{}", self.name, self.output());
            found
        })
    }

    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Waits for the end and gives the exit code; `None` when a signal ended it.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> Option<i32> {
        let what = format!("{} to end", self.name);
        let status = wait_for(&what, limit, || self.try_wait());
        self.hear_out();
        status.code()
    }

    /// After its end: until all of its output is here.
    fn hear_out(&mut self) {
        for reader in self.readers.drain(..) {
            assert!(reader.join().is_ok(), "the reader of {}'s output", self.name);
        }
    }

    /// Waits for the end and wants exit code 0.
    #[track_caller]
    pub(crate) fn wait_success(&mut self, limit: Duration) {
        let code = self.wait_exit(limit);
        assert_eq!(code, Some(0), "{} failed:\n{}", self.name, self.output());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap_or_else(|error| panic!("kill {}: {error}", self.name));
        self.wait_exit(Duration::from_secs(60));
    }

    /// `INT`, `TERM`, `STOP`, `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        // The shell's own `kill`: a bare machine may have no other.
        let status = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.child.id())]).status();
        assert!(status.is_ok_and(|status| status.success()), "SIG{signal} for {}", self.name);
    }
}

fn collect(pipe: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let tail = &lines[lines.len().saturating_sub(80)..];
            eprintln!("---- {} (last {} of {} lines)\n{}", self.name, tail.len(), lines.len(), tail.join("\n"));
        }
        // It may have ended by itself; then there is nobody to kill and nobody to wait for.
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            assert!(self.child.wait().is_ok() || std::thread::panicking());
        }
    }
}
