//! The values of a batch as SQL holds them: integers, numbers, texts and nulls.

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use sql::{Kind, Value};

use super::encode::write_value;

/// The columns of a schema, typed for SQL.
pub(crate) fn columns(schema: &Schema) -> Vec<sql::Column> {
    schema.fields().iter().map(|field| sql::Column { name: field.name().clone(), kind: kind(field.data_type()) }).collect()
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Boolean => Kind::Boolean,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Kind::Double,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => Kind::Decimal,
        DataType::Timestamp(..) => Kind::Timestamp,
        DataType::Date32 | DataType::Date64 => Kind::Date,
        DataType::Binary | DataType::LargeBinary => Kind::Binary,
        DataType::Dictionary(_, values) => kind(values),
        other if other.is_integer() => Kind::BigInt,
        other if other.is_nested() => Kind::Json,
        _ => Kind::String,
    }
}

/// The rows of a batch, ready to be taken one by one.
#[derive(Debug)]
pub(crate) struct SqlRows(Vec<(ArrayRef, Held)>);

/// How a column's values are taken out.
#[derive(Debug, Clone, Copy)]
enum Held {
    Integer,
    Number,
    Text,
    /// What JSON has in quotes: times, dates, bytes.
    Quoted,
    Json,
}

impl SqlRows {
    /// # Errors
    /// When a column cannot be cast, which its kind excludes.
    pub(crate) fn new(batch: &RecordBatch) -> Result<Self, ArrowError> {
        batch.columns().iter().map(ready).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn row(&self, row: usize) -> Vec<Value> {
        self.0.iter().map(|(array, held)| if array.is_null(row) { Value::Null } else { held.value(array, row) }).collect()
    }
}

/// Cast once as a whole, so that a value is only looked up.
fn ready(array: &ArrayRef) -> Result<(ArrayRef, Held), ArrowError> {
    let (to, held) = match kind(array.data_type()) {
        Kind::Boolean | Kind::BigInt => (DataType::Int64, Held::Integer),
        Kind::Double | Kind::Decimal => (DataType::Float64, Held::Number),
        Kind::String => (DataType::Utf8, Held::Text),
        Kind::Timestamp | Kind::Date | Kind::Binary => return Ok((array.clone(), Held::Quoted)),
        Kind::Json => return Ok((array.clone(), Held::Json)),
    };
    // A number beyond BIGINT is better near than missing.
    if matches!(held, Held::Integer) && array.data_type() == &DataType::UInt64 {
        let whole = cast(array, &to)?;
        if whole.null_count() > array.null_count() {
            return Ok((cast(array, &DataType::Float64)?, Held::Number));
        }
        return Ok((whole, held));
    }
    Ok((cast(array, &to)?, held))
}

impl Held {
    fn value(self, array: &ArrayRef, row: usize) -> Value {
        match self {
            Self::Integer => Value::Integer(array.as_primitive::<Int64Type>().value(row)),
            Self::Number => Value::Real(array.as_primitive::<Float64Type>().value(row)),
            Self::Text => Value::Text(array.as_string::<i32>().value(row).to_owned()),
            Self::Quoted => Value::Text(json(array, row).trim_matches('"').to_owned()),
            Self::Json => Value::Text(json(array, row)),
        }
    }
}

fn json(array: &ArrayRef, row: usize) -> String {
    let mut text = Vec::new();
    write_value(array, row, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::types::{Int8Type, Int32Type};
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Int32Array, ListArray, StringArray,
        TimestampMillisecondArray, UInt64Array,
    };

    use super::*;

    /// Kind and values of a column.
    fn column(array: impl Array + 'static) -> (Kind, Vec<Value>) {
        let batch = RecordBatch::try_from_iter([("x", Arc::new(array) as ArrayRef)]).unwrap();
        let kind = columns(&batch.schema())[0].kind;
        let rows = SqlRows::new(&batch).unwrap();
        (kind, (0..batch.num_rows()).map(|row| rows.row(row).remove(0)).collect())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn every_kind_of_value_and_null() {
        assert_eq!(column(Int32Array::from(vec![Some(7), None])), (Kind::BigInt, vec![Value::Integer(7), Value::Null]));
        assert_eq!(column(BooleanArray::from(vec![true, false])), (Kind::Boolean, vec![Value::Integer(1), Value::Integer(0)]));
        assert_eq!(column(Float32Array::from(vec![0.5])), (Kind::Double, vec![Value::Real(0.5)]));
        assert_eq!(column(StringArray::from(vec!["007", "\""])), (Kind::String, vec![text("007"), text("\"")]));
        let words: DictionaryArray<Int8Type> = vec![Some("a"), None].into_iter().collect();
        assert_eq!(column(words), (Kind::String, vec![text("a"), Value::Null]));
        let time = TimestampMillisecondArray::from(vec![Some(1_700_000_000_123), None]).with_timezone("+00:00");
        assert_eq!(column(time), (Kind::Timestamp, vec![text("2023-11-14T22:13:20.123Z"), Value::Null]));
        assert_eq!(column(Date32Array::from(vec![0])), (Kind::Date, vec![text("1970-01-01")]));
        let price = Decimal128Array::from(vec![12345]).with_precision_and_scale(9, 2).unwrap();
        assert_eq!(column(price), (Kind::Decimal, vec![Value::Real(123.45)]));
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        assert_eq!(column(list), (Kind::Json, vec![text("[1,null]"), Value::Null]));
        assert_eq!(column(UInt64Array::from(vec![5])), (Kind::BigInt, vec![Value::Integer(5)]));
        assert_eq!(column(UInt64Array::from(vec![u64::MAX])), (Kind::BigInt, vec![Value::Real(18_446_744_073_709_552_000.0)]));
    }
}
