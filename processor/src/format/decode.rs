//! JSON records to one Arrow batch. A record that cannot be decoded is set aside with a reason; its neighbours pass.
//!
//! The time of the pipeline goes here, so the records are read by our own scanner: it looks at each byte once, checks all of
//! the record, and leaves the values of the wanted fields as slices of it until the whole record is known to be JSON. Only
//! then are they converted and appended: for some records together column by column, or, when a value among them does not fit, record by
//! record, where such a value takes its row back out of the earlier columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::column::{Column, Misfit};
use super::explain;
use super::json::{self, Fault, Quoted, Scanner, Token};

/// A null payload: a tombstone, or a record that never had a value.
pub const EMPTY: &str = "empty";
/// The payload is not one JSON object.
pub const NOT_JSON: &str = "not_json";
/// A field holds what its column can't.
pub const WRONG_TYPE: &str = "wrong_type";
/// A column that is NOT NULL has no value.
pub const MISSING: &str = "missing";

/// Decodes records by a schema; its buffers are kept from batch to batch.
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
    /// That of the batches: the columns that nobody reads are of the type `Null`.
    batch_schema: SchemaRef,
    /// Or why the schema can't be decoded to, told at the first batch.
    columns: Result<Vec<Column>, String>,
    names: Names,
}

/// Records to be decoded, by their indexes. They are no iterator of what `text` and `payload` say together: that would go through memory for each
/// record, written in parts and read as a whole, which a processor waits for.
pub trait Payloads<'a> {
    fn count(&self) -> usize;

    /// `None` is a null payload.
    fn payload(&self, index: usize) -> Option<&'a [u8]>;

    /// The payload, if it is text. Asked of all records in their order.
    fn text(&mut self, index: usize) -> Option<&'a str> {
        self.payload(index).and_then(|payload| std::str::from_utf8(payload).ok())
    }
}

impl<'a> Payloads<'a> for Vec<Option<&'a [u8]>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn payload(&self, index: usize) -> Option<&'a [u8]> {
        self[index]
    }
}

/// What became of the records of one call.
#[derive(Debug)]
pub struct Decoded {
    /// A column that nobody reads has its place and its name, the type `Null`, and no values.
    pub batch: RecordBatch,
    /// For each row of `batch`, the index of its record.
    pub rows: Vec<u32>,
    /// The records that could not be decoded, in their order.
    pub dead: Vec<DeadRow>,
}

/// A record that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRow {
    /// Among the records of the call.
    pub index: u32,
    /// A word for metrics and headers: one of `EMPTY`, `NOT_JSON`, `WRONG_TYPE`, `MISSING`.
    pub reason: &'static str,
    /// A sentence for people.
    pub detail: String,
}

/// The fields that have a column.
#[derive(Debug)]
struct Names {
    /// As they stand in a record: producers write the fields in one order, so that the next column's name is tried first and costs one
    /// comparison.
    quoted: Vec<Quoted>,
    by_name: HashMap<Vec<u8>, usize>,
}

impl Decoder {
    pub fn new(schema: SchemaRef) -> Self {
        Self::reading(schema, |_| true)
    }

    /// One that keeps the values of the columns whose place is `read`. Those of the others must fit their types as well.
    pub fn reading(schema: SchemaRef, read: impl Fn(usize) -> bool) -> Self {
        let columns = schema.fields().iter().enumerate().map(|(place, field)| {
            Column::new(field.data_type(), field.is_nullable())
                .map(|column| if read(place) { column } else { column.unread() })
                .ok_or_else(|| format!("column '{}' is {}, which is not read from JSON", field.name(), field.data_type()))
        });
        let columns = columns.collect();
        let names = Names::new(schema.fields().iter().map(|field| field.name().as_str()));
        let batch_fields = schema.fields().iter().enumerate().map(|(place, field)| match read(place) {
            true => Arc::clone(field),
            false => Arc::new(Field::new(field.name(), DataType::Null, true)),
        });
        let batch_schema = Arc::new(Schema::new(batch_fields.collect::<Vec<_>>()));
        Self { schema, batch_schema, columns, names }
    }

    /// The columns that records have.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Decodes the records in their order; `None` is a null payload. The only errors are a schema that can't be decoded to and
    /// more than 2 GiB of records in one call.
    pub fn decode<'a>(&mut self, records: impl Iterator<Item = Option<&'a [u8]>>) -> Result<Decoded, ArrowError> {
        self.decode_all(records.collect::<Vec<_>>())
    }

    /// The same of records that are somewhere together.
    pub fn decode_all<'a>(&mut self, mut records: impl Payloads<'a>) -> Result<Decoded, ArrowError> {
        let columns = self.columns.as_mut().map_err(|error| ArrowError::NotYetImplemented(error.clone()))?;
        let count = records.count();
        let mut rows: Vec<u32> = Vec::with_capacity(count);
        let mut dead = Vec::new();
        columns.iter_mut().for_each(|column| column.start(count));
        // Most steps have few records: those of a quiet topic need no room for more.
        let tokens = vec![Token::Null; TOGETHER.min(count) * columns.len()];
        let mut together = Together { schema: &self.schema, columns, tokens, indexes: Vec::new() };
        let mut total: usize = 0;
        for (place, index) in (0..count).zip(0_u32..) {
            let outcome = match records.text(place) {
                Some(text) => {
                    total += text.len();
                    if total > i32::MAX as usize {
                        return Err(ArrowError::OffsetOverflowError(total));
                    }
                    read(text, &self.names, together.room())
                }
                None => Err(no_text(records.payload(place))),
            };
            match outcome {
                Ok(()) => together.indexes.push(index),
                Err((reason, detail)) => dead.push(DeadRow { index, reason, detail }),
            }
            if together.indexes.len() == TOGETHER {
                together.convert(&mut rows, &mut dead);
            }
        }
        together.convert(&mut rows, &mut dead);
        dead.sort_by_key(|row| row.index);
        let arrays = columns.iter_mut().map(Column::finish).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.batch_schema), arrays, &options)?;
        Ok(Decoded { batch, rows, dead })
    }
}

/// Why a record could not be decoded: a word, and a sentence.
type Dead = (&'static str, String);

/// Leaves the values of the wanted fields in `tokens`, or says why the record is no JSON object.
fn read<'a>(text: &'a str, names: &Names, tokens: &mut [Token<'a>]) -> Result<(), Dead> {
    tokens.fill(Token::Null);
    scan(text, names, tokens).map_err(|fault| (NOT_JSON, explain::fault(text, fault)))
}

#[cold]
fn no_text(payload: Option<&[u8]>) -> Dead {
    let Some(payload) = payload else { return (EMPTY, String::from("the record has no payload")) };
    let valid = std::str::from_utf8(payload).map_or_else(|error| error.valid_up_to(), str::len);
    (NOT_JSON, format!("invalid UTF-8 at byte {valid}"))
}

/// So many records are converted together, column by column: enough to ask seldom what type a column has, and few enough that the tokens of some
/// columns stay in the processor's first cache.
const TOGETHER: usize = 32;

/// Records that have been read and not been converted yet.
struct Together<'a, 'c> {
    schema: &'c Schema,
    columns: &'c mut [Column],
    /// Of one record after the other.
    tokens: Vec<Token<'a>>,
    indexes: Vec<u32>,
}

impl<'a> Together<'a, '_> {
    /// Where the next record's tokens belong.
    fn room(&mut self) -> &mut [Token<'a>] {
        let (width, place) = (self.columns.len(), self.indexes.len());
        &mut self.tokens[place * width..][..width]
    }

    /// Appends the records' values to the columns, and their indexes to those of the rows or of the dead.
    fn convert(&mut self, rows: &mut Vec<u32>, dead: &mut Vec<DeadRow>) {
        let width = self.columns.len();
        let tokens = &self.tokens[..self.indexes.len() * width];
        let mut columns = self.columns.iter_mut().enumerate();
        if columns.all(|(place, column)| column.push_all(tokens.iter().skip(place).step_by(width)).is_ok()) {
            rows.append(&mut self.indexes);
            return;
        }
        // Somewhere among them is a value that does not fit: once more, record by record. At worst all records are converted twice.
        self.columns.iter_mut().for_each(|column| column.truncate(rows.len()));
        for (place, index) in self.indexes.drain(..).enumerate() {
            match push_row(self.schema, self.columns, &tokens[place * width..][..width], rows.len()) {
                Ok(()) => rows.push(index),
                Err((reason, detail)) => dead.push(DeadRow { index, reason, detail }),
            }
        }
    }
}

/// Appends one record as row `row`, or says why not.
fn push_row(schema: &Schema, columns: &mut [Column], tokens: &[Token<'_>], row: usize) -> Result<(), Dead> {
    let mut pushed = columns.iter_mut().zip(tokens).enumerate();
    let pushed = pushed.try_for_each(|(at, (column, token))| column.push(*token).map_err(|misfit| (at, *token, misfit)));
    pushed.map_err(|(at, token, misfit)| {
        columns.iter_mut().for_each(|column| column.truncate(row));
        (if misfit == Misfit::Missing { MISSING } else { WRONG_TYPE }, explain::misfit(schema.field(at), token, misfit))
    })
}

/// Walks over the whole record and leaves the last value of each wanted field.
fn scan<'a>(text: &'a str, names: &Names, tokens: &mut [Token<'a>]) -> Result<(), Fault> {
    let mut scanner = Scanner::new(text);
    let (mut next, mut unwanted) = (0, Token::Null);
    let mut more = scanner.open()?;
    while more {
        let column = names.column(&mut scanner, next)?;
        next = column.map_or(next, |at| at + 1);
        scanner.value(column.and_then(|at| tokens.get_mut(at)).unwrap_or(&mut unwanted))?;
        more = scanner.more()?;
    }
    scanner.end()
}

impl Names {
    fn new<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let quoted = names.clone().map(|name| Quoted::new(serde_json::to_vec(name).unwrap_or_default())).collect();
        let by_name = names.enumerate().map(|(at, name)| (name.as_bytes().to_vec(), at)).collect();
        Self { quoted, by_name }
    }

    /// Steps over a field's name and its colon; returns its column.
    #[inline]
    fn column(&self, scanner: &mut Scanner<'_>, next: usize) -> Result<Option<usize>, Fault> {
        if self.quoted.get(next).is_some_and(|quoted| scanner.take_name(quoted)) {
            return Ok(Some(next));
        }
        self.look_up(scanner.name()?)
    }

    fn look_up(&self, name: Token<'_>) -> Result<Option<usize>, Fault> {
        Ok(match name {
            Token::Text(name) => self.by_name.get(name.as_bytes()).copied(),
            Token::Escaped(inner) => {
                let mut name = Vec::with_capacity(inner.len());
                json::unescape(inner, &mut name);
                self.by_name.get(&name).copied()
            }
            _ => None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use arrow::array::cast::AsArray;
    use arrow::array::types::{
        Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int64Type, TimestampMillisecondType as Millis,
    };
    use arrow::array::{Array, ArrayRef};
    use arrow::compute::concat_batches;
    use arrow::datatypes::TimeUnit;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>()))
    }

    fn time() -> DataType {
        DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
    }

    fn readings() -> SchemaRef {
        use DataType::{Float64, Int64, Utf8};
        schema(&[("sensor_id", Utf8), ("ts", time()), ("value", Float64), ("kind", Utf8), ("seq", Int64)])
    }

    fn decode(schema: SchemaRef, records: &[&[u8]]) -> Decoded {
        Decoder::new(schema).decode(records.iter().map(|record| Some(*record))).unwrap()
    }

    /// What one JSON value becomes in a column `x`.
    fn one(kind: &DataType, value: &str) -> Result<ArrayRef, String> {
        let record = format!(r#"{{"x":{value}}}"#);
        let decoded = decode(schema(&[("x", kind.clone())]), &[record.as_bytes()]);
        match decoded.dead.first() {
            None => Ok(decoded.batch.column(0).clone()),
            Some(dead) => Err(format!("{}: {}", dead.reason, dead.detail)),
        }
    }

    /// The detail of a record that is not JSON.
    fn fault(record: &[u8]) -> String {
        let decoded = decode(readings(), &[record]);
        assert_eq!(decoded.dead[0].reason, NOT_JSON);
        decoded.dead[0].detail.clone()
    }

    #[test]
    fn readings_become_columns() {
        let decoded = decode(
            readings(),
            &[
                br#"{"sensor_id":"s-0001","ts":1700000000123,"value":21.5,"kind":"temperature","seq":17}"#,
                b" {\t\"seq\" : 18 ,\r\n \"value\":-1, \"sensor_id\":\"\\u00e4\\ud83d\\ude00\\n\", \"ts\":\"2023-11-14T22:13:20.5+00:00\" , \"kind\":null } ",
            ],
        );
        let batch = &decoded.batch;
        assert_eq!((decoded.rows, decoded.dead), (vec![0, 1], vec![]));
        assert_eq!(batch.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("s-0001"), Some("ä😀\n")]);
        assert_eq!(batch.column(1).as_primitive::<Millis>().values(), &[1_700_000_000_123, 1_700_000_000_500]);
        assert_eq!(batch.column(2).as_primitive::<Float64Type>().values(), &[21.5, -1.0]);
        assert_eq!(batch.column(3).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("temperature"), None]);
        assert_eq!(batch.column(4).as_primitive::<Int64Type>().values(), &[17, 18]);
    }

    #[test]
    fn neighbours_of_a_bad_record_pass_and_nothing_of_it_stays() {
        let mut decoder = Decoder::new(readings());
        for _ in 0..2 {
            let records: [Option<&[u8]>; 6] = [
                Some(br#"{"sensor_id":"a","ts":1,"value":1,"kind":"k","seq":1}"#),
                None,
                // Fails in the last column, when the others have their value.
                Some(br#"{"sensor_id":"bad","ts":2,"value":2,"kind":null,"seq":"x"}"#),
                Some(br#"{"sensor_id":"bad","ts":2"#),
                Some(b"{}"),
                Some(br#"{"sensor_id":"c","ts":3,"value":3,"kind":"k","seq":3}"#),
            ];
            let decoded = decoder.decode(records.into_iter()).unwrap();
            assert_eq!(decoded.rows, [0, 4, 5]);
            let dead: Vec<_> = decoded.dead.iter().map(|dead| (dead.index, dead.reason)).collect();
            assert_eq!(dead, [(1, EMPTY), (2, WRONG_TYPE), (3, NOT_JSON)]);
            assert_eq!(decoded.dead[1].detail, "column 'seq' is BIGINT, found a string");
            let ids: Vec<_> = decoded.batch.column(0).as_string::<i32>().iter().collect();
            assert_eq!(ids, [Some("a"), None, Some("c")]);
            assert!(decoded.batch.columns().iter().all(|column| column.null_count() == 1));
        }
    }

    #[test]
    fn unknown_fields_are_checked_and_the_last_of_a_name_wins() {
        let decoded = decode(
            readings(),
            &[
                br#"{"x":{"value":[1,{"y":"}"},[]]},"value":"no","seq":1,"value":2,"z":1e400,"s\u0065q":5}"#,
                br#"{"x":{"value":[1,}]},"value":2}"#,
            ],
        );
        assert_eq!(decoded.rows, [0]);
        assert_eq!(decoded.batch.column(2).as_primitive::<Float64Type>().value(0), 2.0);
        assert_eq!(decoded.batch.column(4).as_primitive::<Int64Type>().value(0), 5);
        assert_eq!(decoded.dead[0].detail, "at byte 17: expected a value, found '}'");
    }

    #[test]
    fn names_of_any_length_are_found_at_any_place() {
        let names = ["", "a", "a_name_of_12", "a_name_of_13b", "a_name_of_14_b", "one_that_is_longer_than_16_bytes", "ä€😀"];
        let schema = schema(&names.map(|name| (name, DataType::Int64)));
        let inside: Vec<String> = (0..).zip(names).map(|(at, name)| format!(r#""{name}":{at}"#)).collect();
        let (whole, mut other) = (inside.join(","), inside.clone());
        other.reverse();
        let cut: Vec<String> = names.map(|name| format!(r#""{}_":7"#, name.trim_end_matches(['b', 's']))).to_vec();
        let spaced = inside.join(", ").replace(':', "\t:\n");
        let python = inside.join(", ").replace(':', ": ");
        for (fields, wanted) in [(whole, true), (other.join(" , "), true), (spaced, true), (python, true), (cut.join(","), false)] {
            let decoded = decode(schema.clone(), &[format!("{{{fields}}}").as_bytes()]);
            for (at, column) in (0..).zip(decoded.batch.columns()) {
                assert_eq!(column.is_valid(0), wanted, "{fields}");
                assert!(!wanted || column.as_primitive::<Int64Type>().value(0) == at, "{fields}");
            }
        }
    }

    #[test]
    fn of_a_column_that_nobody_reads_the_values_must_fit_and_are_not_kept() {
        let mut decoder = Decoder::reading(readings(), |place| place == 2);
        for _ in 0..2 {
            let records: [&[u8]; 7] = [
                br#"{"value":1,"sensor_id":"a","ts":1,"kind":"k","seq":7}"#,
                br#"{"value":2,"sensor_id":1.5}"#,
                br#"{"value":3,"seq":"7"}"#,
                br#"{"value":4,"kind":{}}"#,
                br#"{"value":5,"ts":"soon"}"#,
                br#"{"value":6,"kind":null,"sensor_id":"\u00e4"}"#,
                br#"{"value":"7","kind":true}"#,
            ];
            let decoded = decoder.decode(records.into_iter().map(Some)).unwrap();
            assert_eq!(decoded.rows, [0, 5]);
            assert_eq!(decoded.batch.column(2).as_primitive::<Float64Type>().values(), &[1.0, 6.0]);
            assert_eq!(
                decoded.dead.iter().map(|row| (row.index, row.reason)).collect::<Vec<_>>(),
                [1, 2, 3, 4, 6].map(|row| (row, WRONG_TYPE))
            );
            for place in [0, 1, 3, 4] {
                assert_eq!((decoded.batch.column(place).data_type(), decoded.batch.column(place).len()), (&DataType::Null, 2));
            }
        }
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, false), Field::new("b", DataType::Int64, true)]));
        let decoded = Decoder::reading(schema, |place| place == 1).decode([Some(&b"{\"b\":1}"[..])].into_iter()).unwrap();
        assert_eq!((decoded.dead[0].reason, decoded.batch.num_rows()), (MISSING, 0));
    }

    #[test]
    fn what_is_not_one_object_says_where() {
        assert_eq!(fault(b""), "the payload is empty, expected a JSON object");
        assert_eq!(fault(b"  "), "at byte 2: expected an object, found the end of the record");
        assert_eq!(fault(b"[1]"), "at byte 0: expected an object, found '['");
        assert_eq!(fault(b"17"), "at byte 0: expected an object, found '1'");
        assert_eq!(fault(b"{}x"), "at byte 2: expected the end of the record, found 'x'");
        assert_eq!(fault(br#"{"a":1}{"#), "at byte 7: expected the end of the record, found '{'");
        assert_eq!(fault(br#"{"a":1,}"#), "at byte 7: expected a field's name, found '}'");
        assert_eq!(fault(br#"{"a"1}"#), "at byte 4: expected ':', found '1'");
        assert_eq!(fault(br#"{"sensor_id" 1}"#), "at byte 13: expected ':', found '1'");
        assert_eq!(fault(br#"{"sensor_id""#), "at byte 12: expected ':', found the end of the record");
        assert_eq!(fault(br#"{"a":{"b" 1}}"#), "at byte 10: expected ':', found '1'");
        assert_eq!(fault(br#"{"a":01}"#), "at byte 6: expected ',' or '}', found '1'");
        assert_eq!(fault(br#"{"a":-}"#), "at byte 6: expected a digit, found '}'");
        assert_eq!(fault(br#"{"a":NaN}"#), "at byte 5: expected a value, found 'N'");
        assert_eq!(fault(br#"{"a":"x"#), "at byte 7: expected the end of a string, found the end of the record");
        assert_eq!(fault(br#"{"a":"\ud800"}"#), "at byte 6: expected a valid escape, found '\\\\'");
        assert_eq!(fault(b"{\"a\":\"x\ny\"}"), "at byte 7: expected no control character in a string, found '\\n'");
        assert_eq!(fault(b"{\"a\":\"\xff\"}"), "invalid UTF-8 at byte 6");
        assert_eq!(fault(b"\xef\xbb\xbf{}"), "at byte 0: expected an object, found '\\u{feff}'");
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |levels: usize| {
                let value = if open == "[" { "" } else { "1" };
                format!("{{\"x\":{}{value}{}}}", open.repeat(levels), close.repeat(levels))
            };
            assert_eq!(decode(readings(), &[nested(126).as_bytes()]).rows, [0]);
            assert!(serde_json::from_str::<Value>(&nested(126)).is_ok());
            assert!(fault(nested(127).as_bytes()).contains("at most 127 levels"));
            assert!(serde_json::from_str::<Value>(&nested(127)).is_err());
            assert!(fault(open.repeat(1_000_000).as_bytes()).starts_with("at byte"));
            assert!(fault(format!("{{\"x\":{}", open.repeat(1_000_000)).as_bytes()).contains("at most 127 levels"));
        }
    }

    #[test]
    fn numbers_go_to_numeric_columns_only_whole() {
        let double = |text| one(&DataType::Float64, text).map(|array| array.as_primitive::<Float64Type>().value(0));
        assert_eq!(double("17"), Ok(17.0));
        assert_eq!(double("-0").map(f64::to_bits), Ok((-0.0_f64).to_bits()));
        assert_eq!(double("9007199254740993"), Ok(9_007_199_254_740_992.0));
        assert_eq!(double("1e400"), Err("wrong_type: column 'x' is DOUBLE, found 1e400, which is out of its range".into()));
        assert_eq!(double("\"1\""), Err("wrong_type: column 'x' is DOUBLE, found a string".into()));
        assert_eq!(double("[1]"), Err("wrong_type: column 'x' is DOUBLE, found an array".into()));
        let float = |text| one(&DataType::Float32, text).map(|array| array.as_primitive::<Float32Type>().value(0));
        assert_eq!(float("0.1"), Ok(0.1));
        assert!(float("1e39").is_err());
        let byte = |text| one(&DataType::Int8, text).map(|array| array.as_primitive::<Int8Type>().value(0));
        assert_eq!(byte("-128"), Ok(-128));
        assert_eq!(byte("128"), Err("wrong_type: column 'x' is TINYINT, found 128, which is out of its range".into()));
        assert_eq!(byte("17.0"), Err("wrong_type: column 'x' is TINYINT, found 17.0, which is not written as an integer".into()));
        assert!(one(&DataType::Int16, "32768").is_err() && one(&DataType::Int32, "2147483648").is_err());
    }

    #[test]
    fn text_takes_what_has_one_spelling() {
        let text = |value| one(&DataType::Utf8, value).map(|array| array.as_string::<i32>().value(0).to_owned());
        assert_eq!(text("\"a\""), Ok("a".into()));
        assert_eq!(text("123456789012345678901234567890"), Ok("123456789012345678901234567890".into()));
        assert_eq!(text("false"), Ok("false".into()));
        assert!(text("1.5").unwrap_err().ends_with("found 1.5, which is no text: only strings, integers and booleans are"));
        assert!(text("{}").unwrap_err().ends_with("column 'x' is STRING, found an object"));
        assert!(one(&DataType::Boolean, "1").is_err() && one(&DataType::Boolean, "\"true\"").is_err());
        assert!(one(&DataType::Boolean, "true").unwrap().as_boolean().value(0));
    }

    #[test]
    fn times_are_milliseconds_or_text() {
        let time = |value| one(&time(), value).map(|array| array.as_primitive::<Millis>().value(0));
        assert_eq!(time("-1.5"), Ok(-2));
        assert_eq!(time("1700000000123.9"), Ok(1_700_000_000_123));
        assert_eq!(time("1.7e12"), Ok(1_700_000_000_000));
        assert_eq!(time(r#""1969-12-31\u005423:59:59.9999Z""#), Ok(-1));
        assert_eq!(time("true"), Err("wrong_type: column 'x' is TIMESTAMP, found a boolean".into()));
        let wanted = "wrong_type: column 'x' is TIMESTAMP, found \"soon\", which is no time like 2023-11-14T22:13:20.123Z";
        assert_eq!(time("\"soon\""), Err(wanted.into()));
        assert!(time("9223372036854775808").is_err());
        let date = |value| one(&DataType::Date32, value).map(|array| array.as_primitive::<Date32Type>().value(0));
        assert_eq!(date("\"1969-12-31\""), Ok(-1));
        assert!(date("\"2023-02-29\"").is_err() && date("0").is_err() && date("\"2023-01-01T00:00:00Z\"").is_err());
    }

    #[test]
    fn decimals_are_exact() {
        let decimal = |value| one(&DataType::Decimal128(38, 10), value).map(|array| array.as_primitive::<Decimal128Type>().value(0));
        assert_eq!(decimal("1234567890123456789012345678.0123456789"), Ok(12_345_678_901_234_567_890_123_456_780_123_456_789));
        assert_eq!(decimal("\"-0.00000000005\""), Ok(-1));
        assert!(decimal("1e28").is_err() && decimal("\"1 \"").is_err() && decimal("\"one\"").is_err() && decimal("true").is_err());
        let small = |value| one(&DataType::Decimal128(3, 1), value).map(|array| array.as_primitive::<Decimal128Type>().value(0));
        assert_eq!(small("99.94"), Ok(999));
        assert!(small("99.95").unwrap_err().contains("column 'x' is DECIMAL(3,1), found 99.95, which is out of its range"));
    }

    #[test]
    fn not_null_is_kept() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Int64, true)]));
        let decoded = decode(schema, &[br#"{"b":1}"#, br#"{"a":null}"#, br#"{"a":1}"#]);
        assert_eq!(decoded.rows, [2]);
        assert_eq!(decoded.dead[0].reason, MISSING);
        assert_eq!(decoded.dead[0].detail, "column 'a' is BIGINT NOT NULL, found no value");
    }

    #[test]
    fn no_records_no_columns_and_no_such_type() {
        assert_eq!(decode(readings(), &[]).batch.num_rows(), 0);
        let decoded = decode(Arc::new(Schema::empty()), &[b"{}", b"[]", br#"{"a":1}"#]);
        assert_eq!((decoded.batch.num_rows(), decoded.rows), (2, vec![0, 2]));
        let error = Decoder::new(schema(&[("x", DataType::Binary)])).decode(std::iter::once(None)).unwrap_err();
        assert!(error.to_string().contains("column 'x' is Binary"));
    }

    #[test]
    fn names_that_need_escapes_are_found() {
        let decoded = decode(schema(&[("a\\b\"", DataType::Int64)]), &[br#"{"a\\b\"":1,"a\b":2}"#]);
        assert_eq!(decoded.batch.column(0).as_primitive::<Int64Type>().value(0), 1);
    }

    /// Whether our verdict agrees with serde_json's. It also refuses numbers beyond the largest double, which JSON allows and
    /// which matter to us only in a column.
    fn agrees(record: &[u8]) -> Result<(), TestCaseError> {
        let decoded = decode(readings(), &[record]);
        let ours = decoded.dead.first().is_none_or(|dead| dead.reason != NOT_JSON);
        let theirs = match serde_json::from_slice::<Value>(record) {
            Ok(value) => value.is_object(),
            Err(error) if error.to_string().starts_with("number out of range") => return Ok(()),
            Err(_) => false,
        };
        prop_assert_eq!(ours, theirs, "{:?}", String::from_utf8_lossy(record));
        Ok(())
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn records_are_decoded_together_as_they_are_one_by_one(kinds in prop::collection::vec(0..300_usize, 0..5 * TOGETHER)) {
            // Mostly good ones: a group in which one does not fit goes another way.
            let record = |(seq, kind): (usize, &usize)| match kind {
                0 => None,
                1 => Some(String::from("{")),
                2 => Some(format!("{{\"value\":{seq},\"seq\":1.5}}")),
                3 => Some(format!("{{\"value\":\"{seq}\"}}")),
                4 => Some(format!("{{\"seq\":{seq},\"kind\":1.5}}")),
                5 => Some(String::from("{\"value\":1}")),
                6..50 => Some(format!("{{\"seq\":{seq},\"kind\":null,\"sensor_id\":\"\\n\"}}")),
                _ => Some(format!("{{\"sensor_id\":\"{seq}\",\"ts\":{seq},\"value\":{seq}.5,\"kind\":\"a\",\"seq\":{seq}}}")),
            };
            let records: Vec<Option<String>> = kinds.iter().enumerate().map(record).collect();
            let mut fields = readings().fields().to_vec();
            fields[4] = Arc::new(Field::new("seq", DataType::Int64, false));
            let mut decoder = Decoder::reading(Arc::new(Schema::new(fields)), |place| place != 3);
            let together = decoder.decode(records.iter().map(|record| record.as_deref().map(str::as_bytes))).unwrap();
            let (mut batches, mut rows, mut dead) = (Vec::new(), Vec::new(), Vec::new());
            for (index, record) in (0_u32..).zip(&records) {
                let alone = decoder.decode(std::iter::once(record.as_deref().map(str::as_bytes))).unwrap();
                rows.extend(alone.rows.iter().map(|_| index));
                dead.extend(alone.dead.into_iter().map(|row| DeadRow { index, ..row }));
                batches.push(alone.batch);
            }
            prop_assert_eq!(&together.batch, &concat_batches(&together.batch.schema(), &batches).unwrap());
            prop_assert_eq!((together.rows, together.dead), (rows, dead));
        }

        #[test]
        fn any_bytes_are_judged_as_by_serde_json(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            agrees(&bytes)?;
        }

        #[test]
        fn json_like_text_is_judged_as_by_serde_json(parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u00e4", "\\ud83d", "\\ude00", "\\n", "\\x", "null", "true", "false", "-", "0", "1", ".5",
            "e", "+", "E-3", " ", "\n", "\t", "\u{1}", "ä", "\"a\":", "\"value\":", "1,", "\"x\"", "{\"ts\":",
        ]), 0..14)) {
            agrees(parts.concat().as_bytes())?;
            agrees(format!("{{{}}}", parts.concat()).as_bytes())?;
            agrees(format!("{{\"a\":{}}}", parts.concat()).as_bytes())?;
            agrees(format!("{{\"a\":\"{}\"}}", parts.concat()).as_bytes())?;
        }

        #[test]
        fn the_first_byte_that_ends_or_spoils_a_string_is_found_wherever_it_stands(
            before in "[a-z é\u{80}-\u{ff}]{0,30}", odd in prop::sample::select(vec!["", "\"", "\\", "\\n", "\u{0}", "\u{1f}", "!", "\u{7f}"]),
            after in "[a-z!#\\]\\[]{0,20}",
        ) {
            agrees(format!("{{\"a\":\"{before}{odd}{after}\"}}").as_bytes())?;
        }

        #[test]
        fn mutated_records_are_judged_as_by_serde_json(
            extra in json(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 0..3),
        ) {
            let value = serde_json::json!({"sensor_id": "s-0001", "ts": 1_700_000_000_123_i64, "value": 21.5, "x": extra, "seq": 17});
            let mut bytes = serde_json::to_vec(&value).unwrap();
            for (at, byte, edit) in edits {
                let at = at.index(bytes.len());
                match edit {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            agrees(&bytes)?;
        }

        #[test]
        fn valid_values_are_decoded_as_by_serde_json(text in any::<String>(), number in any::<f64>(), seq in any::<i64>()) {
            let value = serde_json::json!({"value": number, "kind": text, "seq": seq});
            let decoded = decode(readings(), &[value.to_string().as_bytes()]);
            prop_assert_eq!(decoded.batch.column(2).as_primitive::<Float64Type>().value(0).to_bits(), number.to_bits());
            prop_assert_eq!(decoded.batch.column(3).as_string::<i32>().value(0), text);
            prop_assert_eq!(decoded.batch.column(4).as_primitive::<Int64Type>().value(0), seq);
        }

        #[test]
        fn written_doubles_are_parsed_as_by_the_standard_library(text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?(e[+-]?[0-9]{1,3})?") {
            let wanted = text.parse::<f64>().unwrap();
            let found = one(&DataType::Float64, &text).map(|array| array.as_primitive::<Float64Type>().value(0).to_bits()).ok();
            prop_assert_eq!(found, wanted.is_finite().then(|| wanted.to_bits()));
        }
    }
}
