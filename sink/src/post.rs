//! Rows as NDJSON to any address.

use common::settings::Post;

use crate::ndjson;
use crate::point::Point;
use crate::web::{Address, Client, Scheme, Secret};
use crate::writer::{WriteError, WriteOutcome, Writer};

/// What a receiver may answer when it has taken the whole of a request.
const SUCCESS: &[u16] = &[200, 201, 202, 204];

/// One POST a batch, every revision of every row in the order of the topic; at least once. A receiver that keeps the row of the largest
/// `revision` for each measurement, tags and time has each result once.
#[derive(Debug)]
pub struct PostWriter {
    client: Client,
    body: Vec<u8>,
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
            gzip: settings.gzip,
            timeout: settings.timeout.duration(),
        };
        Ok(Self { client: Client::new(address)?, body: Vec::new() })
    }
}

impl Writer for PostWriter {
    fn name(&self) -> &'static str {
        "http"
    }

    fn write(&mut self, points: &[Point]) -> Result<WriteOutcome, WriteError> {
        self.body.clear();
        ndjson::write(points, &mut self.body);
        let answer = self.client.post("", "application/x-ndjson", &self.body)?;
        answer.judge(self.client.database(), self.client.url(), SUCCESS)?;
        Ok(WriteOutcome { written: points.len() as u64, ..WriteOutcome::default() })
    }
}
