//! What the database holds, for a comparison with the log.

use common::settings::Sqlite;

use crate::store::Store;
use crate::verify::{Held, Reader, Span};
use crate::writer::WriteError;

#[derive(Debug)]
pub(crate) struct SqliteReader(Store);

impl SqliteReader {
    pub(crate) fn new(settings: &Sqlite) -> Self {
        Self(Store::open(&settings.path))
    }
}

impl Reader for SqliteReader {
    fn read(&mut self, measurement: &str, span: Span) -> Result<Vec<Held>, WriteError> {
        let fault = |error: crate::store::StoreError| WriteError::Fatal(error.to_string());
        let mut held = Vec::new();
        for series in self.0.series(Some(measurement), None, usize::MAX).map_err(fault)? {
            let points = self.0.points(&[series.id], span.from_ms, span.to_ms, usize::MAX).map_err(fault)?;
            held.extend(points.into_iter().flat_map(|points| points.points).map(|point| Held {
                measurement: measurement.to_owned(),
                tags: series.tags.clone(),
                time_ms: point.time_ms,
                fields: point.fields.into_iter().collect(),
            }));
        }
        Ok(held)
    }
}
