//! What the scalar functions of this folder share: arguments in, columns out.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, PrimitiveArray},
    datatypes::{ArrowPrimitiveType, DataType, TimeUnit, TimestampMillisecondType},
};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};

/// The product's timestamps: milliseconds, UTC.
pub(super) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// What an argument of type `given` is turned into where a time is wanted.
pub(super) fn as_time(function: &str, given: &DataType) -> Result<DataType> {
    match given {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null => Ok(time_type()),
        // A cast would fail the query at the first text that is no time; to_timestamp gives null.
        text if text.is_string() => plan_err!("{function} takes a timestamp, not text: write to_timestamp(x)"),
        other => plan_err!("{function} takes a timestamp, not {other}: write timestamp_millis(x) or timestamp_seconds(x) for a number"),
    }
}

/// What an argument of type `given` is turned into where text is wanted.
pub(super) fn as_text(function: &str, given: &DataType) -> Result<DataType> {
    match given {
        DataType::Null => Ok(DataType::Utf8),
        text if text.is_string() => Ok(DataType::Utf8),
        other => plan_err!("{function} takes text, not {other}: write CAST(x AS STRING)"),
    }
}

/// Runs over columns; a result of constants only is a constant again.
pub(super) fn over_columns(args: &[ColumnarValue], run: impl FnOnce(&[ArrayRef]) -> Result<ArrayRef>) -> Result<ColumnarValue> {
    let constant = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let result = run(&ColumnarValue::values_to_arrays(args)?)?;
    if constant { ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar) } else { Ok(ColumnarValue::Array(result)) }
}

/// Each value of the first column through `map`; null stays null, and `None` becomes null.
pub(super) fn map_column<I, O>(args: &ScalarFunctionArgs, map: impl Fn(I::Native) -> Option<O::Native>) -> Result<ColumnarValue>
where
    I: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    over_columns(&args.args[..1], |columns| {
        let result: PrimitiveArray<O> = columns[0].as_primitive::<I>().unary_opt(&map);
        Ok(Arc::new(result.with_data_type(args.return_field.data_type().clone())))
    })
}

/// A column's times.
pub(super) fn times(column: &ArrayRef) -> impl Iterator<Item = Option<i64>> {
    column.as_primitive::<TimestampMillisecondType>().iter()
}

/// A text argument that must be a constant, when the call is planned.
pub(super) fn planned_text<'a>(function: &str, args: &'a ReturnFieldArgs, position: usize) -> Result<Option<&'a str>> {
    if position >= args.arg_fields.len() {
        return Ok(None);
    }
    match args.scalar_arguments.get(position).copied().flatten().and_then(ScalarValue::try_as_str) {
        Some(Some(text)) => Ok(Some(text)),
        _ => plan_err!("argument {} of {function} must be a constant text", position + 1),
    }
}

/// The same argument when the call runs.
pub(super) fn constant_text<'a>(function: &str, args: &'a [ColumnarValue], position: usize) -> Result<Option<&'a str>> {
    match args.get(position) {
        None => Ok(None),
        Some(ColumnarValue::Scalar(value)) if value.try_as_str().flatten().is_some() => Ok(value.try_as_str().flatten()),
        Some(_) => plan_err!("argument {} of {function} must be a constant text", position + 1),
    }
}

/// Fails unless the call has one of the counts of arguments.
pub(super) fn expect_arguments(function: &str, given: usize, counts: std::ops::RangeInclusive<usize>) -> Result<()> {
    if counts.contains(&given) {
        return Ok(());
    }
    let (least, most) = (counts.start(), counts.end());
    let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
    plan_err!("{function} takes {wanted} argument(s), not {given}")
}
