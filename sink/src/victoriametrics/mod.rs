//! The writer into VictoriaMetrics.
//!
//! VictoriaMetrics keeps every sample. Of several at one timestamp a query sees the one of the largest *value*, not the last, and only when
//! deduplication is on. So this writer writes each row once: when its window has closed, and the row is final. A crash between the write
//! and the commit of the offsets repeats samples with the same value, and `-dedup.minScrapeInterval=1ms` makes one of them. Rows that would
//! change a sample (updates, corrections, deletions) are left out and counted.
//!
//! It answers before samples are on the disk, and loses up to `-inmemoryDataFlushInterval` of them when its process is killed. So offsets
//! are committed only some time after that, and when it turns out to have been started anew, the rows since then are written again.

mod limits;
mod read;

use std::time::{Duration, Instant};

use common::settings::Victoriametrics;

use crate::ahead::{Draft, Prepare};
use crate::line::{self, Dialect};
use crate::newest::Newest;
use crate::point::{FieldValue, Point};
use crate::web::{Address, Body, Client, Scheme, Secret};
use crate::writer::{Rejection, WriteError, WriteOutcome, Writer};
use limits::Limits;
pub(crate) use read::VictoriaReader;

const SUCCESS: &[u16] = &[204];
const WRITE: &str = "/api/v2/write?precision=ms";
/// How often the database is asked for its limits: it may have been started anew with others.
const LIMITS_EVERY: Duration = Duration::from_secs(30);

/// Writes final rows as line protocol, one request a batch.
#[derive(Debug)]
pub struct VictoriaWriter {
    client: Client,
    limits: Limits,
    limits_due: Option<Instant>,
    warned: bool,
    /// It does not show what would tell that it was started anew; that has been said.
    is_blind: bool,
    form: Form,
}

/// Lines of the rows that stand for good.
#[derive(Debug, Clone)]
struct Form {
    gzip: bool,
}

impl VictoriaWriter {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// [`WriteError::Fatal`] when a file that the settings name cannot be read.
    pub fn open(settings: &Victoriametrics) -> Result<Self, WriteError> {
        let client = Client::new(address(settings))?;
        let form = Form { gzip: settings.gzip.is_for(&settings.url) };
        Ok(Self { client, limits: Limits::default(), limits_due: None, warned: false, is_blind: false, form })
    }

    /// VictoriaMetrics drops what is beyond its limits without a word, so they are kept here.
    fn learn_limits(&mut self) -> Result<(), WriteError> {
        if self.limits_due.is_some_and(|due| Instant::now() < due) {
            return Ok(());
        }
        let answer = self.client.get("/metrics").inspect_err(|_| self.limits_due = None)?;
        let mut started_anew = false;
        if answer.code == 200 {
            let limits = Limits::read(&answer.body);
            started_anew = limits.started != self.limits.started && self.limits.started.is_some();
            self.limits = limits;
            self.is_blind = false;
        } else if (500..600).contains(&answer.code) {
            return answer.judge(self.client.database(), self.client.url(), &[200]);
        } else if !std::mem::replace(&mut self.is_blind, true) {
            tracing::warn!(
                code = answer.code,
                "VictoriaMetrics does not show /metrics: its default limits are taken, its retention is unknown, and when it is killed, what it \
                 had not put on its disk is not written again; let this client read /metrics"
            );
        }
        if !self.limits.deduplicates && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                "VictoriaMetrics runs without -dedup.minScrapeInterval=1ms: samples that are written twice after a crash count twice in its queries"
            );
        }
        self.limits_due = Some(Instant::now() + LIMITS_EVERY);
        if started_anew {
            return Err(WriteError::Lost("VictoriaMetrics was started anew: what it may not have put on its disk is written again".into()));
        }
        Ok(())
    }
}

pub(crate) fn address(settings: &Victoriametrics) -> Address {
    Address {
        database: "VictoriaMetrics",
        url: settings.url.trim_end_matches('/').to_owned(),
        secret: Secret { scheme: Scheme::Bearer, token: settings.token.clone(), file: settings.token_file.clone() },
        ca_file: settings.ca_file.clone(),
        identity: settings.cert_file.clone().zip(settings.key_file.clone()),
        timeout: settings.timeout.duration(),
    }
}

/// Why a row is not written, as one word for counting; `None` for a row that stands for good. Rows that are not our processor's have no
/// revisions, and each of them stands.
pub(crate) fn left_out(point: &Point) -> Option<&'static str> {
    match point {
        point if point.deleted => Some("undeletable"),
        point if point.restated => Some("restated"),
        point if !point.is_final && point.revision.is_some() => Some("not_final"),
        _ => None,
    }
}

/// A number or a truth value; VictoriaMetrics has no other.
pub(crate) fn is_sample(value: &FieldValue) -> bool {
    !matches!(value, FieldValue::Text(_))
}

impl Writer for VictoriaWriter {
    fn name(&self) -> &'static str {
        "victoriametrics"
    }

    fn settles_after(&self) -> Duration {
        // Rows wait for the next look at what waits, then become a part in memory, whose time begins then, and is looked at as often.
        self.limits.flush * 3 + Duration::from_secs(5)
    }

    fn check_settled(&mut self) -> Result<(), WriteError> {
        self.limits_due = None;
        self.learn_limits()
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        let prepared = self.form.prepare(points);
        self.write_prepared(points, &prepared)
    }

    fn preparer(&self) -> Option<Box<dyn Prepare>> {
        Some(Box::new(self.form.clone()))
    }

    /// The limits decide here: the database may have been started anew with others.
    fn write_prepared(&mut self, points: &[Point], prepared: &Draft) -> Result<WriteOutcome, WriteError> {
        self.learn_limits()?;
        let mut faults = prepared.faults.clone();
        let is_known = |at: usize| prepared.faults.iter().any(|fault| fault.index == at);
        let beyond = standing(points).filter_map(|(at, point)| self.limits.fault(at, point));
        faults.extend(beyond.filter(|fault| !is_known(fault.index)));
        if !faults.is_empty() {
            return Err(WriteError::Rejected(faults));
        }
        if !prepared.body.is_empty() {
            let answer = self.client.post(WRITE, "text/plain; charset=utf-8", &prepared.body);
            // It was away: it may come back with other limits.
            let answer = answer.inspect_err(|_| self.limits_due = None)?;
            answer.judge(self.client.database(), self.client.url(), SUCCESS)?;
        }
        Ok(prepared.outcome.clone())
    }
}

impl Prepare for Form {
    fn prepare(&mut self, points: &[Point]) -> Draft {
        let faults: Vec<Rejection> = standing(points).filter_map(|(at, point)| line::fault(at, point, Dialect::Victoriametrics)).collect();
        if !faults.is_empty() {
            return Draft { faults, ..Draft::default() };
        }
        let mut outcome = WriteOutcome::default();
        for reason in ["undeletable", "restated", "not_final"] {
            outcome.leave_out(reason, points.iter().filter(|point| left_out(point) == Some(reason)).count() as u64);
        }
        let standing: Vec<&Point> = standing(points).map(|(_, point)| point).collect();
        let texts = standing.iter().flat_map(|point| &point.fields).filter(|(_, value)| !is_sample(value)).count();
        outcome.leave_out("text", texts as u64);
        let newest = Newest::of(&standing);
        let mut lines = Vec::new();
        let written = newest.places.iter().filter(|at| line::write(standing[**at], Dialect::Victoriametrics, &mut lines)).count();
        let empty = (newest.places.len() - written) as u64;
        outcome.leave_out("no_fields", empty);
        outcome.written = standing.len() as u64 - newest.stale - empty;
        outcome.stale = newest.stale;
        Draft { faults, body: Body::new(lines, self.gzip), outcome, ..Draft::default() }
    }
}

/// The rows that are written, with their places.
fn standing(points: &[Point]) -> impl Iterator<Item = (usize, &Point)> {
    points.iter().enumerate().filter(|(_, point)| left_out(point).is_none())
}
