//! The values of one column while a batch is being decoded.

use std::mem;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, NullArray, NullBufferBuilder, PrimitiveArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMillisecondType,
};
use arrow::error::ArrowError;

use super::json::{self, Token};
use super::number::{self, Number, Rounding};
use super::time;

/// A column under construction. It can be cut back to an earlier length, which is how a row that fails in a later column
/// disappears from the earlier ones.
#[derive(Debug)]
pub(super) struct Column {
    data_type: DataType,
    nullable: bool,
    /// Whether anybody reads it. Otherwise its values are only checked: one that does not fit still makes its row dead.
    read: bool,
    values: Values,
    valid: NullBufferBuilder,
    /// Texts with escapes that are no text columns pass through here.
    scratch: Vec<u8>,
}

#[derive(Debug)]
enum Values {
    Text { bytes: Vec<u8>, offsets: Vec<i32> },
    Timestamp(Vec<i64>),
    Date(Vec<i32>),
    F64(Vec<f64>),
    F32(Vec<f32>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    I16(Vec<i16>),
    I8(Vec<i8>),
    Bool(Vec<bool>),
    Decimal { values: Vec<i128>, scale: i8, limit: i128 },
}

/// Why a value does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// A null in a NOT NULL column.
    Missing,
    /// Another kind of value.
    Kind,
    /// The right kind, but no value of the type; the words go on after "which".
    Value(&'static str),
}

const OUT_OF_RANGE: Misfit = Misfit::Value("is out of its range");

impl Column {
    /// `None` when no JSON value is ever decoded into this type.
    pub(super) fn new(data_type: &DataType, nullable: bool) -> Option<Self> {
        let values = match data_type {
            DataType::Utf8 => Values::Text { bytes: Vec::new(), offsets: vec![0] },
            DataType::Timestamp(TimeUnit::Millisecond, _) => Values::Timestamp(Vec::new()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Float64 => Values::F64(Vec::new()),
            DataType::Float32 => Values::F32(Vec::new()),
            DataType::Int64 => Values::I64(Vec::new()),
            DataType::Int32 => Values::I32(Vec::new()),
            DataType::Int16 => Values::I16(Vec::new()),
            DataType::Int8 => Values::I8(Vec::new()),
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Decimal128(precision, scale) => {
                Values::Decimal { values: Vec::new(), scale: *scale, limit: 10_i128.checked_pow(u32::from(*precision))? }
            }
            _ => return None,
        };
        Some(Self { data_type: data_type.clone(), nullable, read: true, values, valid: NullBufferBuilder::new(0), scratch: Vec::new() })
    }

    /// The same of which nobody reads the values.
    pub(super) fn unread(self) -> Self {
        Self { read: false, ..self }
    }

    /// Empties the column and makes room.
    pub(super) fn start(&mut self, rows: usize) {
        self.truncate(0);
        if !self.read {
            return;
        }
        match &mut self.values {
            Values::Text { offsets, .. } => offsets.reserve(rows),
            Values::Timestamp(values) | Values::I64(values) => values.reserve(rows),
            Values::Date(values) | Values::I32(values) => values.reserve(rows),
            Values::F64(values) => values.reserve(rows),
            Values::F32(values) => values.reserve(rows),
            Values::I16(values) => values.reserve(rows),
            Values::I8(values) => values.reserve(rows),
            Values::Bool(values) => values.reserve(rows),
            Values::Decimal { values, .. } => values.reserve(rows),
        }
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        if self.valid.len() > rows {
            self.valid.truncate(rows);
        }
        self.truncate_values(rows);
    }

    fn truncate_values(&mut self, rows: usize) {
        match &mut self.values {
            Values::Text { bytes, offsets } => {
                offsets.truncate(rows + 1);
                bytes.truncate(offsets.last().map_or(0, |end| *end as usize));
            }
            Values::Timestamp(values) | Values::I64(values) => values.truncate(rows),
            Values::Date(values) | Values::I32(values) => values.truncate(rows),
            Values::F64(values) => values.truncate(rows),
            Values::F32(values) => values.truncate(rows),
            Values::I16(values) => values.truncate(rows),
            Values::I8(values) => values.truncate(rows),
            Values::Bool(values) => values.truncate(rows),
            Values::Decimal { values, .. } => values.truncate(rows),
        }
    }

    /// Appends a value, or says why it does not fit.
    pub(super) fn push(&mut self, token: Token<'_>) -> Result<(), Misfit> {
        self.push_all(std::iter::once(&token))
    }

    /// Appends values up to the first that does not fit. What type they are of is asked once for all of them.
    pub(super) fn push_all<'t, 'a: 't>(&mut self, tokens: impl Iterator<Item = &'t Token<'a>>) -> Result<(), Misfit> {
        let (scratch, validity) = (&mut self.scratch, Validity { valid: &mut self.valid, nullable: self.nullable });
        match &mut self.values {
            // Not copied, however long.
            Values::Text { .. } if !self.read => return validity.fill(tokens, &mut Vec::new(), |_| (), fits_text),
            Values::Text { bytes, offsets } => validity.fill(tokens, offsets, last, |token| {
                push_text(token, bytes)?;
                // The caller lets no batch have more bytes than an `i32` counts.
                Ok(bytes.len() as i32)
            }),
            Values::Timestamp(values) => validity.fill(tokens, values, zero, |token| timestamp(token, scratch)),
            Values::Date(values) => validity.fill(tokens, values, zero, |token| date(token, scratch)),
            Values::F64(values) => validity.fill(tokens, values, zero, |token| number(token)?.to_f64().ok_or(OUT_OF_RANGE)),
            Values::F32(values) => validity.fill(tokens, values, zero, |token| number(token)?.to_f32().ok_or(OUT_OF_RANGE)),
            Values::I64(values) => validity.fill(tokens, values, zero, integer),
            Values::I32(values) => validity.fill(tokens, values, zero, integer),
            Values::I16(values) => validity.fill(tokens, values, zero, integer),
            Values::I8(values) => validity.fill(tokens, values, zero, integer),
            Values::Bool(values) => validity.fill(tokens, values, zero, boolean),
            Values::Decimal { values, scale, limit } => {
                validity.fill(tokens, values, zero, |token| decimal(token, scratch, *scale, *limit))
            }
        }?;
        if !self.read {
            self.truncate_values(0);
        }
        Ok(())
    }

    /// The column as an array; the builder is empty afterwards.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = self.valid.len();
        let valid = self.valid.finish();
        if !self.read {
            return Ok(Arc::new(NullArray::new(rows)));
        }
        Ok(match &mut self.values {
            Values::Text { bytes, offsets } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(mem::replace(offsets, vec![0])));
                let room = bytes.len() + bytes.len() / 8;
                let text = mem::replace(bytes, Vec::with_capacity(room));
                Arc::new(StringArray::try_new(offsets, Buffer::from_vec(text), valid)?)
            }
            Values::Timestamp(values) => primitive::<TimestampMillisecondType>(values, valid, &self.data_type)?,
            Values::Date(values) => primitive::<Date32Type>(values, valid, &self.data_type)?,
            Values::F64(values) => primitive::<Float64Type>(values, valid, &self.data_type)?,
            Values::F32(values) => primitive::<Float32Type>(values, valid, &self.data_type)?,
            Values::I64(values) => primitive::<Int64Type>(values, valid, &self.data_type)?,
            Values::I32(values) => primitive::<Int32Type>(values, valid, &self.data_type)?,
            Values::I16(values) => primitive::<Int16Type>(values, valid, &self.data_type)?,
            Values::I8(values) => primitive::<Int8Type>(values, valid, &self.data_type)?,
            Values::Bool(values) => Arc::new(BooleanArray::new(mem::take(values).into(), valid)),
            Values::Decimal { values, .. } => primitive::<Decimal128Type>(values, valid, &self.data_type)?,
        })
    }
}

/// Which values of a column are null, and whether any may be.
struct Validity<'a> {
    valid: &'a mut NullBufferBuilder,
    nullable: bool,
}

impl Validity<'_> {
    /// Appends to `values` what the tokens are; `null` stands in the place of a null.
    #[inline]
    fn fill<'t, 'a: 't, T>(
        self,
        tokens: impl Iterator<Item = &'t Token<'a>>,
        values: &mut Vec<T>,
        null: impl Fn(&[T]) -> T,
        mut value: impl FnMut(Token<'a>) -> Result<T, Misfit>,
    ) -> Result<(), Misfit> {
        for token in tokens {
            match *token {
                Token::Null if !self.nullable => return Err(Misfit::Missing),
                Token::Null => {
                    values.push(null(values));
                    self.valid.append_null();
                }
                token => {
                    values.push(value(token)?);
                    self.valid.append_non_null();
                }
            }
        }
        Ok(())
    }
}

fn zero<T: Default>(_: &[T]) -> T {
    T::default()
}

/// An empty text ends where the one before it does.
fn last(offsets: &[i32]) -> i32 {
    offsets.last().copied().unwrap_or_default()
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    valid: Option<NullBuffer>,
    data_type: &DataType,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(ScalarBuffer::from(mem::take(values)), valid)?.with_data_type(data_type.clone())))
}

#[inline]
fn fits_text(token: Token<'_>) -> Result<(), Misfit> {
    match token {
        Token::Text(_) | Token::Escaped(_) | Token::Bool(_) => Ok(()),
        // Only integers have one way to be written; "1.0", "1" and "1e0" as keys would be three.
        Token::Number(number) if number.integral => Ok(()),
        Token::Number(_) => Err(Misfit::Value("is no text: only strings, integers and booleans are")),
        _ => Err(Misfit::Kind),
    }
}

#[inline]
fn push_text(token: Token<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    fits_text(token)?;
    match token {
        Token::Text(text) => out.extend_from_slice(text.as_bytes()),
        Token::Escaped(inner) => json::unescape(inner, out),
        Token::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Token::Number(number) => out.extend_from_slice(number.raw.as_bytes()),
        _ => {}
    }
    Ok(())
}

fn boolean(token: Token<'_>) -> Result<bool, Misfit> {
    match token {
        Token::Bool(value) => Ok(value),
        _ => Err(Misfit::Kind),
    }
}

#[inline]
fn number(token: Token<'_>) -> Result<Number<'_>, Misfit> {
    match token {
        Token::Number(number) => Ok(number),
        _ => Err(Misfit::Kind),
    }
}

#[inline]
fn integer<T: TryFrom<i64>>(token: Token<'_>) -> Result<T, Misfit> {
    let number = number(token)?;
    if !number.integral {
        return Err(Misfit::Value("is not written as an integer"));
    }
    number.to_i64().and_then(|value| T::try_from(value).ok()).ok_or(OUT_OF_RANGE)
}

#[inline]
fn timestamp(token: Token<'_>, scratch: &mut Vec<u8>) -> Result<i64, Misfit> {
    match token {
        Token::Number(number) if number.integral => number.to_i64().ok_or(OUT_OF_RANGE),
        Token::Number(number) => number.scaled(0, Rounding::Floor).and_then(|millis| i64::try_from(millis).ok()).ok_or(OUT_OF_RANGE),
        _ => time::parse_timestamp(text(token, scratch)?).ok_or(Misfit::Value("is no time like 2023-11-14T22:13:20.123Z")),
    }
}

fn date(token: Token<'_>, scratch: &mut Vec<u8>) -> Result<i32, Misfit> {
    time::parse_date(text(token, scratch)?).ok_or(Misfit::Value("is no date like 2023-11-14"))
}

/// A number, or a text that is one: exact, and rounded to the column's scale as Spark rounds.
fn decimal(token: Token<'_>, scratch: &mut Vec<u8>, scale: i8, limit: i128) -> Result<i128, Misfit> {
    let number = match token {
        Token::Number(number) => number,
        _ => whole_number(text(token, scratch)?).ok_or(Misfit::Value("is no number"))?,
    };
    number.scaled(scale, Rounding::HalfUp).filter(|value| value.unsigned_abs() < limit.unsigned_abs()).ok_or(OUT_OF_RANGE)
}

fn whole_number(text: &str) -> Option<Number<'_>> {
    number::scan(text, 0).ok().filter(|(_, end)| *end == text.len()).map(|(number, _)| number)
}

#[inline]
fn text<'a>(token: Token<'a>, scratch: &'a mut Vec<u8>) -> Result<&'a str, Misfit> {
    match token {
        Token::Text(text) => Ok(text),
        Token::Escaped(inner) => {
            scratch.clear();
            json::unescape(inner, scratch);
            std::str::from_utf8(scratch).map_err(|_| Misfit::Kind)
        }
        _ => Err(Misfit::Kind),
    }
}
