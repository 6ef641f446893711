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

use crate::line::{self, Dialect};
use crate::newest::Newest;
use crate::point::Point;
use crate::web::{Address, Client, Scheme, Secret, percent};
use crate::writer::{Rejection, WriteError, WriteOutcome, Writer};
pub use prepare::{Access, Administrator, PrepareError, Prepared, prepare};
pub(crate) use read::InfluxReader;
use recent::Recent;

/// The one code that means: all of it is kept.
const SUCCESS: &[u16] = &[204];
const LINES: &str = "text/plain; charset=utf-8";

/// Writes points as line protocol, one request a batch, deletions one request each.
#[derive(Debug)]
pub struct InfluxWriter {
    client: Client,
    /// A second connection: the halves of a batch are written side by side.
    other: Client,
    write_path: String,
    /// `None`: this server deletes nothing.
    delete_path: Option<String>,
    bodies: [Vec<u8>; 2],
    recent: Recent,
}

/// A batch of fewer lines is one request.
const WORTH_TWO: usize = 1_000;

impl InfluxWriter {
    /// Asks nobody yet: a database that is away is waited for.
    ///
    /// # Errors
    /// [`WriteError::Fatal`] when a file that the settings name cannot be read.
    pub fn open(settings: &Influxdb) -> Result<Self, WriteError> {
        let place = format!("org={}&bucket={}", percent(&settings.org), percent(&settings.bucket));
        let (write_path, delete_path) = match settings.api {
            InfluxApi::V2 => (format!("/api/v2/write?{place}&precision=ms"), Some(format!("/api/v2/delete?{place}"))),
            // All lines or none: which are bad is found out by halves, as with every other database.
            InfluxApi::V3 => {
                (format!("/api/v3/write_lp?db={}&precision=millisecond&accept_partial=false", percent(&settings.bucket)), None)
            }
        };
        Ok(Self {
            client: Client::new(address(settings))?,
            other: Client::new(address(settings))?,
            write_path,
            delete_path,
            bodies: [Vec::new(), Vec::new()],
            recent: Recent::default(),
        })
    }

    /// Writes points of different identities: their order does not matter, so the second half becomes lines while the first is on its way.
    fn post_lines(&mut self, points: &[&Point]) -> Result<(), WriteError> {
        let half = if points.len() < WORTH_TWO { points.len() } else { points.len() / 2 };
        let Self { client, other, write_path, bodies: [first, second], .. } = self;
        fill(first, &points[..half]);
        if half == points.len() {
            return post(client, write_path, first);
        }
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| post(client, write_path, first));
            fill(second, &points[half..]);
            let second = post(other, write_path, second);
            let gone = || WriteError::Fatal("a thread of the sink ended unexpectedly; the log above says why".into());
            (first.join().unwrap_or_else(|_| Err(gone())), second)
        });
        match (first, second) {
            // Bad rows are looked for when the database is there; what nothing helps comes first.
            (Err(fatal @ WriteError::Fatal(_)), _) | (_, Err(fatal @ WriteError::Fatal(_))) => Err(fatal),
            (Err(retry @ WriteError::Retry { .. }), _) | (_, Err(retry @ WriteError::Retry { .. })) => Err(retry),
            (first, second) => first.and(second),
        }
    }

    /// `false` when InfluxDB has no way to delete just this point.
    fn delete(&mut self, point: &Point) -> Result<bool, WriteError> {
        let Some(delete_path) = &self.delete_path else { return Ok(false) };
        let Some(body) = delete::request(point) else { return Ok(false) };
        let answer = self.client.post(delete_path, "application/json", body.as_bytes())?;
        answer.judge(self.client.database(), self.client.url(), SUCCESS).map(|()| true)
    }
}

fn fill(body: &mut Vec<u8>, points: &[&Point]) {
    body.clear();
    for point in points {
        line::write(point, Dialect::Influxdb, body);
    }
}

fn post(client: &mut Client, path: &str, body: &[u8]) -> Result<(), WriteError> {
    if body.is_empty() {
        return Ok(());
    }
    client.post(path, LINES, body)?.judge(client.database(), client.url(), SUCCESS)
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
        let fresh: Vec<&Point> = newest.places.iter().map(|at| &points[*at]).filter(|point| !self.recent.is_stale(point)).collect();
        let late = (newest.places.len() - fresh.len()) as u64;
        outcome.written -= late;
        outcome.stale += late;
        let mut lines = Vec::with_capacity(fresh.len());
        let (mut empty, mut undeletable) = (0, 0);
        for point in &fresh {
            if !point.deleted && !point.fields.is_empty() {
                // A write leaves the fields that it does not name as they are: the older row goes as a whole.
                if self.recent.loses_a_field(point) {
                    undeletable += u64::from(!self.delete(point)?);
                }
                lines.push(*point);
                continue;
            }
            // InfluxDB has no point without a field either; what an earlier row of this identity left there goes.
            empty += u64::from(!point.deleted);
            undeletable += u64::from(!self.delete(point)?);
        }
        self.post_lines(&lines)?;
        fresh.iter().for_each(|point| self.recent.wrote(point));
        outcome.leave_out("no_fields", empty);
        outcome.leave_out("undeletable", undeletable);
        Ok(outcome)
    }
}
