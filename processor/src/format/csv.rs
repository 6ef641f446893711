//! A CSV table to one Arrow batch. Here every line counts: the first one that cannot be read ends it.
//!
//! The first line names the columns, which stand in any order; those that the schema leaves out are not read. An empty cell is null.
//! Texts are taken as they stand, other values by the rules of the JSON decoder.

use std::collections::HashSet;
use std::io::Cursor;

use ::csv::{ByteRecord, Position, Reader};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::column::Column;
use super::decode::{DeadRow, Decoded};
use super::explain;
use super::json::Token;
use super::number;

/// A row that does not have the columns or the values that it should.
pub const NOT_CSV: &str = "not_csv";

/// The rows of a table, and the line of the file on which each one begins, counted from 1.
#[derive(Debug)]
pub struct Table {
    pub batch: RecordBatch,
    pub lines: Vec<u64>,
}

/// Reads a whole file.
///
/// # Errors
/// What is wrong and on which line, to be put behind the file's name.
pub fn read(file: &[u8], schema: &SchemaRef) -> Result<Table, String> {
    // A column of texts counts its bytes in an `i32`.
    if i32::try_from(file.len()).is_err() {
        return Err("the file is larger than 2 GiB; a lookup table must fit into memory".into());
    }
    let mut reader = reader(file);
    let header = header(&mut reader)?;
    let places = places(&header, schema)?;
    let mut columns = schema.fields().iter().map(|field| column(field)).collect::<Result<Vec<_>, _>>()?;
    columns.iter_mut().for_each(|column| column.start(0));
    let (mut lines, mut record) = (Vec::new(), ByteRecord::new());
    loop {
        let from = reader.position().clone();
        if !reader.read_byte_record(&mut record).map_err(|error| error.to_string())? {
            break;
        }
        let line = line_of(file, &from);
        let at_line = |fault: String| format!("line {line}: {fault}");
        let raw = usize::try_from(from.byte()).ok().and_then(|from| file.get(from..usize::try_from(reader.position().byte()).ok()?));
        check_shape(raw.unwrap_or_default(), &record, header.len()).map_err(at_line)?;
        for ((column, place), field) in columns.iter_mut().zip(&places).zip(schema.fields()) {
            push(column, record.get(*place).unwrap_or_default(), field).map_err(at_line)?;
        }
        lines.push(line);
    }
    let arrays: Vec<ArrayRef> = columns.iter_mut().map(Column::finish).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let options = RecordBatchOptions::new().with_row_count(Some(lines.len()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options).map_err(|error| error.to_string())?;
    Ok(Table { batch, lines })
}

/// The names of the columns, as the file's first line has them.
///
/// # Errors
/// When there is none, or one cannot be read, or two are the same.
pub fn columns(file: &[u8]) -> Result<Vec<String>, String> {
    header(&mut reader(file))
}

/// Where the columns of a schema stand in the rows of a file.
#[derive(Debug)]
pub struct Header {
    places: Vec<usize>,
    width: usize,
}

/// The rows of a file behind its first line, each as it stands there.
#[derive(Debug)]
pub struct RawRows {
    reader: Reader<Cursor<Vec<u8>>>,
    record: ByteRecord,
}

/// Opens a file whose rows are decoded one by one.
///
/// # Errors
/// What is wrong with the file as a whole, to be put behind its name.
pub fn open(file: Vec<u8>, schema: &SchemaRef) -> Result<(Header, RawRows), String> {
    if i32::try_from(file.len()).is_err() {
        return Err("the file is larger than 2 GiB; cut it into several".into());
    }
    let mut reader = reader(Cursor::new(file));
    let names = header(&mut reader)?;
    let header = Header { places: places(&names, schema)?, width: names.len() };
    Ok((header, RawRows { reader, record: ByteRecord::new() }))
}

impl RawRows {
    /// Gives up to `most` rows; whether there are more.
    ///
    /// # Errors
    /// Why the rest of the file cannot be read.
    pub fn take(&mut self, most: usize, mut give: impl FnMut(&[u8])) -> Result<bool, String> {
        for _ in 0..most {
            let from = self.reader.position().byte();
            if !self.reader.read_byte_record(&mut self.record).map_err(|error| error.to_string())? {
                return Ok(false);
            }
            give(between(&self.reader, from).trim_ascii_end());
        }
        let from = self.reader.position().byte();
        let file = self.reader.get_ref().get_ref();
        Ok(usize::try_from(from).ok().and_then(|from| file.get(from..)).is_some_and(|rest| !rest.trim_ascii().is_empty()))
    }
}

/// What the reader has read since it stood at `from`, without the empty lines before it.
fn between(reader: &Reader<Cursor<Vec<u8>>>, from: u64) -> &[u8] {
    let file = reader.get_ref().get_ref();
    let place = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX);
    let raw = file.get(place(from)..place(reader.position().byte())).unwrap_or_default();
    let empty = raw.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    &raw[empty..]
}

/// Decodes rows as [`RawRows`] gives them; one that cannot be decoded is set aside.
///
/// # Errors
/// When the schema has a type that is not read from CSV, or the rows are too many for a batch.
pub fn decode<'a>(schema: &SchemaRef, header: &Header, rows: impl Iterator<Item = &'a [u8]>) -> Result<Decoded, String> {
    let mut columns = schema.fields().iter().map(|field| column(field)).collect::<Result<Vec<_>, _>>()?;
    columns.iter_mut().for_each(|column| column.start(0));
    let (mut kept, mut dead, mut record) = (Vec::new(), Vec::new(), ByteRecord::new());
    for (index, raw) in (0_u32..).zip(rows) {
        let fault = match reader(raw).read_byte_record(&mut record) {
            Ok(_) => check_shape(raw, &record, header.width).and_then(|()| push_row(&mut columns, &record, header, schema)),
            Err(error) => Err(error.to_string()),
        };
        match fault {
            Ok(()) => kept.push(index),
            Err(detail) => {
                columns.iter_mut().for_each(|column| column.truncate(kept.len()));
                dead.push(DeadRow { index, reason: NOT_CSV, detail });
            }
        }
    }
    let arrays: Vec<ArrayRef> = columns.iter_mut().map(Column::finish).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options).map_err(|error| error.to_string())?;
    Ok(Decoded { batch, rows: kept, dead })
}

fn push_row(columns: &mut [Column], record: &ByteRecord, header: &Header, schema: &Schema) -> Result<(), String> {
    let cells = header.places.iter().map(|place| record.get(*place).unwrap_or_default());
    columns.iter_mut().zip(cells).zip(schema.fields()).try_for_each(|((column, cell), field)| push(column, cell, field))
}

fn reader<R: std::io::Read>(file: R) -> Reader<R> {
    // All lines are told apart here, the first and those that are too short or too long.
    ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file)
}

fn header<R: std::io::Read>(reader: &mut Reader<R>) -> Result<Vec<String>, String> {
    let mut record = ByteRecord::new();
    if !reader.read_byte_record(&mut record).map_err(|error| error.to_string())? {
        return Err("the file is empty; its first line must name the columns".into());
    }
    let name = |cell: &[u8]| std::str::from_utf8(cell).map(|name| name.trim().to_owned()).map_err(|_| "line 1 is not UTF-8".to_owned());
    let names: Vec<String> = record.iter().map(name).collect::<Result<_, _>>()?;
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.to_lowercase())) {
        Some(twice) => Err(format!("line 1: the column '{twice}' is there twice")),
        None => Ok(names),
    }
}

/// Where each column of the schema stands in a record.
fn places(header: &[String], schema: &Schema) -> Result<Vec<usize>, String> {
    let place = |field: &Field| {
        header.iter().position(|name| name.eq_ignore_ascii_case(field.name())).ok_or_else(|| {
            format!(
                "line 1 names no column '{}' of the schema; its columns are '{}', told apart by commas",
                field.name(),
                header.join("', '")
            )
        })
    };
    schema.fields().iter().map(|field| place(field)).collect()
}

fn column(field: &Field) -> Result<Column, String> {
    Column::new(field.data_type(), field.is_nullable())
        .ok_or_else(|| format!("column '{}' is {}, which is not read from CSV", field.name(), field.data_type()))
}

/// The line on which a record begins; the reader's own position is before the empty lines that it steps over.
fn line_of(file: &[u8], from: &Position) -> u64 {
    let start = usize::try_from(from.byte()).unwrap_or(usize::MAX);
    let empty = file.get(start..).unwrap_or_default().iter().take_while(|byte| matches!(byte, b'\n' | b'\r'));
    from.line() + empty.filter(|byte| **byte == b'\n').count() as u64
}

fn check_shape(raw: &[u8], record: &ByteRecord, wanted: usize) -> Result<(), String> {
    // A quotation mark that is never closed takes the rest of the file into one cell, and its rows would be missing without a word.
    let lines = record.iter().any(|cell| cell.contains(&b'\n'));
    if lines && raw.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
        return Err("a quotation mark that opens in this row is never closed".into());
    }
    match record.len() {
        found if found == wanted => Ok(()),
        1 => Err(format!("1 column, where line 1 names {wanted}")),
        found => Err(format!("{found} columns, where line 1 names {wanted}")),
    }
}

fn push(column: &mut Column, cell: &[u8], field: &Field) -> Result<(), String> {
    let text = std::str::from_utf8(cell).map_err(|_| format!("column '{}' is not UTF-8", field.name()))?;
    let token = token(text, field.data_type());
    column.push(token).map_err(|misfit| explain::cell(field, token, misfit))
}

/// What a JSON record would have in the cell's place.
fn token<'a>(cell: &'a str, data_type: &DataType) -> Token<'a> {
    if *data_type == DataType::Utf8 {
        return if cell.is_empty() { Token::Null } else { Token::Text(cell) };
    }
    let bare = cell.trim();
    match data_type {
        _ if bare.is_empty() => Token::Null,
        DataType::Boolean if bare.eq_ignore_ascii_case("true") => Token::Bool(true),
        DataType::Boolean if bare.eq_ignore_ascii_case("false") => Token::Bool(false),
        _ => match number::scan(bare, 0) {
            Ok((number, end)) if end == bare.len() => Token::Number(number),
            _ => Token::Text(bare),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::format::encode::JsonRows;
    use crate::query::ddl::parse_ddl;

    fn read_as(ddl: &str, file: &str) -> Result<(Vec<String>, Vec<u64>), String> {
        let table = read(file.as_bytes(), &parse_ddl(ddl).unwrap())?;
        let rows = JsonRows::new(&table.batch).unwrap();
        let text = |row: usize| {
            let mut out = Vec::new();
            rows.write_row(row, &mut out);
            String::from_utf8(out).unwrap()
        };
        Ok(((0..table.batch.num_rows()).map(text).collect(), table.lines))
    }

    #[test]
    fn columns_are_found_by_name_and_the_others_are_left_out() {
        let (rows, lines) = read_as("room STRING, id INT", "\u{feff}ID, note ,Room\r\n7,x,\"hall, \"\"B\"\"\"\r\n\r\n8,,\r\n").unwrap();
        assert_eq!(rows, [r#"{"room":"hall, \"B\"","id":7}"#, r#"{"room":null,"id":8}"#]);
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn every_type_is_read_as_from_json() {
        let ddl = "s STRING, t TIMESTAMP, d DATE, f DOUBLE, r FLOAT, l BIGINT, i TINYINT, b BOOLEAN, c DECIMAL(6, 2)";
        let header = "s,t,d,f,r,l,i,b,c\n";
        let (rows, _) = read_as(
            ddl,
            &format!(
                "{header} 01 ,2023-11-14T22:13:20Z,2023-11-14, -1.5e3,2,9007199254740993,-128,TRUE,12.345\nx,1700000000000,,,,,,false,"
            ),
        )
        .unwrap();
        assert_eq!(
            rows,
            [
                r#"{"s":" 01 ","t":"2023-11-14T22:13:20.000Z","d":"2023-11-14","f":-1500.0,"r":2.0,"l":9007199254740993,"i":-128,"b":true,"c":12.35}"#,
                r#"{"s":"x","t":"2023-11-14T22:13:20.000Z","d":null,"f":null,"r":null,"l":null,"i":null,"b":false,"c":null}"#,
            ]
        );
        assert_eq!(read_as("s STRING", "s\n").unwrap().0.len(), 0);
    }

    #[test]
    fn a_cell_over_several_lines_counts_them() {
        let (rows, lines) = read_as("a STRING, b INT", "a,b\n\"one\ntwo\",1\nx,2").unwrap();
        assert_eq!(rows, [r#"{"a":"one\ntwo","b":1}"#, r#"{"a":"x","b":2}"#]);
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn rows_are_decoded_one_by_one() {
        let schema = parse_ddl("a STRING, b INT NOT NULL").unwrap();
        let file = "b,note,a\r\n1,x,\"one\r\ntwo\"\r\n\r\n2,y,z\r\nseven,y,z\n3,y\n4,,\n";
        let (header, mut raw) = open(file.as_bytes().to_vec(), &schema).unwrap();
        let mut rows: Vec<Vec<u8>> = Vec::new();
        let more: Vec<bool> = (0..3).map(|_| raw.take(2, |row| rows.push(row.to_vec())).unwrap()).collect();
        assert_eq!(more, [true, true, false]);
        assert_eq!(
            rows.iter().map(|row| String::from_utf8_lossy(row)).collect::<Vec<_>>(),
            ["1,x,\"one\r\ntwo\"", "2,y,z", "seven,y,z", "3,y", "4,,"]
        );
        let decoded = decode(&schema, &header, rows.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(decoded.rows, [0, 1, 4]);
        assert_eq!(decoded.batch.num_rows(), 3);
        let dead: Vec<(u32, &str)> = decoded.dead.iter().map(|row| (row.index, row.detail.as_str())).collect();
        assert_eq!(dead, [(2, "column 'b' is INT, found \"seven\""), (3, "2 columns, where line 1 names 3")]);
    }

    #[test]
    fn faults_name_the_line() {
        for (file, fault) in [
            ("", "the file is empty; its first line must name the columns"),
            ("a;b\n1;2\n", "line 1 names no column 'a' of the schema; its columns are 'a;b', told apart by commas"),
            ("a,b,A\n", "line 1: the column 'A' is there twice"),
            ("a,b\nx,1\n\ny\n", "line 4: 1 column, where line 1 names 2"),
            ("a,b\nx,1,2\n", "line 2: 3 columns, where line 1 names 2"),
            ("a,b\nx,1\ny,7th\n", "line 3: column 'b' is INT, found \"7th\""),
            ("a,b\nx,1.5\n", "line 2: column 'b' is INT, found 1.5, which is not written as an integer"),
            ("a,b\nx,3000000000\n", "line 2: column 'b' is INT, found 3000000000, which is out of its range"),
            ("a,b\n,1\n", "line 2: column 'a' is STRING NOT NULL, found no value"),
            ("a,b\nx,1\n\"y,2\nz,3\n", "line 3: a quotation mark that opens in this row is never closed"),
            ("b,a\n1,\"x\n2,y\n3,z\n", "line 2: a quotation mark that opens in this row is never closed"),
        ] {
            assert_eq!(read_as("a STRING NOT NULL, b INT", file).unwrap_err(), fault, "{file}");
        }
        let latin = read(b"a\n\xe9\n", &parse_ddl("a STRING").unwrap()).unwrap_err();
        assert_eq!(latin, "line 2: column 'a' is not UTF-8");
    }
}
