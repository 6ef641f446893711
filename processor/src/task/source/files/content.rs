//! The records of one file, and what they make together.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use super::super::super::records::Records;
use crate::format::csv::{self, Header, RawRows};
use crate::format::decode::{DeadRow, Decoded, Decoder};
use crate::format::encode::JsonRows;
use crate::format::{parquet, text};
use crate::query::file::{Source, SourceFormat};

/// A whole file that cannot be read.
const BAD_FILE: &str = "bad_file";

/// A file that is open.
pub(super) struct Content {
    form: Form,
    fault: Option<String>,
}

enum Form {
    /// A record a line; empty lines are none in JSON.
    Lines {
        reader: BufReader<File>,
        line: Vec<u8>,
        json: bool,
    },
    Csv {
        rows: RawRows,
        header: Arc<Header>,
    },
    Parquet {
        batch: RecordBatch,
        next: usize,
    },
}

/// How the records of a file are decoded.
#[derive(Clone)]
pub(super) enum Kind {
    Json,
    Text,
    Csv(Arc<Header>),
    /// The rows themselves.
    Rows(RecordBatch),
    Bad(String),
}

impl Content {
    /// # Errors
    /// Why the file as a whole cannot be read.
    pub(super) fn open(path: &Path, source: &Source, schema: &SchemaRef, _modified: i64) -> Result<Self, String> {
        let fault = |error: std::io::Error| error.to_string();
        let file = File::open(path).map_err(fault)?;
        let form = match source.format {
            SourceFormat::Csv => {
                let bytes = std::fs::read(path).map_err(fault)?;
                let (header, rows) = csv::open(bytes, schema)?;
                Form::Csv { rows, header: Arc::new(header) }
            }
            SourceFormat::Parquet => Form::Parquet { batch: parquet::read(file, Some(schema))?, next: 0 },
            format => Form::Lines { reader: BufReader::new(file), line: Vec::new(), json: format == SourceFormat::Json },
        };
        Ok(Self { form, fault: None })
    }

    /// How the records that [`Content::take`] gives next are decoded.
    pub(super) fn kind(&self) -> Kind {
        match &self.form {
            Form::Lines { json: true, .. } => Kind::Json,
            Form::Lines { .. } => Kind::Text,
            Form::Csv { header, .. } => Kind::Csv(Arc::clone(header)),
            Form::Parquet { batch, next } => Kind::Rows(batch.slice(*next, batch.num_rows() - next)),
        }
    }

    /// Why the rest of the file could not be read.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Steps over records; gives how many there were.
    pub(super) fn skip(&mut self, count: i64) -> i64 {
        let mut skipped = 0;
        while skipped < count {
            let wanted = usize::try_from(count - skipped).unwrap_or(usize::MAX).min(super::PULL);
            let before = skipped;
            if !self.take(wanted, |_| skipped += 1) && skipped < count || skipped == before {
                break;
            }
        }
        skipped
    }

    /// Gives up to `most` records; whether there may be more.
    pub(super) fn take(&mut self, most: usize, mut give: impl FnMut(&[u8])) -> bool {
        let taken = match &mut self.form {
            Form::Lines { reader, line, json } => take_lines(reader, line, *json, most, give),
            Form::Csv { rows, .. } => rows.take(most, give),
            Form::Parquet { batch, next } => {
                let end = (*next + most).min(batch.num_rows());
                JsonRows::new(batch).map(|rows| {
                    let mut value = Vec::new();
                    for row in *next..end {
                        value.clear();
                        rows.write_row(row, &mut value);
                        give(&value);
                    }
                    *next = end;
                    end < batch.num_rows()
                })
            }
        };
        taken.unwrap_or_else(|cause| {
            self.fault = Some(cause);
            false
        })
    }
}

fn take_lines(
    reader: &mut BufReader<File>,
    line: &mut Vec<u8>,
    json: bool,
    most: usize,
    mut give: impl FnMut(&[u8]),
) -> Result<bool, String> {
    let mut taken = 0;
    while taken < most {
        line.clear();
        if reader.read_until(b'\n', line).map_err(|error| error.to_string())? == 0 {
            return Ok(false);
        }
        let end = line.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
        let record = &line[..end];
        if json && record.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        give(record);
        taken += 1;
    }
    // Asked now: a file that ends here is done, and not when somebody comes for more.
    Ok(!reader.fill_buf().map_err(|error| error.to_string())?.is_empty())
}

/// Which records of a step come from what.
#[derive(Default)]
pub(super) struct Segments(Vec<(usize, usize, Kind)>);

impl Segments {
    /// The records from `first` to before `end` are of this kind.
    pub(super) fn rows(&mut self, first: usize, end: usize, kind: Kind) {
        if first == end {
            return;
        }
        let kind = match kind {
            Kind::Rows(batch) => Kind::Rows(batch.slice(0, end - first)),
            other => other,
        };
        // Lines of many small files are decoded together.
        if let (Some((_, last, before)), Kind::Json | Kind::Text) = (self.0.last_mut(), &kind)
            && std::mem::discriminant(before) == std::mem::discriminant(&kind)
            && *last == first
        {
            *last = end;
            return;
        }
        self.0.push((first, end, kind));
    }

    /// The record `index` stands for what cannot be read.
    pub(super) fn bad(&mut self, index: usize, detail: String) {
        tracing::warn!("{detail}");
        self.0.push((index, index + 1, Kind::Bad(detail)));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Decodes the records of a step.
    pub(super) fn decode(&self, records: &Records, decoder: &mut Decoder) -> Result<Decoded, String> {
        let schema = Arc::clone(decoder.schema());
        let (mut batches, mut rows, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for (first, end, kind) in &self.0 {
            let part = decode(records, *first..*end, kind, decoder)?;
            let base = u32::try_from(*first).unwrap_or(u32::MAX);
            batches.push(part.batch);
            rows.extend(part.rows.into_iter().map(|row| row + base));
            dead.extend(part.dead.into_iter().map(|row| DeadRow { index: row.index + base, ..row }));
        }
        let batch = concat_batches(&schema, &batches).map_err(|error| error.to_string())?;
        Ok(Decoded { batch, rows, dead })
    }
}

fn decode(records: &Records, range: std::ops::Range<usize>, kind: &Kind, decoder: &mut Decoder) -> Result<Decoded, String> {
    let schema = Arc::clone(decoder.schema());
    let payloads = range.clone().map(|index| records.get(index).payload);
    match kind {
        Kind::Json => decoder.decode(payloads).map_err(|error| error.to_string()),
        Kind::Text => {
            let lines = range.map(|index| records.get(index)).map(|record| (record.payload.unwrap_or_default(), record.timestamp));
            text::decode(&schema, lines)
        }
        Kind::Csv(header) => csv::decode(&schema, header, payloads.map(Option::unwrap_or_default)),
        Kind::Rows(batch) => {
            let rows = (0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX)).collect();
            Ok(Decoded { batch: batch.clone(), rows, dead: Vec::new() })
        }
        Kind::Bad(detail) => {
            let dead = vec![DeadRow { index: 0, reason: BAD_FILE, detail: detail.clone() }];
            Ok(Decoded { batch: RecordBatch::new_empty(schema), rows: Vec::new(), dead })
        }
    }
}
