//! A Parquet table to one Arrow batch, of the types that the JSON decoder makes: so a table is the same from CSV and from Parquet.

use std::fs::File;
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::compute::{CastOptions, cast, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;

use super::explain::sql_name;

/// Reads a whole file: the columns of `schema`, or all of them.
///
/// # Errors
/// What is wrong, with the row if it is one (counted from 1), to be put behind the file's name.
pub fn read(file: File, schema: Option<&SchemaRef>) -> Result<RecordBatch, String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("it cannot be read as Parquet ({error}); compression may be none, snappy or zstd");
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(&error))?;
    let found = Arc::clone(builder.schema());
    let wanted = match schema {
        Some(schema) => Arc::clone(schema),
        None => plain_schema(&found)?,
    };
    let places = wanted.fields().iter().map(|field| place(&found, field)).collect::<Result<Vec<_>, _>>()?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), places.iter().copied());
    let reader = builder.with_projection(mask).build().map_err(|error| unreadable(&error))?;
    let read = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(&error))?;
    let batch = concat_batches(&read, &batches).map_err(|error| unreadable(&error))?;
    let column = |field: &FieldRef| column(batch.column(place(&read, field)?), field);
    let columns = wanted.fields().iter().map(column).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(wanted, columns, &options).map_err(|error| unreadable(&error))
}

fn place(found: &Schema, field: &Field) -> Result<usize, String> {
    let names = || found.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join("', '");
    let same = |other: &FieldRef| other.name().eq_ignore_ascii_case(field.name());
    found.fields().iter().position(same).ok_or_else(|| format!("it has no column '{}'; its columns are '{}'", field.name(), names()))
}

/// The file's own columns in the types of queries.
fn plain_schema(found: &Schema) -> Result<SchemaRef, String> {
    let field = |field: &FieldRef| match plain(field.data_type()) {
        Some(data_type) => Ok(Field::new(field.name(), data_type, true)),
        None => Err(format!(
            "column '{}' is {}, which is not looked up; write a schema that leaves the column out",
            field.name(),
            field.data_type()
        )),
    };
    Ok(Arc::new(Schema::new(found.fields().iter().map(field).collect::<Result<Vec<_>, _>>()?)))
}

fn plain(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => plain(values)?,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into())),
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        kept if kept.is_integer() || matches!(kept, DataType::Boolean | DataType::Float32 | DataType::Float64) => kept.clone(),
        DataType::Decimal128(..) => data_type.clone(),
        _ => return None,
    })
}

/// Whether values of a file's type are taken into a column: as JSON's are, and nothing is cut off.
fn fits(from: &DataType, to: &DataType) -> bool {
    let Some(from) = plain(from) else { return false };
    let decimal = |data_type: &DataType| matches!(data_type, DataType::Decimal128(..));
    from == *to
        || from.is_integer() && (to.is_integer() || to.is_floating() || decimal(to) || *to == DataType::Utf8)
        || from == DataType::Boolean && *to == DataType::Utf8
        || from == DataType::Float32 && *to == DataType::Float64
        || decimal(&from) && decimal(to)
}

fn column(values: &ArrayRef, field: &Field) -> Result<ArrayRef, String> {
    let (name, sql) = (field.name(), sql_name(field.data_type()));
    if !fits(values.data_type(), field.data_type()) {
        return Err(format!("column '{name}' is {} in the file, which {sql} of the schema does not hold", values.data_type()));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let column = cast_with_options(values, field.data_type(), &strict).map_err(|error| match misfit(values, field.data_type()) {
        Some((row, value)) => format!("row {}: column '{name}' is {sql}, found {value}, which is out of its range", row + 1),
        None => error.to_string(),
    })?;
    match (0..column.len()).find(|row| !field.is_nullable() && column.is_null(*row)) {
        Some(row) => Err(format!("row {}: column '{name}' is {sql} NOT NULL, found no value", row + 1)),
        None => Ok(column),
    }
}

/// The first value that the cast loses.
fn misfit(values: &ArrayRef, to: &DataType) -> Option<(usize, String)> {
    let lenient = cast(values, to).ok()?;
    let row = (0..values.len()).find(|row| values.is_valid(*row) && lenient.is_null(*row))?;
    Some((row, array_value_to_string(values, row).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use ::parquet::arrow::ArrowWriter;
    use ::parquet::basic::{Compression, ZstdLevel};
    use ::parquet::file::properties::WriterProperties;
    use arrow::array::{DictionaryArray, Int64Array, LargeStringArray, ListArray, StringArray, TimestampMicrosecondArray, UInt16Array};
    use arrow::datatypes::{Int32Type, Int64Type};

    use super::*;
    use crate::query::ddl::parse_ddl;

    fn file(columns: Vec<(&str, ArrayRef)>, compression: Compression) -> File {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let properties = WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(Some(2)).build();
        let mut writer = ArrowWriter::try_new(file.try_clone().unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        file.rewind().unwrap();
        file
    }

    fn sensors(compression: Compression) -> File {
        let room: DictionaryArray<Int32Type> = vec![Some("hall"), None, Some("attic")].into_iter().collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("Id", Arc::new(LargeStringArray::from(vec!["a", "b", "c"]))),
            ("room", Arc::new(room)),
            ("since", Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_123_456, 0, 1]))),
            ("floor", Arc::new(Int64Array::from(vec![Some(1), Some(300), None]))),
            ("port", Arc::new(UInt16Array::from(vec![1, 2, 65_535]))),
        ];
        file(columns, compression)
    }

    #[test]
    fn types_become_those_of_queries_in_every_compression() {
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())] {
            let batch = read(sensors(compression), None).unwrap();
            assert_eq!(batch.num_rows(), 3, "{compression}");
            assert_eq!(batch.column(0).as_ref(), &StringArray::from(vec!["a", "b", "c"]) as &dyn Array);
            assert_eq!(batch.column(1).as_ref(), &StringArray::from(vec![Some("hall"), None, Some("attic")]) as &dyn Array);
            assert_eq!(*batch.column(2).data_type(), parse_ddl("t TIMESTAMP").unwrap().field(0).data_type().clone());
            assert_eq!(array_value_to_string(batch.column(2), 0).unwrap(), "2023-11-14T22:13:20.123Z");
        }
    }

    #[test]
    fn a_schema_chooses_columns_and_types() {
        let wanted = parse_ddl("floor INT, id STRING, port STRING").unwrap();
        let batch = read(sensors(Compression::SNAPPY), Some(&wanted)).unwrap();
        assert_eq!(batch.schema(), wanted);
        assert_eq!(array_value_to_string(batch.column(0), 1).unwrap(), "300");
        assert_eq!(array_value_to_string(batch.column(2), 2).unwrap(), "65535");
    }

    #[test]
    fn faults_name_the_column_and_the_row() {
        let fault = |ddl: &str| read(sensors(Compression::SNAPPY), Some(&parse_ddl(ddl).unwrap())).unwrap_err();
        assert_eq!(fault("floor TINYINT"), "row 2: column 'floor' is TINYINT, found 300, which is out of its range");
        assert_eq!(fault("floor INT NOT NULL"), "row 3: column 'floor' is INT NOT NULL, found no value");
        assert_eq!(fault("name STRING"), "it has no column 'name'; its columns are 'Id', 'room', 'since', 'floor', 'port'");
        assert_eq!(fault("room INT"), "column 'room' is Dictionary(Int32, Utf8) in the file, which INT of the schema does not hold");
    }

    #[test]
    fn what_is_no_table_is_one_sentence() {
        let mut text = tempfile::tempfile().unwrap();
        text.write_all(b"id,room\na,hall\n").unwrap();
        text.rewind().unwrap();
        let fault = read(text, None).unwrap_err();
        assert!(fault.starts_with("it cannot be read as Parquet (") && !fault.contains('\n'), "{fault}");
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1)])]);
        let fault = read(file(vec![("tags", Arc::new(list))], Compression::SNAPPY), None).unwrap_err();
        assert!(fault.contains("column 'tags'") && fault.contains("leaves the column out"), "{fault}");
    }
}
