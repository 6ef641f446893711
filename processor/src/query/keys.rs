//! One notion of equality for groups: the bytes of the Arrow row format.
//!
//! The same bytes intern new rows, look up old state and order output, so that a group can never be two groups after a restart or
//! in another batch. Floats are normalised first, as Spark does: `-0.0` is `0.0`, every NaN is one NaN.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

/// One row of columns as comparable, hashable bytes. Shared: an entry holds the rows that the state holds.
pub(crate) type RowBytes = Arc<[u8]>;

/// Columns to row bytes and back, for one list of types.
#[derive(Debug)]
pub(crate) struct GroupKeys {
    fields: Vec<FieldRef>,
    converter: RowConverter,
}

/// Rows of one batch; a batch without columns has rows of no bytes.
pub(crate) enum KeyRows {
    None,
    Some(Rows),
}

impl KeyRows {
    pub(crate) fn row(&self, index: usize) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Some(rows) => rows.row(index).data(),
        }
    }
}

impl GroupKeys {
    pub(crate) fn new(fields: Vec<FieldRef>) -> Result<Self, ArrowError> {
        let types = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self { fields, converter: RowConverter::new(types)? })
    }

    pub(crate) fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    pub(crate) fn rows(&self, columns: &[ArrayRef]) -> Result<KeyRows, ArrowError> {
        if self.fields.is_empty() {
            return Ok(KeyRows::None);
        }
        Ok(KeyRows::Some(self.converter.convert_columns(columns)?))
    }

    /// The columns of rows that [`GroupKeys::rows`] made in this process.
    pub(crate) fn columns<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.fields.is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        self.converter.convert_rows(rows.map(|row| parser.parse(row)))
    }
}

/// Replaces `-0.0` by `0.0` and every NaN by the canonical one.
pub(crate) fn normalize(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => map::<Float64Type>(&column, |v| {
            if v == 0.0 {
                0.0
            } else if v.is_nan() {
                f64::NAN
            } else {
                v
            }
        }),
        DataType::Float32 => map::<Float32Type>(&column, |v| {
            if v == 0.0 {
                0.0
            } else if v.is_nan() {
                f32::NAN
            } else {
                v
            }
        }),
        _ => column,
    }
}

fn map<T: ArrowPrimitiveType>(column: &ArrayRef, rule: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    let mapped: PrimitiveArray<T> = column.as_primitive::<T>().unary(rule);
    Arc::new(mapped)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Float64Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn floats_that_are_equal_make_one_group() {
        let keys = GroupKeys::new(vec![Arc::new(Field::new("v", DataType::Float64, true))]).unwrap();
        let odd_nan = f64::from_bits(f64::NAN.to_bits() ^ 1);
        let column: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), Some(f64::NAN), Some(odd_nan), None, None]));
        let rows = keys.rows(&[normalize(column)]).unwrap();
        assert_eq!(rows.row(0), rows.row(1));
        assert_eq!(rows.row(2), rows.row(3));
        assert_eq!(rows.row(4), rows.row(5));
        assert_ne!(rows.row(0), rows.row(4));
    }

    #[test]
    fn rows_come_back_as_columns() {
        let keys = GroupKeys::new(vec![Arc::new(Field::new("s", DataType::Utf8, true))]).unwrap();
        let column: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("ü\u{0}")]));
        let rows = keys.rows(std::slice::from_ref(&column)).unwrap();
        let back = keys.columns((0..4).map(|index| rows.row(index))).unwrap();
        assert_eq!(&back[0], &column);
    }
}
