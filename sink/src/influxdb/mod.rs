//! The writer into InfluxDB 2, into what takes `/api/v2/write` as it does, and into InfluxDB 3 by its own way.
//!
//! InfluxDB keeps no revisions: the last write of an identity wins. The topic has the rows of one key in their order, a batch hands over
//! only the newest of each identity, and batches follow each other, so what is written last is the newest. What was written lately is
//! remembered, so that a row that comes late does not replace a newer one, and a null does not leave an older value standing.

mod delete;
mod prepare;
mod read;
mod recent;

use common::settings::{InfluxApi, Influxdb};

use crate::ahead::{Draft, Prepare};
use crate::line::{self, Dialect};
use crate::newest::Newest;
use crate::point::Point;
use crate::web::{Address, Body, Client, Scheme, Secret, percent};
use crate::writer::{Rejection, WriteError, WriteOutcome, Writer};
pub use prepare::{Access, Administrator, PrepareError, Prepared, prepare};
pub(crate) use read::InfluxReader;
use recent::Recent;

/// The one code that means: all of it is kept.
const SUCCESS: &[u16] = &[204];
const LINES: &str = "text/plain; charset=utf-8";
const NO_TOKEN: &str = "influxdb.token_file is missing, and InfluxDB 2 takes nothing without a token; name the file with one that may write \
    the bucket, or set token = \"\" for a server that asks for none";

/// Writes points as line protocol, one request a batch, deletions one request each.
#[derive(Debug)]
pub struct InfluxWriter {
    client: Client,
    write_path: String,
    /// `None`: this server deletes nothing.
    delete_path: Option<String>,
    form: Form,
    recent: Recent,
}

/// Lines of the newest row of each identity.
#[derive(Debug, Clone)]
struct Form {
    gzip: bool,
}

impl Prepare for Form {
    fn prepare(&mut self, points: &[Point]) -> Draft {
        let faults: Vec<Rejection> =
            points.iter().enumerate().filter_map(|(at, point)| line::fault(at, point, Dialect::Influxdb)).collect();
        if !faults.is_empty() {
            return Draft { faults, ..Draft::default() };
        }
        let newest = Newest::of(points);
        let outcome = WriteOutcome { written: newest.written(points), stale: newest.stale, ..WriteOutcome::default() };
        Draft { faults, body: self.body(newest.places.iter().map(|at| &points[*at])), newest, outcome }
    }
}

impl Form {
    fn body<'a>(&self, points: impl Iterator<Item = &'a Point>) -> Body {
        let mut lines = Vec::new();
        for point in points.filter(|point| is_line(point)) {
            line::write(point, Dialect::Influxdb, &mut lines);
        }
        Body::new(lines, self.gzip)
    }
}

/// Whether the row is a point, and no order to delete one.
fn is_line(point: &Point) -> bool {
    !point.deleted && !point.fields.is_empty()
}

impl InfluxWriter {
    /// Asks nobody yet: a database that is away is waited for.
    ///
    /// # Errors
    /// [`WriteError::Fatal`] when there is no token, or a file that the settings name cannot be read.
    pub fn open(settings: &Influxdb) -> Result<Self, WriteError> {
        if settings.api == InfluxApi::V2 && settings.token.is_none() && settings.token_file.is_none() {
            return Err(WriteError::Fatal(NO_TOKEN.into()));
        }
        let place = format!("org={}&bucket={}", percent(&settings.org), percent(&settings.bucket));
        let (write_path, delete_path) = match settings.api {
            InfluxApi::V2 => (format!("/api/v2/write?{place}&precision=ms"), Some(format!("/api/v2/delete?{place}"))),
            // All lines or none: which are bad is found out by halves, as with every other database.
            InfluxApi::V3 => {
                (format!("/api/v3/write_lp?db={}&precision=millisecond&accept_partial=false", percent(&settings.bucket)), None)
            }
        };
        let form = Form { gzip: settings.gzip.is_for(&settings.url) };
        Ok(Self { client: Client::new(address(settings))?, write_path, delete_path, form, recent: Recent::default() })
    }

    fn post(&mut self, body: &Body) -> Result<(), WriteError> {
        if body.is_empty() {
            return Ok(());
        }
        self.client.post(&self.write_path, LINES, body)?.judge(self.client.database(), self.client.url(), SUCCESS)
    }

    /// `false` when InfluxDB has no way to delete just this point.
    fn delete(&mut self, point: &Point) -> Result<bool, WriteError> {
        let Some(delete_path) = &self.delete_path else { return Ok(false) };
        let Some(body) = delete::request(point) else { return Ok(false) };
        let answer = self.client.post(delete_path, "application/json", &Body::new(body.into_bytes(), false))?;
        answer.judge(self.client.database(), self.client.url(), SUCCESS).map(|()| true)
    }
}

pub(crate) fn address(settings: &Influxdb) -> Address {
    let scheme = match settings.api {
        InfluxApi::V2 => Scheme::Token,
        InfluxApi::V3 => Scheme::Bearer,
    };
    Address {
        database: "InfluxDB",
        url: settings.url.trim_end_matches('/').to_owned(),
        secret: Secret { scheme, token: settings.token.clone(), file: settings.token_file.clone() },
        ca_file: settings.ca_file.clone(),
        identity: settings.cert_file.clone().zip(settings.key_file.clone()),
        timeout: settings.timeout.duration(),
    }
}

impl Writer for InfluxWriter {
    fn name(&self) -> &'static str {
        "influxdb"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        let prepared = self.form.prepare(points);
        self.write_prepared(points, &prepared)
    }

    fn preparer(&self) -> Option<Box<dyn Prepare>> {
        Some(Box::new(self.form.clone()))
    }

    /// What was written lately decides here, as the batch before may have been on its way when the bytes were made.
    fn write_prepared(&mut self, points: &[Point], prepared: &Draft) -> Result<WriteOutcome, WriteError> {
        if !prepared.faults.is_empty() {
            return Err(WriteError::Rejected(prepared.faults.clone()));
        }
        let mut outcome = prepared.outcome.clone();
        let mut fresh: Vec<(u64, &Point)> = Vec::with_capacity(prepared.newest.places.len());
        let (mut empty, mut undeletable) = (0, 0);
        for (at, series) in prepared.newest.places.iter().zip(&prepared.newest.hashes) {
            let point = &points[*at];
            let held = self.recent.held(*series, point);
            if held.is_some_and(|held| held.is_newer_than(point)) {
                continue;
            }
            fresh.push((*series, point));
            // InfluxDB has no point without a field; what an earlier row of this identity left there goes. A write leaves the fields that it
            // does not name as they are: there the older row goes as a whole, too.
            empty += u64::from(!point.deleted && point.fields.is_empty());
            if !is_line(point) || self.recent.loses_a_field(held, point) {
                undeletable += u64::from(!self.delete(point)?);
            }
        }
        let late = prepared.newest.places.len() - fresh.len();
        if late == 0 {
            self.post(&prepared.body)?;
        } else {
            let body = self.form.body(fresh.iter().map(|(_, point)| *point));
            self.post(&body)?;
        }
        fresh.iter().for_each(|(series, point)| self.recent.wrote(*series, point));
        outcome.written -= late as u64;
        outcome.stale += late as u64;
        outcome.leave_out("no_fields", empty);
        outcome.leave_out("undeletable", undeletable);
        Ok(outcome)
    }
}
