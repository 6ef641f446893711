//! Rows as NDJSON to any address.

use common::settings::Post;

use crate::ahead::{Draft, Prepare};
use crate::ndjson;
use crate::point::Point;
use crate::web::{Address, Body, Client, Scheme, Secret};
use crate::writer::{WriteError, WriteOutcome, Writer};

/// What a receiver may answer when it has taken the whole of a request.
const SUCCESS: &[u16] = &[200, 201, 202, 204];

/// One POST a batch, every revision of every row in the order of the topic; at least once. A receiver that keeps the row of the largest
/// `revision` for each measurement, tags and time has each result once.
#[derive(Debug)]
pub struct PostWriter {
    client: Client,
    form: Form,
}

#[derive(Debug, Clone)]
struct Form {
    gzip: bool,
}

impl Prepare for Form {
    fn prepare(&mut self, points: &[Point]) -> Draft {
        let mut rows = Vec::new();
        ndjson::write(points, &mut rows);
        let outcome = WriteOutcome { written: points.len() as u64, ..WriteOutcome::default() };
        Draft { body: Body::new(rows, self.gzip), outcome, ..Draft::default() }
    }
}

impl PostWriter {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// [`WriteError::Fatal`] when a file that the settings name cannot be read.
    pub fn open(settings: &Post) -> Result<Self, WriteError> {
        let address = Address {
            database: "the receiver",
            url: settings.url.clone(),
            secret: Secret { scheme: Scheme::Bearer, token: settings.token.clone(), file: settings.token_file.clone() },
            ca_file: settings.ca_file.clone(),
            identity: settings.cert_file.clone().zip(settings.key_file.clone()),
            timeout: settings.timeout.duration(),
        };
        Ok(Self { client: Client::new(address)?, form: Form { gzip: settings.gzip.is_for(&settings.url) } })
    }
}

impl Writer for PostWriter {
    fn name(&self) -> &'static str {
        "http"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        let prepared = self.form.prepare(points);
        self.write_prepared(points, &prepared)
    }

    fn preparer(&self) -> Option<Box<dyn Prepare>> {
        Some(Box::new(self.form.clone()))
    }

    fn write_prepared(&mut self, _points: &[Point], prepared: &Draft) -> Result<WriteOutcome, WriteError> {
        let answer = self.client.post("", "application/x-ndjson", &prepared.body)?;
        answer.judge(self.client.database(), self.client.url(), SUCCESS)?;
        Ok(prepared.outcome.clone())
    }
}
