//! Rows into a Parquet file, and back.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::log::Fault;
use super::schema::{Columns, END, Kind, REVISION, TIME};
use crate::point::{FieldValue, Point};

/// # Errors
/// Arrow's own words.
pub(super) fn batch(columns: &Columns, rows: &[&Point]) -> Result<RecordBatch, String> {
    let arrays = columns.0.iter().map(|(name, kind)| column(name, *kind, rows)).collect();
    RecordBatch::try_new(columns.arrow(), arrays).map_err(|error| error.to_string())
}

fn column(name: &str, kind: Kind, rows: &[&Point]) -> ArrayRef {
    let field = |row: &&Point| row.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    match kind {
        Kind::Time => {
            let time = |row: &&Point| if name == TIME { Some(row.time_ms) } else { row.end_ms.filter(|_| name == END) };
            let micros: Vec<Option<i64>> = rows.iter().map(|row| time(row).and_then(|ms| ms.checked_mul(1_000))).collect();
            Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
        }
        Kind::Integer if name == REVISION => Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.revision))),
        Kind::Integer => Arc::new(Int64Array::from_iter(rows.iter().map(|row| match field(row)? {
            FieldValue::Int(value) => Some(value),
            FieldValue::UInt(value) => i64::try_from(value).ok(),
            _ => None,
        }))),
        Kind::Float => Arc::new(Float64Array::from_iter(rows.iter().map(|row| match field(row)? {
            FieldValue::Float(value) => Some(value),
            _ => None,
        }))),
        Kind::Boolean => Arc::new(BooleanArray::from_iter(rows.iter().map(|row| match field(row)? {
            FieldValue::Bool(value) => Some(value),
            _ => None,
        }))),
        Kind::Text => {
            let tag = |row: &&Point| row.tags.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            let text = |row: &&Point| match field(row) {
                Some(FieldValue::Text(value)) => Some(value),
                _ => tag(row),
            };
            Arc::new(StringArray::from_iter(rows.iter().map(text)))
        }
    }
}

/// Rows of a group within a file, which is held in memory until it is full.
const GROUP: usize = 100_000;

/// A file that is being written.
pub(super) struct FileWriter {
    writer: ArrowWriter<File>,
    file: File,
    rows: u64,
    /// First and last time, in µs.
    times: Option<(i64, i64)>,
}

/// What a file came to.
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) rows: u64,
    /// First and last time, in ms.
    pub(super) times: Option<(i64, i64)>,
}

impl FileWriter {
    /// # Errors
    /// A sentence's part: what failed.
    pub(super) fn create(path: &Path, columns: &Columns) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| error.to_string())?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(GROUP)).build();
        let inner = file.try_clone().map_err(|error| error.to_string())?;
        let writer = ArrowWriter::try_new(inner, columns.arrow(), Some(properties)).map_err(|error| error.to_string())?;
        Ok(Self { writer, file, rows: 0, times: None })
    }

    /// # Errors
    /// As [`FileWriter::create`].
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let time = batch.column_by_name(TIME).and_then(|column| column.as_any().downcast_ref::<TimestampMicrosecondArray>());
        for at in time.into_iter().flatten().flatten() {
            self.times = Some(self.times.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        }
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(|error| error.to_string())
    }

    /// Returns when the file is on the disk.
    ///
    /// # Errors
    /// As [`FileWriter::create`].
    pub(super) fn close(self) -> Result<Written, String> {
        self.writer.close().map_err(|error| error.to_string())?;
        let bytes = self.file.sync_all().and_then(|()| self.file.metadata()).map(|metadata| metadata.len());
        let times = self.times.map(|(first, last)| (first.div_euclid(1_000), last.div_euclid(1_000)));
        Ok(Written { bytes: bytes.map_err(|error| error.to_string())?, rows: self.rows, times })
    }
}

/// The rows of a file, piece by piece, with the columns of the table: those that came later are null.
///
/// # Errors
/// [`Fault::Gone`] when there is no such file, [`Fault::Io`] when it cannot be read.
pub(super) fn read(path: &Path, columns: &Columns) -> Result<impl Iterator<Item = Result<RecordBatch, String>> + use<>, Fault> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Fault::Gone(format!("its file {} is not there, though its log names it", path.display())),
        _ => Fault::Io(error.to_string()),
    })?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    let reader = reader.map_err(|error| Fault::Io(error.to_string()))?;
    let schema = columns.arrow();
    Ok(reader.map(move |batch| {
        let batch = batch.map_err(|error| error.to_string())?;
        let arrays = schema.fields().iter().map(|field| {
            let held = batch.column_by_name(field.name()).cloned();
            match held {
                None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
                // Another engine that has put files together may have its own form of a time.
                Some(held) => cast(&held, field.data_type()),
            }
        });
        let arrays = arrays.collect::<Result<Vec<_>, _>>();
        arrays.and_then(|arrays| RecordBatch::try_new(Arc::clone(&schema), arrays)).map_err(|error| error.to_string())
    }))
}
