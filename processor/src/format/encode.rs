//! The rows of a batch to JSON: record values (an object per row) and record keys.
//!
//! A null is written as `null`, so that a row always has all of its columns; Spark's `to_json` leaves such fields out.

use arrow::array::cast::AsArray;
use arrow::array::types::{Float32Type, Float64Type};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;

use super::values::{self, Column, Member};

/// The rows of a batch, ready to be written one by one.
#[derive(Debug)]
pub struct JsonRows<'a> {
    fields: Vec<Member<'a>>,
}

impl<'a> JsonRows<'a> {
    /// Refuses a batch with a column that can't be written.
    pub fn new(batch: &'a RecordBatch) -> Result<Self, String> {
        let schema = batch.schema_ref();
        Ok(Self { fields: values::members(schema.fields().iter().map(AsRef::as_ref), batch.columns())? })
    }

    /// Appends the row as a JSON object.
    pub fn write_row(&self, row: usize, out: &mut Vec<u8>) {
        values::write_object(&self.fields, row, out);
    }
}

/// Appends one value as JSON. What has no form of its own in JSON is written as its text, or as `null`.
pub fn write_value(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    // A column is made ready as a whole, which for these types costs by the row: so only of this one.
    if array.data_type().is_nested() || matches!(array.data_type(), DataType::Dictionary(..)) {
        write_ready(&array.slice(row, 1), 0, out);
    } else {
        write_ready(array, row, out);
    }
}

fn write_ready(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    match Column::new(array) {
        Some(column) => column.write(row, out),
        None => values::json(&array_value_to_string(array, row).ok(), out),
    }
}

/// Appends the key of a result row: nothing when the query has no keys, the plain text of a single text column, else a JSON
/// array of the values. A single null is `[null]`: it must not share a key with the empty text, and a text that begins with `[` is in an
/// array as well. NaN and the infinities are texts, since `null` is another group's.
pub fn key_text(columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) {
    if let [column] = columns {
        if let Some(dictionary) = column.as_any_dictionary_opt()
            && column.is_valid(row)
            && let Some(value) = column.slice(row, 1).as_any_dictionary().normalized_keys().first()
        {
            return key_text(std::slice::from_ref(dictionary.values()), *value, out);
        }
        if let Some(text) = plain_text(column, row)
            && !text.starts_with('[')
        {
            return out.extend_from_slice(text.as_bytes());
        }
    }
    for (at, column) in columns.iter().enumerate() {
        out.push(if at == 0 { b'[' } else { b',' });
        match not_finite(column, row) {
            Some(value) => values::json(value, out),
            None => write_value(column, row, out),
        }
    }
    if !columns.is_empty() {
        out.push(b']');
    }
}

/// Spark's word for a number that JSON does not have.
fn not_finite(column: &ArrayRef, row: usize) -> Option<&'static str> {
    if column.is_null(row) {
        return None;
    }
    let value = match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row),
        DataType::Float32 => f64::from(column.as_primitive::<Float32Type>().value(row)),
        _ => return None,
    };
    match value {
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ if value.is_nan() => Some("NaN"),
        _ => None,
    }
}

/// The text of a text column, unless it is null.
fn plain_text(column: &ArrayRef, row: usize) -> Option<&str> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(column.as_string_view().value(row)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::types::{Int8Type, Int32Type};
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array, DictionaryArray, DurationSecondArray, FixedSizeListArray,
        Float32Array, Float64Array, Int32Array, Int64Array, LargeBinaryArray, LargeListArray, ListArray, NullArray, StringArray,
        StructArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
    };
    use arrow::compute::cast;
    use arrow::datatypes::Field;

    use super::*;

    /// All values of a column, as a JSON array.
    fn values(array: impl Array + 'static) -> String {
        let batch = RecordBatch::try_from_iter([("x", Arc::new(array) as ArrayRef)]).unwrap();
        let rows = JsonRows::new(&batch).unwrap();
        let mut all = Vec::new();
        for row in 0..batch.num_rows() {
            let (mut object, mut value) = (Vec::new(), Vec::new());
            rows.write_row(row, &mut object);
            write_value(batch.column(0), row, &mut value);
            let value = String::from_utf8(value).unwrap();
            assert_eq!(String::from_utf8(object).unwrap(), format!(r#"{{"x":{value}}}"#));
            all.push(value);
        }
        all.join(" ")
    }

    fn key(columns: &[ArrayRef], row: usize) -> String {
        let mut out = Vec::new();
        key_text(columns, row, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_row_has_all_columns_in_their_order() {
        let batch = RecordBatch::try_from_iter([
            ("window_start", Arc::new(TimestampMillisecondArray::from(vec![1_700_000_000_000]).with_timezone("+00:00")) as ArrayRef),
            ("id \"é\"", Arc::new(StringArray::from(vec!["a\n\u{1}\"\\/é"]))),
            ("n", Arc::new(Int64Array::from(vec![None::<i64>]))),
        ])
        .unwrap();
        let mut out = b"before".to_vec();
        JsonRows::new(&batch).unwrap().write_row(0, &mut out);
        let wanted = r#"before{"window_start":"2023-11-14T22:13:20.000Z","id \"é\"":"a\n\u0001\"\\/é","n":null}"#;
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn numbers_are_shortest_and_exact() {
        let floats = vec![0.1, -0.0, 1e300, 5e-324, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let text = values(Float64Array::from(floats));
        assert_eq!(text, "0.1 -0.0 1e+300 5e-324 1.0 null null null");
        assert_eq!(values(Float32Array::from(vec![0.1, f32::NAN])), "0.1 null");
        assert_eq!(values(Int64Array::from(vec![i64::MIN, i64::MAX])), "-9223372036854775808 9223372036854775807");
        assert_eq!(values(UInt64Array::from(vec![u64::MAX])), "18446744073709551615");
        assert_eq!(values(BooleanArray::from(vec![Some(true), None, Some(false)])), "true null false");
        assert_eq!(values(NullArray::new(2)), "null null");
        for kind in [DataType::Int8, DataType::Int16, DataType::Int32, DataType::UInt8, DataType::UInt16, DataType::UInt32] {
            assert_eq!(values(cast(&Int64Array::from(vec![Some(7), None]), &kind).unwrap()), "7 null");
        }
    }

    #[test]
    fn decimals_are_plain() {
        let decimals = |scale| Decimal128Array::from(vec![0, 5, -5, 12345, -12345]).with_precision_and_scale(38, scale).unwrap();
        assert_eq!(values(decimals(0)), "0 5 -5 12345 -12345");
        assert_eq!(values(decimals(2)), "0.00 0.05 -0.05 123.45 -123.45");
        assert_eq!(values(decimals(5)), "0.00000 0.00005 -0.00005 0.12345 -0.12345");
        assert_eq!(values(decimals(-2)), "0 500 -500 1234500 -1234500");
        let most = Decimal128Array::from(vec![-(10_i128.pow(38) - 1)]).with_precision_and_scale(38, 38).unwrap();
        assert_eq!(values(most), "-0.99999999999999999999999999999999999999");
    }

    #[test]
    fn times_of_every_unit() {
        let wanted = r#""2023-11-14T22:13:20.000Z" "1969-12-31T23:59:59.000Z""#;
        assert_eq!(values(TimestampSecondArray::from(vec![1_700_000_000, -1])), wanted);
        let wanted = r#""2023-11-14T22:13:20.123Z" "1969-12-31T23:59:59.999Z""#;
        assert_eq!(values(TimestampMillisecondArray::from(vec![1_700_000_000_123, -1])), wanted);
        assert_eq!(values(TimestampMicrosecondArray::from(vec![1_700_000_000_123_999, -1]).with_timezone("Europe/Berlin")), wanted);
        assert_eq!(values(TimestampNanosecondArray::from(vec![1_700_000_000_123_999_999, -1])), wanted);
        assert_eq!(values(TimestampSecondArray::from(vec![253_402_300_800])), r#""+10000-01-01T00:00:00.000Z""#);
        assert!(values(TimestampSecondArray::from(vec![i64::MIN, i64::MAX])).starts_with("\"-292"));
        assert_eq!(values(Date32Array::from(vec![0, -1, 19_675])), r#""1970-01-01" "1969-12-31" "2023-11-14""#);
        assert_eq!(values(Date64Array::from(vec![86_400_000])), r#""1970-01-02""#);
    }

    #[test]
    fn text_and_bytes_of_every_width() {
        let text = vec![Some("a"), None, Some("\"")];
        for kind in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
            let array = cast(&StringArray::from(text.clone()), &kind).unwrap();
            assert_eq!(values(array.clone()), r#""a" null "\"""#);
            assert_eq!([0, 1, 2].map(|row| key(std::slice::from_ref(&array), row)), ["a", "[null]", "\""]);
        }
        assert_eq!(values(BinaryArray::from(vec![Some(&b"\xffok"[..]), None])), r#""/29r" null"#);
        assert_eq!(values(LargeBinaryArray::from(vec![&b""[..]])), r#""""#);
    }

    #[test]
    fn nested_values_survive_slicing() {
        let lists = vec![Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(4), Some(5)])];
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(lists.clone());
        assert_eq!(values(list.slice(1, 3)), "null [] [4,5]");
        let list = LargeListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        assert_eq!(values(list), "[1,null] null [] [4,5]");
        let pairs = (0..3).map(|at| (at != 1).then(|| vec![Some(at), Some(-at)]));
        let list = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(pairs, 2);
        assert_eq!(values(list.slice(1, 2)), "null [2,-2]");
        let window = StructArray::from(vec![
            (Arc::new(Field::new("start", DataType::Int32, true)), Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
            (Arc::new(Field::new("end", DataType::Int32, true)), Arc::new(Int32Array::from(vec![None, Some(3)]))),
        ]);
        assert_eq!(values(window.slice(0, 2)), r#"{"start":1,"end":null} {"start":2,"end":3}"#);
        assert_eq!(key(&[Arc::new(window)], 1), r#"[{"start":2,"end":3}]"#);
    }

    #[test]
    fn dictionaries_are_their_values() {
        let words: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
        assert_eq!(values(words.slice(1, 3)), r#"null "b" "a""#);
        let words: ArrayRef = Arc::new(words);
        let keys: Vec<_> = (0..4).map(|row| key(std::slice::from_ref(&words), row)).collect();
        assert_eq!(keys, ["a", "[null]", "b", "a"]);
        let empty: DictionaryArray<Int8Type> = vec![None::<&str>].into_iter().collect();
        assert_eq!(values(empty), "null");
    }

    #[test]
    fn keys_are_arrays_unless_one_text() {
        let id: ArrayRef = Arc::new(StringArray::from(vec!["s-1"]));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        assert_eq!(key(&[], 0), "");
        assert_eq!(key(std::slice::from_ref(&id), 0), "s-1");
        assert_eq!(key(std::slice::from_ref(&n), 0), "[7]");
        assert_eq!(key(&[id, n], 0), r#"["s-1",7]"#);
        // No two groups share a key.
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("[null]"), None, Some("a[")]));
        assert_eq!([0, 1, 2].map(|row| key(std::slice::from_ref(&texts), row)), [r#"["[null]"]"#, "[null]", "a["]);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(f64::NEG_INFINITY), Some(1.0)]));
        let keys = [0, 1, 2, 3].map(|row| key(std::slice::from_ref(&floats), row));
        assert_eq!(keys, [r#"["NaN"]"#, "[null]", r#"["-Infinity"]"#, "[1.0]"]);
    }

    #[test]
    fn a_type_without_a_form_is_refused_by_name() {
        let span: ArrayRef = Arc::new(DurationSecondArray::from(vec![60]));
        let batch = RecordBatch::try_from_iter([("span", span.clone())]).unwrap();
        let error = JsonRows::new(&batch).unwrap_err();
        assert!(error.starts_with("column 'span' is Duration(s), which is not written as JSON; cast it"), "{error}");
        assert_eq!(key(&[span], 0), r#"["PT60S"]"#);
    }
}
