//! Rows as the bytes of a file.

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::super::rows::text;
use crate::format::encode::JsonRows;
use crate::query::file::SinkFormat;

/// # Errors
/// When the rows have a type that the format does not hold.
pub(super) fn bytes(format: SinkFormat, rows: &RecordBatch) -> Result<Vec<u8>, String> {
    match format {
        SinkFormat::Csv => csv(rows),
        SinkFormat::Parquet => parquet(rows),
        _ => json(rows),
    }
}

/// A line with the names of the columns, then a line a row. Null is an empty cell.
fn csv(rows: &RecordBatch) -> Result<Vec<u8>, String> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let schema = rows.schema();
    writer.write_record(schema.fields().iter().map(|field| field.name())).map_err(|error| error.to_string())?;
    for row in 0..rows.num_rows() {
        let cells = rows.columns().iter().map(|column| text(column, row).unwrap_or_default());
        writer.write_record(cells).map_err(|error| error.to_string())?;
    }
    writer.into_inner().map_err(|error| error.to_string())
}

/// An object a line.
fn json(rows: &RecordBatch) -> Result<Vec<u8>, String> {
    let encoded = JsonRows::new(rows)?;
    let mut out = Vec::new();
    for row in 0..rows.num_rows() {
        encoded.write_row(row, &mut out);
        out.push(b'\n');
    }
    Ok(out)
}

fn parquet(rows: &RecordBatch) -> Result<Vec<u8>, String> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, rows.schema(), Some(properties)).map_err(|error| error.to_string())?;
    writer.write(rows).and_then(|()| writer.close().map(drop)).map_err(|error| error.to_string())?;
    Ok(out)
}
