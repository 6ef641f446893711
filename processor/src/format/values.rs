//! The values of a column to JSON, after the type of the column has been looked at once.

use arrow::array::cast::AsArray;
use arrow::array::types::{
    Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, TimeUnit};
use serde::Serialize;

use super::{base64, time};

/// A field of an object.
#[derive(Debug)]
pub(super) struct Member<'a> {
    /// What stands before its value: the comma unless it is the first, the name, the colon.
    lead: Vec<u8>,
    column: Column<'a>,
}

/// A column whose type has been looked at once, and not again at every row.
#[derive(Debug)]
pub(super) struct Column<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

#[derive(Debug)]
enum Values<'a> {
    Null,
    Bool(&'a BooleanArray),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    F32(&'a [f32]),
    F64(&'a [f64]),
    Decimal(&'a [i128], i8),
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Bytes(&'a BinaryArray),
    LargeBytes(&'a LargeBinaryArray),
    Date32(&'a [i32]),
    Date64(&'a [i64]),
    Timestamp(&'a [i64], TimeUnit),
    Object(Vec<Member<'a>>),
    List(&'a [i32], Box<Column<'a>>),
    LargeList(&'a [i64], Box<Column<'a>>),
    FixedList(usize, Box<Column<'a>>),
    Dictionary(Vec<usize>, Box<Column<'a>>),
}

/// The fields of an object; the error names the one that can't be written.
pub(super) fn members<'a>(fields: impl Iterator<Item = &'a Field>, columns: &'a [ArrayRef]) -> Result<Vec<Member<'a>>, String> {
    let pairs = fields.zip(columns).enumerate();
    pairs
        .map(|(at, (field, column))| {
            let column = Column::new(column).ok_or_else(|| {
                format!(
                    "column '{}' is {}, which is not written as JSON; cast it to STRING, BIGINT or TIMESTAMP in the query",
                    field.name(),
                    field.data_type()
                )
            })?;
            let mut lead = if at == 0 { Vec::new() } else { vec![b','] };
            json(field.name(), &mut lead);
            lead.push(b':');
            Ok(Member { lead, column })
        })
        .collect()
}

pub(super) fn write_object(members: &[Member<'_>], row: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    for member in members {
        out.extend_from_slice(&member.lead);
        member.column.write(row, out);
    }
    out.push(b'}');
}

impl<'a> Column<'a> {
    /// `None` for a type that is not written as JSON.
    pub(super) fn new(array: &'a dyn Array) -> Option<Self> {
        Some(Self { nulls: array.nulls(), values: Values::new(array)? })
    }

    #[inline]
    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            out.extend_from_slice(b"null");
        } else {
            self.values.write(row, out);
        }
    }

    fn write_list(&self, rows: std::ops::Range<usize>, out: &mut Vec<u8>) {
        out.push(b'[');
        let first = rows.start;
        for row in rows {
            if row > first {
                out.push(b',');
            }
            self.write(row, out);
        }
        out.push(b']');
    }
}

impl<'a> Values<'a> {
    fn new(array: &'a dyn Array) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Int8 => Self::I8(array.as_primitive::<Int8Type>().values()),
            DataType::Int16 => Self::I16(array.as_primitive::<Int16Type>().values()),
            DataType::Int32 => Self::I32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Self::I64(array.as_primitive::<Int64Type>().values()),
            DataType::UInt8 => Self::U8(array.as_primitive::<UInt8Type>().values()),
            DataType::UInt16 => Self::U16(array.as_primitive::<UInt16Type>().values()),
            DataType::UInt32 => Self::U32(array.as_primitive::<UInt32Type>().values()),
            DataType::UInt64 => Self::U64(array.as_primitive::<UInt64Type>().values()),
            DataType::Float32 => Self::F32(array.as_primitive::<Float32Type>().values()),
            DataType::Float64 => Self::F64(array.as_primitive::<Float64Type>().values()),
            DataType::Decimal128(_, scale) => Self::Decimal(array.as_primitive::<Decimal128Type>().values(), *scale),
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::LargeUtf8 => Self::LargeText(array.as_string()),
            DataType::Utf8View => Self::TextView(array.as_string_view()),
            DataType::Binary => Self::Bytes(array.as_binary()),
            DataType::LargeBinary => Self::LargeBytes(array.as_binary()),
            DataType::Date32 => Self::Date32(array.as_primitive::<Date32Type>().values()),
            DataType::Date64 => Self::Date64(array.as_primitive::<Date64Type>().values()),
            DataType::Timestamp(unit, _) => Self::Timestamp(instants(array, *unit), *unit),
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                Self::Object(members(fields.iter().map(AsRef::as_ref), columns).ok()?)
            }
            DataType::List(_) => Self::List(array.as_list::<i32>().value_offsets(), boxed(array.as_list::<i32>().values())?),
            DataType::LargeList(_) => Self::LargeList(array.as_list::<i64>().value_offsets(), boxed(array.as_list::<i64>().values())?),
            DataType::FixedSizeList(_, size) => Self::FixedList(usize::try_from(*size).ok()?, boxed(array.as_fixed_size_list().values())?),
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                // Without values all keys are null and never looked up.
                let keys = if dictionary.values().is_empty() { Vec::new() } else { dictionary.normalized_keys() };
                Self::Dictionary(keys, boxed(dictionary.values())?)
            }
            _ => return None,
        })
    }

    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(values) => json(&values.value(row), out),
            Self::I8(values) => json(&values[row], out),
            Self::I16(values) => json(&values[row], out),
            Self::I32(values) => json(&values[row], out),
            Self::I64(values) => json(&values[row], out),
            Self::U8(values) => json(&values[row], out),
            Self::U16(values) => json(&values[row], out),
            Self::U32(values) => json(&values[row], out),
            Self::U64(values) => json(&values[row], out),
            // NaN and the infinities become null.
            Self::F32(values) => json(&values[row], out),
            Self::F64(values) => json(&values[row], out),
            Self::Decimal(values, scale) => write_decimal(values[row], *scale, out),
            Self::Text(values) => json(values.value(row), out),
            Self::LargeText(values) => json(values.value(row), out),
            Self::TextView(values) => json(values.value(row), out),
            Self::Bytes(values) => quoted(out, |out| base64::write(values.value(row), out)),
            Self::LargeBytes(values) => quoted(out, |out| base64::write(values.value(row), out)),
            Self::Date32(values) => quoted(out, |out| time::write_date(i64::from(values[row]), out)),
            Self::Date64(values) => quoted(out, |out| time::write_date(values[row].div_euclid(86_400_000), out)),
            Self::Timestamp(values, unit) => quoted(out, |out| write_timestamp(values[row], *unit, out)),
            Self::Object(members) => write_object(members, row, out),
            Self::List(offsets, values) => values.write_list(offsets[row] as usize..offsets[row + 1] as usize, out),
            Self::LargeList(offsets, values) => values.write_list(offsets[row] as usize..offsets[row + 1] as usize, out),
            Self::FixedList(size, values) => values.write_list(row * size..(row + 1) * size, out),
            Self::Dictionary(keys, values) => values.write(keys[row], out),
        }
    }
}

fn boxed(array: &ArrayRef) -> Option<Box<Column<'_>>> {
    Column::new(array).map(Box::new)
}

fn instants(array: &dyn Array, unit: TimeUnit) -> &[i64] {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
    }
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

#[inline]
pub(super) fn json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    // A Vec takes every byte, and none of the types that come here can fail.
    if let Err(error) = serde_json::to_writer(out, value) {
        unreachable!("a scalar is always representable as JSON: {error}");
    }
}

/// Days and milliseconds of the day; digits below the millisecond are floored away. Split before anything is multiplied, so
/// that no instant overflows.
fn write_timestamp(instant: i64, unit: TimeUnit, out: &mut Vec<u8>) {
    const DAY: i64 = 86_400;
    let (days, millis) = match unit {
        TimeUnit::Second => (instant.div_euclid(DAY), instant.rem_euclid(DAY) * 1000),
        TimeUnit::Millisecond => (instant.div_euclid(DAY * 1000), instant.rem_euclid(DAY * 1000)),
        TimeUnit::Microsecond => (instant.div_euclid(DAY * 1_000_000), instant.rem_euclid(DAY * 1_000_000) / 1000),
        TimeUnit::Nanosecond => (instant.div_euclid(DAY * 1_000_000_000), instant.rem_euclid(DAY * 1_000_000_000) / 1_000_000),
    };
    time::write_timestamp(days, millis, out);
}

/// A plain number with `scale` digits behind the point.
fn write_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let start = out.len();
    json(&value.unsigned_abs(), out);
    let places = usize::from(scale.unsigned_abs());
    if scale < 0 && value != 0 {
        out.resize(out.len() + places, b'0');
    } else if scale > 0 {
        let digits = out.len() - start;
        out.splice(start..start, std::iter::repeat_n(b'0', (places + 1).saturating_sub(digits)));
        out.insert(out.len() - places, b'.');
    }
}
