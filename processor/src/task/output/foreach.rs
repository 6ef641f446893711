//! A program, or a web address, that gets each batch with its number. It may get the newest one again after a crash: by the number it knows.

use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use ureq::Agent;

use super::super::error::TaskError;
use super::super::owner::Owner;
use super::{Batch, Sink};
use crate::query::file::{self, Body};

/// The pause after a batch that was not taken doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// How long a web address may take to answer.
const ANSWER: Duration = Duration::from_secs(60);
/// How often a program is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Foreach {
    query: String,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Program(Vec<String>),
    Web(String, Agent, Body),
}

/// Why a batch was not taken.
enum Refusal {
    Stopped,
    Cause(String),
}

impl Foreach {
    pub(super) fn new(query: &str, sink: &file::Sink) -> Self {
        let agent = || Agent::config_builder().timeout_global(Some(ANSWER)).http_status_as_error(false).build().new_agent();
        let target = match &sink.url {
            Some(url) => Target::Web(url.clone(), agent(), sink.body.unwrap_or_default()),
            None => Target::Program(sink.command.clone()),
        };
        Self { query: query.to_owned(), target }
    }

    fn give(&self, batch: i64, rows: &Arc<Vec<u8>>, owner: &Owner) -> Result<(), Refusal> {
        match &self.target {
            Target::Program(command) => self.run(command, batch, rows, owner),
            Target::Web(url, agent, _) => self.post(agent, url, batch, rows, owner),
        }
    }

    fn run(&self, command: &[String], batch: i64, rows: &[u8], owner: &Owner) -> Result<(), Refusal> {
        let Some((program, arguments)) = command.split_first() else { return Ok(()) };
        let spawned = Command::new(program)
            .args(arguments)
            .env("TIDEMARK_BATCH_ID", batch.to_string())
            .env("TIDEMARK_QUERY", &self.query)
            .stdin(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|error| Refusal::Cause(format!("the program {program} does not start: {error}")))?;
        let input = child.stdin.take();
        std::thread::scope(|scope| {
            // In a thread of its own: a program that does not read must not hold the query's sign of life back.
            scope.spawn(move || {
                let written = input.map_or(Ok(()), |mut input| input.write_all(rows));
                // A program need not read all of it: its exit code says whether it is content.
                written.unwrap_or_else(|error| tracing::debug!(%error, "a program has not read its rows"));
            });
            let status = end(&mut child, owner)?;
            match status.success() {
                true => Ok(()),
                false => Err(Refusal::Cause(format!("the program {program} ended with {status}"))),
            }
        })
    }

    fn body(&self) -> Body {
        match &self.target {
            Target::Program(_) => Body::Lines,
            Target::Web(_, _, body) => *body,
        }
    }

    fn post(&self, agent: &Agent, url: &str, batch: i64, rows: &Arc<Vec<u8>>, owner: &Owner) -> Result<(), Refusal> {
        let request = agent
            .post(url)
            .header("content-type", self.body().content_type())
            .header("idempotency-key", format!("{}-{batch}", self.query))
            .header("tidemark-query", &self.query)
            .header("tidemark-batch-id", batch.to_string());
        let (tell, told) = channel();
        let rows = Arc::clone(rows);
        // In a thread of its own: an answer that takes its time must not hold the query's sign of life back, nor its end. Nobody may be left
        // to hear it.
        std::thread::spawn(move || tell.send(request.send(rows.as_slice())).unwrap_or_default());
        loop {
            match told.recv_timeout(LOOK) {
                Ok(Ok(answer)) if answer.status().is_success() => return Ok(()),
                Ok(Ok(answer)) => return Err(Refusal::Cause(format!("{url} answers {}", answer.status()))),
                Ok(Err(error)) => return Err(Refusal::Cause(format!("{url} does not answer: {error}"))),
                Err(RecvTimeoutError::Timeout) if owner.given_up() => return Err(Refusal::Stopped),
                Err(RecvTimeoutError::Timeout) => owner.beat(),
                Err(RecvTimeoutError::Disconnected) => return Err(Refusal::Cause(format!("{url} was not asked"))),
            }
        }
    }
}

/// Waits for a program; it is ended when nobody may wait any longer.
fn end(child: &mut Child, owner: &Owner) -> Result<ExitStatus, Refusal> {
    loop {
        if let Some(status) = child.try_wait().map_err(|error| Refusal::Cause(error.to_string()))? {
            return Ok(status);
        }
        if owner.given_up() {
            // It may have ended by now.
            child.kill().unwrap_or_default();
            child.wait().map_err(|error| Refusal::Cause(error.to_string()))?;
            return Err(Refusal::Stopped);
        }
        owner.beat();
        std::thread::sleep(LOOK);
    }
}

impl Sink for Foreach {
    fn write(&mut self, batch: &Batch, owner: &Owner) -> Result<(), TaskError> {
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        let rows = Arc::new(self.body().encode(&self.query, batch.id, &batch.rows).map_err(TaskError::Fatal)?);
        let mut pause = FIRST_PAUSE;
        loop {
            match self.give(batch.id, &rows, owner) {
                Ok(()) => return Ok(()),
                Err(Refusal::Stopped) => return Err(TaskError::Stopped),
                Err(Refusal::Cause(cause)) => {
                    tracing::warn!(query = self.query, batch = batch.id, "a batch was not taken: {cause}; trying again in {pause:?}");
                }
            }
            owner.beat();
            if owner.stop.wait_timeout(pause) {
                return Err(TaskError::Stopped);
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}
