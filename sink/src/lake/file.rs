//! Rows into a Parquet file, and back.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

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

/// Writes a file and returns its size once it is on the disk.
///
/// # Errors
/// A sentence's part: what failed.
pub(super) fn write(path: &Path, batches: &[RecordBatch]) -> Result<u64, String> {
    let Some(first) = batches.first() else { return Ok(0) };
    let file = File::create(path).map_err(|error| error.to_string())?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let synced = file.try_clone().map_err(|error| error.to_string())?;
    let mut writer = ArrowWriter::try_new(file, first.schema(), Some(properties)).map_err(|error| error.to_string())?;
    for batch in batches {
        writer.write(batch).map_err(|error| error.to_string())?;
    }
    writer.close().map_err(|error| error.to_string())?;
    synced.sync_all().and_then(|()| synced.metadata()).map(|metadata| metadata.len()).map_err(|error| error.to_string())
}

/// All rows of a file, with the columns of the table: those that came later are null.
///
/// # Errors
/// As [`write`].
pub(super) fn read(path: &Path, columns: &Columns) -> Result<Vec<RecordBatch>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build()).map_err(|error| error.to_string())?;
    let schema = columns.arrow();
    let mut batches = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        let arrays = schema.fields().iter().map(|field| {
            let held = batch.column_by_name(field.name()).cloned();
            held.unwrap_or_else(|| arrow::array::new_null_array(field.data_type(), batch.num_rows()))
        });
        batches.push(RecordBatch::try_new(Arc::clone(&schema), arrays.collect()).map_err(|error| error.to_string())?);
    }
    Ok(batches)
}
