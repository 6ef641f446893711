//! The writer into InfluxDB 2, and into what takes `/api/v2/write` as it does.
//!
//! InfluxDB keeps no revisions: the last write of an identity wins. The topic has the rows of one key in their order, a batch hands over
//! only the newest of each identity, and batches follow each other, so what is written last is the newest.

mod delete;
mod read;

use common::settings::Influxdb;

use crate::line::{self, Dialect};
use crate::newest::Newest;
use crate::point::Point;
use crate::web::{Address, Client, Scheme, Secret, percent};
use crate::writer::{Rejection, WriteError, WriteOutcome, Writer};
pub(crate) use read::InfluxReader;

/// The one code that means: all of it is kept.
const SUCCESS: &[u16] = &[204];
const LINES: &str = "text/plain; charset=utf-8";

/// Writes points as line protocol, one request a batch, deletions one request each.
#[derive(Debug)]
pub struct InfluxWriter {
    client: Client,
    write_path: String,
    delete_path: String,
    body: Vec<u8>,
}

impl InfluxWriter {
    /// Asks nobody yet: a database that is away is waited for.
    ///
    /// # Errors
    /// [`WriteError::Fatal`] when a file that the settings name cannot be read.
    pub fn open(settings: &Influxdb) -> Result<Self, WriteError> {
        let place = format!("org={}&bucket={}", percent(&settings.org), percent(&settings.bucket));
        Ok(Self {
            client: Client::new(address(settings))?,
            write_path: format!("/api/v2/write?{place}&precision=ms"),
            delete_path: format!("/api/v2/delete?{place}"),
            body: Vec::new(),
        })
    }

    fn post_lines(&mut self) -> Result<(), WriteError> {
        if self.body.is_empty() {
            return Ok(());
        }
        let answer = self.client.post(&self.write_path, LINES, &self.body)?;
        answer.judge(self.client.database(), self.client.url(), SUCCESS)
    }

    /// `false` when InfluxDB has no way to delete just this point.
    fn delete(&mut self, point: &Point) -> Result<bool, WriteError> {
        let Some(body) = delete::request(point) else { return Ok(false) };
        let answer = self.client.post(&self.delete_path, "application/json", body.as_bytes())?;
        answer.judge(self.client.database(), self.client.url(), SUCCESS).map(|()| true)
    }
}

pub(crate) fn address(settings: &Influxdb) -> Address {
    Address {
        database: "InfluxDB",
        url: settings.url.trim_end_matches('/').to_owned(),
        secret: Secret { scheme: Scheme::Token, token: settings.token.clone(), file: settings.token_file.clone() },
        ca_file: settings.ca_file.clone(),
        gzip: settings.gzip,
        timeout: settings.timeout.duration(),
    }
}

impl Writer for InfluxWriter {
    fn name(&self) -> &'static str {
        "influxdb"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        let faults: Vec<Rejection> =
            points.iter().enumerate().filter_map(|(at, point)| line::fault(at, point, Dialect::Influxdb)).collect();
        if !faults.is_empty() {
            return Err(WriteError::Rejected(faults));
        }
        let newest = Newest::of(points);
        let mut outcome = WriteOutcome { written: newest.written(points), stale: newest.stale, ..WriteOutcome::default() };
        self.body.clear();
        let (mut empty, mut undeletable) = (0, 0);
        for point in newest.places.iter().map(|at| &points[*at]) {
            let is_row = !point.deleted && line::write(point, Dialect::Influxdb, &mut self.body);
            if !is_row {
                // InfluxDB has no point without a field either; what an earlier row of this identity left there goes.
                empty += u64::from(!point.deleted);
                undeletable += u64::from(!self.delete(point)?);
            }
        }
        self.post_lines()?;
        outcome.leave_out("no_fields", empty);
        outcome.leave_out("undeletable", undeletable);
        Ok(outcome)
    }
}
